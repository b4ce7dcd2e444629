"""Training: act → step → store → update → log → evaluate → checkpoint.

A run is reproducible from its seed and resumes exactly: at one thread a run that was killed and resumed
writes the same numbers as one that was not, however many collectors feed it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import torch

from cadenza.algos import Algorithm, TrainingDiverged
from cadenza.algos.acting import Acting
from cadenza.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from cadenza.collect import Collector, Fault, Source, Step, info, make_acting, make_environments
from cadenza.evaluate import Evaluation, evaluate
from cadenza.progress import ProgressMode, make_progress
from cadenza.rundir import IDENTITY, RunDir
from cadenza.sim.batch import SimulationDiverged
from cadenza.sinks import Sink
from cadenza.tasks import GYM_PREFIX, make
from cadenza.tasks.task import Environment
from cadenza.train_config import ALGORITHMS, TrainConfig


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        reason: "steps" (all done), "goal" (`stop_when` said so) or "interrupted" (Ctrl-C).
        steps: transitions collected.
        evaluations: all evaluations, with the number of transitions at each.
        agent: the trained agent.
        cpu_seconds: process CPU time of the run, over all its parts.
    """

    reason: Literal["steps", "goal", "interrupted"]
    steps: int
    evaluations: tuple[tuple[int, Evaluation], ...]
    agent: Algorithm
    cpu_seconds: float


class Diverged(RuntimeError):
    """A reward, observation, simulation or loss is not finite. The text says where and names the dump."""


StopWhen = Callable[[Sequence[Evaluation]], bool]


def train(
    config: TrainConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    stop_when: StopWhen | None = None,
    sinks: Sequence[Sink] = (),
    progress: ProgressMode = "silent",
    ray_address: str | None = None,
) -> TrainResult:
    """Train, or go on with an interrupted run.

    Args:
        config: settings; for a resumed run those of `RunDir.config`, with another `steps` if wanted.
        run_dir: folder of the run.
        resume: go on from the folder's checkpoint.
        stop_when: given all evaluations so far after each, says whether that is enough.
        sinks: further places for the metrics, beside CSV and TensorBoard in the folder.
        progress: "auto" for a bar or lines, "silent" for nothing.
        ray_address: cluster for `config.actors`; one on this machine is started when None.

    Raises:
        ValueError: settings, folder or checkpoint that do not fit (CheckpointError names file and reason), or
            no cluster at the address.
        ModuleNotFoundError: actors are asked for and Ray is not installed.
        ActorFailed: a collector failed, or was lost again and again.
        Diverged: a number is not finite; `diverged.pt` in the folder holds state, action and agent.
    """
    folder = RunDir(run_dir)
    with contextlib.closing(_Run(config, ray_address)) as run:
        if resume:
            run.load_state_dict(folder.load(config), folder.checkpoint)
            folder.go_on(config)
        else:
            folder.create(config)
        outputs = [*folder.sinks(run.step if resume else None), *sinks]
        return _train(run, folder, outputs, stop_when, progress)


def _train(
    run: _Run, folder: RunDir, outputs: Sequence[Sink], stop_when: StopWhen | None, progress: ProgressMode
) -> TrainResult:
    config, source, agent, meter = run.config, run.source, run.agent, run.meter
    reason: Literal["steps", "goal", "interrupted"] = "steps"
    with (
        _flushing(outputs),
        _torch_threads(config.torch_threads),
        _interruptible() as interrupt,
        make_progress(progress, config.steps, run.step) as bar,
    ):
        while run.step < config.steps:
            if interrupt.asked:
                reason = "interrupted"
                break
            with _dumping(folder, run):
                step = source.step()
                agent.store(step.rows)
                losses = [agent.update() for _ in range(agent.updates_due(config.envs))]
            run.step += config.envs
            meter.add(source.actor(), step, losses)

            if run.due(config.log_every):
                _log(outputs, "train", meter.take() | source.metrics(), run.step)
                _log(outputs, "time", run.speed(), run.step)
            if agent.ready and run.due(config.eval_every):
                run.evaluate()
                if config.keep_best and run.best_now():
                    run.keep()
                if config.snapshots:
                    run.write_snapshot(folder)
                _log(outputs, "eval", run.evaluations[-1][1].scalars(), run.step)
                if stop_when is not None and stop_when([e for _, e in run.evaluations]):
                    reason = "goal"
                    break
            if run.due(config.checkpoint_every):
                _flush(outputs)
                run.write_best(folder)
                folder.save(run.state_dict())
            bar.update(run.step, run.figures())
        _flush(outputs)
        run.write_best(folder)
        folder.save(run.state_dict())
    return TrainResult(reason, run.step, tuple(run.evaluations), agent, run.cpu_seconds())


def make_agent(config: TrainConfig, env: Environment, seed: int) -> Algorithm:
    """The algorithm of a run, untrained."""
    _check_device(config.device)
    _, algorithm = ALGORITHMS[config.algorithm]
    return algorithm(
        config.settings,
        env.obs_size,
        env.action_low,
        env.action_high,
        seed=seed,
        device=config.device,
        env_info=info(env),
    )


def _check_device(name: str) -> None:
    """ValueError when torch does not know the device, or the machine has none of it."""
    device = torch.device("cpu")
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"device {name!r} is not known; there are cpu, cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch {torch.__version__} finds no GPU here; use cpu")


def load_agent(run_dir: str | Path) -> tuple[TrainConfig, Algorithm, int]:
    """The trained agent of a run, for evaluation and export: its settings, the agent, and its transitions."""
    folder = RunDir(run_dir)
    config = folder.config()
    state = folder.load(config)
    env = make(config.task, 1)
    agent = make_agent(config, env, config.seed)
    env.close()
    with _naming(folder.checkpoint):
        agent.load_state_dict({k: v for k, v in state["agent"].items() if k != "buffer"})
    return config, agent, int(state["step"])


def load_snapshot(run_dir: str | Path, step: int) -> Acting:
    """The policy of a run after `step` transitions, kept by `snapshots`; CheckpointError if it was not."""
    folder = RunDir(run_dir)
    config = folder.config()
    env = make(config.task, 1)
    acting = make_acting(config, env, config.seed)
    env.close()
    path = folder.snapshot(step)
    state = load_checkpoint(path)
    with _naming(path):
        acting.load_weights(state["weights"].numpy())
    acting.ready = True
    return acting


class _Run:
    """Everything of a run that a checkpoint holds."""

    def __init__(self, config: TrainConfig, ray_address: str | None = None) -> None:
        self.config = config
        env_seed, agent_seed = np.random.SeedSequence(config.seed).spawn(2)
        self.eval_env = make(
            config.task, config.eval_episodes, seed=config.eval_seed, threads=config.sim_threads,
            domain=config.domain,
        )  # fmt: skip
        self.agent = make_agent(config, self.eval_env, int(agent_seed.generate_state(1)[0]))
        self.source = _source(config, self.agent, env_seed, ray_address)
        self.meter = _Meter(config.envs * (config.actors or 1))
        self.step = 0
        self.evaluations: list[tuple[int, Evaluation]] = []
        self._best: tuple[int, torch.nn.Module] | None = None
        self._cpu_before, self._cpu_start = 0.0, time.process_time()
        self._wall_start, self._first_step = time.monotonic(), 0

    def due(self, every: int) -> bool:
        """Whether a multiple of `every` was reached or passed by the last step."""
        return self.step // every > (self.step - self.config.envs) // every

    def evaluate(self) -> None:
        result = evaluate(
            lambda obs: self.agent.act(obs, explore=False),
            self.eval_env,
            seed=self.config.eval_seed,
            hold=self.agent.action_repeat,
        )
        self.evaluations.append((self.step, result))

    def best_now(self) -> bool:
        """Whether the latest evaluation is the best: by success, then by return."""
        scores = [(e.success or 0.0, e.return_mean) for _, e in self.evaluations]
        return all(scores[-1] > score for score in scores[:-1])

    def keep(self) -> None:
        """Remember the policy of this moment until it is written."""
        self._best = (self.step, self.agent.deploy_module())

    def write_best(self, folder: RunDir) -> None:
        """Write the policy that was kept last, if it is not written yet; tasks without a robot have none.

        A policy that cannot be exported is a warning: the run and its checkpoint matter more.
        """
        runs = self.agent.action_repeat == 1 and not self.config.task.startswith(GYM_PREFIX)
        if self._best is None or not runs:
            return
        from cadenza.export import ExportError, export_policy

        (step, module), self._best = self._best, None
        try:
            export_policy(self.config, module, step, folder.best)
        except (ExportError, SimulationDiverged) as error:
            warnings.warn(f"no {folder.best} of transition {step}: {error}", stacklevel=3)

    def write_snapshot(self, folder: RunDir) -> None:
        """Write the policy's weights of this moment."""
        path = folder.snapshot(self.step)
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # of a part of the run that is done again
        save_checkpoint(path, {"step": self.step, "weights": torch.from_numpy(self.agent.acting.weights())})

    def cpu_seconds(self) -> float:
        return self._cpu_before + time.process_time() - self._cpu_start

    def speed(self) -> dict[str, float]:
        wall = time.monotonic() - self._wall_start
        return {"steps_per_s": (self.step - self._first_step) / wall, "cpu_seconds": self.cpu_seconds()}

    def figures(self) -> dict[str, float]:
        """What the progress bar shows."""
        out = {}
        if self.meter.last_return is not None:
            out["return"] = self.meter.last_return
        if self.evaluations:
            latest = self.evaluations[-1][1]
            out["eval"] = latest.return_mean
            if latest.success is not None:
                out["success"] = latest.success
        return out

    def state_dict(self) -> dict[str, Any]:
        return {
            "run": {name: getattr(self.config, name) for name in IDENTITY},
            "step": self.step,
            **self.source.state_dict(),
            "agent": self.agent.state_dict(buffer=True),
            "meter": asdict(self.meter),
            "evaluations": [(step, asdict(e)) for step, e in self.evaluations],
            "cpu_seconds": self.cpu_seconds(),
        }

    def load_state_dict(self, state: Mapping[str, Any], source: Path) -> None:
        with _naming(source):
            self.agent.load_state_dict(state["agent"])
            self.source.load_state_dict(state)
        self.step = self._first_step = int(state["step"])
        self.meter = _Meter(**state["meter"])
        self.evaluations = [(step, Evaluation(**e)) for step, e in state["evaluations"]]
        self._cpu_before = float(state["cpu_seconds"])

    def close(self) -> None:
        self.source.close()
        self.eval_env.close()


def _source(
    config: TrainConfig, agent: Algorithm, seed: np.random.SeedSequence, ray_address: str | None
) -> Source:
    """A collector here, or many on Ray."""
    if config.actors is None:
        if ray_address is not None:
            raise ValueError(f"Ray at {ray_address} is for actors: say how many")
        return Collector(make_environments(config, seed), agent.acting)
    from cadenza.actors import Actors
    from cadenza.cluster import RayPool

    return Actors(config, agent, RayPool(ray_address, config.actors, config.sim_threads))


@dataclass
class _Meter:
    """Sums since the last row of training metrics; `envs` counts the environments of all collectors."""

    envs: int
    returns: np.ndarray = field(default=None)  # pyright: ignore[reportAssignmentType]
    lengths: np.ndarray = field(default=None)  # pyright: ignore[reportAssignmentType]
    finished: list[tuple[float, int]] = field(default_factory=list)
    terminated: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    updates: int = 0
    last_return: float | None = None

    def __post_init__(self) -> None:
        if self.returns is None:
            self.returns, self.lengths = np.zeros(self.envs), np.zeros(self.envs, np.int64)

    def add(self, actor: int, step: Step, losses: Sequence[Mapping[str, float]]) -> None:
        k, done = len(step.reward), step.terminated | step.truncated
        returns, lengths = (x[actor * k : (actor + 1) * k] for x in (self.returns, self.lengths))
        returns += step.reward
        lengths += 1
        for i in np.flatnonzero(done):
            self.finished.append((float(returns[i]), int(lengths[i])))
        returns[done], lengths[done] = 0.0, 0
        self.terminated += int(step.terminated.sum())
        for metrics in losses:
            self.updates += 1
            for name, value in metrics.items():
                self.losses[name] = self.losses.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """Means since the last call."""
        out = {name: total / self.updates for name, total in self.losses.items()}
        if self.finished:
            returns, lengths = np.array(self.finished).T
            self.last_return = float(returns.mean())
            out |= {
                "return": self.last_return,
                "length": float(lengths.mean()),
                "episodes": len(self.finished),
                "terminated": self.terminated,
            }
        self.finished, self.terminated, self.losses, self.updates = [], 0, {}, 0
        return out


@contextlib.contextmanager
def _naming(checkpoint: Path) -> Iterator[None]:
    """A state that does not fit is an error of its file."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(checkpoint, f"no {error} in it") from error
    except ValueError as error:
        raise CheckpointError(checkpoint, str(error)) from error


class _Interrupt:
    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def _interruptible() -> Iterator[_Interrupt]:
    """The first Ctrl-C asks for an end with a checkpoint, the second ends at once (main thread only)."""
    interrupt = _Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _flushing(sinks: Sequence[Sink]) -> Iterator[None]:
    try:
        yield
    finally:
        for sink in sinks:
            sink.close()


@contextlib.contextmanager
def _dumping(folder: RunDir, run: _Run) -> Iterator[None]:
    """Save what led to a number that is not finite, and say where it lies."""
    try:
        yield
    except (Fault, TrainingDiverged) as error:
        text = f"{error}, after {run.step} transitions" if isinstance(error, Fault) else str(error)
        if isinstance(error, Fault):
            last = error.dump
        else:
            last = {**run.source.dump(), "batch": vars(run.agent.last_batch)}
        agent = run.agent.state_dict(buffer=True)
        save_checkpoint(folder.dump, {"text": text, "step": run.step, **last, "agent": agent})
        raise Diverged(f"{text}; state, action and agent are in {folder.dump}") from error


def _log(sinks: Sequence[Sink], group: str, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        for sink in sinks:
            sink.scalar(f"{group}/{name}", value, step)


def _flush(sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        sink.flush()
