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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
from cadenza.quantize import emulate
from cadenza.recording import Function, PolicyIO, Recorder, Recording

if TYPE_CHECKING:
    from cadenza.tasks.task import Moment, Task
    from cadenza.train_config import TrainConfig

__all__ = [
    "ExportError",
    "ExportReport",
    "Function",
    "ParityConfig",
    "PolicyIO",
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
    io: PolicyIO | None = None,
    init: torch.nn.Module | None = None,
    functions: Mapping[str, Function] | None = None,
    specification: str | None = None,
    scene: str | None = None,
    weights: str = "f32",
    quantization_limit: float = 0.01,
    parity: ParityConfig | None = None,
    frames: SensorFrames | None = None,
    provenance: dict[str, Any] | None = None,
) -> ExportReport:
    """Writes `step`, and whatever belongs to it, as the bundle `path`.

    `manifest` says what the numbers mean (rates, joints, frames, observation, action, commands, monitors:
    the form of the manifest without `files`, `functions`, `carry` and `parity`). The bundle is written to a
    temporary file, read back, its vectors are replayed by the engine, and only then it takes its name: a
    failure leaves no file. With `frames` the bundle carries observations of training with their sensors, so
    that the runtime can prove that it builds the one from the other.

    Args:
        path: the bundle.
        step: the network of one policy step, float32.
        manifest: see above.
        io: what the arguments and results of `step` and `init` are; `[1, obs] → [1, action]` when absent.
        init: gives the first recurrent states.
        functions: networks beside `step`, by name: `critic`, `model`, `fallback`.
        specification: text of `spec.stl`.
        scene: MJCF of what stood around the robot in training, carried as `x-scene.xml`.
        weights: `f32`, or `int8`: the engine then computes with 8-bit weights, and the recorded vectors are
            those of the rounded network.
        quantization_limit: largest error of 8-bit weights, as a share of an action's half-range.
        parity: how many vectors are recorded, and from what.
        frames: observations of training with the sensors that they were made of.
        provenance: replaces what is found out by itself.

    Raises:
        ExportError: the network is ill-conditioned, its shapes or bindings disagree with the manifest, or
            8-bit weights change an action too much.
        _native.BundleError: the manifest or the graph is refused; the text names key and value.
    """
    path, io, parity = Path(path), io or PolicyIO(), parity or ParityConfig()
    if weights not in ("f32", "int8"):
        raise ExportError(f"weights {weights!r} are not known: f32, int8")
    step, init = _ready(step), None if init is None else _ready(init)
    beside = {name: replace(f, module=_ready(f.module)) for name, f in (functions or {}).items()}
    obs = parity_observations(manifest["observation"]["size"], parity)
    if frames is not None:
        obs = np.concatenate([frames.obs, obs])
    noise = np.random.default_rng(parity.seed + 1).standard_normal((*obs.shape[:2], io.noise))
    recorder = Recorder(io, manifest, obs, noise.astype(np.float32))
    drawn = {name: f.draw(parity.steps, parity.seed) for name, f in beside.items()}
    try:
        entries, described = _graphs(recorder, step, init, beside, drawn, metadata_props(manifest))
        error = 0.0
        if weights == "int8":
            plain = recorder.play(step, init)
            for name, module in {"step": step, "init": init}.items():
                if module is not None:
                    emulate(module, onnx.load_from_string(entries[f"{name}.onnx"]))
            for name, function in beside.items():
                emulate(function.module, onnx.load_from_string(entries[f"{name}.onnx"]))
            error = _quantization_error(recorder, plain, step, init, quantization_limit)
        tensors, atol = _tensors(recorder, step, init, beside, drawn)
    except ExportError:
        raise
    except ValueError as refused:
        raise ExportError(str(refused)) from refused
    document = {
        **manifest,
        "format": 1,
        "functions": described,
        "carry": io.manifest(),
        "weights": weights,
        "parity": {
            "file": "parity.safetensors",
            "source": f"torch {torch.__version__.split('+')[0]}",
            "atol": atol,
            "rtol": 1e-5,
            "measured": 0.0,
            "quantization_error": error,
        },
        "provenance": provenance_here() | {"torch": torch.__version__} | (provenance or {}),
    }
    if specification is not None:
        entries["spec.stl"] = specification.encode()
    if scene is not None:
        entries["x-scene.xml"] = scene.encode()
    if frames is not None:
        tensors |= {f"frame.{name}": values for name, values in frames.sensors.items()}
    graphs = [onnx.load_from_string(entries[f["file"]]).graph for f in described.values()]
    report = write_proven(path, document, entries, tensors)
    operators = {node.op_type for graph in graphs for node in graph.node}
    return replace(report, quantization_error=error, operators=sorted(operators))


def _ready(module: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(module).cpu().eval()


# What graphs call the tensors that every policy has.
NAMES = {"observation": "obs", "previous_action": "previous"}


def _graphs(
    recorder: Recorder,
    step: torch.nn.Module,
    init: torch.nn.Module | None,
    beside: Mapping[str, Function],
    drawn: Mapping[str, Mapping[str, np.ndarray]],
    metadata: dict[str, str],
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The graph of each function by file name, and the manifest's `functions`."""
    io = recorder.io
    functions = {"step": (step, io.inputs, io.outputs, recorder.example(io.inputs), 1)}
    if init is not None:
        example = recorder.example(io.init_inputs)
        functions["init"] = (init, io.init_inputs, io.init_outputs, example, 1)
    for name, f in beside.items():
        example = [x[0] for x in drawn[name].values()]
        functions[name] = (f.module, tuple(f.inputs), f.outputs, example, f.batch)
    entries, described = {}, {}
    for name, (module, inputs, outputs, example, batch) in functions.items():
        taken = [NAMES.get(b, b.removeprefix("carry.").replace(".", "_")) for b in inputs]
        given = [NAMES.get(b, b.removeprefix("carry.").replace(".", "_")) for b in outputs]
        # A recurrent state is an input and an output.
        taken = [f"{n}_in" if b.startswith("carry.") else n for n, b in zip(taken, inputs, strict=True)]
        given = [f"{n}_out" if b.startswith("carry.") else n for n, b in zip(given, outputs, strict=True)]
        file = f"{name}.onnx"
        entries[file] = to_onnx(
            module, example, metadata if name == "step" else None, inputs=taken, outputs=given
        )
        described[name] = {
            "file": file,
            "batch": batch,
            "inputs": dict(zip(taken, inputs, strict=True)),
            "outputs": dict(zip(given, outputs, strict=True)),
        }
    return entries, described


def to_onnx(
    module: torch.nn.Module,
    example: np.ndarray | Sequence[np.ndarray],
    metadata: dict[str, str] | None = None,
    *,
    inputs: Sequence[str] = ("obs",),
    outputs: Sequence[str] = ("action",),
) -> bytes:
    """The ONNX graph of `module` with inputs like `example`, weights inline."""
    arrays = [example] if isinstance(example, np.ndarray) else example
    with _quiet():
        program = torch.onnx.export(
            module,
            tuple(torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in arrays),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
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


def _tensors(
    recorder: Recorder,
    step: torch.nn.Module,
    init: torch.nn.Module | None,
    beside: Mapping[str, Function],
    drawn: Mapping[str, Mapping[str, np.ndarray]],
) -> tuple[dict[str, np.ndarray], float]:
    """What torch answers in float32, and the tolerance that its own rounding justifies."""

    def double(module: torch.nn.Module) -> torch.nn.Module:
        return copy.deepcopy(module).double()

    single = recorder.play(step, init)
    exact = recorder.play(
        double(step), None if init is None else double(init), torch.float64, single.previous
    )
    if not all(np.isfinite(x).all() for x in (exact.expected, *exact.carry.values())):
        raise ExportError("the network's output is not finite on the parity observations")
    error = single.difference(exact)
    worst = int(error.argmax())
    largest = float(error[worst])
    tensors = {
        "obs": recorder.obs,
        "expected": single.expected,
        **{f"carry.{name}": value for name, value in single.carry.items()},
    }
    if "previous_action" in (*recorder.io.inputs, *recorder.io.init_inputs):
        tensors["previous_action"] = single.previous
    if "time" in (*recorder.io.inputs, *recorder.io.init_inputs):
        tensors["time"] = recorder.time()
    if recorder.io.noise:
        tensors["noise"] = recorder.noise
    for name, f in beside.items():
        answers = f.answers(drawn[name], torch.float32)
        exactly = replace(f, module=double(f.module)).answers(drawn[name], torch.float64)
        largest = max([largest, *(float(np.abs(answers[b] - exactly[b]).max()) for b in answers)])
        for binding, value in {**drawn[name], **answers}.items():
            tensors[f"{name}.{NAMES.get(binding, binding)}"] = value
    atol = max(1e-6, 8.0 * largest)
    if atol > 1e-3:
        raise ExportError(f"ill-conditioned network: output {worst} differs by {largest:.2g} from float64")
    return {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}, atol


def _quantization_error(
    recorder: Recorder,
    plain: Recording,
    step: torch.nn.Module,
    init: torch.nn.Module | None,
    limit: float,
) -> float:
    """Largest change of an action by 8-bit weights over all vectors, graph units.

    Raises:
        ExportError: it exceeds `limit` times the action's half-range: that of `raw_clip`, 1 behind a squash,
            or else what the vectors cover.
    """
    joints = plain.expected.shape[-1]
    error = recorder.play(step, init, previous=plain.previous).difference(plain)[:joints]
    answers = plain.expected.reshape(-1, joints)
    half = (answers.max(axis=0) - answers.min(axis=0)) / 2.0
    if clip := recorder.manifest["action"].get("raw_clip"):
        half[:] = (clip[1] - clip[0]) / 2.0
    elif recorder.manifest["in_graph"]["squash"]:
        half[:] = 1.0
    worst = int((error - limit * half).argmax())
    if error[worst] > limit * half[worst]:
        name = recorder.manifest["action"]["joints"][worst]
        raise ExportError(
            f"int8 changes the action of {name!r} by {error[worst]:.3g}, more than {limit:.1%} of its "
            f"half-range {half[worst]:.3g}; export f32, or give a larger quantization_limit"
        )
    return float(error.max())


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
    from cadenza.train import load_agent

    config, agent, steps = load_agent(run_dir)
    if agent.action_repeat > 1:
        raise ExportError(
            f"action_repeat {agent.action_repeat}: the runtime decides at every tick of the policy; train at "
            "a lower policy rate instead"
        )
    return export_policy(config, agent.deploy_module(), steps, path)


def export_policy(config: TrainConfig, module: torch.nn.Module, steps: int, path: str | Path) -> ExportReport:
    """Writes a policy with what its task declares.

    Args:
        config: settings of the run that it comes from.
        module: noise-free policy, `[rows, n_s]` to `[rows, n_a]` in graph units.
        steps: transitions that it was trained for.
        path: the bundle.

    Raises:
        ValueError: a task without a robot.
    """
    from cadenza.tasks import GYM_PREFIX, make, make_task

    if config.task.startswith(GYM_PREFIX):
        raise ExportError(
            f"{config.task} has no robot: a bundle needs joints and limits; export its graph with --onnx"
        )
    module = _ready(module)

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(obs)).numpy()

    task = make_task(config.task)
    env = make(config.task, 16, seed=config.eval_seed + 1, domain=config.domain)
    seen = [env.reset()]
    for _ in range(int(env.episode_steps or 100)):
        seen.append(env.step(act(seen[-1])).obs)
    env.close()
    manifest = task.manifest()
    parity = ParityConfig(seed=config.seed, rollout=np.concatenate(seen))
    frames = record_frames(task, act, parity.steps, config.eval_seed + 2)
    return export(
        path,
        module,
        manifest=manifest | {"in_graph": manifest["in_graph"] | {"squash": True}},
        specification=task.spec() or None,
        scene=task.scene,
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


def record_frames(task: Task, act: Callable[[np.ndarray], np.ndarray], steps: int, seed: int) -> SensorFrames:
    """Two sequences of a policy's observations in simulation, with their sensors.

    Raises:
        ExportError: the runtime builds other observations from these sensors than training did, or an episode
            ends within `steps`.
    """
    from cadenza import _native
    from cadenza.sim.env import RobotEnvironment

    # sensors of a fall are as good as others: an episode that ends by itself goes on
    env = RobotEnvironment(cast("Task", _Unending(task)), 2, seed=seed)
    obs, sensors = [env.reset()], [env.sensors()]
    for _ in range(steps - 1):
        step = env.step(act(obs[-1]))
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


class _Unending:
    """A task whose episodes end by their length only."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def terminated(self, now: Moment) -> np.ndarray:
        return np.zeros(len(now.q), bool)


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
