"""Writes a file for each trick that a bundle may try; `rust/policy/tests/attacks.rs` says how it is refused.

python rust/policy/attacks/make.py [FOLDER]        the same bytes every time, no dependency
"""

import copy
import hashlib
import json
import struct
import sys
import zlib
from pathlib import Path

from archive import Entry, archive
from network import STEP, W, attribute, ints, model, node, number, tensor, text, varint

MANIFEST = {
    "format": 1,
    "name": "attack",
    "files": {},
    "robot": {"name": "bench", "model_sha256": None},
    "rates": {"policy_dt": 0.02, "control_dt": 0.002, "physics_dt": None},
    "joints": [
        {
            "name": "hip",
            "default": 0.1,
            "kp": 20.0,
            "kd": 0.5,
            "position": [-2.0, 2.0],
            "velocity_max": 10.0,
            "effort_max": None,
        }
    ],
    "observation": {
        "size": 2,
        "interleave": "term",
        "terms": [{"name": "all", "source": "x-lab", "size": 2}],
    },
    "normalizer": {"where": "none"},
    "action": {"kind": "position", "joints": ["hip"], "scale": {"*": 0.25}, "offset": "default"},
    "chunk": {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"},
    "functions": {
        "step": {
            "file": "step.onnx",
            "batch": 1,
            "inputs": {"obs": "observation"},
            "outputs": {"action": "action"},
        }
    },
    "in_graph": {"normalize": False, "squash": False, "action_scale": False, "action_offset": False},
    "weights": "f32",
    "provenance": {"cadenza": "0.1.0"},
}

PARITY = {"file": "parity.safetensors", "source": "none", "atol": 1e-6, "rtol": 1e-5, "measured": 0.0}


def put(tree: dict, path: str, value) -> dict:
    """The tree with the value at `path`; keys separated by slashes."""
    tree = copy.deepcopy(tree)
    *parents, key = path.split("/")
    at = tree
    for parent in parents:
        at = at[int(parent) if isinstance(at, list) else parent]
    at[int(key) if isinstance(at, list) else key] = value
    return tree


def parts(manifest=MANIFEST, edit=lambda text: text, **files: bytes) -> list[Entry]:
    """Entries of a bundle around a manifest: `edit` changes its text, `files` are further entries."""
    names = {"step": "step.onnx", "parity": "parity.safetensors", "spec": "spec.stl", "note": "x-note"}
    data = {names[key]: value for key, value in ({"step": STEP} | files).items()}
    listed = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in data.items()}
    manifest = manifest | {"files": listed | manifest["files"]}
    line = edit(json.dumps(manifest)).encode("utf-8", "surrogatepass")
    return [Entry(b"manifest.json", line)] + [Entry(n.encode(), d) for n, d in data.items()]


def bundle(manifest=MANIFEST, edit=lambda text: text, **files: bytes) -> bytes:
    return archive(parts(manifest, edit, **files))


def changed(path: str, value) -> bytes:
    return bundle(put(MANIFEST, path, value))


def replaced(old: str, new: str) -> bytes:
    def edit(line: str) -> str:
        assert old in line, old
        return line.replace(old, new, 1)

    return bundle(edit=edit)


def graph(*args, **kwargs) -> bytes:
    return bundle(step=model(*args, **kwargs))


def one(index: int, **change) -> list[Entry]:
    """The honest entries, with header fields of one of them changed."""
    entries = parts(note=b"note")
    for key, value in change.items():
        setattr(entries[index], key, value)
    return entries


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def archives() -> dict[str, bytes]:
    honest = archive(parts(note=b"note"))
    zeros = bytes(1 << 20)
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeezed.compress(zeros) + squeezed.flush()
    bombed = {"method": 8, "size": len(zeros), "crc": zlib.crc32(zeros)}
    inner = archive([Entry(b"x-inner", b"hidden")])
    twice = one(2)
    twice.append(copy.deepcopy(twice[2]))
    same = one(2, central={"offset": 0})
    zip64 = struct.pack("<HHQQ", 1, 16, 4, 4)
    wide = {"compressed": 0xFFFFFFFF, "size": 0xFFFFFFFF}
    many = [Entry(b"x-%03d" % i, b"", pad=b"") for i in range(257)]
    # Only the local headers: the reader gives up before it comes to the directory.
    local = archive(many)[: 257 * (30 + 5)]
    return {
        "absolute-name": archive([Entry(b"/etc/passwd", b"")]),
        "backslash-name": archive([Entry(b"..\\evil", b"")]),
        "traversal-name": archive([Entry(b"../../etc/cron.d/evil", b"* * * * * root reboot")]),
        "nul-in-name": archive([Entry(b"x-a\0.onnx", b"")]),
        "long-name": archive([Entry(b"x-" + b"a" * 63, b"")]),
        "name-that-is-no-text": archive([Entry(b"x-\xff\xfe", b"")]),
        "deflate-bomb": archive([Entry(b"x-bomb", bomb, local=bombed, central=bombed)]),
        "claims-4-gigabytes": archive(one(0, local={"compressed": 0xFFFFFF00, "size": 0xFFFFFF00})),
        "manifest-beyond-its-cap": archive(
            one(0, local={"compressed": (1 << 20) + 1, "size": (1 << 20) + 1})
        ),
        "claims-more-than-the-file": archive(one(0, local={"compressed": 1 << 20, "size": 1 << 20})),
        "too-many-entries": local,
        "duplicate-entry": archive(twice),
        "overlapping-entries": archive(same),
        "entry-in-an-entry": archive(
            [Entry(b"x-outer", inner), Entry(b"x-inner", b"hidden", central={"offset": 64})]
        ),
        "hidden-between-entries": archive(one(1, tail=b"hidden")),
        "hidden-in-padding": archive(one(1, pad=struct.pack("<HH", 0xCADE, 8) + b"hidden!!")),
        "directory-names-another": archive(one(2, central={"as": b"x-evil"})),
        "directory-has-another-size": archive(one(2, central={"size": 3, "compressed": 3})),
        "directory-has-another-checksum": archive(one(2, central={"crc": 0})),
        "directory-lists-one-less": archive(one(2), end={"here": 2, "all": 2}),
        "data-descriptor": archive(one(2, local={"flags": 8, "crc": 0, "size": 0, "compressed": 0})),
        "encrypted": archive(one(2, local={"flags": 1}, central={"flags": 1})),
        "zip64": archive(one(2, local=wide, central=wide, pad=zip64)),
        "symbolic-link": archive(one(2, central={"attributes": 0o120777 << 16})),
        "newer-version-needed": archive(one(2, local={"version": 63}, central={"version": 63})),
        "dated": archive(one(2, local={"date": 0x5CC1}, central={"date": 0x5CC1})),
        "two-disks": archive(parts(note=b"note"), end={"disk": 1}),
        "comment": archive(parts(note=b"note"), comment=b"signed: yes"),
        "leading-bytes": archive(parts(note=b"note"), prefix=b"#!/bin/sh\nreboot\n"),
        "trailing-bytes": honest + b"\n",
        "out-of-order": archive(list(reversed(parts(note=b"note")))),
        "not-aligned": archive(one(1, pad=b"")),
        "cut-short": honest[:-30],
        "flipped-bit": flipped(honest, honest.index(STEP) + 5),
        "empty": b"",
    }


def manifests() -> dict[str, bytes]:
    wrong = {"bytes": len(STEP), "sha256": "0" * 64}
    unlisted = [*parts(), Entry(b"x-note", b"note")]
    states = {"h": {"shape": [65536] * 4, "init": "zeros"}}
    term = MANIFEST["observation"]["terms"][0]
    history = {"length": 65536, "order": "oldest_first", "fill": "zero"}
    return {
        "manifest-is-missing": archive(parts()[1:]),
        "manifest-twice-the-text": bundle(edit=lambda line: line + line),
        "manifest-not-utf8": archive([Entry(b"manifest.json", b'{"name": "\xff"}'), *parts()[1:]]),
        "lone-surrogate": replaced('"attack"', '"\\ud800"'),
        "terminal-escape": replaced('"attack"', '"\\u001b[2J\\u001b[1;1Hpassed"'),
        "terminal-escape-in-key": replaced('"name": "attack"', '"na\\u001b[2Jme": "attack"'),
        "right-to-left": replaced('"attack"', '"safe\\u202etxt.onnx"'),
        "deep-nesting": replaced('"format"', f'"x-deep": {"[" * 40}{"]" * 40}, "format"'),
        "bottomless-nesting": replaced('"format"', f'"x-deep": {"[" * 20000}, "format"'),
        "duplicate-key": replaced('"kp": 20.0', '"kp": 20.0, "kp": 2000.0'),
        "duplicate-key-by-escape": replaced('"kp": 20.0', '"kp": 20.0, "\\u006bp": 2000.0'),
        "duplicate-entry-in-files": replaced('"files": {', '"files": {"step.onnx": null, '),
        "unknown-key": changed("joints/0/gear_ratio", 100),
        "mistyped": changed("joints/0/kp", "20"),
        "not-a-number": replaced('"kp": 20.0', '"kp": NaN'),
        "beyond-floats": replaced('"kp": 20.0', '"kp": 1e999'),
        "newer-format": changed("format", 2),
        "unlisted-entry": archive(unlisted),
        "listed-but-absent": changed("files/x-note", wrong),
        "wrong-sha": changed("files/step.onnx", wrong),
        "wrong-length": changed("files/step.onnx", wrong | {"bytes": 5}),
        "network-by-path": changed("functions/step/file", "../../../etc/passwd"),
        "network-by-url": changed("functions/step/file", "https://example.org/step.onnx"),
        "vectors-by-path": bundle(MANIFEST | {"parity": PARITY | {"file": "/dev/zero"}}),
        "text-is-no-text": bundle(spec=b"spec up: \xff;"),
        "normalized-twice": changed("normalizer/where", "graph"),
        "scaled-twice": changed("in_graph/action_scale", True),
        "offset-twice": changed("in_graph/action_offset", True),
        "several-rows-in-a-tick": changed("functions/step/batch", 2),
        "gains-for-a-joint-twice": changed("joints", MANIFEST["joints"] * 2),
        "endless-history": changed("observation/terms/0", term | {"history": history}),
        "endless-state": changed("carry", states),
        "rates-that-do-not-divide": changed("rates/policy_dt", 0.0213),
        "infinite-limit": replaced('"velocity_max": 10.0', '"velocity_max": Infinity'),
        "negative-gain": changed("joints/0/kd", -0.5),
        "divides-by-zero": bundle(
            MANIFEST
            | {"normalizer": {"where": "runtime", "mean": [0.0, 0.0], "spread": [1.0, 0.0], "eps": 0.0}}
        ),
    }


def networks() -> dict[str, bytes]:
    matmul = node("MatMul", "obs w", "action")
    path = text(13, text(1, "location") + text(2, "/etc/passwd"))
    body = b""
    for _ in range(100):
        # A node whose attribute is a graph of one such node.
        body = node("If", "obs", "action", attribute("then_branch", 5, text(6, text(1, body))))
    group = b"\x0b" * 200
    lists = [ints("s", [1, 1]), ints("e", [2, 2]), ints("a", [1, -1])]
    huge = tensor("e", [65536, 65536, 0], [])
    wide = node("Max", "obs " * 3000, "m")
    return {
        "not-protobuf": bundle(step=b"\xff" * 64),
        "no-graph": bundle(step=text(8, number(2, 18))),
        "bottomless-protobuf": bundle(step=group),
        "length-beyond-the-file": bundle(step=varint(7 << 3 | 2) + varint(1 << 40)),
        "opset-of-tomorrow": graph([matmul], [W], opset=99),
        "external-data": graph([matmul], [tensor("w", [2, 1], [], more=path + number(14, 1))]),
        "external-data-in-a-constant": graph(
            [
                node("Constant", "", "w", attribute("value", 4, text(5, tensor("c", [2, 1], [], more=path)))),
                matmul,
            ]
        ),
        "dimension-2-to-the-63": graph([node("Neg", "obs", "action")], shape=(1, (1 << 63) - 1)),
        "negative-dimension": graph([matmul], [tensor("w", [2, -1], [])]),
        "product-of-dimensions": graph([node("Neg", "obs", "action")], shape=(60000, 60000)),
        "dimension-0-hides-others": graph(
            [node("Transpose", "e", "t"), node("Neg", "obs", "action")], [huge]
        ),
        "promises-more-weights": graph([matmul], [tensor("w", [65536, 1024], [1.0])]),
        "nan-weight": graph([matmul], [tensor("w", [2, 1], [1.0, float("nan")])]),
        "infinite-weight": graph([matmul], [tensor("w", [2, 1], [float("-inf"), 1.0])]),
        "infinite-by-folding": graph(
            [node("Mul", "w s", "v"), node("MatMul", "obs v", "a"), node("Tanh", "a", "action")],
            [tensor("w", [2, 1], [1.0, 3e38]), tensor("s", [1], [10.0])],
        ),
        "cyclic-graph": graph([node("Add", "obs b", "a"), node("Neg", "a", "b"), node("Neg", "b", "action")]),
        "dangling-output": graph([node("Neg", "obs", "other")]),
        "defined-twice": graph([matmul, node("Neg", "obs", "action")], [W]),
        "if-node": graph([node("If", "obs", "action")]),
        "loop-node": graph([node("Loop", "obs", "action")]),
        "nested-graphs": graph([body]),
        "local-function": graph([matmul], [W], more=text(25, text(1, "evil"))),
        "foreign-domain": graph([node("PyOp", "obs", "action", domain="ai.onnx.contrib")]),
        "random-numbers": graph([node("RandomNormalLike", "obs", "action")]),
        "unread-attribute": graph([node("Relu", "obs", "action", attribute("overlap", 2, number(3, 1)))]),
        "attribute-twice": graph(
            [
                node(
                    "Softmax",
                    "obs",
                    "action",
                    attribute("axis", 2, number(3, 0)),
                    attribute("axis", 2, number(3, 1)),
                )
            ]
        ),
        "axis-sliced-twice": graph([node("Slice", "obs s e a", "action")], lists),
        "constant-of-all-memory": graph(
            [node("ConstantOfShape", "n", "c"), node("Add", "obs c", "action")], [ints("n", [65536, 1024])]
        ),
        "folds-for-ever": graph(
            [
                node("ConstantOfShape", "n", "c"),
                *(node("Exp", f"c{i}" if i else "c", f"c{i + 1}") for i in range(40)),
            ],
            [ints("n", [1024, 1024])],
        ),
        "one-node-of-thousands": graph([wide, node("Max", "m " * 3000, "action")]),
        "another-size": graph([node("MatMul", "obs w", "action")], [tensor("w", [2, 2], [0.5] * 4)]),
        "another-name": bundle(put(MANIFEST, "functions/step/inputs", {"observation": "observation"})),
        "terminal-escape-in-operator": graph([node("\x1b[2JRelu", "obs", "action")]),
    }


def tensors(**shapes) -> bytes:
    """A safetensors file: name → (shape, numbers), or (shape, numbers, type)."""
    header, data = {}, b""
    for name, (shape, numbers, *kind) in shapes.items():
        raw = struct.pack(f"<{len(numbers)}f", *numbers)
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": kind[0] if kind else "F32", "shape": shape, "data_offsets": offsets}
        data += raw
    line = json.dumps(header).encode()
    return struct.pack("<Q", len(line)) + line + data


def proven(vectors: bytes, **change) -> bytes:
    return bundle(MANIFEST | {"parity": PARITY | change}, parity=vectors)


def vectors() -> dict[str, bytes]:
    right = tensors(obs=([1, 1, 2], [1.0, 1.0]), expected=([1, 1, 1], [0.25]))
    overlap = right.replace(b"[8, 12]", b"[4, 12]")
    nan = float("nan")
    return {
        "vectors-header-of-all-memory": proven(struct.pack("<Q", 1 << 62) + b"{}"),
        "vectors-overlap": proven(overlap),
        "vectors-without-steps": proven(tensors(obs=([1 << 60, 0, 2], []), expected=([1 << 60, 0, 1], []))),
        "vectors-whose-count-overflows": proven(
            tensors(obs=([0, 1 << 40, 1 << 40], []), expected=([0, 1 << 40, 1 << 40], []))
        ),
        "vectors-of-nothing": proven(tensors()),
        "vectors-not-a-number": proven(tensors(obs=([1, 1, 2], [1.0, nan]), expected=([1, 1, 1], [0.25]))),
        "vectors-of-another-type": proven(
            tensors(obs=([1, 1, 1], [1.0, 1.0], "F64"), expected=([1, 1, 1], [0.25]))
        ),
        "vectors-that-differ": proven(tensors(obs=([1, 1, 2], [1.0, 1.0]), expected=([1, 1, 1], [0.26]))),
        "weights-changed-by-one-percent": bundle(
            MANIFEST | {"parity": PARITY},
            step=model([node("MatMul", "obs w", "action")], [tensor("w", [2, 1], [0.505, -0.25])]),
            parity=right,
        ),
    }


def main(folder: Path) -> None:
    attacks = archives() | manifests() | networks() | vectors()
    for name, data in attacks.items():
        (folder / f"{name}.cadenza").write_bytes(data)
    print(f"{len(attacks)} files, {sum(map(len, attacks.values()))} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
