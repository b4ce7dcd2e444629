"""`cadenza stl`: the robustness of a formula on a trace, why it is so, and what a formula asks for."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np

from cadenza import stl
from cadenza.stl.trace_files import Trace, read_trace


def main(argv: list[str]) -> int:
    """Runs `cadenza stl …`; exit code 1 when a formula is violated or cannot be judged, 2 for bad input."""
    options = _parser().parse_args(argv)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cadenza stl", description="Signal Temporal Logic on recorded traces."
    )
    actions = parser.add_subparsers(dest="action", required=True)

    def add(name: str, run: object, summary: str, example: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=summary, description=summary, epilog=f"example: {example}")
        action.set_defaults(run=run)
        action.add_argument("formula", help="STL text, for example G[0,2s](x > 0.5)")
        action.add_argument(
            "--file", action="store_true", help="FORMULA is a file of properties: spec NAME: formula;"
        )
        action.add_argument("--dt", type=float, help="seconds of one sample; the trace's own when it says so")
        action.add_argument("--until", default="exclusive", choices=("exclusive", "inclusive"),
                            help="what a plain U, S, R or W means (exclusive)")  # fmt: skip
        action.add_argument("--json", action="store_true", help="print JSON")
        return action

    evaluate = add("eval", _eval, "Robustness of formulas at one instant. Exit code 1: violated.",
                   'cadenza stl eval "G[0,2s](x > 0.5)" log.csv --dt 0.01')  # fmt: skip
    explain = add("explain", _explain, "Which sample decides, and by how much. Exit code 1: violated.",
                  'cadenza stl explain "G[0,2s](x > 0.5)" log.csv --dt 0.01')  # fmt: skip
    for action in (evaluate, explain):
        action.add_argument(
            "trace", type=Path, help="CSV with a header line, .npz, .npy (with --signals), or a log (.mcap)"
        )
        action.add_argument("--signals", help="names of the columns of a .npy file: a,b,…")
        action.add_argument(
            "--uneven", action="store_true", help="take each row as one step whatever its time"
        )
        action.add_argument("--at", type=int, default=0, help="sample at which it is evaluated (0)")
        action.add_argument("--end", default="truncate", choices=("truncate", "strict"),
                            help="cut windows at the last sample, or refuse (truncate)")  # fmt: skip
        action.add_argument(
            "--param", action="append", default=[], metavar="NAME=VALUE", help="value of $NAME"
        )
    evaluate.add_argument("--trace", dest="out", type=Path, metavar="OUT.csv",
                          help="also write the robustness at every sample")  # fmt: skip
    decompose = add("decompose", _decompose, "Timed subgoals: what to reach when, what to hold.",
                    'cadenza stl decompose "F[0,20] (x > 1) and G[0,30] (y < 2)"')  # fmt: skip
    decompose.add_argument("--chain", choices=("minimal", "complete"), help="visits that stand for G F")
    return parser


def _formulas(options: argparse.Namespace, trace: Trace | None) -> dict[str, stl.Formula]:
    """Formulas by name; the signals of the trace are the ones they may read."""
    own = trace.dt if trace else None
    if options.dt is not None and own is not None and abs(options.dt - own) > 0.01 * own:
        raise ValueError(f"--dt {options.dt:g}: {options.trace} has a step of {own:.6g} s")
    dt = options.dt if options.dt is not None else own
    signals = trace.names if trace else None
    if options.file:
        return stl.parse_file(options.formula, signals, dt=dt, until=options.until)
    return {"": stl.parse(options.formula, signals, dt=dt, until=options.until)}


def _inputs(options: argparse.Namespace) -> tuple[Trace, dict[str, stl.Formula]]:
    signals = options.signals.split(",") if options.signals else None
    trace = read_trace(options.trace, signals, uneven=options.uneven)
    if not 0 <= options.at < len(trace.samples):
        raise ValueError(f"--at {options.at}: {options.trace} has samples 0 to {len(trace.samples) - 1}")
    return trace, _formulas(options, trace)


def _params(formulas: dict[str, stl.Formula], words: list[str]) -> dict[str, dict[str, float]]:
    """Values for each formula: those of its own parameters; a value that none of them has is an error."""
    values = dict(map(_parameter, words))
    known = {param for formula in formulas.values() for param in formula.params}
    for name in values:
        if name not in known:
            raise ValueError(f"--param {name}: the parameters are {', '.join(sorted(known)) or 'none'}")
    return {key: {n: v for n, v in values.items() if n in f.params} for key, f in formulas.items()}


def _parameter(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    try:
        return name.removeprefix("$"), float(value if separator else "missing")
    except ValueError:
        raise ValueError(f"--param {text}: NAME=VALUE wanted") from None


def _verdict(rho: float) -> str:
    if math.isnan(rho):
        return "fault, a number that it reads is none"
    return "satisfied" if rho > 0 else "violated" if rho < 0 else "not decided"


def _failed(rho: float) -> bool:
    return rho < 0 or math.isnan(rho)


def _plain(rho: float) -> float | str:
    """JSON knows no infinity."""
    return rho if math.isfinite(rho) else str(rho)


def _eval(options: argparse.Namespace) -> int:
    trace, formulas = _inputs(options)
    params = _params(formulas, options.param)
    results, columns = {}, {}
    for name, f in formulas.items():
        given = {"params": params[name], "end": options.end}
        results[name] = float(stl.robustness(f, trace.samples, at=options.at, **given))
        if options.out:
            columns[name or "robustness"] = stl.robustness_trace(f, trace.samples, **given)
    if options.out:
        _write(options.out, columns)
    if options.json:
        found = [
            {"name": name, "formula": str(formulas[name]), "at": options.at, "robustness": _plain(rho),
             "verdict": _verdict(rho).split(",")[0]}
            for name, rho in results.items()
        ]  # fmt: skip
        print(json.dumps(found if options.file else found[0]))
    else:
        for name, rho in results.items():
            print(f"{name}: {formulas[name]}" if name else formulas[name])
            print(f"robustness {rho:.9g} at sample {options.at}: {_verdict(rho)}")
    return int(any(map(_failed, results.values())))


def _write(path: Path, columns: dict[str, np.ndarray]) -> None:
    """A column for each formula; where the horizon cuts them, the shorter ones end with empty cells."""
    with path.open("w") as file:
        print(",".join(["sample", *columns]), file=file)
        for t in range(max(map(len, columns.values()))):
            cells = [repr(float(column[t])) if t < len(column) else "" for column in columns.values()]
            print(",".join([str(t), *cells]), file=file)


def _explain(options: argparse.Namespace) -> int:
    trace, formulas = _inputs(options)
    params = _params(formulas, options.param)
    found, failed = [], False
    for name, f in formulas.items():
        given = {"params": params[name], "at": options.at, "end": options.end}
        [why] = stl.explain(f, trace.samples, **given)
        parts = stl.breakdown(f, trace.samples, **given)
        failed |= _failed(why.robustness)
        found.append(
            {
                "name": name,
                "formula": str(f),
                "robustness": _plain(why.robustness),
                "summary": why.summary,
                "step": why.step,
                "values": {signal: _plain(value) for signal, value in why.values.items()},
                "conjuncts": [
                    {"text": node.label or node.text, "robustness": _plain(float(rho))}
                    for node, rho in zip(f.conjuncts, parts, strict=True)
                ],
            }
        )
    if options.json:
        print(json.dumps(found if options.file else found[0]))
        return int(failed)
    for one in found:
        print(f"{one['name']}: {one['formula']}" if one["name"] else one["formula"])
        print(one["summary"])
        for signal, value in one["values"].items():
            print(f"  {signal} = {value:.9g}" if isinstance(value, float) else f"  {signal} = {value}")
        if len(one["conjuncts"]) > 1:
            for part in sorted(one["conjuncts"], key=lambda part: float(part["robustness"])):
                print(f"  {float(part['robustness']):>12.6g}  {part['text']}")
    return int(failed)


def _decompose(options: argparse.Namespace) -> int:
    branches = {name: stl.decompose(f, chain=options.chain) for name, f in _formulas(options, None).items()}
    if options.json:
        found = {name: [_branch(branch) for branch in some] for name, some in branches.items()}
        print(json.dumps(found if options.file else found[""]))
        return 0
    for name, some in branches.items():
        print(f"{name}: {len(some)} branches" if name else f"{len(some)} branches")
        for i, branch in enumerate(some):
            complete = "" if branch.complete else ", incomplete"
            print(f"branch {i}: {branch.count()} allocations{complete}")
            for k, variable in enumerate(branch.variables):
                print(f"  t{k} = {_when(variable.parent)} + δ, δ in {variable.min}..{variable.max}")
            for reach in branch.reach:
                print(f"  reach {reach.region} at {_when(reach.at)}")
            for hold in branch.hold:
                print(f"  hold {hold.region} from {_when(hold.start)} to {_when(hold.end)}")
    return 0


def _when(instant: stl.Instant) -> str:
    if instant.variable is None:
        return str(instant.offset)
    return f"t{instant.variable}" + (f"{instant.offset:+d}" if instant.offset else "")


def _branch(branch: stl.Branch) -> dict[str, object]:
    return {
        "allocations": branch.count(),
        "complete": branch.complete,
        "variables": [{"parent": _when(v.parent), "min": v.min, "max": v.max} for v in branch.variables],
        "reach": [{"region": str(r.region), "at": _when(r.at)} for r in branch.reach],
        "hold": [{"region": str(h.region), "from": _when(h.start), "to": _when(h.end)} for h in branch.hold],
    }
