"""What the benchmarks share: pinning, interleaved rounds, ratios with their bars, the native programs.

A benchmark is a function from `quick` to a `Report`; `main` gives it a command line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# The largest variation of a reference between rounds with which a ratio still means something.
STEADY = 0.3


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: what was measured, against what.
        ratio: the result; None where there is none.
        bar: the specification's bar, None where it has none.
        at_least: whether the ratio has to reach the bar instead of staying below it.
        figures: the absolute figures behind the ratio.
        trouble: why there is no verdict: `not installed: …`, `inconclusive: …`.
    """

    what: str
    ratio: float | None = None
    bar: float | None = None
    at_least: bool = False
    figures: str = ""
    trouble: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, `no bar`, or the trouble."""
        if self.trouble:
            return self.trouble
        if self.bar is None or self.ratio is None:
            return "no bar"
        return "met" if (self.ratio >= self.bar if self.at_least else self.ratio <= self.bar) else "missed"

    def cells(self) -> tuple[str, str, str, str, str]:
        """The row of a table: what, ratio, bar, verdict, figures."""
        ratio = "–" if self.ratio is None else f"{self.ratio:.3g}"
        bar = "–" if self.bar is None else f"{'≥' if self.at_least else '≤'} {self.bar:g}"
        return self.what, ratio, bar, self.verdict, self.figures


@dataclass
class Report:
    """The rows of one benchmark, and how they were measured."""

    name: str
    method: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def ratio(
        self,
        what: str,
        ours: np.ndarray | list[float],
        reference: np.ndarray | list[float],
        bar: float | None = None,
        *,
        at_least: bool = False,
        figures: str = "",
    ) -> None:
        """Adds the median of the ratios of paired rounds.

        Args:
            what: name of the row.
            ours: one figure per round.
            reference: the other side's, same rounds; when it varies too much the row is inconclusive.
            bar: see `Row`.
            at_least: see `Row`.
            figures: see `Row`.
        """
        a, b = np.asarray(ours, float), np.asarray(reference, float)
        value, trouble = float(np.median(a / b)), ""
        varied = float((b.max() - b.min()) / np.median(b))
        if varied > STEADY:
            trouble = f"inconclusive: the reference varied by {varied:.0%}"
        self.rows.append(Row(what, value, bar, at_least, figures, trouble))

    def missing(self, what: str, why: str, bar: float | None = None, *, at_least: bool = False) -> None:
        """Adds a row that could not be measured."""
        self.rows.append(Row(what, bar=bar, at_least=at_least, trouble=why))

    def table(self) -> str:
        """The rows in columns."""
        header = ("", "ratio", "bar", "verdict", "figures")
        cells = [header, *(row.cells() for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
        return "\n".join([f"{self.name}: {self.method}", *lines, *self.notes])


def interleave(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, np.ndarray]:
    """Lets every contender run once in each round; returns the figures of each, one per round."""
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            figures[name].append(run())
    return {name: np.array(values) for name, values in figures.items()}


def cpu_seconds(run: Callable[[], object], count: int) -> float:
    """Process CPU time of one call, averaged over `count`."""
    start = time.process_time()
    for _ in range(count):
        run()
    return (time.process_time() - start) / count


def wall_us(run: Callable[[], object], count: int) -> float:
    """Median wall time of one call, µs."""
    times = np.empty(count)
    for i in range(count):
        start = time.perf_counter_ns()
        run()
        times[i] = time.perf_counter_ns() - start
    return float(np.median(times)) / 1e3


def pin() -> None:
    """Keeps this process and its children on one core, with one thread of arithmetic."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(1)


def unpin() -> None:
    """Gives this process, or a child of it, every core again."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def unpinned(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command that may use every core, though this process may not."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, preexec_fn=unpin, check=False)


def program(name: str, quick: bool) -> Path:
    """Builds and finds a native program of this folder; the debug build when quick.

    Raises:
        RuntimeError: no cargo, or it does not build.
    """
    if shutil.which("cargo") is None:
        raise RuntimeError("not installed: cargo")

    def cargo(*args: str) -> str:
        done = unpinned("cargo", *args)
        if done.returncode:
            raise RuntimeError(f"cargo {args[0]}: {done.stderr.strip().splitlines()[-1]}")
        return done.stdout

    profile, flags = ("debug", ()) if quick else ("release", ("--release",))
    cargo("build", "--quiet", "-p", "cadenza-benches", "--bin", name, *flags)
    target = json.loads(cargo("metadata", "--no-deps", "--format-version=1"))["target_directory"]
    return Path(target) / profile / name


def answer(command: list[str | Path]) -> dict:
    """What a native program prints.

    Raises:
        RuntimeError: it fails; the text is its own.
    """
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Worker:
    """A program that answers each line with one line of JSON, so that blocks of several can alternate."""

    def __init__(self, command: list[str | Path], env: Mapping[str, str] | None = None) -> None:
        self._name = Path(command[0]).name
        self._process = subprocess.Popen(
            [str(c) for c in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def ask(self, line: str) -> dict:
        """Sends a line and waits for the answer; RuntimeError when the program has ended."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer below is empty
        text = self._process.stdout.readline()
        if not text:
            raise RuntimeError(f"{self._name} ended with {self._process.wait()}")
        return json.loads(text)

    def close(self) -> None:
        """Ends it."""
        self._process.communicate()


def main(measure: Callable[[bool], Report], description: str | None) -> None:
    """The command line of a benchmark: runs it, prints its table, writes it as JSON when asked."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it runs; no figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    args = parser.parse_args()
    pin()
    report = measure(args.quick)
    print(report.table())
    if args.json is not None:
        rows = [{**asdict(row), "verdict": row.verdict} for row in report.rows]
        args.json.write_text(
            json.dumps({**asdict(report), "rows": rows}, ensure_ascii=False, indent=1) + "\n"
        )
