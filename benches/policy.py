"""Inference of exported policies against other engines and the memory floor (spec/policy.md §10).

    python benches/policy.py [--quick] [--json FILE]

Two measurements: a native program times the engine, onnxruntime through its C interface and a kernel that
only sums the same weight bytes (8-bit ones made floats first), in interleaved blocks, hot and cold (64 MiB
touched before each call); the floor of the token networks is the rate of one large matrix product instead.
Python then times `Policy.act(out=)`, onnxruntime with IOBinding, torch eager and tract (in a process and an
environment of its own), in interleaved blocks as well. onnxruntime has one thread and does not spin. From
Python its figure is also given less an Identity graph, the price of the call; so is tract's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import torch

import common
import lazy
import nets
from cadenza import _native
from common import Report
from peers import Peer

HERE = Path(__file__).resolve().parent
# hot and cold bars against onnxruntime, against the floor
ONNXRUNTIME = {"A": (0.6, 0.6), "B": (0.95, 0.8), "C": (0.7, 0.65), "K": (0.67, 0.7)}
FLOOR = {"A": (1.7, 1.5), "B": (1.25, 1.2), "C": (1.25, 1.2)}
# 8-bit weights against the same network in f32
INT8 = {"B": (0.65, 0.5)}
TORCH = {"A": 0.15}
# hot bars of the token networks against onnxruntime, and against the rate of one large matrix product
TOKENS = {"D": 1.0, "XS": 0.5, "S": 0.7, "M": 0.85}
PRODUCT = {"D": 1.4}
NETS = ("actor", "A", "B", "C", "K", *TOKENS)


def onnxruntime_library() -> Path | None:
    """The shared library inside the onnxruntime wheel."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"), None)


def native(report: Report, paths: list[Path], product: Path, quick: bool) -> None:
    """The rows of the native program; `product` is timed as the floor of the token networks."""
    library = onnxruntime_library()
    command = [
        common.program("policy", quick),
        *(["--ort", library] if library else []),
        "--product",
        product,
    ]
    command += ["--rounds", "3", "--hot", "10", "--cold", "3"] if quick else ["--rounds", "9"]
    output = common.answer([*command, *paths])
    report.notes.append(f"onnxruntime {output['onnxruntime']}, {output['profile']} build")
    for net in output["nets"]:
        name, rounds = net["name"], net["rounds"]
        report.notes.append(
            f"{name}: {net['macs']} multiply-adds, {net['weight_bytes'] / 1e3:.0f} kB, {net['isa']}"
        )

        def times(engine: str, state: str, figure: str, rounds: list = rounds) -> np.ndarray:
            return np.array(
                [next(e for e in r if e["engine"] == engine)[state][figure] / 1e3 for r in rounds]
            )

        for i, state in enumerate(("hot", "cold")):
            ours = times("cadenza", state, "p50")
            if name not in TOKENS:
                floor, bar = times("floor", state, "p50"), FLOOR.get(name, (None, None))[i]
                report.ratio(f"{name} {state}, floor", ours, floor, bar, figures=pair(ours, floor))
            elif state == "hot":
                product = times("product", state, "p50")
                floor = product * net["macs"] / output["product_macs"]
                rate = 2e-3 * output["product_macs"] / np.median(product)
                figures = f"{pair(ours, floor)} at {rate:.1f} GFLOP/s"
                report.ratio(f"{name} hot, matrix product", ours, floor, PRODUCT.get(name), figures=figures)
            if name in INT8:
                narrow = times("int8", state, "p50")
                report.ratio(
                    f"{name} {state}, int8 / f32", narrow, ours, INT8[name][i], figures=pair(narrow, ours)
                )
                floor = times("int8 floor", state, "p50")
                report.ratio(f"{name} {state}, int8, floor", narrow, floor, figures=pair(narrow, floor))
            bar = (TOKENS.get(name), None)[i] if name in TOKENS else ONNXRUNTIME.get(name, (None, None))[i]
            if library is None:
                report.missing(f"{name} {state}, onnxruntime C", "not installed: onnxruntime", bar)
                continue
            theirs = times("onnxruntime", state, "p50")
            report.ratio(f"{name} {state}, onnxruntime C", ours, theirs, bar, figures=pair(ours, theirs))
            if state == "hot":
                mine = times("cadenza", state, "p99") / ours - 1
                other = times("onnxruntime", state, "p99") / theirs - 1
                figures = f"p99/p50 − 1: {np.median(mine):.1%} / {np.median(other):.1%}"
                # spreads are small differences: only their medians are compared
                report.ratio(
                    f"{name} hot, spread", [np.median(mine)], [np.median(other)], 1.0, figures=figures
                )


def pair(ours: np.ndarray, other: np.ndarray) -> str:
    """Both medians, µs."""
    return f"{np.median(ours):.2f} / {np.median(other):.2f} µs"


def bound(graph: bytes, inputs: int, outputs: int) -> Callable[[np.ndarray], object]:
    """One onnxruntime call with input and output bound, from Python."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    source = np.zeros((1, inputs), np.float32)
    value = onnxruntime.OrtValue.ortvalue_from_numpy(source)
    target = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros((1, outputs), np.float32))
    binding.bind_ortvalue_input("obs", value)
    binding.bind_ortvalue_output("action", target)

    def call(obs: np.ndarray) -> object:
        value.update_inplace(obs)
        return session.run_with_iobinding(binding)

    return call


def identity(size: int) -> bytes:
    """The graph that does nothing, as ONNX."""
    obs, action = (
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, size]) for n in ("obs", "action")
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["obs"], ["action"])], "identity", [obs], [action]
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def loaded_by_tract(peer: Peer, path: str, obs: np.ndarray, graph: bytes, action: np.ndarray) -> str:
    """Lets tract read the graph and compares its answer; why it cannot be timed, if so."""
    if not peer:
        return peer.why
    Path(path).write_bytes(graph)
    got = peer.ask(load=path, inputs=obs.size)
    if "error" in got:
        return f"not measured: {got['error']}"
    np.testing.assert_allclose(got["action"], action, atol=1e-3)
    return ""


def python(report: Report, name: str, path: Path, module: torch.nn.Module, tract: Peer, quick: bool) -> None:
    """The rows of one network as Python calls it."""
    bundle = _native.Bundle(str(path))
    policy = _native.Policy(bundle)
    graph = bundle.entry("step.onnx")
    assert graph is not None
    ports = onnx.load_from_string(graph).graph
    size, answer = (p[0].type.tensor_type.shape.dim[1].dim_value for p in (ports.input, ports.output))
    obs = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    out = np.zeros(answer, np.float32)
    # A call of the largest network takes a thousand times as long as one of the smallest.
    fit = int(0.2e6 / common.wall_us(lambda: policy.act(obs, out=out), 5))
    rows, tensor = obs[None], torch.from_numpy(obs[None])
    calls, rounds = (20, 3) if quick else (min(1500, max(20, fit)), 9)

    def eager() -> object:
        with torch.inference_mode():
            return module(tensor)

    contenders: dict[str, Callable[[], object]] = {
        "cadenza": lambda: policy.act(obs, out=out),
        "torch": eager,
    }
    nothing = identity(size)
    if onnxruntime_library() is not None:
        run, idle = bound(graph, size, answer), bound(nothing, size, size)
        contenders |= {"onnxruntime": lambda: run(rows), "onnxruntime Identity": lambda: idle(rows)}
    for call in contenders.values():
        common.wall_us(call, calls // 10 + 1)
    timed = {key: partial(common.wall_us, call, calls) for key, call in contenders.items()}
    others = {"tract": (graph, out), "tract Identity": (nothing, obs)}
    files = {engine: str(path.with_name(f"{engine}.onnx")) for engine in others}
    why = [loaded_by_tract(tract, files[engine], obs, *others[engine]) for engine in others]
    if not any(why):
        timed |= {e: lambda file=file: tract.ask(time=file, calls=calls)["us"] for e, file in files.items()}
    us = common.interleave(timed, rounds)
    ours = us["cadenza"]
    eager_us = us["torch"]
    report.ratio(f"{name} Python, torch eager", ours, eager_us, TORCH.get(name), figures=pair(ours, eager_us))
    for engine, title, trouble in (
        ("onnxruntime", "onnxruntime", "not installed: onnxruntime"),
        ("tract", tract.title, next(filter(None, why), "")),
    ):
        if engine not in us:
            report.missing(f"{name} Python, {title}", trouble)
            continue
        theirs, call = us[engine], us[f"{engine} Identity"]
        figures = f"{pair(ours, theirs)}; Identity {np.median(call):.2f} µs"
        report.ratio(f"{name} Python, {title}", ours, theirs, figures=figures)
        less = np.maximum(theirs - call, 1e-3)
        report.ratio(f"{name} Python, {title} less Identity", ours, less, figures=pair(ours, less))


def measure(quick: bool) -> Report:
    """All networks."""
    report = Report("policy", "median of interleaved rounds' p50, ours / theirs, wall time, one core")
    tract = Peer("tract", HERE / "tract_worker.py", quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        made = nets.bundles(Path(folder), NETS)
        try:
            product = nets.product(Path(folder))
            native(report, [path for path, _ in made.values()], product, quick)
            lazy.rows(report, Path(folder), onnxruntime_library(), quick)
        except RuntimeError as error:
            report.missing("native", str(error))
        for name, (path, module) in made.items():
            python(report, name, path, module, tract, quick)
    tract.close()
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
