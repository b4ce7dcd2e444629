"""cadenza.tasks.pick: a scripted grasp fulfils it; objects in observations, export and the loop."""

import json

import mujoco
import numpy as np
import pytest

from cadenza.robot import load_robot
from cadenza.runtime import Bundle, RunConfig, Runtime, SimDevice, bundle_scene
from cadenza.sim.env import RobotEnvironment
from cadenza.tasks.pick import PickArm6, PickConfig

TASK = PickArm6()


def above(radius, height):
    """Pitches that bring the tool to a point with the hand pointing down; shoulder 0.12, hand 0.15 m."""
    z, a, b = height + 0.15 - 0.12, 0.30, 0.25
    elbow = np.arccos((radius**2 + z**2 - a**2 - b**2) / (2 * a * b))
    lift = np.arctan2(radius, z) - np.arctan2(b * np.sin(elbow), a + b * np.cos(elbow))
    return lift, elbow, np.pi - lift - elbow


def test_a_scripted_grasp_lifts_the_cube():
    env = RobotEnvironment(TASK, 8, seed=3)
    cube, pose = env.moment().objects["cube"].copy(), env.sim.poses[:, 0]
    radius, pan = np.hypot(cube[:, 0], cube[:, 1]), np.arctan2(cube[:, 1], cube[:, 0])
    roll = pan - 2 * np.arctan2(pose[:, 6], pose[:, 3])
    roll = (roll + np.pi / 4) % (np.pi / 2) - np.pi / 4
    rewards = []
    for height, gripper, steps in ((0.1, 0.6, 15), (0.012, 0.6, 15), (0.012, 0.0, 10), (0.15, 0.0, 50)):
        lift, elbow, wrist = above(radius, height)
        goal = np.stack((pan, lift, elbow, 0 * pan, wrist, roll, 0 * pan + gripper), 1)
        for _ in range(steps):
            t = env.step(np.clip((goal - env._actions.target) / 0.1, -1, 1).astype(np.float32))
        rewards.append(t.reward.mean())
        assert not t.done.any()
        if steps < 50:
            assert not t.success.any()
    assert t.success.sum() >= 5  # a blind plan drops some
    assert rewards[0] < rewards[1] < rewards[3]
    assert (t.reward[t.success] > 1.0).all()


def test_declaration_and_observation():
    m = TASK.manifest()
    assert json.loads(json.dumps(m, allow_nan=False)) == m
    env = RobotEnvironment(TASK, 2, seed=1)
    data = mujoco.MjData(env.sim.model)
    for u in np.random.default_rng(0).uniform(-1, 1, (10, 2, 7)).astype(np.float32):
        t = env.step(u)
    for i in range(2):
        data.qpos[:] = env.sim.positions(i)
        mujoco.mj_kinematics(env.sim.model, data)
        at = env.sim.poses[i, 0, :3]
        np.testing.assert_allclose(at, data.body("cube").xpos, atol=1e-3)
        turned = data.site("turret").xmat.reshape(3, 3)
        error = turned.T @ (at - data.site("tool").xpos)
        np.testing.assert_allclose(t.next_obs[i, 21:24], 5 * error, atol=1e-5)
        np.testing.assert_allclose(t.next_obs[i, 24:27], 5 * (at - [0.35, 0, 0.05]), atol=1e-5)


def test_starts_fill_their_ranges():
    start = TASK.start(np.random.default_rng(0), 5000)
    x, y, z = start.objects[:, 0, :3].T
    for values, lo, hi in ((np.hypot(x, y), 0.3, 0.4), (np.degrees(np.arctan2(y, x)), -30, 30)):
        assert lo <= values.min() < lo + 0.01 * (hi - lo)
        assert hi - 0.01 * (hi - lo) < values.max() <= hi
    assert (z == 0.015).all()
    np.testing.assert_allclose(np.linalg.norm(start.objects[:, 0, 3:], axis=1), 1.0)
    assert (start.q[:, 6] == 0.6).all()


def test_resume_is_exact():
    env, other = RobotEnvironment(TASK, 2, seed=1), RobotEnvironment(TASK, 2, seed=8)
    u = np.random.default_rng(0).uniform(-1, 1, (150, 2, 7)).astype(np.float32)
    for a in u[:30]:
        env.step(a)
    other.load_state_dict(env.state_dict())
    for a in u[30:]:
        np.testing.assert_array_equal(env.step(a).obs, other.step(a).obs)


def test_an_untrained_policy_runs_in_the_loop_with_its_cube(untrained_pick, cadenza):
    path = untrained_pick
    scene = bundle_scene(Bundle(path))
    assert scene == TASK.scene
    robot = load_robot("arm6")
    config = RunConfig(1.0, virtual_clock=True)
    report = Runtime(path, robot=robot, device=SimDevice.of(robot, scene=scene), config=config).run()
    assert report.exit_code == 0, report.table
    # without the cube the policy is refused before anything moves
    with pytest.raises(ValueError, match="object cube"):
        Runtime(path, robot=robot, device=SimDevice.of(robot), config=config).run()
    done = cadenza("run", path, "--robot", "arm6", "--device", "sim", "--seconds", "1", "--virtual")
    assert "finished" in done.stdout


def test_a_scene_may_not_take_a_name_of_the_robot():
    from cadenza.sim.scene import scene_objects

    robot = load_robot("arm6")
    body = '<mujoco><worldbody><body name="hand"><freejoint/><geom size=".1"/></body></worldbody></mujoco>'
    with pytest.raises(ValueError, match="the robot has a body 'hand' already"):
        robot.model(scene=body)
    with pytest.raises(ValueError, match="scene: "):
        robot.model(scene="<mujoco")
    with pytest.raises(ValueError, match="a body that stands in the world has no name"):
        robot.model(scene='<mujoco><worldbody><body pos="1 0 0"/></worldbody></mujoco>')
    assert scene_objects(body) == ("hand",)
    assert scene_objects(None) == ()


def test_the_cube_follows_the_configuration():
    task = PickArm6(PickConfig(side=0.04, mass=0.1))
    model = task.robot.model(scene=task.scene)
    assert model.body("cube").mass[0] == pytest.approx(0.1)
    assert model.geom_size[model.body("cube").geomadr[0]].tolist() == [0.02, 0.02, 0.02]
