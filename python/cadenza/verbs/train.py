"""`cadenza train ALGORITHM --task ID`: trains a policy into a run folder."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from cadenza.actors import ActorFailed
from cadenza.recipes import recipe
from cadenza.robot import suggest
from cadenza.sim.domain import Domain
from cadenza.tasks import GYM_PREFIX, make_task
from cadenza.train import Diverged, TrainResult, train
from cadenza.train_config import ALGORITHMS, TrainConfig

_NOT_SET = {"settings", "task", "algorithm", "domain"}

EPILOG = "example: cadenza train symphony --task cadenza/ReachArm6-v0 --steps 28000 --seed 0"


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Train a policy. Symphony starts from the task's recipe or else from `small`, sac from its defaults.

    Attributes:
        task: cadenza/ReachArm6-v0, cadenza/PickArm6-v0, cadenza/StandHumanoid29-v0, or gym: and a gymnasium
            id.
        out: run folder; runs/ALGORITHM-TASK-TIME when not given.
        preset: settings to start from instead of the recipe: symphony s3, se, s2, ed, small, tiny; sac
            default, tiny.
        steps: transitions to collect, over all environments.
        envs: parallel environments, of each actor where there are any.
        actors: collectors on Ray that feed the learner; without them it collects by itself.
        ray: cluster of the actors; one on this machine is started when not given.
        seed: seeds the agent and the environments.
        device: where the networks are trained: cpu or cuda.
        set: further settings of run, algorithm or domain, as NAME=VALUE: eval_every=5000 lr=3e-4
            domain.mass=0.9,1.1
    """

    task: Annotated[str, tyro.conf.arg(metavar="ID")]
    out: Path | None = None
    preset: str | None = None
    steps: int | None = None
    envs: int | None = None
    actors: int | None = None
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    seed: int | None = None
    device: str | None = None
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = ()


def main(argv: list[str]) -> int:
    """Runs `cadenza train …`."""
    if not argv or argv[0].startswith("-"):
        known = ", ".join(ALGORITHMS)
        if argv and argv[0] in ("-h", "--help"):
            print(f"usage: cadenza train ALGORITHM --task ID [options]\nalgorithms: {known}\n{EPILOG}")
            tyro.cli(TrainOptions, prog="cadenza train ALGORITHM", args=["--help"])
        raise ValueError(f"which algorithm? One of: {known} ({EPILOG})")
    algorithm, rest = argv[0], argv[1:]
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}{suggest(algorithm, list(ALGORITHMS))}")
    options = tyro.cli(TrainOptions, prog=f"cadenza train {algorithm}", args=rest, description=EPILOG)
    config = configure(algorithm, options)
    name = re.sub(r"\W+", "-", config.task).strip("-")
    out = options.out or Path("runs") / f"{algorithm}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if options.ray is not None and config.actors is None:
        raise ValueError(f"--ray {options.ray} needs --actors N")
    return carry_out(config, out, ray_address=options.ray)


def configure(algorithm: str, options: TrainOptions) -> TrainConfig:
    """The settings that the options ask for.

    Raises:
        ValueError: an unknown name, or a value of another type; the text says which.
    """
    config = recipe(options.task, algorithm)
    if options.preset is not None:
        settings_of, _ = ALGORITHMS[algorithm]
        config = dataclasses.replace(config, settings=settings_of.from_preset(options.preset))
    given = {name: getattr(options, name) for name in ("steps", "envs", "actors", "seed", "device")}
    run: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    settings: dict[str, object] = {}
    domain: dict[str, object] = {}
    for text in options.set:
        name, _, value = text.partition("=")
        if name.startswith("domain."):
            _set_domain(domain, text)
            continue
        for target, fields in ((run, config), (settings, config.settings)):
            if name in {f.name for f in dataclasses.fields(fields)} - _NOT_SET:
                target[name] = _convert(name, value, typing.get_type_hints(type(fields))[name])
                break
        else:
            known = [f.name for fields in (config, config.settings) for f in dataclasses.fields(fields)]
            raise ValueError(f"--set {text}: no such setting{suggest(name, known)}")
    if settings:
        run["settings"] = dataclasses.replace(config.settings, **settings)
    if domain:
        run["domain"] = dataclasses.replace(_domain(config), **domain)
    return dataclasses.replace(config, **run)


def carry_out(config: TrainConfig, out: Path, *, resume: bool = False, ray_address: str | None = None) -> int:
    """Trains and says how it ended; the exit code, 1 when a number was not finite or an actor failed."""
    try:
        result = train(config, out, resume=resume, progress="auto", ray_address=ray_address)
    except (Diverged, ActorFailed) as error:
        print(f"cadenza: {error}", file=sys.stderr)
        return 1
    summarise(result, out)
    return 0


def summarise(result: TrainResult, out: Path) -> None:
    """Says how a run ended and what to do next."""
    print(f"{result.reason} at {result.steps} transitions, {result.cpu_seconds:.1f} CPU-seconds: {out}")
    if result.evaluations:
        step, last = result.evaluations[-1]
        success = "" if last.success is None else f"success {last.success:.2f}, "
        interval = f"[{last.return_low:.3g}, {last.return_high:.3g}]"
        print(f"evaluation at {step}: {success}return {last.return_mean:.3g} {interval}")
    print(f"next: cadenza eval {out} · cadenza export {out} -o policy.cadenza")


def _domain(config: TrainConfig) -> Domain:
    """What a changed setting changes: the run's domain, or the task's own."""
    if config.domain is not None:
        return config.domain
    return Domain() if config.task.startswith(GYM_PREFIX) else make_task(config.task).domain


def _set_domain(domain: dict[str, object], text: str) -> None:
    """`domain.NAME=VALUE`, with `LO,HI` for a range."""
    key, _, value = text.partition("=")
    name = key.removeprefix("domain.")
    defaults = {f.name: f.default for f in dataclasses.fields(Domain)}
    if name not in defaults:
        raise ValueError(f"--set {text}: no such setting{suggest(name, list(defaults))}")
    like = defaults[name]
    if isinstance(like, tuple):
        domain[name] = tuple(_convert(key, part, type(like[0])) for part in value.split(","))
    else:
        domain[name] = _convert(key, value, type(like))


def _convert(name: str, text: str, kind: typing.Any) -> object:
    """The value of a setting whose annotation is `kind`; `none` where it may be None."""
    if isinstance(kind, types.UnionType):
        kinds = [k for k in typing.get_args(kind) if k is not types.NoneType]
        if len(kinds) < len(typing.get_args(kind)) and text.lower() == "none":
            return None
        kind = kinds[0]
    if typing.get_origin(kind) is typing.Literal:
        kind = str  # the settings check the choice
    convert: dict[type, Callable[[str], object]] = {
        bool: lambda text: {"true": True, "false": False}[text.lower()],
        int: int,
        float: float,
        str: str,
    }
    try:
        return convert[kind](text)
    except (KeyError, ValueError):
        raise ValueError(f"--set {name}={text}: {kind.__name__} wanted") from None
