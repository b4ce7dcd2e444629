"""Recorded vectors of a foreign policy, answered by onnxruntime.

They prove the engine, not the training code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from cadenza.bundle import ParityConfig, parity_observations
from cadenza.importers.graph import ForeignPolicyError, Graph

RTOL = 1e-5
Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def session(graph: Graph) -> Run:
    """onnxruntime on one graph, one thread: inputs by name → outputs by name.

    Raises:
        ForeignPolicyError: onnxruntime refuses the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        inner = ort.InferenceSession(graph.data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions have no common base
        raise ForeignPolicyError(f"{graph.name}: onnxruntime refuses it: {error}") from None
    names = [port.name for port in graph.outputs]

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.asarray(x) for name, x in zip(names, inner.run(names, feeds), strict=True)}

    return run


def source() -> str:
    """What `parity.source` says."""
    import onnxruntime as ort

    return f"onnxruntime {ort.__version__}"


class Replay:
    """The functions `step` and, without inputs, `init` of a manifest, fed as the engine feeds them."""

    def __init__(self, document: Mapping[str, Any], graphs: Mapping[str, Graph]) -> None:
        self.document = document
        step = document["functions"]["step"]
        self.inputs, self.outputs = step["inputs"], step["outputs"]
        self.shapes = {port.name: [d or 1 for d in port.shape] for port in graphs["step"].inputs}
        self.action = next(n for n, b in self.outputs.items() if b in ("action", "actions"))
        self.start = {
            name: np.zeros(carry["shape"], np.float32) for name, carry in document.get("carry", {}).items()
        }
        if "init" in graphs:
            given = session(graphs["init"])({})
            for name, binding in document["functions"]["init"]["outputs"].items():
                self.start[binding.removeprefix("carry.")] = given[name]

    def run(
        self, step: Run, obs: np.ndarray, previous: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Answers `[S, K, …]` and the last value of each state `[S, …]`, each sequence from a reset."""
        answers, last = [], {name: [] for name in self.start}
        for sequence, before in zip(obs, previous, strict=True):
            carry = dict(self.start)
            for row, action in zip(sequence, before, strict=True):
                out = step(self.feeds(row, action, carry))
                answers.append(out[self.action])
                for name, binding in self.outputs.items():
                    if binding.startswith("carry."):
                        carry[binding.removeprefix("carry.")] = out[name]
            for name, value in carry.items():
                last[name].append(value)
        shape = (*obs.shape[:2], *_without_batch(answers[0].shape))
        return np.stack(answers).reshape(shape), {n: np.stack(v) for n, v in last.items()}

    def feeds(
        self, obs: np.ndarray, previous: np.ndarray, carry: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The inputs of one step."""
        row = normalized(self.document, obs)

        def value(binding: str) -> np.ndarray:
            kind, _, name = binding.partition(".")
            match kind:
                case "observation":
                    return row
                case "previous_action":
                    return previous
                case "carry":
                    return carry[name]
                case "source":
                    return row[source_elements(self.document["observation"], name)]
            raise ForeignPolicyError(f"the input binding {binding!r} cannot be replayed at import")

        return {
            name: np.ascontiguousarray(value(binding)).reshape(self.shapes[name])
            for name, binding in self.inputs.items()
        }


def record(
    document: Mapping[str, Any], graphs: Mapping[str, Graph], config: ParityConfig
) -> tuple[dict[str, np.ndarray], float]:
    """The tensors of `parity.safetensors`, and the tolerance that onnxruntime's own rounding justifies.

    Raises:
        ForeignPolicyError: answers that are not finite, or so ill-conditioned that nothing could be proven.
    """
    normalizer = document["normalizer"]
    spread = _spread(normalizer)
    obs = parity_observations(
        document["observation"]["size"], config, mean=np.asarray(normalizer.get("mean") or 0.0), spread=spread
    )
    rng = np.random.default_rng(config.seed + 1)
    previous = rng.standard_normal((*obs.shape[:2], len(document["action"]["joints"]))).astype(np.float32)
    replay = Replay(document, graphs)
    expected, last = replay.run(session(graphs["step"]), obs, previous)
    if not np.isfinite(expected).all():
        raise ForeignPolicyError("the network's output is not finite on the parity observations")
    # The reference is slow and a chunk has many rows: an ordinary and an extreme sequence stand for all.
    some = [0, -1] if expected.ndim > 3 else slice(None)
    double = _double(replay, graphs["step"], obs[some], previous[some])
    error = np.abs(expected[some] - double).max(axis=(0, 1)).reshape(-1)
    atol = max(1e-6, 8.0 * float(error.max()))
    if atol > 1e-3:
        raise ForeignPolicyError(
            f"ill-conditioned network: output {int(error.argmax())} differs by {error.max():.2g} from float64"
        )
    tensors = {"obs": obs, "expected": expected} | {f"carry.{name}": value for name, value in last.items()}
    if "previous_action" in replay.inputs.values():
        tensors["previous_action"] = previous
    return tensors, atol


def _double(replay: Replay, graph: Graph, obs: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """The same answers by ONNX's reference implementation in float64."""
    from onnx.reference import ReferenceEvaluator

    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    single, double = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == single:
                attribute.i = double
    for weight in model.graph.initializer:
        _widen(weight)
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type == single:
            value.type.tensor_type.elem_type = double
    del model.graph.value_info[:]
    evaluator = ReferenceEvaluator(model)
    names = [port.name for port in graph.outputs]

    def step(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        wide = {name: x.astype(np.float64) for name, x in feeds.items()}
        return {name: np.asarray(x) for name, x in zip(names, evaluator.run(names, wide), strict=True)}

    return replay.run(step, obs, previous)[0]


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == onnx.TensorProto.FLOAT:
        wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)
        tensor.CopyFrom(wide)


def normalized(document: Mapping[str, Any], obs: np.ndarray) -> np.ndarray:
    """What the engine makes of an observation before the graph: something only for a `runtime` normaliser."""
    normalizer = document["normalizer"]
    if normalizer["where"] != "runtime":
        return obs
    mean = np.asarray(normalizer["mean"], np.float32)
    clip = np.float32(normalizer.get("clip") or np.inf)
    return np.clip((obs - mean) / np.asarray(_divisor(normalizer), np.float32), -clip, clip)


def _divisor(normalizer: Mapping[str, Any]) -> np.ndarray:
    spread, eps = np.asarray(normalizer["spread"], np.float64), normalizer.get("eps", 0.0)
    root = normalizer.get("form", "sqrt_var_plus_eps") == "sqrt_var_plus_eps"
    return np.sqrt(spread + eps) if root else spread + eps


def _spread(normalizer: Mapping[str, Any]) -> np.ndarray | float:
    return _divisor(normalizer) if normalizer.get("spread") else 1.0


def source_elements(observation: Mapping[str, Any], source: str) -> np.ndarray:
    """Places in the observation of the numbers of `source`, in their order there."""
    terms = observation["terms"]
    frame = sum(term["size"] for term in terms)
    places, before = [], 0
    for term in terms:
        size, length = term["size"], term["history"]["length"]
        by_term = observation["interleave"] == "term"
        if term["source"] == source:
            step = size if by_term else frame
            places += [before + k * step + i for k in range(length) for i in range(size)]
        before += size * length if by_term else size
    return np.array(places, dtype=np.int64)


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
