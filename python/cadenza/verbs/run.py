"""`cadenza run BUNDLE … --viewer | --live [ADDR]`: a run that is shown while it lasts.

Without either the verb is the runtime's own. The options are its, too: each is a field of `RunConfig`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cadenza.live import DEFAULT_ADDRESS, FoxgloveStream, Viewer, address, watch
from cadenza.robot import load_robot
from cadenza.runtime import Bundle, RunConfig, Runtime, SimDevice, bundle_scene

# fields whose option has another name, and those that are no option of the verb
RENAMED = {"virtual_clock": "virtual"}
NO_OPTION = ("arm", "record_every")
KINDS = {"float | None": float, "float": float, "int | None": int, "int": int}


def parser() -> argparse.ArgumentParser:
    """The options, those of a run from `RunConfig`."""
    made = argparse.ArgumentParser(
        prog="cadenza run",
        description="Run a bundle and show it while it lasts. cadenza run --help explains the options.",
        epilog="example: cadenza run reach.cadenza --robot arm6 --device sim --seconds 10 --live",
    )
    made.add_argument("bundle", type=Path, help="bundle")
    made.add_argument("--robot", required=True, help="name or path of a robot")
    made.add_argument("--device", help="sim, null or replay:LOG; robot.toml's device when absent")
    made.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="operator command")
    made.add_argument("--config", type=Path, help="run configuration (TOML); options given here win")
    made.add_argument("--viewer", action="store_true", help="MuJoCo's viewer")
    made.add_argument(
        "--live", nargs="?", const=DEFAULT_ADDRESS, metavar="ADDR",
        help=f"stream to Foxglove on HOST:PORT or PORT ({DEFAULT_ADDRESS})",
    )  # fmt: skip
    for field in dataclasses.fields(RunConfig):
        if field.name in NO_OPTION:
            continue
        option = "--" + RENAMED.get(field.name, field.name).replace("_", "-")
        if field.type == "bool":
            made.add_argument(option, action="store_true", default=None, dest=field.name)
        else:
            made.add_argument(option, type=KINDS.get(str(field.type), str), dest=field.name)
    return made


def configuration(options: argparse.Namespace) -> RunConfig:
    """The configuration file under the options.

    Raises:
        ValueError: a file that is no TOML, or a key that is no field.
    """
    values: dict[str, Any] = {}
    names = {field.name for field in dataclasses.fields(RunConfig)}
    if options.config is not None:
        try:
            values = tomllib.loads(options.config.read_text())
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{options.config}: {error}") from None
        if unknown := [name for name in values if name not in names]:
            raise ValueError(
                f"{options.config}: no field '{unknown[0]}'; there are {', '.join(sorted(names))}"
            )
    given = {name: value for name, value in vars(options).items() if name in names and value is not None}
    return RunConfig(**(values | given))


def commands(words: list[str]) -> dict[str, float]:
    """`--set name=value`.

    Raises:
        ValueError: not of that form, or not a number.
    """
    made = {}
    for word in words:
        name, found, value = word.partition("=")
        try:
            made[name.strip()] = float(value) if found else None
        except ValueError:
            raise ValueError(f"--set {word}: '{value}' is not a number") from None
        if not found:
            raise ValueError(f"--set {word}: expected NAME=VALUE")
    return made


def main(argv: list[str]) -> int:
    """Runs `cadenza run … --viewer`, `cadenza run … --live`."""
    options = parser().parse_args(argv)
    config, values = configuration(options), commands(options.set)
    if config.virtual_clock:
        raise ValueError("--virtual: a run on the virtual clock is over before anybody sees it")
    if options.live is not None:
        address(options.live)
    robot = load_robot(options.robot)
    bundle = Bundle(str(options.bundle))
    device: SimDevice | str = options.device or _kind(robot.path)
    if device == "sim":
        device = SimDevice.of(robot, scene=bundle_scene(bundle))
    runtime = Runtime(bundle, robot=robot, device=device, config=config)
    with ExitStack() as stack:
        views: list[Any] = []
        if options.viewer:
            views.append(stack.enter_context(Viewer(robot)))
        if options.live is not None:
            stream = stack.enter_context(FoxgloveStream(robot.joint_names, options.live))
            views.append(stream)
            print(f"streaming to Foxglove: ws://{stream.host}:{stream.port}", flush=True)
        # after the views: only a run that can be shown begins
        handle = stack.enter_context(runtime.start())
        handle.command(**values)
        report = watch(handle, views)
    if report.table:
        print(report.table.rstrip())
    for fault in report.faults[:20]:
        subject = f" ({fault['subject']})" if fault["subject"] else ""
        print(f" event        tick {fault['tick']}: {fault['reason']}{subject} -> {fault['level']}")
    print(f" ended        {report.ended} · level {report.level} · {report.ticks} ticks")
    return report.exit_code


def _kind(path: Path) -> str:
    """The device that robot.toml names."""
    return tomllib.loads(path.read_text()).get("device", {}).get("kind", "null")
