"""Emulates 8-bit weights in torch, so that recorded vectors hold what the engine will compute (policy.md §5).

For each output o of a matrix, `s = max|W_o|/127` (1 for a row of zeros) and `q = rint(W_o/s)`, half to even;
the engine computes with `s·q`. Biases, norms and the last matrices (those after which no other product comes)
stay float32.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator

# What multiplies by weights or mixes computed tensors: a matrix before one of these is not the last.
PRODUCTS = {"Gemm", "MatMul", "GRU", "LSTM", "Conv", "ConvTranspose", "Attention"}
# What exporters leave between a parameter and its use.
MOVES = {"Constant", "Concat", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


def rounded(rows: np.ndarray) -> np.ndarray:
    """The float32 values `[out, in]` that the 8-bit weights of `rows` stand for."""
    top = np.abs(rows.astype(np.float64)).max(axis=-1, keepdims=True)
    scale = (top / 127.0).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1.0
    q = np.clip(np.rint(rows.astype(np.float64) / scale), -127, 127).astype(np.float32)
    return q * scale


def matrices(model: onnx.ModelProto) -> list[tuple[str, np.ndarray]]:
    """The matrices that are quantised, `[out, in]` in float32, each with the name of its tensor."""
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    computed = []
    for node in model.graph.node:
        if node.op_type in MOVES and all(name in constants for name in node.input if name):
            feed = {name: constants[name] for name in node.input if name}
            evaluator = ReferenceEvaluator(node)  # pyright: ignore[reportArgumentType]
            answers: Any = evaluator.run(None, feed)
            constants.update(zip(node.output, answers, strict=True))
        else:
            computed.append(node)
    found, followed = [], set()
    for node in reversed(computed):
        if any(name in followed for name in node.output):
            found += [
                (name, constants[name] if rows else constants[name].T)
                for name, rows in _operands(node)
                if name in constants and constants[name].ndim >= 2
            ]
        elif node.op_type not in PRODUCTS:
            continue
        followed.update(name for name in node.input if name)
    return [(name, rows.reshape(-1, rows.shape[-1])) for name, rows in found]


def _operands(node: onnx.NodeProto) -> list[tuple[str, bool]]:
    """Matrix operands of a node, and whether a row belongs to an output."""
    if node.op_type in ("GRU", "LSTM"):
        return [(node.input[1], True), (node.input[2], True)]
    if node.op_type == "Gemm":
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        return [(node.input[1], transposed)]
    if node.op_type == "MatMul":
        return [(node.input[1], False), (node.input[0], True)]
    return []


def emulate(module: torch.nn.Module, model: onnx.ModelProto) -> None:
    """Rounds the weights of `module` in place to what 8 bits keep of them; `model` is its graph.

    Raises:
        ValueError: a matrix of the graph is no parameter or buffer of the module.
    """
    places: dict[bytes, list[np.ndarray]] = defaultdict(list)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 2 and tensor.dtype == torch.float32:
            # views: what is written into them is written into the module
            array = tensor.detach().numpy()
            for rows in (array, array.T):
                for row in rows:
                    places[row.tobytes()].append(row)
    pending = []
    for name, rows in matrices(model):
        for row, values in zip(rows, rounded(rows), strict=True):
            targets = places.get(np.ascontiguousarray(row).tobytes())
            if targets is None:
                raise ValueError(f"int8: the matrix {name!r} of the graph is no parameter of the module")
            pending += [(target, values) for target in targets]
    for target, values in pending:
        target[...] = values
