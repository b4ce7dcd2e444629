"""The whole way once: train in MuJoCo, export, prove, run in real time, report."""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cadenza import _native
from cadenza.algos import Algorithm
from cadenza.export import ExportReport, export_run
from cadenza.recipes import reached, recipe
from cadenza.robot import Robot
from cadenza.runtime import Report, RunConfig, Runtime, SimDevice
from cadenza.sim.env import RobotEnvironment
from cadenza.sim.motor import joint_indices
from cadenza.tasks import make_task
from cadenza.tasks.reach import ReachConfig
from cadenza.train import TrainResult, train

TASK = "cadenza/ReachArm6-v0"
GOALS = 50
GOAL_SEED = 20_000
SUCCESS = 0.9
ACTION_CHANGE = 0.1
AGREEMENT = 48
SECONDS = 10.0
GOAL_EVERY = 2.0
RUN = 0
"""Number of the level at which the policy moves the robot."""


class DemoError(RuntimeError):
    """A step of the demo failed; the text says which and why."""


@dataclass(frozen=True)
class Outcome:
    """What each goal came to: reached in torch, reached in the Rust loop `[GOALS]`."""

    torch: np.ndarray
    loop: np.ndarray

    @property
    def agreement(self) -> int:
        """Goals on which both agree."""
        return int((self.torch == self.loop).sum())


def train_reach(folder: Path, seed: int = 0) -> TrainResult:
    """Trains until two evaluations in a row succeed and move gently."""
    config = replace(recipe(TASK), seed=seed, keep_best=False)
    result = train(config, folder, stop_when=reached, progress="auto")
    step, last = result.evaluations[-1]
    if last.success is None or last.success < SUCCESS or last.action_change >= ACTION_CHANGE:
        raise DemoError(
            f"training stopped at {step} transitions with success {last.success} (≥ {SUCCESS} wanted) "
            f"and mean |Δu| {last.action_change:.3f} (< {ACTION_CHANGE} wanted)"
        )
    return result


def compare_goals(agent: Algorithm, bundle: Path, robot: Robot) -> Outcome:
    """Sends the same goals through torch and through the Rust loop on its virtual clock."""
    task = make_task(TASK)
    env = RobotEnvironment(task, GOALS, seed=GOAL_SEED)
    obs = env.reset(GOAL_SEED)
    start = env.moment()
    q, goals = start.q.copy(), start.user.copy()
    torch_success = np.zeros(GOALS, bool)
    done = np.zeros(GOALS, bool)
    while not done.all():
        t = env.step(agent.act(obs, explore=False))
        first = t.done & ~done
        torch_success[first] = task.success(env.moment())[first] if t.success is None else t.success[first]
        done |= first
        obs = t.obs
    seconds = task.episode_steps * env.dt
    loop_success = np.array([_reached_in_loop(bundle, robot, q[i], goals[i], seconds) for i in range(GOALS)])
    return Outcome(torch_success, loop_success)


def _reached_in_loop(bundle: Path, robot: Robot, q: np.ndarray, goal: np.ndarray, seconds: float) -> bool:
    """Whether the tool is at the goal when the policy has had `seconds` of full authority."""
    import mujoco

    model = robot.model()
    data = mujoco.MjData(model)
    qpos, _, _ = joint_indices(model, robot.joint_names)
    data.qpos[qpos] = q
    names = [c["name"] for c in make_task(TASK).manifest()["commands"]]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "goal.mcap"
        config = RunConfig(seconds=seconds + robot.native.authority_ramp, record=str(log), virtual_clock=True)
        runtime = Runtime(bundle, robot=robot, device=SimDevice(model, data, robot), config=config)
        runtime.run({0.0: dict(zip(names, map(float, goal), strict=True))})
        columns = _native.Log(log).joints()
    last = np.flatnonzero(columns["level"] == RUN)[-1]
    data.qpos[qpos] = columns["q"][last]
    mujoco.mj_kinematics(model, data)
    tool = data.site("tool").xpos
    return bool(np.linalg.norm(tool - goal) < ReachConfig().tolerance)


def run_real_time(bundle: Path, robot: Robot, log: Path, seconds: float = SECONDS, seed: int = 1) -> Report:
    """Runs the policy in real time on MuJoCo while the goal changes every two seconds."""
    task = make_task(TASK)
    names = [c["name"] for c in task.manifest()["commands"]]
    goals = task.start(np.random.default_rng(seed), round(seconds / GOAL_EVERY)).user
    config = RunConfig(seconds=seconds, record=str(log), arm=False)
    with Runtime(bundle, robot=robot, device=SimDevice.of(robot), config=config).start() as handle:
        for i, goal in enumerate(goals):
            handle.command(**dict(zip(names, map(float, goal), strict=True)))
            if i == 0:
                handle.arm()
            time.sleep(GOAL_EVERY)
        return handle.wait(timeout=30.0)


def demo(out: Path, *, seed: int = 0, say=print) -> Report:
    """Runs every step into `out`; returns the report of the real-time run.

    Raises:
        DemoError: a step failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    training, bundle, log, page = (
        out / name for name in ("train", "reach.cadenza", "run.mcap", "report.html")
    )
    shutil.rmtree(training, ignore_errors=True)
    robot = make_task(TASK).robot

    say(f"1  train      Symphony on {TASK}, seed {seed}")
    result = train_reach(training, seed)
    step, last = result.evaluations[-1]
    say(
        f"              {step} transitions, {result.cpu_seconds:.0f} CPU-seconds: success {last.success:.2f} "
        f"on {last.episodes} goals, mean |Δu| {last.action_change:.3f}"
    )
    exported: ExportReport = export_run(training, bundle)
    say(
        f"2  export     {bundle}: {exported.bytes / 1024:.0f} KiB, {exported.vectors} vectors, "
        f"engine and torch differ by at most {exported.max_difference:.1e}"
    )
    outcome = compare_goals(result.agent, bundle, robot)
    say(
        f"3  compare    {GOALS} goals: torch reaches {int(outcome.torch.sum())}, the Rust loop "
        f"{int(outcome.loop.sum())}, the same outcome on {outcome.agreement}"
    )
    if outcome.agreement < AGREEMENT:
        raise DemoError(
            f"torch and the Rust loop agree on {outcome.agreement} of {GOALS} goals, {AGREEMENT} wanted"
        )
    say(
        f"4  run        {SECONDS:g} s in real time at {robot.control_hz:g} Hz, "
        f"a new goal every {GOAL_EVERY:g} s"
    )
    report = run_real_time(bundle, robot, log)
    if report.exit_code != 0:
        raise DemoError(f"the run ended with: {report.ended}")
    say(report.table.rstrip())
    for monitor in report.monitors:
        least = "-" if monitor["least"] is None else f"{monitor['least']:+.3f}"
        say(
            f"              monitor {monitor['name']}: {monitor['closed']} instants, "
            f"{monitor['violated']} violated, least robustness {least}, trips {monitor['trips']}"
        )
    if report.record.get("error"):
        raise DemoError(f"the log is not complete: {report.record['error']}")
    page.write_text(_native.Log(log).html())
    say(f"5  report     {page} (from {log} alone)")
    return report
