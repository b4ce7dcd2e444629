"""The command line `cadenza`: one table of verbs.

Verbs that concern training are Python's; those that concern the runtime are the Rust functions that
`cadenza-rt` calls as well. Nothing heavy is imported before its verb is known.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

EXTRA_OF = {"torch": "train", "mujoco": "train", "gymnasium": "train", "tyro": "train", "rich": "train",
            "onnx": "train", "onnxscript": "train", "tensorboard": "train",
            "imageio_ffmpeg": "train", "ray": "ray", "matplotlib": "viz", "foxglove": "viz",
            "onnxruntime": "import", "yaml": "import"}  # fmt: skip


@dataclass(frozen=True)
class Verb:
    """A verb: what it does, an example, and where it lives (`None`: the runtime)."""

    summary: str
    example: str
    load: Callable[[], Callable[[list[str]], int]] | None = None


def _python(module: str) -> Callable[[], Callable[[list[str]], int]]:
    def load() -> Callable[[list[str]], int]:
        from importlib import import_module

        return import_module(f"cadenza.verbs.{module}").main

    return load


VERBS = {
    "demo": Verb("train, export, run in real time, report", "cadenza demo --out runs/demo", _python("demo")),
    "train": Verb("train a policy", "cadenza train symphony --task cadenza/ReachArm6-v0", _python("train")),
    "sweep": Verb(
        "train many seeds and settings, one table",
        "cadenza sweep symphony --task gym:Hopper-v5 --seeds 0..4 --jobs 2",
        _python("sweep"),
    ),
    "resume": Verb("go on with a stopped run", "cadenza resume runs/reach", _python("resume")),
    "eval": Verb("evaluate a run without noise", "cadenza eval runs/reach --episodes 50", _python("eval")),
    "export": Verb(
        "write a run's policy into a bundle", "cadenza export runs/reach -o reach.cadenza", _python("export")
    ),
    "import": Verb(
        "write somebody else's policy into a bundle",
        "cadenza import policy.onnx --manifest facts.json --robot arm6 -o policy.cadenza",
        _python("import_"),
    ),
    "stl": Verb(
        "evaluate, explain or decompose a formula",
        'cadenza stl eval "G[0,2s](x > 0.5)" log.csv --dt 0.01',
        _python("stl"),
    ),
    "robots": Verb("list and check robots", "cadenza robots check arm6", _python("robots")),
    "inspect": Verb("say what a bundle holds", "cadenza inspect reach.cadenza"),
    "check": Verb(
        "prove a bundle against its vectors and a robot", "cadenza check reach.cadenza --robot arm6"
    ),
    "run": Verb(
        "run a bundle on a robot", "cadenza run reach.cadenza --robot arm6 --device sim --seconds 10"
    ),
    "replay": Verb("run a log again and compare every command", "cadenza replay run.mcap"),
    "bench": Verb(
        "measure the loop, compare two measurements", "cadenza bench latency reach.cadenza --robot arm6"
    ),
    "doctor": Verb("say how real-time this machine is", "cadenza doctor --hz 500"),
    "report": Verb("turn a log into one HTML page", "cadenza report run.mcap -o report.html"),
}


def help_text() -> str:
    """What `cadenza --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "usage: cadenza VERB [options]\n\n"
        "Train robot policies in simulation, run them on robots within their limits.\n\n"
        f"{verbs}\n\n"
        "Every verb explains itself: cadenza VERB --help\n"
        "Example: cadenza demo\n"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one verb; returns the exit code (0 ok, 1 fault, 2 bad input, 3 difference, 4 regression)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text(), end="")
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from cadenza import __version__

        print(f"cadenza {__version__}")
        return 0
    name, rest = argv[0], argv[1:]
    verb = VERBS.get(name)
    if verb is None:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return _refuse(f"unknown verb '{name}'{hint} (cadenza --help lists them)")
    try:
        if verb.load is None and not (name == "run" and _shown(rest)):
            return _runtime([name, *rest])
        if verb.load is None:
            return _python("run")()(rest)
        if rest in (["-h"], ["--help"]):
            print(f"{verb.summary}\nexample: {verb.example}\n")
        return verb.load()(rest)
    except ModuleNotFoundError as error:
        extra = _extra(error, name)
        if extra is None:
            raise
        return _refuse(f"'cadenza {name}' needs {extra}")
    except BrokenPipeError:
        return 0
    except (ValueError, OSError, KeyError) as error:
        # Every error of ours names file and value; a trace would only hide it.
        return _refuse(str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error))


def _shown(words: list[str]) -> bool:
    """Whether a run is to be shown while it lasts: that is Python's, help and the rest are the runtime's."""
    asked = any(word == "--viewer" or word.partition("=")[0] == "--live" for word in words)
    return asked and not {"-h", "--help"} & set(words)


def _extra(error: ModuleNotFoundError, verb: str = "") -> str | None:
    """The missing module and how to get it; `None` for a module that no extra brings."""
    extra = EXTRA_OF.get((error.name or "").partition(".")[0])
    if extra and verb == "import":  # a robot's computer imports without the training tools
        extra = "import"
    return extra and f"{error.name}: pip install 'cadenza[{extra}]'"


def _runtime(argv: list[str]) -> int:
    from cadenza import _native

    sys.stdout.flush()
    return _native.cli(argv, _Host())


class _Host:
    """What the runtime's command line asks of Python: names of robots, and a simulator."""

    def robot(self, name: str) -> str:
        from cadenza.robot import find_robot  # the loop needs no model

        return str(find_robot(name))

    def simulate(self, robot: str, bundle: str) -> object:
        from cadenza.robot import load_robot
        from cadenza.runtime import Bundle, SimDevice, bundle_scene

        try:
            return SimDevice.of(load_robot(Path(robot)), scene=bundle_scene(Bundle(bundle)))
        except ModuleNotFoundError as error:
            # The runtime shows the text of an error: it must say what to do.
            raise RuntimeError(f"device 'sim' needs {_extra(error) or error.name}") from None


def _refuse(text: str) -> int:
    print(f"cadenza: {text}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
