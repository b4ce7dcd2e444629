"""Many simulations of one robot, stepped together on MuJoCo's own thread pool.

The same NumPy vocabulary serves one simulation and thousands; results do not depend on the number of threads.
One call of `step` runs the control ticks of a whole policy step inside MuJoCo, without Python in between.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

from cadenza.robot import Robot
from cadenza.sim.motor import joint_indices, substeps

_POS_STAGE = int(mujoco.mjtStage.mjSTAGE_POS)


class SimulationDiverged(RuntimeError):
    """MuJoCo reported a bad state.

    Attributes:
        sims: the simulations.
    """

    def __init__(self, sims: np.ndarray, text: str) -> None:
        super().__init__(f"simulation {', '.join(map(str, sims))} diverged: {text}")
        self.sims = sims


class BatchSim:
    """n simulations of a robot of J joints.

    Args:
        robot: the robot; joint arrays follow its order.
        n: number of simulations.
        threads: threads of the pool; more change the speed, never a number.
        gains: `(kp, kd)` by joint name, as in `Robot.gains`.
        physics_dt: replaces the model's timestep; it divides the control period.

    Attributes:
        model: the compiled model.
        q: joint positions [n, J], as of the last step or reset; read-only.
        dq: joint velocities [n, J]; read-only.
        tau: joint efforts that the motors gave in the last physics step [n, J]; read-only.
    """

    def __init__(
        self,
        robot: Robot,
        n: int,
        *,
        threads: int = 1,
        gains: Mapping[str, tuple[float, float]] | None = None,
        physics_dt: float | None = None,
    ) -> None:
        if n < 1 or threads < 1:
            raise ValueError(f"n {n} and threads {threads} must be at least 1")
        self.robot, self.n = robot, n
        self.model = robot.model(gains, physics_dt=physics_dt)
        self.substeps = substeps(robot.control_dt, self.model.opt.timestep)
        self._qpos_at, self._qvel_at, self._motor = joint_indices(self.model, robot.joint_names)
        self._batch = Batch(self.model, n, threads)
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._force, self._sites = self._batch.bind("qfrc_actuator"), self._batch.bind("site_xpos")
        self._bias = np.broadcast_to(self.model.actuator_biasprm, (n, *self.model.actuator_biasprm.shape))
        self.tau = np.zeros((n, len(robot.joints)))
        self.reset(np.arange(n), np.broadcast_to(robot.home, (n, len(robot.joints))))

    def site(self, name: str) -> np.ndarray:
        """World position of a site, [n, 3]."""
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, name)
        if index < 0:
            raise ValueError(f"the model of {self.robot.name} has no site {name!r}")
        return self._sites[:, index]

    def reset(self, ids: np.ndarray, q: np.ndarray) -> None:
        """Put simulations `ids` [k] at rest at joint positions `q` [k, J]; the others stay untouched."""
        ids = np.asarray(ids, np.int64)
        self._batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._qpos[ids[:, None], self._qpos_at] = q
        self.tau[ids] = 0.0
        self._batch.forward(ids, stage=_POS_STAGE)
        self._read()

    def step(self, q: np.ndarray, dq: np.ndarray, tau: np.ndarray | float = 0.0) -> None:
        """Run K control ticks with their joint targets.

        Args:
            q: target positions, [n, K, J].
            dq: target velocities, [n, K, J].
            tau: feed-forward efforts, broadcast to [n, K, J].

        Raises:
            SimulationDiverged: a simulation left the finite numbers; it keeps its last good state.
        """
        ticks = q.shape[1]
        bias = self._bias[:, None, self._motor]
        control = np.zeros((self.n, ticks, self.model.nu))
        control[:, :, self._motor] = tau - bias[..., 1] * q - bias[..., 2] * dq
        if self.substeps > 1:
            control = np.repeat(control, self.substeps, axis=1)
        before = self._batch.warning.copy()
        try:
            self._batch.rollout(control.shape[1], control, record=[])
        except SimulationError as error:
            raise SimulationDiverged(error.ids, str(error)) from error
        if not np.array_equal(before, self._batch.warning):
            sims = np.flatnonzero((before != self._batch.warning).reshape(self.n, -1).any(1))
            raise SimulationDiverged(sims, "MuJoCo raised a warning (bad position, velocity or acceleration)")
        self.tau[:] = self._force[:, self._qvel_at]
        # derived fields lag one physics step behind: sites are needed at the new state
        self._batch.forward(stage=_POS_STAGE)
        self._read()

    def expand(self, name: str) -> np.ndarray:
        """Give a model field per-simulation values, [n, …], live: write into it, then `commit` it.

        Gains are `actuator_biasprm[:, :, 1:3]` (−kp, −kd); commands follow them.
        """
        field = self._batch.expand(name)
        if name == "actuator_biasprm":
            self._bias = field
        return field

    def commit(self) -> None:
        """Recompute the constants that MuJoCo derives from expanded fields (masses, inertias)."""
        self._batch.set_const()
        self._batch.forward(stage=_POS_STAGE)

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that the next step depends on, expanded fields aside."""
        return {"state": self._batch.state.copy(), "tau": self.tau.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`; ValueError, changing nothing, when the sizes differ."""
        rows = np.asarray(state["state"])
        if rows.shape != self._batch.state.shape:
            raise ValueError(
                f"simulator state has shape {list(rows.shape)}, expected {list(self._batch.state.shape)}"
            )
        self._batch.state[:] = rows
        self.tau[:] = state["tau"]
        self._batch.forward(stage=_POS_STAGE)
        self._read()

    def _read(self) -> None:
        self.q, self.dq = self._qpos[:, self._qpos_at], self._qvel[:, self._qvel_at]
