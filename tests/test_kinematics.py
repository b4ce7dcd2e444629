"""The runtime's forward kinematics against MuJoCo's own."""

import json

import mujoco
import numpy as np
import pytest

from cadenza import _native, load_robot
from cadenza.tasks import make_task

ROBOT = load_robot("arm6")


@pytest.fixture
def kinematics():
    document = make_task("cadenza/ReachArm6-v0").manifest()
    return _native.Kinematics(json.dumps(complete(document)), ROBOT.native)


def complete(document):
    """The manifest as a bundle holds it."""
    step = {
        "file": "step.onnx",
        "batch": 1,
        "inputs": {"obs": "observation"},
        "outputs": {"action": "action"},
    }
    return {**document, "format": 1, "files": {}, "functions": {"step": step}, "provenance": {}}


def test_poses_equal_those_of_mujoco(kinematics):
    model = ROBOT.model()
    data = mujoco.MjData(model)
    sites = dict(ROBOT.native.frames)
    assert set(kinematics.names) == set(sites) == {"tool", "turret"}
    rng = np.random.default_rng(0)
    lo, hi = ROBOT.position.T
    matrix = np.empty(9)
    for q in rng.uniform(lo, hi, (200, len(ROBOT.joints))):
        data.qpos[:] = q
        mujoco.mj_kinematics(model, data)
        for name, site in sites.items():
            position, quaternion = kinematics.pose(name, q)
            np.testing.assert_allclose(position, data.site(site).xpos, rtol=0, atol=1e-12)
            mujoco.mju_quat2Mat(matrix, quaternion)
            np.testing.assert_allclose(matrix, data.site(site).xmat, rtol=0, atol=1e-12)


def test_it_keeps_nothing_from_the_call_before(kinematics):
    q = ROBOT.home
    first = kinematics.pose("tool", q)
    kinematics.pose("tool", q + 0.5)
    again = kinematics.pose("tool", q)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_unknown_frames_and_wrong_lengths_are_errors(kinematics):
    with pytest.raises(ValueError, match="no frame 'hand'"):
        kinematics.pose("hand", ROBOT.home)
    with pytest.raises(ValueError, match="3 joints, expected 7"):
        kinematics.pose("tool", np.zeros(3))


def test_frames_of_another_arm_are_refused():
    document = complete(make_task("cadenza/ReachArm6-v0").manifest())
    text = json.dumps(document).replace("elbow_flex", "knee")
    with pytest.raises(ValueError, match="knee"):
        _native.Kinematics(text, ROBOT.native)
