"""cadenza.robot: names, limits, the motor law, frame chains, and the checks."""

import shutil

import mujoco
import numpy as np
import pytest

from cadenza import load_robot
from cadenza.robot import find_robot, robot_names, robots_dir
from cadenza.sim.frames import frame_chain
from native_double import forward


@pytest.fixture(scope="module")
def arm():
    return load_robot("arm6")


def copy_of(tmp_path, **edits):
    """arm6 in a folder of its own with some text replaced, `{file: (old, new)}`."""
    shutil.copytree(robots_dir() / "arm6", tmp_path / "arm")
    for stem, (old, new) in edits.items():
        path = next((tmp_path / "arm").glob(f"{stem}.*"))
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    return tmp_path / "arm"


def status(robot):
    return {f.check: f.status for f in robot.check()}


def test_name_folder_and_file_give_the_same_robot(arm):
    for place in (robots_dir() / "arm6", robots_dir() / "arm6" / "robot.toml"):
        other = load_robot(place)
        assert (other.name, other.joints, other.frames) == (arm.name, arm.joints, arm.frames)
    assert "arm6" in robot_names()
    assert find_robot("arm6").name == "robot.toml"


def test_a_typo_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"no robot 'arm66'; did you mean 'arm6'\?"):
        load_robot("arm66")


def test_gains_are_capped_and_named(arm):
    assert arm.gains({"elbow_flex": (100.0, 5.0)})[2].tolist() == [100.0, 5.0]
    assert arm.gains()[1].tolist() == [300.0, 20.0]
    with pytest.raises(ValueError, match=r"kp 1000.0 of elbow_flex is outside \[0, 200.0\]"):
        arm.gains({"elbow_flex": (1000.0, 5.0)})
    with pytest.raises(ValueError, match="no joint 'elbow'"):
        arm.gains({"elbow": (1.0, 1.0)})


def test_every_check_passes(arm):
    findings = arm.check()
    assert {f.status for f in findings} == {"ok"}, findings
    assert len(findings) >= 9


@pytest.mark.parametrize(
    ("edit", "check"),
    [
        (
            {"model": ('name="shoulder_lift" range="-0.6 2.2"', 'name="shoulder_lift" range="-0.6 0.9"')},
            "ranges",
        ),
        ({"model": ('forcerange="-60 60"', 'forcerange="-50 50"')}, "effort"),
        ({"model": ('<site name="tool"', '<site name="tip"')}, "frames"),
        ({"model": ('size="0.032" mass="1.0"', 'size="0.032" mass="60"')}, "gravity"),
        ({"model": ('<motor name="gripper" joint="gripper" forcerange="-3 3"/>', "")}, "model"),
        ({"model": ("forcerange", "gear='2' forcerange")}, "model"),
        ({"robot": ('name = "gripper"', 'name = "grip"')}, "model"),
        ({"model": ('qpos="0 0.2', 'qpos="0 0.3')}, "home"),
        ({"model": ("<mujoco", "<mujuco")}, "model"),
    ],
)
def test_a_wrong_model_is_found(tmp_path, edit, check):
    assert status(load_robot(copy_of(tmp_path, **edit)))[check] == "error"


def test_motors_follow_the_law_and_stop_at_the_effort(arm):
    gains = {"elbow_flex": (150.0, 9.0)}
    model, (kp, kd) = arm.model(gains), arm.gains(gains).T
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    saturated = 0
    for _ in range(50):
        q, goal, dq, dgoal, tau = (rng.uniform(-1, 1, 7) for _ in range(5))
        data.qpos[:], data.qvel[:] = arm.home + 0.1 * q, dq
        data.ctrl[:] = tau + kp * (arm.home + 0.4 * goal) + kd * dgoal
        mujoco.mj_forward(model, data)
        wanted = tau + kp * (0.4 * goal - 0.1 * q) + kd * (dgoal - dq)
        np.testing.assert_allclose(data.qfrc_actuator, np.clip(wanted, -arm.effort, arm.effort), atol=1e-10)
        saturated += (np.abs(wanted) > arm.effort).sum()
    assert saturated > 20


def test_effort_holds_gravity_with_margin(arm):
    model = arm.model()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(1)
    for q in rng.uniform(*arm.position.T, (500, 7)):
        data.qpos[:] = q
        mujoco.mj_forward(model, data)
        assert (np.abs(data.qfrc_bias) < 0.5 * arm.effort).all()


def test_home_puts_the_tool_in_front_of_the_robot(arm):
    model = arm.model()
    data = mujoco.MjData(model)
    data.qpos[:] = arm.home_qpos(model)
    mujoco.mj_forward(model, data)
    x, y, z = data.site("tool").xpos
    assert 0.25 < np.hypot(x, y) < 0.45
    assert abs(y) < 1e-12
    assert 0.05 < z < 0.35
    # shoulder 0.12, links 0.30, 0.25, 0.15; pitches 0.2, 1.7, 2.5 from the vertical
    pitch = np.array([0.2, 1.7, 2.5])
    assert x == pytest.approx(np.sin(pitch) @ [0.3, 0.25, 0.15], abs=1e-12)
    assert z == pytest.approx(0.12 + np.cos(pitch) @ [0.3, 0.25, 0.15], abs=1e-12)
    assert data.ncon == 0
    assert np.array_equal(model.key("home").qpos, arm.home)


def test_arm_and_floor_touch(arm):
    model = arm.model()
    data = mujoco.MjData(model)
    data.qpos[:] = [0, 1.7, 1.0, 0, 0, 0, 0]
    mujoco.mj_forward(model, data)
    assert model.geom("floor").id in data.contact.geom


def test_physics_step_must_divide_the_control_period(arm):
    assert arm.model(physics_dt=0.001).opt.timestep == 0.001
    with pytest.raises(ValueError, match=r"0.0015 s does not divide the control period 0.002"):
        arm.model(physics_dt=0.0015)


def test_mjcf_is_the_model(arm):
    again = mujoco.MjModel.from_xml_string(arm.mjcf())
    np.testing.assert_allclose(again.actuator_biasprm, arm.model().actuator_biasprm)


def against_mujoco(model, names, site, chain, qs):
    data = mujoco.MjData(model)
    for q in qs:
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        pos, quat = forward(chain["chain"], names, q[None])
        np.testing.assert_allclose(pos[0], data.site(site).xpos, atol=1e-12)
        turned = np.zeros(9)
        mujoco.mju_quat2Mat(turned, quat[0])
        np.testing.assert_allclose(turned, data.site(site).xmat, atol=1e-12)


def test_frame_chains_agree_with_mujoco(arm):
    qs = np.random.default_rng(2).uniform(*arm.position.T, (50, 7))
    for chain in arm.frames_json():
        against_mujoco(arm.model(), arm.joint_names, chain["name"], chain, qs)


ODD = """
<mujoco><worldbody><body pos="1 2 3" quat=".5 .5 -.5 .5"><body name="fixed" pos="0 .1 0" euler="10 20 30">
  <geom size=".1"/>
  <body pos=".3 0 .1" euler="5 0 -40">
    <joint name="a" pos=".1 -.2 .3" axis="1 2 3" ref="20"/>
    <joint name="b" type="slide" axis="0 1 1" ref=".2"/>
    <joint name="c" pos="-.1 0 .2" axis="0 1 0"/><geom size=".1"/>
    <site name="s" pos=".1 .2 .3" euler="30 0 60"/>
  </body></body></body></worldbody></mujoco>"""


def test_chains_with_anchors_slides_and_references():
    model = mujoco.MjModel.from_xml_string(ODD)
    names = ("a", "b", "c")
    against_mujoco(
        model,
        names,
        "s",
        frame_chain(model, names, "f", "s"),
        np.random.default_rng(3).uniform(-2, 2, (30, 3)),
    )
    with pytest.raises(ValueError, match="hangs on joint 'b'"):
        frame_chain(model, ("a", "c"), "f", "s")
    with pytest.raises(ValueError, match="no site 't'"):
        frame_chain(model, names, "f", "t")


def test_a_chain_on_a_floating_base_starts_there():
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody><body pos="0 0 1"><freejoint/><geom size=".1"/>
        <body pos=".2 0 0"><joint name="a" axis="0 0 1"/><geom size=".1"/><site name="s" pos=".3 0 0"/></body>
        </body></worldbody></mujoco>"""
    )
    chain = frame_chain(model, ("a",), "f", "s")
    assert chain["floating"]
    pos, _ = forward(chain["chain"], ("a",), np.array([[np.pi / 2]]))
    np.testing.assert_allclose(pos[0], [0.2, 0.3, 0.0], atol=1e-12)


def test_the_humanoid_fits_its_model():
    robot = load_robot("humanoid29")
    findings = robot.check()
    assert {f.status for f in findings} == {"ok"}, findings
    assert "35.112 kg" in next(f.text for f in findings if f.check == "masses")
    names = robot.joint_names
    assert len(names) == 29
    assert [names[i] for i in (0, 6, 12, 15, 22)] == [
        "left_hip_pitch_joint", "right_hip_pitch_joint", "waist_yaw_joint", "left_shoulder_pitch_joint",
        "right_shoulder_pitch_joint",
    ]  # fmt: skip
    mirrored = ("roll", "yaw")
    for left in (j for j in robot.joints if j.name.startswith("left_")):
        right = robot.joints[names.index(left.name.replace("left_", "right_"))]
        lo, hi = left.position
        expected = (-hi, -lo) if any(axis in left.name for axis in mirrored) else (lo, hi)
        assert right.position == expected, left.name
        assert right.effort == left.effort
        sign = -1 if any(axis in left.name for axis in mirrored) else 1
        assert right.home == sign * left.home


def test_the_humanoid_stands_on_both_soles():
    robot = load_robot("humanoid29")
    model = robot.model()
    data = mujoco.MjData(model)
    data.qpos[:] = robot.home_qpos(model)
    mujoco.mj_forward(model, data)
    soles = [data.site(f"{side}_foot").xpos[2] for side in ("left", "right")]
    np.testing.assert_allclose(soles, 0.001, atol=1e-3)
    assert np.array_equal(model.key("home").qpos, data.qpos)
    # the centre of mass is above the soles
    feet = data.geom("left_foot").xpos[0]
    assert abs(data.subtree_com[0][0] - feet) < 0.1
    assert abs(data.subtree_com[0][1]) < 1e-9
