"""One operator as a small ONNX graph, with float64 answers and the error that 32-bit floats may add."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

U = 2.0**-24
OPSETS = range(11, 25)


@dataclass
class Case:
    """A graph with float inputs and outputs `y0`, `y1`, …; `bounds[i]` says how far output i may be off."""

    opset: int
    nodes: list[onnx.NodeProto]
    inputs: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    expected: list[np.ndarray]
    bounds: list[Any] = field(default_factory=lambda: [0.0])
    # Whether onnxruntime has it, and whether onnx's checker accepts it.
    oracle: bool = True
    valid: bool = True

    def model(self) -> bytes:
        """The graph as an ONNX file that passes the checker."""
        floats = TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "case",
            [helper.make_tensor_value_info(n, floats, x.shape) for n, x in self.inputs.items()],
            [helper.make_tensor_value_info(f"y{i}", floats, y.shape) for i, y in enumerate(self.expected)],
            [numpy_helper.from_array(x, n) for n, x in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        if self.valid:
            onnx.checker.check_model(model)
        return model.SerializeToString()


Generator = Callable[[np.random.Generator, str, int], Case]
CASES: dict[str, Generator] = {}


def cases(*operators: str) -> Callable[[Generator], Generator]:
    """Registers a generator of random cases for some operators."""

    def register(generator: Generator) -> Generator:
        for op in operators:
            assert op not in CASES, op
            CASES[op] = generator
        return generator

    return register


def gamma(n: int) -> float:
    """Relative error of a sum of n terms, times the 4 that §11.1 allows."""
    return 4 * n * U / (1 - n * U)


def shape(rng: np.random.Generator, low: int = 1, high: int = 4) -> tuple[int, ...]:
    return tuple(int(d) for d in rng.integers(1, 6, rng.integers(low, high + 1)))


def floats(rng: np.random.Generator, size: Sequence[int], scale: float = 3.0) -> np.ndarray:
    return rng.uniform(-scale, scale, size).astype(np.float32)


def wide(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def ints(values: Any) -> np.ndarray:
    return np.asarray(values, np.int64)


def narrowed(rng: np.random.Generator, full: Sequence[int]) -> tuple[int, ...]:
    """A shape that broadcasts to `full`."""
    kept = list(full)[int(rng.integers(0, len(full) + 1)) :]
    return tuple(1 if rng.random() < 0.3 else d for d in kept)


def operands(
    rng: np.random.Generator, count: int, scale: float = 3.0
) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """`count` float arrays that broadcast; one or more are inputs, the others constants."""
    full = shape(rng)
    arrays = [floats(rng, narrowed(rng, full), scale) for _ in range(count)]
    first = int(rng.integers(count))
    arrays[first] = floats(rng, full, scale)
    names = [f"v{i}" for i in range(count)]
    variable = [i == first or bool(rng.random() < 0.5) for i in range(count)]
    inputs = {n: x for n, x, v in zip(names, arrays, variable, strict=True) if v}
    constants = {n: x for n, x, v in zip(names, arrays, variable, strict=True) if not v}
    return arrays, inputs, constants, names


def node(
    op: str, inputs: Sequence[str], outputs: Sequence[str] = ("y0",), **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def to_float(name: str, output: str = "y0") -> onnx.NodeProto:
    return node("Cast", [name], [output], to=TensorProto.FLOAT)


def folded(
    rng: np.random.Generator,
    opset: int,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    value: np.ndarray,
) -> Case:
    """A case whose constant `c` must fold; it is added to an input, which adds one rounding."""
    x = floats(rng, (1,))
    value = wide(value)
    nodes = [*nodes, to_float("c", "f"), node("Add", ["x", "f"])]
    answer = wide(x) + value
    return Case(opset, nodes, {"x": x}, constants, [answer], [4 * U * (np.abs(x) + np.abs(value))])
