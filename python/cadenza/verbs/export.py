"""`cadenza export RUN -o FILE`: the trained policy of a run as a bundle, or as a plain ONNX graph."""

from __future__ import annotations

import argparse
from pathlib import Path

from cadenza.export import export_onnx, export_run


def main(argv: list[str]) -> int:
    """Runs `cadenza export …`."""
    parser = argparse.ArgumentParser(
        prog="cadenza export",
        description="Write a run's policy with everything a robot must know about it, and prove it.",
        epilog="example: cadenza export runs/reach -o reach.cadenza",
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("-o", "--out", type=Path, help="bundle to write")
    parser.add_argument("--onnx", type=Path, help="write the graph alone as well")
    options = parser.parse_args(argv)
    if options.out is None and options.onnx is None:
        raise ValueError("nothing to write: -o FILE.cadenza or --onnx FILE.onnx")
    if options.out is not None:
        report = export_run(options.run, options.out)
        print(f"{report.path}: {report.bytes} bytes, id {report.id[:16]}")
        print(
            f"  parity {report.vectors} vectors, largest difference {report.max_difference:.2e} "
            f"(allowed {report.atol:.0e} + 1e-5·|y|)"
        )
        print(f"  operators {', '.join(report.operators)}")
    if options.onnx is not None:
        print(export_onnx(options.run, options.onnx))
    return 0
