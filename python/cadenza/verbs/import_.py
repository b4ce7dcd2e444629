"""`cadenza import SOURCE -o FILE`: a policy that was trained elsewhere, as a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from cadenza.importers import KINDS, import_policy


def main(argv: list[str]) -> int:
    """Runs `cadenza import …`."""
    parser = argparse.ArgumentParser(
        prog="cadenza import",
        description="Write somebody else's policy as a bundle. What motion depends on is never guessed: the "
        "error lists all that is missing, with the lines to write (docs/bring-your-own-policy.md).",
        epilog="example: cadenza import policy.onnx --manifest facts.json --robot arm6 -o policy.cadenza",
    )
    parser.add_argument("source", type=Path, help="ONNX file, kinfer archive, or folder of unitree_rl_lab")
    parser.add_argument("-o", "--out", type=Path, required=True, help="bundle to write")
    parser.add_argument("--kind", choices=KINDS, default="auto", help="what it is (default: look)")
    parser.add_argument("--manifest", type=Path, help="JSON file with what the source does not say")
    parser.add_argument("--robot", help="robot: name, folder or robot.toml")
    options = parser.parse_args(argv)
    report = import_policy(
        options.source, options.out, kind=options.kind, manifest=options.manifest, robot=options.robot
    )
    print(f"{report.path}: {report.bytes} bytes, id {report.id[:16]}")
    print(
        f"  parity {report.vectors} vectors of onnxruntime, largest difference {report.max_difference:.2e} "
        f"(allowed {report.atol:.0e} + 1e-5·|y|)"
    )
    print(f"  operators {', '.join(report.operators)}")
    for title, facts in (("assumed", report.assumed), ("missing", report.missing)):
        print(f"  {title}: {len(facts) or 'nothing'}")
        for fact in facts:
            print(f"    - {fact}")
    return 0
