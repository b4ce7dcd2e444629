"""The sim device: plain MuJoCo makes of the logged commands exactly the states that the loop saw."""

import threading

import mujoco
import numpy as np
import pytest

from cadenza import load_robot
from cadenza.runtime import RunConfig, Runtime, SimDevice
from mcap_reference import messages

OFF = 4
"""Number of the level at which motors are off."""
GOAL = {0.0: {"goal_x": 0.3, "goal_y": 0.15, "goal_z": 0.2}, 1.0: {"goal_y": -0.15}}


@pytest.fixture(scope="module")
def recorded(reach_bundle, tmp_path_factory):
    """Log, device and report of 2.4 s on the virtual clock."""
    log = tmp_path_factory.mktemp("sim") / "run.mcap"
    robot = load_robot("arm6")
    device = SimDevice.of(robot)
    report = Runtime(
        reach_bundle, robot=robot, device=device, config=RunConfig(2.4, str(log), virtual_clock=True)
    ).run(GOAL)
    return log, device, report


def test_plain_mujoco_gives_the_same_bits(recorded):
    log, _, report = recorded
    assert report.exit_code == 0, report.ended
    robot = load_robot("arm6")
    states, commands = messages(log, "/state"), messages(log, "/command")
    q = np.array([s.q for s in states])
    assert len(states) == len(commands) == report.ticks >= 1000
    assert [c.tick for c in commands] == [s.tick for s in states] == list(range(report.ticks))

    model = robot.model()
    data = mujoco.MjData(model)
    data.qpos[:] = robot.home
    mujoco.mj_forward(model, data)
    columns = {
        name: np.array([getattr(c, name) for c in commands]) for name in ("q", "dq", "kp", "kd", "tau")
    }
    assert np.ptp(q, axis=0).max() > 0.2  # it moved
    substeps = round(robot.control_dt / model.opt.timestep)
    released = False  # the world stands still until the motors have been on
    for k in range(report.ticks):
        np.testing.assert_array_equal(q[k], data.qpos, err_msg=f"tick {k}")
        np.testing.assert_array_equal(states[k].dq, data.qvel, err_msg=f"tick {k}")
        on = commands[k].level != OFF
        released = released or on
        kp, kd = on * columns["kp"][k], on * columns["kd"][k]
        model.actuator_biasprm[:, 1], model.actuator_biasprm[:, 2] = -kp, -kd
        data.ctrl[:] = on * columns["tau"][k] + kp * columns["q"][k] + kd * columns["dq"][k]
        for _ in range(substeps * released):
            mujoco.mj_step(model, data)


def test_another_python_thread_goes_on_while_the_loop_runs(reach_bundle):
    robot = load_robot("arm6")
    runtime = Runtime(
        reach_bundle, robot=robot, device=SimDevice.of(robot), config=RunConfig(20.0, virtual_clock=True)
    )
    count, running = 0, threading.Event()
    done = threading.Event()

    def work():
        nonlocal count
        running.set()
        while not done.is_set():
            count += 1

    thread = threading.Thread(target=work)
    thread.start()
    running.wait()
    before = count
    report = runtime.run()
    progress = count - before
    done.set()
    thread.join()
    assert report.ticks >= 10_000
    assert progress > 0


def test_the_final_state_is_in_data(recorded):
    log, device, report = recorded
    last = np.array(messages(log, "/state")[-1].q)
    assert np.abs(device.data.qpos - last).max() < 0.05
    off = sum(c.level == OFF for c in messages(log, "/command"))
    assert device.data.time == pytest.approx((report.ticks - off) / 500, abs=0.005)


def test_a_simulation_is_lent_to_one_run(reach_bundle):
    robot = load_robot("arm6")
    device = SimDevice.of(robot)
    config = RunConfig(0.1, virtual_clock=True)
    Runtime(reach_bundle, robot=robot, device=device, config=config)
    with pytest.raises(RuntimeError, match="given to a run already"):
        Runtime(reach_bundle, robot=robot, device=device, config=config)


def test_a_start_away_from_home(reach_bundle, tmp_path):
    robot = load_robot("arm6")
    start = robot.home + 0.1
    log = tmp_path / "run.mcap"
    config = RunConfig(0.1, str(log), virtual_clock=True)
    Runtime(reach_bundle, robot=robot, device=SimDevice.of(robot, start), config=config).run()
    np.testing.assert_array_equal(messages(log, "/state")[0].q, start)
