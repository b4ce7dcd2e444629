"""A foreign ONNX file: opened without trust, its inputs, outputs and normaliser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

# The bundle's own cap for one graph.
GRAPH_CAP = 128 << 20
# What torch's checkpoints begin with: a zip archive, or a pickle of protocol 2 and later.
PICKLE_LIKE = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
INLINE = "python -c \"import onnx; onnx.save(onnx.load('policy.onnx'), 'inline.onnx')\""


class ForeignPolicyError(ValueError):
    """A foreign policy cannot be imported; the text says what to do."""


@dataclass(frozen=True)
class Port:
    """An input or an output; in its shape a symbolic leading dimension is 1, an unknown other one 0."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in it; 0 when the graph does not say."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}"


@dataclass(frozen=True)
class Normalizer:
    """`(x − mean)/(spread + eps)` at the start of a graph; `[n]` each, `eps` already inside `spread`."""

    mean: np.ndarray
    spread: np.ndarray


class Graph:
    """One ONNX graph.

    Args:
        data: the file's bytes.
        name: how messages call it.

    Raises:
        ForeignPolicyError: no ONNX, a torch checkpoint (it is never opened), too large, or weights elsewhere.
    """

    def __init__(self, data: bytes, name: str) -> None:
        if len(data) > GRAPH_CAP:
            raise ForeignPolicyError(f"{name}: {len(data)} bytes, at most {GRAPH_CAP}")
        if data.startswith(PICKLE_LIKE):
            raise ForeignPolicyError(
                f"{name} is a torch checkpoint or another archive: such files run code when they are opened, "
                "so they never are; export the network to ONNX where it was trained"
            )
        try:
            self.model = onnx.load_from_string(data)
        except DecodeError:
            raise ForeignPolicyError(f"{name} is not an ONNX model") from None
        if not self.model.graph.node and not self.model.graph.output:
            raise ForeignPolicyError(f"{name} is not an ONNX model")
        self.data, self.name = data, name
        self._refuse_external_data()

    @classmethod
    def read(cls, path: Path) -> Graph:
        """Reads a file that is no larger than a bundle may hold."""
        if path.stat().st_size > GRAPH_CAP:
            raise ForeignPolicyError(f"{path}: {path.stat().st_size} bytes, at most {GRAPH_CAP}")
        return cls(path.read_bytes(), path.name)

    def _refuse_external_data(self) -> None:
        def tensors(graph: onnx.GraphProto) -> Any:
            yield from graph.initializer
            for node in graph.node:
                for attribute in node.attribute:
                    if attribute.HasField("t"):
                        yield attribute.t
                    if attribute.HasField("g"):
                        yield from tensors(attribute.g)

        for tensor in tensors(self.model.graph):
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise ForeignPolicyError(
                    f"{self.name}: the weights of {tensor.name!r} lie in another file; write them into the "
                    f"graph, in the folder of both:\n  {INLINE}"
                )

    @cached_property
    def metadata(self) -> dict[str, str]:
        """`metadata_props`."""
        return {p.key: p.value for p in self.model.metadata_props}

    @cached_property
    def inputs(self) -> list[Port]:
        """Inputs that are no weights (old files list those as well)."""
        weights = {w.name for w in self.model.graph.initializer}
        return [_port(v) for v in self.model.graph.input if v.name not in weights]

    @cached_property
    def outputs(self) -> list[Port]:
        """Outputs."""
        return [_port(v) for v in self.model.graph.output]

    @property
    def ports(self) -> str:
        """Inputs and outputs with shapes, for messages."""
        return f"inputs {', '.join(map(str, self.inputs))}; outputs {', '.join(map(str, self.outputs))}"

    @property
    def operators(self) -> list[str]:
        """Names of the operators, each once."""
        return sorted({node.op_type for node in self.model.graph.node})

    def input(self, name: str) -> Port | None:
        """The input of that name."""
        return next((p for p in self.inputs if p.name == name), None)

    def output(self, name: str) -> Port | None:
        """The output of that name."""
        return next((p for p in self.outputs if p.name == name), None)

    def constants(self) -> dict[str, np.ndarray]:
        """Weights and `Constant` nodes by name."""
        found = {w.name: numpy_helper.to_array(w) for w in self.model.graph.initializer}
        for node in self.model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        return found

    def normalizer(self, name: str) -> Normalizer | None:
        """The normaliser that input `name` runs through first: `Sub` of a row, then `Div` by a row."""
        graph, constants, size = self.model.graph, self.constants(), getattr(self.input(name), "size", 0)

        def row(value: str) -> np.ndarray | None:
            for node in graph.node:  # the divisor may still be `std + eps`
                if node.op_type == "Add" and node.output[0] == value and len(node.input) == 2:
                    a, b = (constants.get(x) for x in node.input)
                    return None if a is None or b is None else np.broadcast_to(a + b, (1, size)).reshape(-1)
            found = constants.get(value)
            return found.reshape(-1) if found is not None and found.size == size else None

        for sub in graph.node:
            if sub.op_type != "Sub" or sub.input[0] != name:
                continue
            mean = row(sub.input[1])
            for div in graph.node:
                if div.op_type == "Div" and div.input[0] == sub.output[0] and mean is not None:
                    spread = row(div.input[1])
                    if spread is not None:
                        return Normalizer(mean.astype(np.float64), spread.astype(np.float64))
        return None

    def squashes(self, name: str) -> bool:
        """Whether output `name` comes straight out of a `Tanh`."""
        return any(node.op_type == "Tanh" and name in node.output for node in self.model.graph.node)


def _port(value: onnx.ValueInfoProto) -> Port:
    dims = value.type.tensor_type.shape.dim
    shape = [d.dim_value if d.HasField("dim_value") else 0 for d in dims]
    if len(shape) > 1 and shape[0] == 0:
        shape[0] = 1  # a batch: the bundle runs one
    return Port(value.name, tuple(shape))
