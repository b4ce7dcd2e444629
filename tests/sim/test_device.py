"""Addresses that the Rust sim device gets: each is read back through the raw memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from cadenza.sim.device import sim_handles

XML = """
<mujoco>
  <option timestep="0.0005"/>
  <worldbody>
    <body name="cup" pos="1 2 3"><freejoint/><geom size=".02" mass=".1"/></body>
    <body name="base" pos="0 0 1">
      <freejoint name="root"/><geom size=".1" mass="1"/><site name="imu"/>
      <body name="upper" pos=".2 0 0"><joint name="shoulder" axis="0 1 0"/><geom size=".05" mass="1"/>
        <body name="lower" pos=".2 0 0"><joint name="elbow" axis="0 1 0"/><geom size=".05" mass="1"/></body>
      </body>
    </body>
    <body name="other" pos="5 0 0"><joint name="door"/><geom size=".1" mass="1"/></body>
  </worldbody>
  <actuator>
    <position name="door" joint="door" kp="3"/>
    <general name="shoulder" joint="shoulder" biastype="affine" biasprm="0 -30 -2" forcerange="-8 8"/>
    <general name="elbow" joint="elbow" biastype="affine" biasprm="0 -20 -1" forcerange="-5 5"/>
  </actuator>
  <sensor>
    <jointpos joint="door"/>
    <framequat name="imu_quat" objtype="site" objname="imu"/>
    <gyro name="imu_gyro" site="imu"/>
    <accelerometer name="imu_accel" site="imu"/>
  </sensor>
</mujoco>
"""


def robot(*names: str) -> Any:
    return SimpleNamespace(joints=[SimpleNamespace(name=n) for n in names])


def world(*changes: tuple[str, str]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    xml = XML
    for old, new in changes:
        assert old in xml
        xml = xml.replace(old, new)
    model = mujoco.MjModel.from_xml_string(xml)
    return model, mujoco.MjData(model)


def doubles(address: int, n: int) -> np.ndarray:
    return np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_double)), (n,))


def test_every_address_leads_to_its_array() -> None:
    model, data = world()
    rng = np.random.default_rng(0)
    data.qpos[:] = rng.normal(size=model.nq)
    data.qvel[:] = rng.normal(size=model.nv)
    data.ctrl[:] = rng.normal(size=model.nu)
    mujoco.mj_forward(model, data)
    h = sim_handles(model, data, robot("elbow", "shoulder"), objects=["cup", "lower"])
    np.testing.assert_array_equal(doubles(h["qpos"], h["nq"]), data.qpos)
    np.testing.assert_array_equal(doubles(h["qvel"], h["nv"]), data.qvel)
    np.testing.assert_array_equal(doubles(h["ctrl"], h["nu"]), data.ctrl)
    np.testing.assert_array_equal(doubles(h["qfrc_actuator"], h["nv"]), data.qfrc_actuator)
    np.testing.assert_array_equal(doubles(h["sensordata"], h["nsensordata"]), data.sensordata)
    size = h["nactuator"] * h["prm_row"]
    np.testing.assert_array_equal(doubles(h["gainprm"], size), model.actuator_gainprm.ravel())
    np.testing.assert_array_equal(doubles(h["biasprm"], size), model.actuator_biasprm.ravel())
    for name, pos, quat in h["objects"]:
        np.testing.assert_array_equal(doubles(pos, 3), data.body(name).xpos)
        np.testing.assert_array_equal(doubles(quat, 4), data.body(name).xquat)
    assert [o[0] for o in h["objects"]] == ["cup", "lower"]
    assert h["timestep"] == 0.0005


def test_joints_are_found_by_name_in_robot_order() -> None:
    model, data = world()
    data.qpos[model.joint("elbow").qposadr[0]] = 0.7
    data.qvel[model.joint("elbow").dofadr[0]] = 0.9
    h = sim_handles(model, data, robot("elbow", "shoulder"))
    assert data.qpos[h["joint_qpos"][0]] == 0.7
    assert data.qvel[h["joint_qvel"][0]] == 0.9
    assert [model.actuator_biasprm[a, 1] for a in h["actuator"]] == [-20.0, -30.0]
    assert h["actuator_ctrl"] == [2, 1]
    assert h["effort"] == [5.0, 8.0]


def test_a_control_written_through_the_address_moves_the_joint() -> None:
    model, data = world()
    h = sim_handles(model, data, robot("shoulder", "elbow"))
    doubles(h["ctrl"], h["nu"])[h["actuator_ctrl"][1]] = 4.0
    mujoco.mj_step(model, data)
    assert data.qfrc_actuator[h["joint_qvel"][1]] == 4.0


def test_sensors_and_base_of_the_robot() -> None:
    model, data = world()
    data.qpos[model.joint("root").qposadr[0] :][:3] = 7.0, 8.0, 9.0
    data.qvel[model.joint("root").dofadr[0] :][:6] = 0.1, 0.2, 0.3, 0.4, 0.5, 0.6
    h = sim_handles(model, data, robot("shoulder"))
    qpos, qvel = h["base"]
    np.testing.assert_array_equal(data.qpos[qpos : qpos + 3], [7.0, 8.0, 9.0])
    np.testing.assert_array_equal(data.qvel[qvel : qvel + 6], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    imu = h["imu"]
    np.testing.assert_array_equal(data.sensordata[imu["quat"] :][:4], [1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(data.sensordata[imu["gyro"] :][:3], [0.4, 0.5, 0.6], atol=1e-12)
    np.testing.assert_array_equal(data.sensordata[imu["acc"] :][:3], data.sensor("imu_accel").data)

    fixed = world(('<freejoint name="root"/>', ""), ('<gyro name="imu_gyro" site="imu"/>', ""))
    h = sim_handles(*fixed, robot("shoulder"))
    assert h["base"] is None  # the cup's free joint is not the robot's
    assert h["imu"]["gyro"] is None


def test_warnings_are_the_counters_of_a_state_beyond_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file
    model, data = world()
    h = sim_handles(model, data, robot("shoulder"))
    counters = [ctypes.cast(a, ctypes.POINTER(ctypes.c_int32)).contents for a in h["warnings"]]
    assert [c.value for c in counters] == [0, 0, 0, 0]
    data.qvel[0] = np.inf
    mujoco.mj_step(model, data)
    assert sum(c.value for c in counters) > 0
    assert np.isfinite(data.qvel).all()  # it has reset itself: nothing but the counters tells


def test_the_library_is_the_loaded_one() -> None:
    h = sim_handles(*world(), robot("shoulder"))
    library = ctypes.CDLL(h["library"], mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    assert library.mj_version() == h["version"] == mujoco.mj_version()


SHOULDER = 'name="shoulder" joint="shoulder" biastype="affine" biasprm="0 -30 -2" forcerange="-8 8"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('joint name="shoulder" axis', 'joint name="hip" axis', "no joint 'shoulder'.*root, hip, elbow"),
        (SHOULDER, SHOULDER + ' gainprm="2"', "'shoulder' is not the motor law: it has gain 2.0, not 1"),
        (SHOULDER, SHOULDER.replace('biastype="affine"', 'biastype="none"'), "'shoulder'.*bias type 0"),
        (SHOULDER, SHOULDER.replace("-8 8", "-8 7"), r"'shoulder'.*\[-8.0, 7.0\], not symmetric"),
        (SHOULDER, SHOULDER.replace('forcerange="-8 8"', ""), "'shoulder'.*no force limit"),
        (SHOULDER, SHOULDER + ' gear="3"', "'shoulder'.*gear 3.0"),
        (SHOULDER, SHOULDER + ' ctrlrange="-1 1"', "'shoulder'.*limited control range"),
        (SHOULDER, SHOULDER + ' dyntype="filter" dynprm=".1"', "'shoulder'.*dynamics type 2"),
        (SHOULDER, SHOULDER.replace('name="shoulder" joint', 'name="m1" joint'), "'shoulder' is called 'm1'"),
        ("<general " + SHOULDER + "/>", "", "'shoulder' has 0 actuators"),
        (
            "<general " + SHOULDER + "/>",
            "<general " + SHOULDER + '/><motor name="more" joint="shoulder"/>',
            "'shoulder' has 2 actuators",
        ),
        ('<gyro name="imu_gyro"', '<magnetometer name="imu_gyro"', "'imu_gyro' is a mjSENS_MAGNETOMETER"),
    ],
)
def test_a_model_without_the_motor_law_is_refused(old: str, new: str, message: str) -> None:
    # The joint's name appears in its actuator too.
    more = [('joint="shoulder"', 'joint="hip"')] if "hip" in new else []
    with pytest.raises(ValueError, match=message):
        sim_handles(*world((old, new), *more), robot("shoulder", "elbow"))


def test_other_refusals_name_what_is_wrong() -> None:
    model, data = world()
    with pytest.raises(ValueError, match="'root' is a mjJNT_FREE"):
        sim_handles(model, data, robot("root"))
    with pytest.raises(ValueError, match="no body 'plate'; it has cup, base"):
        sim_handles(model, data, robot("shoulder"), objects=["plate"])
    with pytest.raises(ValueError, match="data have nq"):
        sim_handles(model, world(('<freejoint name="root"/>', ""))[1], robot("shoulder"))
    mujoco.set_mjcb_passive(lambda m, d: None)
    try:
        with pytest.raises(ValueError, match="mjcb_passive is set"):
            sim_handles(model, data, robot("shoulder"))
    finally:
        mujoco.set_mjcb_passive(None)
