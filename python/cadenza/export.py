"""Writes a trained network and everything a robot must know about it into one `.cadenza` bundle.

The graph is the plain network (ONNX, opset 18): normaliser as a step of its own, nothing folded, no action
scale. The bundle also carries recorded input → output vectors; the runtime replays them before it moves
anything.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from cadenza.bundle import (
    ExportError,
    ExportReport,
    ParityConfig,
    SensorFrames,
    parity_observations,
    write_proven,
)
from cadenza.bundle import provenance as provenance_here
from cadenza.metadata import metadata_props

if TYPE_CHECKING:
    from cadenza.algos import Algorithm
    from cadenza.tasks.task import Task

__all__ = [
    "ExportError",
    "ExportReport",
    "ParityConfig",
    "SensorFrames",
    "export",
    "export_onnx",
    "export_run",
    "parity_observations",
    "to_onnx",
]

OPSET = 18
# As the runtime's own (rust/runtime/src/observe/frames.rs).
FRAME_TOLERANCE = 1e-4


def export(
    path: str | Path,
    step: torch.nn.Module,
    *,
    manifest: dict[str, Any],
    specification: str | None = None,
    parity: ParityConfig | None = None,
    frames: SensorFrames | None = None,
    provenance: dict[str, Any] | None = None,
) -> ExportReport:
    """Writes `step` (`[1, obs] → [1, action]`, float32) as the bundle `path`.

    `manifest` says what the numbers mean (rates, joints, frames, observation, action, commands, monitors:
    the form of the manifest without `files`, `functions` and `parity`). The bundle is written to a temporary
    file, read back, its vectors are replayed by the engine, and only then it takes its name: a failure leaves
    no file. With `frames` the bundle carries observations of training with their sensors, so that the runtime
    can prove that it builds the one from the other.

    Raises:
        ExportError: the network is ill-conditioned, or its shapes disagree with the manifest.
        _native.BundleError: the manifest or the graph is refused; the text names key and value.
    """
    parity = parity or ParityConfig()
    step = copy.deepcopy(step).cpu().eval()
    obs = parity_observations(manifest["observation"]["size"], parity)
    if frames is not None:
        obs = np.concatenate([frames.obs, obs])
    expected, atol = _expected(step, obs, len(manifest["action"]["joints"]))
    graph = to_onnx(step, obs[0, :1], metadata=metadata_props(manifest))
    document = {
        **manifest,
        "format": 1,
        "functions": {
            "step": {
                "file": "step.onnx",
                "batch": 1,
                "inputs": {"obs": "observation"},
                "outputs": {"action": "action"},
            }
        },
        "parity": {
            "file": "parity.safetensors",
            "source": f"torch {torch.__version__.split('+')[0]}",
            "atol": atol,
            "rtol": 1e-5,
            "measured": 0.0,
        },
        "provenance": provenance_here() | {"torch": torch.__version__} | (provenance or {}),
    }
    entries = {"step.onnx": graph}
    if specification is not None:
        entries["spec.stl"] = specification.encode()
    tensors = {"obs": obs, "expected": expected}
    if frames is not None:
        tensors |= {f"frame.{name}": values for name, values in frames.sensors.items()}
    report = write_proven(path, document, entries, tensors)
    operators = {node.op_type for node in onnx.load_from_string(graph).graph.node}
    return replace(report, operators=sorted(operators))


def to_onnx(module: torch.nn.Module, example: np.ndarray, metadata: dict[str, str] | None = None) -> bytes:
    """The ONNX graph of `module`: input `obs` like `example` `[1, obs]`, output `action`, weights inline."""
    with _quiet():
        program = torch.onnx.export(
            module,
            (torch.from_numpy(example),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["obs"],
            output_names=["action"],
            external_data=False,
            verbose=False,
        )
        assert program is not None
        model = copy.deepcopy(program.model_proto)
    del model.metadata_props[:]
    for node in model.graph.node:
        # Stack traces of the exporting machine: paths do not belong into a bundle.
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    for key, text in (metadata or {}).items():
        model.metadata_props.add(key=key, value=text)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _expected(step: torch.nn.Module, obs: np.ndarray, actions: int) -> tuple[np.ndarray, float]:
    """What torch answers in float32, and the tolerance that its own rounding justifies."""
    flat = torch.from_numpy(obs.reshape(-1, obs.shape[-1]))
    with torch.inference_mode():
        single = step(flat)
        double = copy.deepcopy(step).double()(flat.double())
    if single.shape != (len(flat), actions):
        raise ExportError(
            f"the network gives {tuple(single.shape)} for {len(flat)} observations, "
            f"the manifest has {actions} actions"
        )
    if not bool(torch.isfinite(double).all()):
        raise ExportError("the network's output is not finite on the parity observations")
    error = (single.double() - double).abs()
    atol = max(1e-6, 8.0 * float(error.max()))
    if atol > 1e-3:
        worst = int(error.max(dim=0).values.argmax())
        raise ExportError(
            f"ill-conditioned network: output {worst} differs by {float(error.max()):.2g} from float64"
        )
    return np.ascontiguousarray(single.numpy()).reshape(*obs.shape[:2], actions), atol


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch's exporter from printing its progress and what else it could have exported."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def export_run(run_dir: str | Path, path: str | Path) -> ExportReport:
    """Writes the trained policy of a run as the bundle `path`; half of its vectors are observations of it.

    Raises:
        ValueError: no run, or a task without a robot.
    """
    from cadenza.tasks import GYM_PREFIX, make, make_task
    from cadenza.train import load_agent

    config, agent, steps = load_agent(run_dir)
    if config.task.startswith(GYM_PREFIX):
        raise ExportError(
            f"{config.task} has no robot: a bundle needs joints and limits; export its graph with --onnx"
        )
    task = make_task(config.task)
    env = make(config.task, 16, seed=config.eval_seed + 1)
    seen = [env.reset()]
    for _ in range(int(env.episode_steps or 100)):
        seen.append(env.step(agent.act(seen[-1], explore=False)).obs)
    env.close()
    manifest = task.manifest()
    parity = ParityConfig(seed=config.seed, rollout=np.concatenate(seen))
    frames = record_frames(task, agent, parity.steps, config.eval_seed + 2)
    return export(
        path,
        agent.deploy_module(),
        manifest=manifest | {"in_graph": manifest["in_graph"] | {"squash": True}},
        specification=task.spec() or None,
        parity=parity,
        frames=frames,
        provenance={
            "algorithm": config.algorithm,
            "environment": config.task,
            "seed": config.seed,
            "steps": steps,
            "mujoco": _version("mujoco"),
        },
    )


def record_frames(task: Task, agent: Algorithm, steps: int, seed: int) -> SensorFrames:
    """Two sequences of a policy's observations in simulation, with their sensors.

    Raises:
        ExportError: the runtime builds other observations from these sensors than training did, or an episode
            ends within `steps`.
    """
    from cadenza import _native
    from cadenza.sim.env import RobotEnvironment

    env = RobotEnvironment(task, 2, seed=seed)
    obs, sensors = [env.reset()], [env.sensors()]
    for _ in range(steps - 1):
        step = env.step(agent.act(obs[-1], explore=False))
        if (step.terminated | step.truncated).any():
            raise ExportError(f"an episode of {task.name} ends within {steps} steps")
        obs.append(step.obs)
        sensors.append(env.sensors())
    env.close()
    frames = SensorFrames(
        np.stack(obs, axis=1), {name: np.stack([s[name] for s in sensors], axis=1) for name in sensors[0]}
    )
    rebuilt = _native.observe_frames(json.dumps(task.manifest()), task.robot.native, dict(frames.sensors))
    difference = np.abs(rebuilt - frames.obs) / np.maximum(1.0, np.abs(frames.obs))
    if difference.max() > FRAME_TOLERANCE:
        where = [int(i) for i in np.unravel_index(difference.argmax(), difference.shape)]
        raise ExportError(f"the runtime's observation differs by {difference.max():.2g} at {where}")
    return frames


def export_onnx(run_dir: str | Path, path: str | Path) -> Path:
    """Writes the graph of a run's policy alone, for any ONNX tool; it ends at the normalised action."""
    from cadenza.train import load_agent

    _, agent, _ = load_agent(run_dir)
    module = agent.deploy_module().eval()
    size = next(p for p in module.parameters() if p.ndim == 2).shape[1]
    path = Path(path)
    path.write_bytes(to_onnx(module, np.zeros((1, size), np.float32)))
    return path


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
