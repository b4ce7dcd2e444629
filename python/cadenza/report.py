"""A run from its log: arrays by joint name, figures with their definitions, plots, comparisons.

The HTML page is the runtime's (`cadenza report`); here is what one computes with. Every figure says how it is
defined, and one that the log has no numbers for says that instead of a number.

    log = load("run.mcap")
    print(summary(log).text())
    print(compare(log, load("other.mcap")))
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cadenza import _native
from cadenza.motion import energy_above, jerk

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Monitor",
    "Row",
    "RunLog",
    "Summary",
    "Value",
    "compare",
    "load",
    "plot",
    "plot_latency",
    "reversals",
    "smoothness",
    "squared_change",
    "summary",
]

LEVELS = ("run", "hold", "soft stop", "damp", "off")


@dataclass(frozen=True)
class Monitor:
    """The verdicts of one formula.

    Attributes:
        name: its name.
        formula: STL text.
        tick: control tick of each verdict `[V]`.
        robustness: robustness of the instant that closed there, NaN where none did `[V]`.
        lo: lower bound of the oldest pending instant `[V]`.
        hi: upper bound `[V]`.
    """

    name: str
    formula: str
    tick: np.ndarray
    robustness: np.ndarray
    lo: np.ndarray
    hi: np.ndarray

    @property
    def closed(self) -> np.ndarray:
        """Robustness of every instant with a final verdict."""
        return self.robustness[~np.isnan(self.robustness)]


@dataclass(frozen=True)
class RunLog:
    """A log in memory. Arrays `[ticks]` by joint name, SI units.

    Attributes:
        path: the file.
        header: what the log says before its first message: robot, joints, rates, monitors, run.
        joints: names in robot order.
        dt: control period, s.
        tick: control tick of each state `[T]`.
        q: measured positions.
        dq: measured velocities.
        tau: measured torques.
        command_tick: control tick of each command `[C]`.
        command: positions sent.
        command_velocity: velocities sent.
        level: level of each command `[C]`, an index of `LEVELS`.
        monitors: one for each formula of each bundle that had the robot.
        events: faults in order, `{"tick", "reason", "subject", "value", "limit", "level"}`.
        stats: statistics of the run; `None` when it was killed.
        dropped: messages that the recorder lost, by topic.
        damage: what could not be read, one sentence each.
    """

    path: Path
    header: dict[str, Any]
    joints: tuple[str, ...]
    dt: float
    tick: np.ndarray
    q: Mapping[str, np.ndarray]
    dq: Mapping[str, np.ndarray]
    tau: Mapping[str, np.ndarray]
    command_tick: np.ndarray
    command: Mapping[str, np.ndarray]
    command_velocity: Mapping[str, np.ndarray]
    level: np.ndarray
    monitors: tuple[Monitor, ...]
    events: list[dict[str, Any]]
    stats: dict[str, Any] | None
    dropped: dict[str, int]
    damage: list[str]

    @property
    def seconds(self) -> float:
        """Time from the first to the last state, s."""
        return float(self.tick[-1] - self.tick[0]) * self.dt if len(self.tick) else 0.0

    def armed(self) -> slice:
        """The commands from the first to the last that was sent with the motors on."""
        on = np.flatnonzero(self.level < LEVELS.index("off"))
        return slice(int(on[0]), int(on[-1]) + 1) if len(on) else slice(0, 0)


def load(log: str | Path) -> RunLog:
    """Reads a log.

    Args:
        log: MCAP file of a run, whole or cut short.

    Raises:
        _native.LogError: it is not a log of ours; the text names the file.
    """
    path = Path(log)
    try:
        native = _native.Log(path)
    except _native.LogError as error:
        raise _native.LogError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    header = json.loads(native.header)
    names = tuple(joint["name"] for joint in header["joints"])
    columns, verdicts = native.joints(), native.verdicts()

    def by_name(key: str) -> dict[str, np.ndarray]:
        return {name: columns[key][:, i] for i, name in enumerate(names)}

    monitors = []
    watched = native.watched()
    for bundle, start, end, its in watched:
        of_bundle = (verdicts["tick"] >= start) & (verdicts["tick"] < (np.inf if end is None else end))
        for i, (name, formula) in enumerate(its):
            rows = of_bundle & (verdicts["monitor"] == i)
            tick, closed, lo, hi = (verdicts[key][rows] for key in ("tick", "closed", "lo", "hi"))
            # bundles may watch properties of one name, and one bundle may have the robot twice
            label = name if len(watched) == 1 else f"{name} ({bundle} from tick {start})"
            monitors.append(Monitor(label, formula, tick, closed, lo, hi))
    return RunLog(
        path=path,
        header=header,
        joints=names,
        dt=1.0 / header["control_hz"],
        tick=columns["state_tick"],
        q=by_name("q"),
        dq=by_name("dq"),
        tau=by_name("tau"),
        command_tick=columns["command_tick"],
        command=by_name("command"),
        command_velocity=by_name("command_velocity"),
        level=columns["level"],
        monitors=tuple(monitors),
        events=json.loads(native.events()),
        stats=None if native.stats is None else json.loads(native.stats),
        dropped=native.dropped(),
        damage=native.damage,
    )


# --- figures on a signal [T] sampled at f_s ----------------------------------------------------


def smoothness(x: np.ndarray, rate: float) -> float:
    """CAPS smoothness Sm = 2/(n·f_s) Σ Mᵢ fᵢ, Mᵢ = 2/N |FFT|, over the n one-sided bins without the mean
    (Mysore et al. 2021, eq. 4); 0 for fewer than two samples."""
    n = len(x)
    if n < 2:
        return 0.0
    amplitude = 2.0 / n * np.abs(np.fft.rfft(x))[1:]
    frequency = np.fft.rfftfreq(n, 1.0 / rate)[1:]
    return float(2.0 / (len(frequency) * rate) * np.sum(amplitude * frequency))


def squared_change(x: np.ndarray) -> float:
    """Σ |Δu|² over the samples."""
    return float(np.sum(np.diff(x) ** 2))


def reversals(x: np.ndarray, rate: float, threshold: float = 1e-6) -> float:
    """Changes of direction in a second; steps of at most `threshold` are no movement."""
    if len(x) < 2:
        return 0.0
    steps = np.diff(x)
    signs = np.sign(steps[np.abs(steps) > threshold])
    return float(np.count_nonzero(np.diff(signs)) * rate / (len(x) - 1))


# --- the summary -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Value:
    """A number of the summary.

    Attributes:
        value: the number; `None` where the log has nothing to compute it from.
        missing: why there is no number.
    """

    value: float | None
    missing: str = ""

    def __str__(self) -> str:
        return f"{self.value:.6g}" if self.value is not None else self.missing


@dataclass(frozen=True)
class Row:
    """A line of the summary.

    Attributes:
        name: what it is.
        unit: SI unit; empty for counts and shares.
        definition: how it is computed.
        total: for the whole run.
        by_joint: the same for each joint, where it has one.
    """

    name: str
    unit: str
    definition: str
    total: Value
    by_joint: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """All figures of a run."""

    path: Path
    rows: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no figure '{name}'; there are {', '.join(row.name for row in self.rows)}")

    def text(self) -> str:
        """A table: name, figure, unit, definition."""
        name = max(len(row.name) for row in self.rows)
        figure = max(len(str(row.total)) for row in self.rows)
        lines = (
            f"  {row.name:<{name}}  {row.total!s:>{figure}}  {row.unit:<7}  {row.definition}" for row in self
        )
        return "\n".join([str(self.path), *(line.rstrip() for line in lines)])


_NO_COMMANDS = "no commands while armed"
_NO_TORQUE = "not measured: the device reports no torque"


def summary(log: RunLog, *, cutoff: float = 10.0) -> Summary:
    """All figures of a run. Those of commands cover the time with the motors on.

    Args:
        log: the run.
        cutoff: frequency above which energy counts as high, Hz.

    Raises:
        ValueError: `cutoff` is not between 0 and half the control rate.
    """
    rate = 1.0 / log.dt
    if not 0.0 < cutoff < rate / 2.0:
        raise ValueError(f"cutoff {cutoff} Hz: between 0 and {rate / 2.0:g}, half the control rate")
    armed = log.armed()
    sent = {name: x[armed] for name, x in log.command.items()}
    torque = log.tau if any(np.any(x) for x in log.tau.values()) else {}

    def over(
        signals: Mapping[str, np.ndarray], missing: str, least: int, figure: Any, total: Any
    ) -> tuple[Value, dict[str, Value]]:
        if not signals or len(next(iter(signals.values()))) < least:
            gone = Value(None, missing)
            return gone, dict.fromkeys(log.joints, gone)
        each = {name: float(figure(name, x)) for name, x in signals.items()}
        return Value(float(total(list(each.values())))), {name: Value(x) for name, x in each.items()}

    def root(values: Sequence[float]) -> float:
        return math.sqrt(float(np.mean(np.square(values))))

    def commands(name: str, unit: str, definition: str, least: int, figure: Any, total: Any) -> Row:
        return Row(name, unit, definition, *over(sent, _NO_COMMANDS, least, lambda _, x: figure(x), total))

    def torques(name: str, unit: str, definition: str, figure: Any, total: Any) -> Row:
        return Row(name, unit, definition, *over(torque, _NO_TORQUE, 1, figure, total))

    rows = [
        Row("recorded", "s", "from the first to the last state", Value(log.seconds)),
        commands(
            "Sm", "rad", "2/(n f_s) Σ Mᵢ fᵢ of the commands, Mᵢ = 2/N |FFT|; mean over joints", 2,
            lambda x: smoothness(x, rate), np.mean,
        ),
        commands(
            "peak jerk", "rad/s³", "largest |third difference|/dt³ of the commands", 4,
            lambda x: jerk([x], log.dt)[0], max,
        ),
        commands(
            "RMS jerk", "rad/s³", "root mean square of the same, over joints too", 4,
            lambda x: jerk([x], log.dt)[1], root,
        ),
        commands("Σ|Δu|²", "rad²", "squared steps of the commands, sum over joints", 2, squared_change, sum),
        commands(
            "high frequency", "", f"share of the commands' power above {cutoff:g} Hz; mean over joints", 2,
            lambda x: energy_above([x], rate, cutoff), np.mean,
        ),
        commands(
            "reversals", "1/s", "changes of direction of the commands in a second; mean over joints", 2,
            lambda x: reversals(x, rate), np.mean,
        ),
        torques(
            "RMS torque", "N·m", "root mean square of the measured torque, over joints too",
            lambda _, x: math.sqrt(float(np.mean(x**2))), root,
        ),
        torques("peak torque", "N·m", "largest |τ| measured", lambda _, x: np.max(np.abs(x)), max),
        torques(
            "mean |τω|", "W", "mechanical power |τ·ω| measured, mean over time, sum over joints",
            lambda name, x: np.mean(np.abs(x * log.dq[name])), sum,
        ),
        *_counts(log),
        *(row for monitor in log.monitors for row in _verdicts(monitor)),
    ]  # fmt: skip
    return Summary(log.path, tuple(rows))


def _counts(log: RunLog) -> Iterator[Row]:
    killed = Value(None, "no statistics: the run did not end in order")
    counters = None if log.stats is None else log.stats["counters"]

    def counted(key: str) -> Value:
        return killed if counters is None else Value(float(counters[key]))

    yield Row("missed deadlines", "", "ticks after at least one skipped period", counted("missed"))
    yield Row("skipped periods", "", "control periods without a tick", counted("skipped"))
    yield Row("faults", "", "reports to the safety gate", Value(float(len(log.events))))
    lost = f"messages lost by the recorder ({', '.join(log.dropped)})" if log.dropped else "messages lost"
    yield Row("drops", "", lost, Value(float(sum(log.dropped.values()))))


def _verdicts(monitor: Monitor) -> Iterator[Row]:
    closed = monitor.closed
    none = "no verdicts recorded" if not len(monitor.tick) else "inconclusive: no instant was decided"
    least = Value(float(closed.min())) if len(closed) else Value(None, none)
    yield Row(f"robustness {monitor.name}", "", f"smallest of {monitor.formula}", least)
    held, violated = float(np.sum(closed >= 0.0)), float(np.sum(closed < 0.0))
    yield Row(f"held {monitor.name}", "", "instants with robustness 0 or more", Value(held))
    yield Row(f"violated {monitor.name}", "", "instants with robustness below 0", Value(violated))


# --- comparison and plots ----------------------------------------------------------------------


def compare(a: RunLog, b: RunLog, *, cutoff: float = 10.0) -> str:
    """Two runs side by side: every figure of either, and the ratio b/a where both have one."""
    first, second = ({row.name: row for row in summary(log, cutoff=cutoff)} for log in (a, b))
    absent = Row("", "", "", Value(None, "not in this run"))
    table = [("", str(a.path), str(b.path), "b/a", "")]
    for name in dict.fromkeys((*first, *second)):
        x, y = first.get(name, absent), second.get(name, absent)
        ratio = f"{y.total.value / x.total.value:.3f}" if x.total.value and y.total.value is not None else "–"
        table.append((name, str(x.total), str(y.total), ratio, x.unit or y.unit))
    widths = [max(len(row[i]) for row in table) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table
    )


def plot(log: RunLog, joints: Sequence[str] | None = None) -> Figure:
    """Measured and commanded positions of each joint over time, robustness below: a matplotlib figure (extra
    `viz`), for `figure.savefig("run.png")`.

    Args:
        log: the run.
        joints: names; all when `None`.

    Raises:
        KeyError: a name that the robot does not have.
        ModuleNotFoundError: without matplotlib; the text says how to get it.
    """
    names = log.joints if joints is None else tuple(joints)
    if unknown := [name for name in names if name not in log.joints]:
        raise KeyError(f"no joint '{unknown[0]}'; the robot has {', '.join(log.joints)}")
    canvas = _canvas()
    count = len(names) + bool(log.monitors)
    figure = canvas(figsize=(9.0, 1.8 * max(count, 1)), layout="constrained")
    axes = figure.subplots(max(count, 1), 1, sharex=True, squeeze=False)[:, 0]
    start = int(log.tick[0]) if len(log.tick) else 0
    measured, sent = ((np.asarray(t, float) - start) * log.dt for t in (log.tick, log.command_tick))
    limits = {joint["name"]: joint["position"] for joint in log.header["joints"]}
    for axis, name in zip(axes, names, strict=False):
        axis.plot(sent, log.command[name], color="tab:orange", linewidth=2.5, label="commanded")
        axis.plot(measured, log.q[name], color="tab:blue", linewidth=1.0, label="measured")
        near = axis.get_ylim()
        for limit in limits[name] or ():
            axis.axhline(limit, color="tab:red", linewidth=0.8)
        axis.set_ylim(near)  # a far limit must not flatten the curves
        axis.set_ylabel(f"{name}, rad")
    if log.monitors:
        axis = axes[-1]
        for monitor in log.monitors:
            decided = ~np.isnan(monitor.robustness)
            at = (np.asarray(monitor.tick[decided], float) - start) * log.dt
            axis.plot(at, monitor.robustness[decided], label=monitor.name)
        axis.axhline(0.0, color="tab:red", linewidth=0.8)
        axis.set_ylabel("robustness")
        axis.legend(loc="upper right")
    if names:
        axes[0].legend(loc="upper right")
    axes[-1].set_xlabel("time, s")
    return figure


def plot_latency(measurement: str | Path, stages: Sequence[str] | None = None) -> Figure:
    """How often a stage takes longer than a time, from the JSON of `cadenza bench latency`.

    Both axes are logarithmic. Returns a matplotlib figure (extra `viz`).

    Args:
        measurement: the file.
        stages: rows to show; bare wake, wake lateness, infer, whole tick and sensor->command when `None`.

    Raises:
        ValueError: not such a file, or a row that it does not have.
        ModuleNotFoundError: without matplotlib; the text says how to get it.
    """
    try:
        rows = {row["name"]: row for row in json.loads(Path(measurement).read_text())["stages"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{measurement}: not the JSON of bench latency: {error!r}") from None
    usual = ("bare wake", "wake lateness", "infer", "whole tick", "sensor->command")
    names = [name for name in usual if name in rows] if stages is None else list(stages)
    if unknown := [name for name in names if name not in rows]:
        raise ValueError(f"{measurement}: no stage '{unknown[0]}'; there are {', '.join(rows)}")
    figure = _canvas()(figsize=(9.0, 4.0), layout="constrained")
    axis = figure.subplots()
    for name in names:
        edges, counts = np.asarray(rows[name]["buckets"], float).reshape(-1, 2).T
        if len(edges):
            above = 1.0 - np.concatenate([[0.0], np.cumsum(counts)[:-1]]) / counts.sum()
            axis.step(edges / 1e3, above, where="post", label=name)
    axis.set(xscale="log", yscale="log", xlabel="µs", ylabel="share of ticks above")
    axis.legend()
    return figure


def _canvas() -> type[Figure]:
    """matplotlib's figure, without its windows."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        message = "plots need matplotlib: pip install 'cadenza[viz]'"
        raise ModuleNotFoundError(message, name="matplotlib") from None
    return Figure
