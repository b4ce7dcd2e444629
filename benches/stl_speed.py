"""The STL engine against rtamt, mstlo and STLCG++, and against the memory's speed (spec/stl.md §9).

    python benches/stl_speed.py [--quick] [--json FILE]

Each peer runs in a process of its own and times itself; both sides take turns on one core, one thread each,
and the best round of each counts. Slow peers get fewer samples; every figure is per sample. mstlo and STLCG++
include the right end of until, so there ours does too, and the values at t = 0 are compared first. Native
rows are those of `cargo bench -p cadenza-stl`.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import common
from cadenza import stl
from common import Report, Row
from peers import Peer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "stl_peers"))

from protocol import signals  # noqa: E402

# Each formula in our language, rtamt's, mstlo's and STLCG++'s, and its robustness at t = 0.
OURS = {
    "F1": "G[0,100](x>0)",
    "F3": "(x>0) U[0,100] (y>0)",
    "F4": "F[0,100](x>0 and G[0,20](y>0)) and G[0,200](x<2 or F[0,50](y>0.5)) and ((y>-3) U[0,100] (x>1))",
}
RTAMT = {
    "F1": "always[0:100](x>0)",
    "F3": "(x>0) until[0:100] (y>0)",
    "F4": "(eventually[0:100]((x>0) and (always[0:20](y>0)))) and "
    "(always[0:200]((x<2) or (eventually[0:50](y>0.5)))) and ((y>(-3)) until[0:100] (x>1))",
}
MSTLO = {
    "F1": "G[0,100](x>0)",
    "F3": "(x>0) U[0,100] (y>0)",
    "F4": "((F[0,100]((x>0) and (G[0,20](y>0)))) and "
    "(G[0,200]((x<2) or (F[0,50](y>0.5))))) and ((y>-3) U[0,100] (x>1))",
}
STLCGPP = {
    "F1": "Always((x > 0), interval=[0, 100])",
    "F3": "Until((x > 0), (y > 0), interval=[0, 100])",
}
GOLDEN = {"F1": 0.53125, "F3": 1.0, "F4": -0.140625}
NATIVE = re.compile(r"^\s+(.+): ([\d.]+)x, bar (<=|>=) ([\d.]+)x: (?:met|MISSED)$", re.MULTILINE)


def trace(n: int, start: int = 0) -> np.ndarray:
    """The signals of the specification, `[n, 2]`."""
    return np.array(signals(n, start)).T.copy()


def golden() -> None:
    """Signals and formulas give the specification's numbers, or nothing below means anything."""
    x = trace(1000)
    assert x.sum(axis=0).tolist() == [1049.140625, 0.96875], x.sum(axis=0)
    at_500 = {"F1": -0.015625, "F3": 0.40625}
    for name, value in GOLDEN.items():
        rho = stl.robustness_trace(stl.parse(OURS[name], ["x", "y"]), x)
        assert rho[0] == value and rho[500] == at_500.get(name, rho[500]), (name, rho[0], rho[500])


def seconds(run: Callable[[], object], samples: int, repeat: int) -> Callable[[], float]:
    """A contender: wall time of one sample, averaged over `repeat` calls."""

    def measure() -> float:
        start = time.perf_counter()
        for _ in range(repeat):
            run()
        return (time.perf_counter() - start) / (repeat * samples)

    return measure


def row(
    report: Report, peer: Peer, what: str, ours: Callable[[], float], theirs: tuple[str, str, int],
    bar: float, value: float | None = None, rounds: int = 5,
) -> None:  # fmt: skip
    """The peer's best time over ours, after a warm round in which its value is compared."""
    what = f"{what}, {peer.title}"
    if not peer:
        report.missing(what, peer.why, bar, at_least=True)
        return
    kind, formula, n = theirs

    def asked() -> dict[str, Any]:
        """Its own time of one sample, and its value at t = 0."""
        return peer.ask(time=kind, formula=formula, n=n)

    got = asked()["value"]
    assert value is None or got == value, (what, got, value)
    ours()
    best = common.interleave({"ours": ours, "theirs": lambda: asked()["seconds"]}, rounds)
    a, b = best["ours"].min(), best["theirs"].min()
    report.rows.append(Row(what, b / a, bar, True, f"{b * 1e6:.4g} / {a * 1e6:.4g} µs a sample"))


def offline(report: Report, peer: Peer) -> None:
    """Whole traces."""
    for name, n, their_n, bar in (("F1", 10_000, 10_000, 500.0), ("F3", 1_000, 300, 1e4)):
        f, x = stl.parse(OURS[name], ["x", "y"]), trace(n)
        ours = seconds(lambda f=f, x=x: stl.robustness_trace(f, x), n, 20)
        row(
            report,
            peer,
            f"{name}, T={n}, offline",
            ours,
            ("offline", RTAMT[name], their_n),
            bar,
            GOLDEN[name],
        )
    f, x = stl.parse(OURS["F4"], ["x", "y"]), np.stack([trace(1000, 3 * n) for n in range(256)])
    ours = seconds(lambda: stl.robustness_trace(f, x), 256_000, 1)
    theirs = ("offline", RTAMT["F4"], 500)
    row(report, peer, "F4, 256×1000, offline", ours, theirs, 5e4, GOLDEN["F4"])


def streaming(report: Report, peer: Peer) -> None:
    """Sample by sample: batches, one call each, and the intervals."""
    for name, n, bar in (("F1", 5_000, 20.0), ("F3", 1_000, 60.0), ("F4", 1_000, 40.0)):
        f = stl.parse(OURS[name], until="inclusive")
        m, x = stl.Monitor(f, interval=False), trace(n)[:, : len(f.signals)].copy()

        def batch(m: stl.Monitor = m, x: np.ndarray = x) -> None:
            m.reset()
            m.update_batch(x)

        theirs = ("batch", MSTLO[name], n)
        row(report, peer, f"{name}, update_batch", seconds(batch, n, 5), theirs, bar, GOLDEN[name])
    for name, n, bar in (("F1", 5_000, 1.5), ("F3", 1_000, 5.0)):
        f = stl.parse(OURS[name], until="inclusive")
        m, samples = stl.Monitor(f, interval=False), trace(n)[:, : len(f.signals)].tolist()

        def single(m: stl.Monitor = m, samples: list[list[float]] = samples) -> None:
            m.reset()
            for sample in samples:
                _ = m.update(sample).closed

        theirs = ("single", MSTLO[name], n)
        row(report, peer, f"{name}, one call a sample", seconds(single, n, 1), theirs, bar, GOLDEN[name])
    n = 300
    samples = trace(n).tolist()
    m = stl.Monitor(stl.parse(OURS["F4"], until="inclusive"), interval=True)

    def oldest() -> None:
        m.reset()
        for sample in samples:
            _ = m.update(sample).pending

    def every() -> None:
        m.reset()
        for sample in samples:
            m.update(sample)
            m.pending()

    for what, run, bar in (("one instant", oldest, 20.0), ("all pending", every, 3.0)):
        theirs = ("rosi", MSTLO["F4"], n)
        row(report, peer, f"F4, T=300, interval of {what}", seconds(run, n, 1), theirs, bar)


def gradients(report: Report, peer: Peer) -> None:
    """Forward and backward of the robustness at t = 0."""
    import torch

    for name, bar in (("F1", 50.0), ("F3", 2_000.0)):
        f = stl.parse(OURS[name], ["x", "y"], until="inclusive")
        x = torch.tensor(trace(1000), dtype=torch.float32, requires_grad=True)

        def both(f: stl.Formula = f, x: Any = x) -> None:
            x.grad = None
            stl.robustness(f, x).backward()

        what = f"{name}, T=1000, float32, forward and backward"
        ours = seconds(both, 1000, 20)
        row(report, peer, what, ours, ("backward", STLCGPP[name], 1000), bar, GOLDEN[name])


def windows(report: Report, quick: bool) -> None:
    """The cost of a sample must not grow with the window."""
    n = 110_000
    x = trace(n)[:, :1].copy()

    def contender(width: int) -> Callable[[], float]:
        m = stl.Monitor(stl.parse(f"G[0,{width - 1}] x>0"), interval=False)

        def run() -> None:
            m.reset()
            m.update_batch(x)

        return seconds(run, n, 1)

    figures = common.interleave({"10": contender(10), "1e5": contender(100_000)}, 2 if quick else 7)
    a, b = figures["1e5"].min(), figures["10"].min()
    what = "update_batch, window of 100,000 samples / of 10"
    report.rows.append(Row(what, a / b, 2.0, False, f"{a * 1e9:.3g} / {b * 1e9:.3g} ns a sample"))


def native(report: Report, quick: bool) -> None:
    """The rows that the crate's own benchmark prints."""
    what = "native rows"
    if quick:
        report.missing(what, "not measured: --quick")
        return
    try:
        done = common.unpinned("cargo", "bench", "--quiet", "-p", "cadenza-stl", "--bench", "speed")
    except FileNotFoundError:
        report.missing(what, "not installed: cargo")
        return
    rows = NATIVE.findall(done.stdout)
    if done.returncode or not rows:
        report.missing(what, f"not measured: {(done.stderr.strip() or 'no rows').splitlines()[-1]}")
    for name, ratio, sense, bar in rows:
        report.rows.append(Row(f"native: {name}", float(ratio), float(bar), sense == ">="))


def measure(quick: bool) -> Report:
    """All rows."""
    golden()
    report = Report(
        "stl_speed", "theirs / ours (native and window rows as named), best of interleaved rounds, one core"
    )
    for name, script, part in (
        ("rtamt", "rtamt_worker.py", offline),
        ("mstlo-python", "mstlo_worker.py", streaming),
        ("stlcgpp", "stlcgpp_worker.py", gradients),
    ):
        peer = Peer(name, HERE / "stl_peers" / script, quick=quick)
        try:
            part(report, peer)
        finally:
            peer.close()
    windows(report, quick)
    native(report, quick)
    return report


if __name__ == "__main__":
    common.main(measure, __doc__)
