"""The whole tick against kinfer 0.6.1 and its own network, with and without recorder (spec/runtime.md §17).

    python benches/tick.py [--quick] [--json FILE]

29 joints on the null device at 1 kHz, network K (64-512-256-128-29, ELU), the recorder on. Ours is the time
from the return of the device's read to the entry of its write: observation, inference, action, limiter,
gate (ten monitors besides in the other rows). kinfer's is the time from the return of the provider's
`get_inputs` to the entry of `take_action`, the same network behind a Concat. kinfer pins onnxruntime 1.20,
so it gets an environment of its own under the user's cache. Blocks of ticks alternate between the processes
on one core; none is measured while another runs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

import common
import peers
from common import Report, Worker

HERE = Path(__file__).resolve().parent


def kinfer_graphs(step: bytes, joints: int, commands: int) -> tuple[bytes, bytes]:
    """kinfer's `init` and `step` graphs around the network `step`: inputs by name, a carry of one number."""
    sizes = {
        "joint_angles": joints,
        "joint_angular_velocities": joints,
        "projected_gravity": 3,
        "command": commands,
    }
    model = onnx.load_from_string(step)
    graph = model.graph

    def info(name: str, size: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])

    before = [
        helper.make_node("Concat", list(sizes), ["joined"], axis=0),
        helper.make_node("Reshape", ["joined", "row"], ["obs"]),
    ]
    after = [
        helper.make_node("Reshape", ["action", "flat"], ["actions"]),
        helper.make_node("Identity", ["carry"], ["next_carry"]),
    ]
    shapes = [
        helper.make_tensor("row", TensorProto.INT64, [2], [1, sum(sizes.values())]),
        helper.make_tensor("flat", TensorProto.INT64, [1], [joints]),
    ]
    around = helper.make_graph(
        [*before, *graph.node, *after],
        "step",
        [*(info(n, s) for n, s in sizes.items()), info("carry", 1)],
        [info("actions", joints), info("next_carry", 1)],
        [*graph.initializer, *shapes],
    )
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    start = helper.make_graph(
        [helper.make_node("Constant", [], ["carry"], value=zero)], "init", [], [info("carry", 1)]
    )
    # onnxruntime 1.20 reads IR 10
    made = [helper.make_model(g, opset_imports=model.opset_import, ir_version=10) for g in (start, around)]
    for model in made:
        onnx.checker.check_model(model, full_check=True)
    return made[0].SerializeToString(), made[1].SerializeToString()


def kinfer_worker(folder: Path, bundle: Path, joints: int, commands: list[str], hz: float) -> Worker:
    """kinfer with the bundle's network, ready to be asked for blocks. RuntimeError when it cannot be had."""
    from cadenza import _native

    python = peers.environment("kinfer")
    graph = _native.Bundle(str(bundle)).entry("step.onnx")
    assert graph is not None
    for name, data in zip(("init", "step"), kinfer_graphs(graph, joints, len(commands)), strict=True):
        (folder / f"{name}.onnx").write_bytes(data)
    capi = next(python.parents[1].glob("lib/python*/site-packages/onnxruntime/capi"))
    library = next(capi.glob("libonnxruntime.so.*"))
    command = [python, HERE / "kinfer_worker.py", folder, str(joints), ",".join(commands), str(hz)]
    return Worker(command, {"ORT_DYLIB_PATH": str(library), "PYTHONPATH": ""})


def measure(quick: bool) -> Report:
    """All rows; without kinfer its rows say why."""
    import nets

    report = Report(
        "tick", "ours / theirs, medians of interleaved blocks of ticks at 1 kHz, wall time, one core"
    )
    n, turns, rounds = (30, 1, 3) if quick else (250, 8, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        robot = folder / "robot.toml"
        robot.write_text(nets.robot_toml(nets.JOINTS))
        made = nets.bundles(folder, ["K", "K-plain"])
        bundle, plain = made["K"][0], made["K-plain"][0]
        command = ["--bundle", bundle, "--plain", plain, "--robot", robot, "--record", folder]
        try:
            ours = Worker([common.program("tick", quick), *command])
        except RuntimeError as error:
            report.missing("tick", str(error))
            return report
        peer, why = None, "not measured: --quick"
        if not quick:
            try:
                peer = kinfer_worker(folder, bundle, nets.JOINTS, list(nets.COMMANDS), nets.CONTROL_HZ)
                peer.ask(str(n))
            except (RuntimeError, OSError, StopIteration) as error:
                peer, why = None, str(error) or repr(error)
        blocks: dict[str, list[dict]] = {"plain": [], "recorded": [], "unrecorded": [], "kinfer": []}
        for _ in range(rounds * turns):
            for kind in ("plain", "recorded", "unrecorded"):
                blocks[kind].append(ours.ask(f"{kind} {n}"))
            if peer is not None:
                blocks["kinfer"].append(peer.ask(str(n)))
        for worker in (ours, peer):
            if worker is not None:
                worker.close()

    def times(kind: str, stage: str, figure: str = "p50") -> np.ndarray:
        """Per round: the median of its turns, µs."""
        us = np.array([b[stage][figure] / 1e3 for b in blocks[kind]])
        return np.median(us.reshape(rounds, turns), axis=1)

    def row(what: str, a: np.ndarray, b: np.ndarray, bar: float | None) -> None:
        report.ratio(what, a, b, bar, figures=f"{np.median(a):.1f} / {np.median(b):.1f} µs")

    for figure, bar in (("p50", 0.5), ("p99", 0.7)):
        what = f"observation → command, {peers.named('kinfer')}, {figure}"
        if peer is None:
            report.missing(what, why, bar)
        else:
            row(what, times("plain", "response", figure), times("kinfer", "response", figure), bar)
    row(
        "tick without network, network, p50",
        times("recorded", "without_network"),
        times("recorded", "infer"),
        1.0,
    )
    row("recorder on, off, p50", times("recorded", "total"), times("unrecorded", "total"), 1.10)
    dropped = [blocks[kind][-1]["dropped"] for kind in ("plain", "recorded")]
    report.notes.append(f"log entries dropped: {sum(dropped)}")
    both = [f"{np.median(times(kind, 'response')):.1f}" for kind in ("plain", "recorded")]
    report.notes.append(f"observation → command, p50: {both[0]} µs, with ten monitors {both[1]} µs")
    total = times("recorded", "total"), times("recorded", "total", "p99")
    report.notes.append(f"whole tick: p50 {np.median(total[0]):.1f} µs, p99 {np.median(total[1]):.1f} µs")
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
