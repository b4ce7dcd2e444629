"""ONNX files written field by field: no library would write these."""

import struct
from collections.abc import Sequence


def varint(x: int) -> bytes:
    x &= (1 << 64) - 1
    out = bytearray()
    while x >= 0x80:
        out.append(x & 0x7F | 0x80)
        x >>= 7
    out.append(x)
    return bytes(out)


def number(tag: int, x: int) -> bytes:
    return varint(tag << 3) + varint(x)


def text(tag: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(tag << 3 | 2) + varint(len(data)) + data


def tensor(name: str, shape: list[int], data: list[float], *, more: bytes = b"") -> bytes:
    raw = b"".join(struct.pack("<f", x) for x in data)
    return b"".join(number(1, d) for d in shape) + number(2, 1) + text(8, name) + text(9, raw) + more


def ints(name: str, data: list[int]) -> bytes:
    raw = b"".join(struct.pack("<q", x) for x in data)
    return number(1, len(data)) + number(2, 7) + text(8, name) + text(9, raw)


def port(name: str, shape: list[int]) -> bytes:
    dims = b"".join(text(1, number(1, d)) for d in shape)
    return text(1, name) + text(2, text(1, number(1, 1) + text(2, dims)))


def attribute(name: str, kind: int, value: bytes) -> bytes:
    return text(1, name) + value + number(20, kind)


def node(op: str, inputs: str, outputs: str, *attributes: bytes, domain: str = "") -> bytes:
    body = b"".join(text(1, i) for i in inputs.split()) + b"".join(text(2, o) for o in outputs.split())
    body += text(4, op) + b"".join(text(5, a) for a in attributes)
    return body + (text(7, domain) if domain else b"")


def model(
    nodes: Sequence[bytes], constants: Sequence[bytes] = (), *, shape=(1, 2), opset=18, more: bytes = b""
) -> bytes:
    """A graph `obs` → `action`."""
    graph = b"".join(text(1, n) for n in nodes) + b"".join(text(5, c) for c in constants)
    graph += text(11, port("obs", list(shape))) + text(12, port("action", []))
    return text(7, graph) + text(8, number(2, opset)) + more


W = tensor("w", [2, 1], [0.5, -0.25])
STEP = model([node("MatMul", "obs w", "action")], [W])
