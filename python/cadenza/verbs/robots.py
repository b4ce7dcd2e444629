"""`cadenza robots list|check`: the robots that are shipped, and whether a robot.toml fits its model."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from cadenza.robot import load_robot, robot_names


def main(argv: list[str]) -> int:
    """Runs `cadenza robots …`; exit code 1 when a check finds an error."""
    parser = argparse.ArgumentParser(
        prog="cadenza robots",
        description="List the shipped robots, or check a robot.toml against its model.",
        epilog="example: cadenza robots check arm6",
    )
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="names, joints, rates", epilog="example: cadenza robots list")
    check = actions.add_parser(
        "check", help="compare robot.toml and model", epilog="example: cadenza robots check arm6"
    )
    check.add_argument("robot", nargs="*", help="name or path; all shipped robots when not given")
    check.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(argv)
    if options.action == "list":
        for name in robot_names():
            robot = load_robot(name)
            rate = f"{robot.control_hz:g} Hz"
            print(f"{name:<12} {len(robot.joints):>2} joints · {rate} · device {robot.native.device}")
        return 0
    findings = {name: load_robot(name).check() for name in options.robot or robot_names()}
    if options.json:
        print(json.dumps({name: [asdict(f) for f in found] for name, found in findings.items()}))
    else:
        for name, found in findings.items():
            print(name)
            for finding in found:
                print(f"  {finding.status:<8} {finding.check:<28} {finding.text}")
    return int(any(f.status == "error" for found in findings.values() for f in found))
