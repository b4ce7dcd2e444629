"""Bundles in the Rust loop on MuJoCo: goals, determinism, operator commands, faults, refusals."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from cadenza import _native, load_robot
from cadenza.demo import AGREEMENT, GOALS, compare_goals
from cadenza.export import export
from cadenza.runtime import Bundle, RunConfig, Runtime, RuntimeFault, SimDevice
from cadenza.tasks import make_task
from cadenza.train import load_agent
from mcap_reference import messages

TASK = "cadenza/ReachArm6-v0"
ROBOT = load_robot("arm6")
GOAL = {"goal_x": 0.3, "goal_y": 0.15, "goal_z": 0.2}
MONITOR = 19
"""Number of the reason MONITOR in logs."""
BUNDLE_SWITCHED = 31
"""Number of the reason BUNDLE_SWITCHED in logs."""


def virtual(bundle, seconds=1.0, device=None, commands=None, **config):
    config = RunConfig(seconds=seconds, virtual_clock=True, **config)
    runtime = Runtime(bundle, robot=ROBOT, device=device or SimDevice.of(ROBOT), config=config)
    return runtime.run(commands or {0.0: GOAL})


@pytest.fixture(scope="module")
def altered(reach_run, tmp_path_factory):
    """Writes the trained network with a changed manifest or specification."""
    module = load_agent(reach_run)[1].deploy_module()
    folder = tmp_path_factory.mktemp("altered")

    def write(file, specification=None, **changes):
        task = make_task(TASK)
        path = folder / f"{file}.cadenza"
        export(path, module, manifest=task.manifest() | changes, specification=specification or task.spec())
        return path

    return write


def wait_for(handle, condition, seconds=20.0):
    """The first snapshot that fulfils the condition."""
    end = time.monotonic() + seconds
    while not condition(snapshot := handle.snapshot()):
        assert time.monotonic() < end, snapshot
        time.sleep(0.01)
    return snapshot


def tool_at(q):
    import mujoco

    model = ROBOT.model()
    data = mujoco.MjData(model)
    data.qpos[:] = q
    mujoco.mj_kinematics(model, data)
    return data.site("tool").xpos.copy()


def test_it_reaches_a_goal(reach_bundle, tmp_path):
    log = tmp_path / "run.mcap"
    report = virtual(reach_bundle, 3.0, record=str(log))
    assert report.exit_code == 0 and report.ended == "finished"
    # Good news, and the stop at the end of the time.
    reasons = {(f["reason"], f["subject"], f["level"]) for f in report.faults}
    assert reasons == {("MONITOR", "reached", "run"), ("OPERATOR_STOP", "", "soft stop")}
    columns = _native.Log(log).joints()
    last = np.flatnonzero(columns["level"] == 0)[-1]
    goal = np.array([GOAL["goal_x"], GOAL["goal_y"], GOAL["goal_z"]])
    assert np.linalg.norm(tool_at(columns["q"][0]) - goal) > 0.1
    assert np.linalg.norm(tool_at(columns["q"][last]) - goal) < 0.03
    monitors = {m["name"]: m for m in report.monitors}
    assert monitors["workspace"]["violated"] == 0 and monitors["workspace"]["least"] > 0
    assert monitors["reached"]["closed"] > 0


def test_equal_runs_give_equal_bytes_and_reports(reach_bundle, tmp_path):
    runs = []
    for name in ("one", "two"):
        log = tmp_path / name / "run.mcap"
        log.parent.mkdir()
        report = virtual(reach_bundle, 1.5, record=str(log), commands={0.0: GOAL, 0.7: {"goal_y": -0.1}})
        record = {k: v for k, v in report.record.items() if k != "path"}
        runs.append((log.read_bytes(), dataclasses.replace(report, record=record)))
    assert runs[0][0] == runs[1][0]
    assert runs[0][1] == runs[1][1]
    other = tmp_path / "other.mcap"
    virtual(reach_bundle, 1.5, record=str(other), commands={0.0: GOAL, 0.7: {"goal_y": -0.11}})
    assert other.read_bytes() != runs[0][0]


def test_the_loop_reaches_the_goals_that_torch_reaches(reach_run, reach_bundle):
    outcome = compare_goals(load_agent(reach_run)[1], reach_bundle, ROBOT)
    assert outcome.torch.shape == outcome.loop.shape == (GOALS,)
    assert outcome.agreement >= AGREEMENT == 48
    assert outcome.loop.mean() >= 0.9


def test_a_recorded_run_replays_to_the_same_commands(reach_bundle, tmp_path):
    log = tmp_path / "run.mcap"
    virtual(reach_bundle, 1.0, record=str(log))
    again = tmp_path / "again.mcap"
    config = RunConfig(seconds=1.0, record=str(again), virtual_clock=True)
    report = Runtime(reach_bundle, robot=ROBOT, device=f"replay:{log}", config=config).run({0.0: GOAL})
    assert report.ticks > 500
    first, second = _native.Log(log).joints(), _native.Log(again).joints()
    running = np.flatnonzero(first["level"] == 0)
    n = min(running[-1], report.ticks - 1)
    np.testing.assert_array_equal(first["command"][:n], second["command"][:n])


@pytest.mark.parametrize(
    "config", [{"mode": "async"}, {"virtual_clock": True, "inject": "uniform:0ms..30ms"}]
)
def test_answers_that_come_late_replay_to_the_same_commands(reach_bundle, tmp_path, config):
    """On a thread of its own, and with injected delays: the log says which step each answer is for."""
    config = RunConfig(seconds=1.0, record=str(tmp_path / "run.mcap"), **config)
    report = Runtime(reach_bundle, robot=ROBOT, device=SimDevice.of(ROBOT), config=config).run()
    assert report.exit_code == 0, report.ended
    call = [sys.executable, "-m", "cadenza.cli", "replay", tmp_path / "run.mcap"]
    replayed = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert f"{report.ticks}/{report.ticks} commands identical" in replayed.stdout


def test_real_time_with_a_handle(reach_bundle):
    config = RunConfig(seconds=30.0, arm=False)
    start = time.monotonic()
    with Runtime(reach_bundle, robot="arm6", device=SimDevice.of(ROBOT), config=config).start() as handle:
        handle.command(**GOAL)
        waiting = wait_for(handle, lambda s: s.tick > 20)
        assert waiting.authority == 0 and waiting.fault is None
        np.testing.assert_allclose(waiting.q, ROBOT.home, atol=1e-6)
        handle.arm()
        wait_for(handle, lambda s: s.authority == 1)
        time.sleep(1.0)
        moving = handle.snapshot()
        assert moving.tick > waiting.tick + 250 and moving.level == "run"
        assert moving.q.shape == moving.dq.shape == moving.command.shape == (7,)
        assert np.abs(moving.q - ROBOT.home).max() > 0.05
        with pytest.raises(TimeoutError):
            handle.wait(timeout=0.05)
        handle.stop()
        report = handle.wait(timeout=20.0)
    assert time.monotonic() - start < 20
    assert report.exit_code == 0 and "operator" in report.ended
    assert handle.wait() is report
    assert report.stats["counters"]["ticks"] == report.ticks > 500
    for stage in ("wake lateness", "infer", "whole tick"):
        assert stage in report.table
    assert report.rt["policy"]


def test_another_bundle_takes_over_or_says_why_not(reach_bundle, altered, tmp_path):
    fast = altered("fast", rates=make_task(TASK).manifest()["rates"] | {"control_dt": 0.001})
    log = tmp_path / "run.mcap"
    config = RunConfig(record=str(log))
    with Runtime(reach_bundle, robot=ROBOT, device="null", config=config).start() as handle:
        wait_for(handle, lambda s: s.authority > 0.5)
        with pytest.raises(ValueError, match="control"):
            handle.switch(fast)
        assert handle.snapshot().level == "run"
        tick = handle.switch(reach_bundle, timeout=60.0)
        assert wait_for(handle, lambda s: s.tick > tick).authority < 1
        wait_for(handle, lambda s: s.authority == 1)
        handle.command(**GOAL)
        handle.stop()
        report = handle.wait(timeout=60.0)
    reasons = [f["reason"] for f in report.faults if f["reason"] != "MONITOR"]
    assert reasons == ["BUNDLE_SWITCHED", "OPERATOR_STOP"]
    (bundle,) = messages(log, "/bundle")
    assert bundle.sha256 == Bundle(str(reach_bundle)).id and bundle.tick <= tick
    (event,) = [e for e in messages(log, "/event") if e.reason == BUNDLE_SWITCHED]
    assert (event.tick, event.level) == (tick, 0)


def test_a_fallback_takes_over_by_itself(reach_bundle, altered, tmp_path, cadenza):
    dt = 1 / make_task(TASK).config.policy_hz
    quiet = {"name": "reached", "dt": dt, "trip": "satisfied", "action": "log"}
    call = {"name": "workspace", "dt": dt, "trip": "satisfied", "action": "fallback_policy"}
    caller = altered("caller", monitors=[call, quiet])
    config = RunConfig(record=str(tmp_path / "run.mcap"), fallback=str(reach_bundle))
    with Runtime(caller, robot=ROBOT, device="null", config=config).start() as handle:
        wait_for(handle, lambda s: s.fallback and s.authority == 1)
        with pytest.raises(ValueError, match="hears no commands"):
            handle.command(**GOAL)
        handle.switch(reach_bundle, timeout=60.0)
        handle.command(**GOAL)  # at once, whatever the newest snapshot still says
        wait_for(handle, lambda s: not s.fallback)
        handle.stop()
        report = handle.wait(timeout=60.0)
    switched = [f["level"] for f in report.faults if f["reason"] == "BUNDLE_SWITCHED"]
    assert switched == ["run", "run"] and report.exit_code == 0, report.ended
    fallback, other = messages(tmp_path / "run.mcap", "/bundle")
    assert (fallback.fallback, other.fallback) == (True, False)
    assert fallback.sha256 == other.sha256 == Bundle(str(reach_bundle)).id
    again = cadenza("replay", tmp_path / "run.mcap")
    assert f"{report.ticks}/{report.ticks} commands identical" in again.stdout


def test_a_fallback_that_cannot_be_used_is_refused_with_its_name(reach_bundle, altered, tmp_path, cadenza):
    joints = make_task(TASK).manifest()["joints"]
    slow = altered("slow", joints=[{**j, "velocity_max": 0.5} for j in joints])
    run = ("run", reach_bundle, "--robot", "arm6", "--device", "null", "--seconds", "1")
    other = cadenza(*run, "--fallback", slow, code=2)
    assert "slow.cadenza" in other.stderr and "shoulder_pan" in other.stderr and "in motion" in other.stderr
    missing = cadenza(*run, "--fallback", tmp_path / "none.cadenza", code=2)
    assert "none.cadenza" in missing.stderr
    alone = cadenza(*run, "--late", "fallback", code=2)
    assert "late = fallback" in alone.stderr


def test_others_use_the_handle_while_one_waits(reach_bundle):
    with Runtime(reach_bundle, robot=ROBOT, device="null", config=RunConfig()).start() as handle:
        reports = []
        waiting = [threading.Thread(target=lambda: reports.append(handle.wait())) for _ in range(2)]
        for thread in waiting:
            thread.start()
        wait_for(handle, lambda s: s.authority > 0)
        handle.command(**GOAL)
        assert not reports
        handle.stop()
        for thread in waiting:
            thread.join(timeout=60)
    assert [r.exit_code for r in reports] == [0, 0] and handle.wait().ticks == reports[0].ticks


@pytest.fixture
def interrupts():
    """SIGINT raises KeyboardInterrupt, also where the tests were started with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_ends_a_wait_and_the_block_stops_the_loop(reach_bundle):
    with Runtime(reach_bundle, robot=ROBOT, device="null", config=RunConfig()).start() as handle:
        wait_for(handle, lambda s: s.authority > 0)
        with pytest.raises(KeyboardInterrupt):
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
            handle.wait(timeout=60)
        assert handle.snapshot().level == "run"
    assert handle.wait().exit_code == 0


def test_monitors_that_take_too_long_are_slowed_and_followed_by_a_replay(reach_bundle, tmp_path):
    def run(budget):
        log = tmp_path / "run.mcap"
        config = RunConfig(seconds=0.5, record=str(log), monitor_budget_us=budget)
        return Runtime(reach_bundle, robot=ROBOT, device="null", config=config).run({0.0: GOAL}), log

    own, _ = run(None)
    assert not [f for f in own.faults if f["reason"] == "MONITOR_SLOWED"]
    # What a step takes depends on the machine and on what else it does: a time that was short but not too
    # short may not be so again.
    for _ in range(50):
        with pytest.raises(ValueError, match="monitor_budget_us") as refused:
            run(1e-9)
        least = float(re.search(r"monitors take ([\d.e-]+) µs", str(refused.value))[1])
        try:
            report, log = run(1.3 * least)
        except ValueError:
            continue
        if slowed := [f for f in report.faults if f["reason"] == "MONITOR_SLOWED"]:
            break
    periods = {m["name"]: m["dt"] for m in report.monitors}
    before = {m["name"]: m["dt"] for m in own.monitors}
    for fault in slowed:
        name = fault["subject"]
        assert (fault["value"], fault["limit"], fault["level"]) == (periods[name], before[name], "run")
        assert periods[name] / before[name] in (2, 4, 8, 16)
    header = json.loads(_native.Log(log).header)
    assert {m["name"]: m["dt"] for m in header["monitors"]} == periods
    replayed = subprocess.run(
        [sys.executable, "-m", "cadenza.cli", "replay", str(log)], capture_output=True, text=True, check=False
    )
    assert f"{report.ticks}/{report.ticks} commands identical" in replayed.stdout, replayed.stderr


def test_leaving_the_block_stops_the_loop(reach_bundle):
    with Runtime(reach_bundle, robot=ROBOT, device="null", config=RunConfig()).start() as handle:
        time.sleep(0.1)
    assert handle.wait().exit_code == 0


def test_an_emergency_stop_damps_and_is_a_fault(reach_bundle):
    with Runtime(reach_bundle, robot=ROBOT, device=SimDevice.of(ROBOT), config=RunConfig()).start() as handle:
        wait_for(handle, lambda s: s.authority > 0)
        handle.estop()
        wait_for(handle, lambda s: s.level == "damp")
        handle.stop()
        report = handle.wait(timeout=20.0)
    assert report.exit_code == 1
    assert any("ESTOP" in f["reason"] or "OPERATOR" in f["reason"] for f in report.faults)


def test_operator_commands_are_checked(reach_bundle):
    with Runtime(reach_bundle, robot=ROBOT, device="null", config=RunConfig(arm=False)).start() as handle:
        with pytest.raises(KeyError, match=r"gaol_x.*goal_x.*goal_y.*goal_z"):
            handle.command(gaol_x=0.3)
        with pytest.raises(ValueError, match=r"goal_x.*9"):
            handle.command(goal_x=9.0)
        with pytest.raises(ValueError, match="goal_z"):
            handle.command(goal_z=float("nan"))
    runtime = Runtime(
        reach_bundle, robot=ROBOT, device="null", config=RunConfig(seconds=1.0, virtual_clock=True)
    )
    with pytest.raises(KeyError, match="gaol"):
        runtime.run({0.0: {"gaol": 1.0}})
    with pytest.raises(RuntimeError, match="has run already"):
        runtime.run()
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"{bad} s"):
            virtual(reach_bundle, commands={bad: GOAL})


def test_a_violated_fence_is_a_latched_soft_stop(altered, tmp_path):
    fence = make_task(TASK).spec().replace("tool.z > 0.02", "tool.z > 10")
    bundle = altered("fence", fence)
    log = tmp_path / "run.mcap"
    report = virtual(bundle, 2.0, record=str(log))
    assert report.exit_code == 1 and report.ticks < 1800
    [fault] = [f for f in report.faults if f["subject"] == "workspace"]
    assert fault["reason"] == "MONITOR" and fault["value"] < -9
    assert fault["level"] == "soft stop"
    assert "MONITOR" in report.ended and "workspace" in report.ended
    [event] = [e for e in messages(log, "/event") if e.reason == MONITOR and e.joint == 0]
    assert event.tick == fault["tick"] and event.value == fault["value"]
    # Latched: the level never comes back once it has been left.
    level = np.array([c.level for c in messages(log, "/command")])
    assert (np.diff(level[fault["tick"] :]) >= 0).all()
    assert not (level[fault["tick"] + 1 :] < 2).any()
    page = _native.Log(log).html()
    assert "MONITOR" in page and "workspace" in page


def test_a_fault_under_a_handle_stays_until_the_end_and_raises(altered):
    bundle = altered("fence", make_task(TASK).spec().replace("tool.z > 0.02", "tool.z > 10"))
    config = RunConfig(seconds=4.0)
    with Runtime(bundle, robot=ROBOT, device=SimDevice.of(ROBOT), config=config).start() as handle:
        assert wait_for(handle, lambda s: s.level in ("soft stop", "damp")).fault == "MONITOR"
        with pytest.raises(RuntimeFault, match=r"MONITOR.*workspace"):
            handle.wait(timeout=60, raise_on_fault=True)
    report = handle.wait()
    assert report.exit_code == 1
    assert next(f["subject"] for f in report.faults if f["level"] == "soft stop") == "workspace"


def test_a_dry_run_moves_nothing(reach_bundle, tmp_path):
    device, log = SimDevice.of(ROBOT), tmp_path / "dry.mcap"
    before = device.data.qpos.copy()
    report = virtual(reach_bundle, 1.0, device, dry_run=True, record=str(log))
    assert report.exit_code == 0 and report.ticks >= 500
    np.testing.assert_array_equal(device.data.qpos, before)
    assert not device.data.qvel.any()
    columns = _native.Log(log).joints()
    assert len(columns["command"]) == report.ticks  # what it would have said is in the log


def test_bundle_and_robot_must_fit(altered, reach_bundle):
    rates = make_task(TASK).manifest()["rates"]
    other = altered("rate", rates=rates | {"control_dt": 0.004})
    with pytest.raises(ValueError, match=r"(?s)(250|0\.004).*(500|0\.002)|(500|0\.002).*(250|0\.004)"):
        Runtime(other, robot=ROBOT, config=RunConfig())
    text = json.dumps(make_task(TASK).manifest()).replace("elbow_flex", "knee_flex")
    with pytest.raises(ValueError, match="knee_flex"):
        Runtime(altered("joint", **json.loads(text)), robot=ROBOT, config=RunConfig())
    with pytest.raises(ValueError, match="did you mean 'arm6'"):
        Runtime(reach_bundle, robot="arm", config=RunConfig())
    with pytest.raises(ValueError, match="'telepathy'"):
        Runtime(reach_bundle, robot=ROBOT, device="telepathy", config=RunConfig())


def test_an_unknown_signal_in_a_specification_is_named(altered):
    spec = make_task(TASK).spec().replace("tool.z", "tol.z")
    with pytest.raises(ValueError, match=r"tol\.z.*"):
        Runtime(altered("signal", spec), robot=ROBOT, config=RunConfig())


@pytest.mark.parametrize("path", ["/proc/cadenza/run.mcap", "/dev/full", "{tmp}"])
def test_without_a_log_the_run_goes_on_and_says_so(reach_bundle, tmp_path, path):
    report = virtual(reach_bundle, 1.0, record=path.format(tmp=tmp_path))
    assert report.ended == "finished" and report.exit_code == 0
    assert report.ticks >= 500
    assert report.record["error"]
    assert not list(tmp_path.iterdir())


def test_the_configuration_is_that_of_rust():
    assert dataclasses.asdict(RunConfig()) == json.loads(_native.default_run_config())
    documented = re.findall(r"^        (\w+): ", RunConfig.__doc__, re.M)
    assert documented == [f.name for f in dataclasses.fields(RunConfig)]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"seconds": 0.0}, "seconds.*0"),
        ({"seconds": -1.0}, "seconds.*-1"),
        ({"virtual_clock": True}, "seconds.*virtual clock"),
        ({"record_every": 0}, "record_every"),
        ({"priority": 99}, "priority.*99"),
        ({"monitor_budget_us": 0.0}, "monitor_budget_us = 0"),
        ({"monitor_budget_us": 1e-9}, "monitors take.*monitor_budget_us = 0.000000001"),
        ({"upsample": "sinc"}, "sinc.*hold.*linear.*cubic"),
        ({"upsample": "cubic"}, "horizon.*1"),
        ({"seam": "blend"}, "blend.*replace.*fade"),
        ({"late": "never"}, "never.*drop.*last"),
        ({"freeze": -1}, "freeze|-1"),
        ({"mode": "async", "virtual_clock": True, "seconds": 1.0}, "mode = async.*inject"),
        ({"mode": "later"}, "later.*auto.*inline.*async"),
        ({"trigger": "every:4"}, "trigger = every:4.*every:1"),
        ({"trigger": "sometimes"}, "sometimes.*every:STEPS"),
        ({"inject": "const:30ms"}, "inject = const:30ms.*virtual clock"),
        ({"inject": "30ms"}, "30ms.*const:30ms"),
        ({"noise": 0.5}, "noise.*0.5.*allows no noise"),
        ({"noise": 2.0}, "noise.*2"),
        ({"core": 100_000}, "100000"),
    ],
)
def test_configurations_that_make_no_sense(reach_bundle, change, match):
    if "core" in change:
        report = Runtime(
            reach_bundle, robot=ROBOT, device="null", config=RunConfig(seconds=0.2, require_rt=True, **change)
        ).run()
        assert report.exit_code == 1 and re.search(match, report.ended + str(report.rt))
        return
    with pytest.raises(ValueError, match=match):
        Runtime(reach_bundle, robot=ROBOT, device="null", config=RunConfig(**change))


def test_an_open_bundle_serves_several_runs(reach_bundle):
    bundle = Bundle(reach_bundle)
    ticks = [virtual(bundle, 0.2).ticks for _ in range(2)]
    assert ticks[0] == ticks[1] > 100


def test_a_network_that_loses_its_mind_never_reaches_the_motors(tmp_path):
    class Jumps(torch.nn.Module):
        """±1 in turn with the sign of a joint's velocity: as rough as an action may be."""

        def forward(self, x):
            return torch.tanh(1e3 * x[:, 6:12])

    task = make_task(TASK)
    path, log = tmp_path / "rough.cadenza", tmp_path / "run.mcap"
    export(path, Jumps(), manifest=task.manifest(), specification=task.spec())
    virtual(path, 2.0, record=str(log))
    commands = np.array([c.q for c in messages(log, "/command")])
    velocity = np.array([c.dq for c in messages(log, "/command")])
    lo, hi = ROBOT.position.T
    assert np.isfinite(commands).all() and (commands >= lo - 1e-9).all() and (commands <= hi + 1e-9).all()
    assert (np.abs(velocity) <= [j.velocity + 1e-9 for j in ROBOT.joints]).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_softly(reach_bundle, tmp_path, number):
    log = tmp_path / "run.mcap"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "cadenza.cli", "run", str(reach_bundle), "--robot", "arm6"),
            *("--device", "sim", "--seconds", "30", "--record", str(log)),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.stat().st_size > 100_000):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, number)
    stopped = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, f"{out}\n{err}"
    assert time.monotonic() - stopped < 8
    assert "stopped by the operator" in out
    levels = [c.level for c in messages(log, "/command")]
    assert 2 in levels and levels.index(2) > levels.index(0)
