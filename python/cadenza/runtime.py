"""Run a bundle in the Rust loop: on MuJoCo, on a robot, or on nothing at all.

The loop owns its thread, its state and its clock; Python holds a handle. No Python code ever runs on the
control thread.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from cadenza import _native
from cadenza._native import Bundle, BundleError, ParityReport, Policy, RuntimeFault
from cadenza.player import Episode, Played, SequencePlayer

if TYPE_CHECKING:
    import mujoco

    from cadenza.robot import Robot

__all__ = [
    "Bundle",
    "BundleError",
    "Episode",
    "Handle",
    "ParityReport",
    "Played",
    "Policy",
    "Report",
    "RunConfig",
    "Runtime",
    "RuntimeFault",
    "SequencePlayer",
    "SimDevice",
    "Snapshot",
    "bundle_scene",
]


@dataclass(frozen=True)
class RunConfig:
    """How a bundle is run; the fields of the runtime's own configuration, which checks them.

    Attributes:
        seconds: length of the run, counted from arming; without end when `None`.
        record: log file (MCAP).
        virtual_clock: no sleeping, one period for each tick; the same input gives the same bytes.
        dry_run: the full pipeline, but motors are never enabled and commands go to the log only.
        mode: `"auto"`, `"inline"` or `"async"`: where the policy runs; `"auto"` leaves it on the control
            thread if its cold inference takes less than a quarter of the control period.
        trigger: `"every:STEPS"` or `"remaining:STEPS"`: when the policy is asked for a new sequence; each
            `chunk.execute` steps when `None`.
        inject: delay of the policy's answers on the virtual clock: `"const:30ms"`, `"const:5ticks"`,
            `"uniform:10ms..60ms"`, `"pareto:20ms,1.5"`, `"drop:0.05"`.
        upsample: `"hold"`, `"linear"` or `"cubic"`: how the policy's rate becomes the control rate; linear
            for sequences and hold for single actions when `None`.
        seam: `"replace"`, `"fade"`, `"fade:STEPS"`, `"ensemble"`, `"ensemble:K"` or `"prefix"`: how a new
            action sequence takes over; the bundle's rule when `None`.
        freeze: policy steps that a new sequence may no longer change.
        late: `"drop"`, `"last"` or `"fallback"`: what becomes of a sequence that arrives when all of it is in
            the past.
        fallback: bundle that takes over when a monitor with the action `fallback_policy` trips, and with
            `late="fallback"`.
        noise: share, 0 to 1, of the exploration noise that the bundle allows.
        monitor_budget_us: time of a control tick that the monitors together may take on the average, µs;
            those that take longest are stepped more rarely until they keep it. Not on the virtual clock.
        record_every: control ticks between two records of `/tick`.
        priority: real-time priority asked for (SCHED_FIFO).
        core: core to pin the control thread to.
        spin_us: time before a deadline from which the loop spins instead of sleeping, µs.
        require_rt: refuse to run when the real-time set-up is degraded.
        arm: arm as soon as the checks pass, without waiting for :meth:`Handle.arm`.
    """

    seconds: float | None = None
    record: str | None = None
    virtual_clock: bool = False
    dry_run: bool = False
    mode: str = "auto"
    trigger: str | None = None
    inject: str | None = None
    upsample: str | None = None
    seam: str | None = None
    freeze: int = 0
    late: str = "drop"
    fallback: str | None = None
    noise: float = 0.0
    monitor_budget_us: float | None = None
    record_every: int = 1
    priority: int = 80
    core: int | None = None
    spin_us: int = 0
    require_rt: bool = False
    arm: bool = True


class SimDevice:
    """A MuJoCo simulation as the robot: stepped by the loop through MuJoCo's own library, without the GIL.

    Python must not touch `data` while a run uses it; afterwards it holds the final state.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, robot: Robot, objects: Sequence[str] = ()
    ) -> None:
        from cadenza.sim.device import sim_handles

        self.model, self.data, self.robot = model, data, robot
        self.native = _native.SimDevice(sim_handles(model, data, robot, objects), (model, data))

    @classmethod
    def of(cls, robot: Robot, q: np.ndarray | None = None, *, scene: str | None = None) -> SimDevice:
        """A fresh simulation of `robot` at home, or at joint positions `q` `[J]`.

        `scene` is MJCF of what stands around it, whose objects the device reports; a bundle carries that of
        its task (`bundle_scene`).
        """
        import mujoco

        from cadenza.sim.motor import joint_indices
        from cadenza.sim.scene import scene_objects

        model = robot.model(scene=scene)
        data = mujoco.MjData(model)
        at, _, _ = joint_indices(model, robot.joint_names)
        data.qpos[at] = robot.home if q is None else q
        return cls(model, data, robot, scene_objects(scene))


def bundle_scene(bundle: Bundle) -> str | None:
    """The scene that a bundle was trained in; None when it carries none."""
    entry = bundle.entry("x-scene.xml")
    return None if entry is None else entry.decode()


@dataclass(frozen=True)
class Snapshot:
    """The newest tick, copied without stopping the loop. Arrays `[joints]` in robot order, SI units.

    `base` is the floating base's position and quaternion (w x y z) `[7]`, `None` where the device reports
    none; `fallback` whether the run's fallback bundle has the robot.
    """

    tick: int
    level: str
    phase: str
    authority: float
    q: np.ndarray
    dq: np.ndarray
    command: np.ndarray
    base: np.ndarray | None
    fallback: bool
    fault: str | None


@dataclass(frozen=True)
class Report:
    """How a run went.

    Attributes:
        ended: why it ended, in words.
        level: level of the safety ladder at the end.
        ticks: commands made.
        faults: `{"tick", "reason", "subject", "value", "limit", "level"}` for each report to the gate, in
            order, with the operator's stop and the monitors that only log; the subject is a joint or a
            monitor.
        stats: stage → count and percentiles in µs, deadlines missed, rate.
        rt: what the operating system granted.
        record: log path, records written and dropped, error if any.
        monitors: per monitor: verdicts, smallest robustness, trips.
        table: the same as a text table.
        exit_code: 0 ended as it should, 1 a fault or motors that did not come on, 70 a panic of the loop.
        armed_s: time from the start of the loop to the motors' coming on, s; `None` when they did not.
    """

    ended: str
    level: str
    ticks: int
    faults: list[dict[str, Any]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)
    rt: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    monitors: list[dict[str, Any]] = field(default_factory=list)
    table: str = ""
    exit_code: int = 0
    armed_s: float | None = None

    @classmethod
    def _of(cls, text: str) -> Report:
        return cls(**json.loads(text))


class Runtime:
    """A bundle, a robot and a device, checked against each other and ready to run.

    Args:
        bundle: path of a `.cadenza` file, or an open :class:`Bundle`.
        robot: robot, or its name or path.
        device: a :class:`SimDevice`, `"null"` (ideal joints), or `"replay:LOG"`.
        config: the run's knobs.

    Raises:
        ValueError: bundle, robot and device do not fit; the text names both values.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle,
        *,
        robot: Robot | str | Path,
        device: SimDevice | str = "null",
        config: RunConfig | None = None,
    ) -> None:
        from cadenza.robot import Robot, load_robot

        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle(str(bundle))
        self.robot = robot if isinstance(robot, Robot) else load_robot(robot)
        self.config = config or RunConfig()
        native = device.native if isinstance(device, SimDevice) else device
        self._native = _native.Runtime(
            self.bundle, self.robot.native, native, json.dumps(asdict(self.config))
        )
        self._device = device  # a simulation lives as long as the loop that steps it

    def start(self) -> Handle:
        """Starts the loop in its own thread."""
        return Handle(self._native.start())

    def run(self, commands: Mapping[float, Mapping[str, float]] | None = None) -> Report:
        """Runs to the end and blocks; Ctrl-C is a soft stop, a second one damps at once.

        Args:
            commands: operator commands by time since the start, s: `{0.0: {"goal_x": 0.3}, 2.0: {…}}`.

        Raises:
            KeyError, ValueError: as for :meth:`Handle.command`; a time that is negative or not finite.
        """
        if bad := [t for t in commands or {} if not 0 <= t < math.inf]:
            raise ValueError(f"commands at {bad[0]} s: a time since the start, 0 or later, wanted")
        script = [
            (float(t), name, float(v)) for t, values in (commands or {}).items() for name, v in values.items()
        ]
        return Report._of(self._native.run(script))


class Handle:
    """A running loop. Leaving the `with` block stops it softly."""

    def __init__(self, native: _native.Handle) -> None:
        self._native = native
        self._report: Report | None = None

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._report is None:
            self.stop()
            self.wait()

    def arm(self) -> None:
        """Switches the motors on as soon as the checks pass."""
        self._native.arm()

    def disarm(self) -> None:
        """Motors off."""
        self._native.disarm()

    def reset(self) -> None:
        """Clears the latch when its cause is gone; leaves the robot disarmed."""
        self._native.reset()

    def stop(self) -> None:
        """Soft stop: brake to rest, hold, damp; then the loop ends."""
        self._native.stop()

    def estop(self) -> None:
        """Damp at once, latched."""
        self._native.estop()

    def command(self, **values: float) -> None:
        """Sets operator commands by name.

        Raises:
            KeyError: unknown name; the text lists the bundle's commands.
            ValueError: outside the range that the bundle was trained for, or not finite.
        """
        for name, value in values.items():
            self._native.command(name, float(value))

    def switch(self, bundle: str | Path | Bundle, timeout: float = 5.0) -> int:
        """Gives the robot to another bundle.

        It is loaded, proven and warmed here, and takes over at the next policy step, with its authority
        growing from the target of that tick.

        Args:
            bundle: path of a `.cadenza` file, or an open :class:`Bundle`.
            timeout: longest wait for a policy step, s.

        Returns:
            The control tick at which it took over.

        Raises:
            ValueError: it does not fit, or not now; the bundle before goes on.
            TimeoutError: no policy step came; it takes over at the next one.
        """
        return self._native.switch(bundle if isinstance(bundle, Bundle) else Bundle(str(bundle)), timeout)

    def snapshot(self) -> Snapshot:
        """The newest tick; never blocks the loop."""
        return Snapshot(**self._native.snapshot())

    def wait(self, timeout: float | None = None, raise_on_fault: bool = False) -> Report:
        """Waits for the end of the run. Other threads may use the handle meanwhile, to stop the loop for one.

        Raises:
            TimeoutError: it still runs after `timeout` seconds.
            RuntimeFault: with `raise_on_fault`, when a fault stopped it.
        """
        if self._report is None:
            self._report = Report._of(self._native.wait(timeout))
        if raise_on_fault and self._report.exit_code != 0:
            raise RuntimeFault(self._report.ended)
        return self._report
