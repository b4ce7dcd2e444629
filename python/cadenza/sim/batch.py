"""Many simulations of one robot, stepped together on MuJoCo's own thread pool.

The same NumPy vocabulary serves one simulation and thousands; results do not depend on the number of threads.
One call of `step` runs the control ticks of a whole policy step inside MuJoCo, without Python in between.
"""

# MuJoCo comes without type stubs
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError

from cadenza.robot import Robot
from cadenza.sim.device import IMU_SENSORS
from cadenza.sim.motor import joint_indices, substeps
from cadenza.sim.scene import scene_objects

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
        scene: MJCF of what stands around the robot (`cadenza.sim.scene`).

    Attributes:
        model: the compiled model.
        objects: names of the scene's objects.
        q: joint positions [n, J], as of the last step or reset; read-only.
        dq: joint velocities [n, J]; read-only.
        tau: joint efforts that the motors gave in the last physics step [n, J]; read-only.
        imu: quaternion, gyro, accelerometer of the last physics step [n, 10]; None for a robot without them.
        base: pose and velocities of the floating base [n, 13] (position, quaternion, linear velocity in the
            world, angular velocity in the body), live; None for a robot that is bolted down.
        poses: position and quaternion of each object in the last physics step [n, O, 7].

    Joint positions are those of this moment. IMU and objects are what MuJoCo computed in its last physics
    step, as the sim device reports them.
    """

    def __init__(
        self,
        robot: Robot,
        n: int,
        *,
        threads: int = 1,
        gains: Mapping[str, tuple[float, float]] | None = None,
        physics_dt: float | None = None,
        scene: str | None = None,
    ) -> None:
        if n < 1 or threads < 1:
            raise ValueError(f"n {n} and threads {threads} must be at least 1")
        self.robot, self.n = robot, n
        self.model = robot.model(gains, physics_dt=physics_dt, scene=scene)
        self.substeps = substeps(robot.control_dt, self.model.opt.timestep)
        self._qpos_at, self._qvel_at, self._motor = joint_indices(self.model, robot.joint_names)
        self._batch = Batch(self.model, n, threads)
        self._qpos, self._qvel = self._batch.bind("qpos"), self._batch.bind("qvel")
        self._force, self._sites = self._batch.bind("qfrc_actuator"), self._batch.bind("site_xpos")
        self._bias = np.broadcast_to(self.model.actuator_biasprm, (n, *self.model.actuator_biasprm.shape))
        self.tau = np.zeros((n, len(robot.joints)))
        self.objects = scene_objects(scene)
        self._bodies = np.array([self.model.body(name).id for name in self.objects], np.int64)
        self._object_qpos = [int(self.model.jnt_qposadr[self.model.body(b).jntadr[0]]) for b in self.objects]
        self._xpos, self._xquat = self._batch.bind("xpos"), self._batch.bind("xquat")
        self.poses = np.zeros((n, len(self.objects), 7))
        self._imu_at = _imu_places(self.model)
        self._sensors = self._batch.bind("sensordata") if self._imu_at is not None else None
        self.imu = None if self._imu_at is None else np.zeros((n, 10))
        self._base_at = _base_places(self.model, robot.joint_names)
        # accelerometers need the whole forward pass
        self._sites_lag = False
        self._start_stage = _POS_STAGE if self.imu is None else int(mujoco.mjtStage.mjSTAGE_ACC)
        self.reset(np.arange(n), np.broadcast_to(robot.home, (n, len(robot.joints))))

    def site(self, name: str) -> np.ndarray:
        """World position of a site at this moment, [n, 3]."""
        index = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SITE, name)
        if index < 0:
            raise ValueError(f"the model of {self.robot.name} has no site {name!r}")
        if self._sites_lag:
            # derived fields lag one physics step behind; who asks for no site is spared this
            self._batch.forward(stage=_POS_STAGE)
            self._sites_lag = False
        return self._sites[:, index]

    def positions(self, sim: int) -> np.ndarray:
        """A copy of the model's qpos [nq] of one simulation."""
        return self._qpos[sim].copy()

    @property
    def base(self) -> np.ndarray | None:
        """See the class."""
        if self._base_at is None:
            return None
        qpos, qvel = self._base_at
        return np.concatenate((self._qpos[:, qpos : qpos + 7], self._qvel[:, qvel : qvel + 6]), 1)

    def reset(
        self,
        ids: np.ndarray,
        q: np.ndarray,
        *,
        base: np.ndarray | None = None,
        objects: np.ndarray | None = None,
    ) -> None:
        """Put simulations at rest; the others stay untouched.

        Args:
            ids: the simulations [k].
            q: joint positions [k, J].
            base: pose of the floating base [k, 7]; the model's own when None.
            objects: poses of the objects [k, O, 7]; the scene's own when None.

        Raises:
            ValueError: a base for a robot that is bolted down, or another number of objects.
        """
        ids = np.asarray(ids, np.int64)
        self._batch.reset(ids, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._qpos[ids[:, None], self._qpos_at] = q
        if base is not None:
            if self._base_at is None:
                raise ValueError(f"{self.robot.name} has no floating base")
            self._qpos[ids, self._base_at[0] : self._base_at[0] + 7] = base
        if objects is not None:
            if objects.shape[1:] != (len(self.objects), 7):
                known = ", ".join(self.objects) or "none"
                raise ValueError(f"poses of shape {list(objects.shape)} for the objects {known}")
            for i, at in enumerate(self._object_qpos):
                self._qpos[ids, at : at + 7] = objects[:, i]
        self.tau[ids] = 0.0
        self._batch.forward(ids, stage=self._start_stage)
        self._sense(ids)
        self._read()

    def push(self, velocity: np.ndarray) -> None:
        """Add to the floating base's linear velocity, [n, 3] in the world. ValueError without one."""
        if self._base_at is None:
            raise ValueError(f"{self.robot.name} has no floating base that could be pushed")
        at = self._base_at[1]
        self._qvel[:, at : at + 3] += velocity

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
        kp, kd = (self._bias[:, None, self._motor, i] for i in (1, 2))  # negative
        control = np.zeros((self.n, ticks, self.model.nu))
        control[:, :, self._motor] = tau - kp * q - kd * dq
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
        self._sense(slice(None))
        self._sites_lag = True
        self._read()

    def expand(self, name: str) -> np.ndarray:
        """Give a model field per-simulation values, [n, …], live: write into it, then `commit` it.

        Gains are `actuator_biasprm[:, :, 1:3]` (−kp, −kd); commands follow them.
        """
        field = self._batch.expand(name)
        if name == "actuator_biasprm":
            self._bias = field
        return field

    def commit(self, ids: np.ndarray | None = None) -> None:
        """Recompute the constants that MuJoCo derives from expanded fields (masses, inertias)."""
        self._batch.set_const(ids)
        self._batch.forward(ids, stage=_POS_STAGE)

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that the next step depends on, expanded fields aside."""
        state = {"state": self._batch.state.copy(), "tau": self.tau.copy()}
        if self.imu is not None:
            state["imu"] = self.imu.copy()
        if self.objects:
            state["poses"] = self.poses.copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`; ValueError, changing nothing, when the sizes differ."""
        rows = np.asarray(state["state"])
        if rows.shape != self._batch.state.shape:
            raise ValueError(
                f"simulator state has shape {list(rows.shape)}, expected {list(self._batch.state.shape)}"
            )
        self._batch.state[:] = rows
        self.tau[:] = state["tau"]
        if self.imu is not None:
            self.imu[:] = state["imu"]
        if self.objects:
            self.poses[:] = state["poses"]
        self._sites_lag = True
        self._read()

    def _sense(self, ids: np.ndarray | slice) -> None:
        if self.imu is not None and self._sensors is not None:
            self.imu[ids] = self._sensors[ids][:, self._imu_at]
        if self.objects:
            self.poses[ids, :, :3] = self._xpos[ids][:, self._bodies]
            self.poses[ids, :, 3:] = self._xquat[ids][:, self._bodies]

    def _read(self) -> None:
        self.q, self.dq = self._qpos[:, self._qpos_at], self._qvel[:, self._qvel_at]


def _imu_places(model: mujoco.MjModel) -> np.ndarray | None:
    """Where quaternion, gyro and accelerometer lie in sensordata [10]; None unless all are there."""
    places: list[int] = []
    for key, size in (("quat", 4), ("gyro", 3), ("acc", 3)):
        sensor = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, IMU_SENSORS[key][0])
        if sensor < 0:
            return None
        at = int(model.sensor_adr[sensor])
        places.extend(range(at, at + size))
    return np.array(places)


def _base_places(model: mujoco.MjModel, joints: Sequence[str]) -> tuple[int, int] | None:
    """Where the free joint of the robot's own tree lies in qpos and qvel."""
    roots = {int(model.body_rootid[model.joint(name).bodyid[0]]) for name in joints}
    for joint in range(model.njnt):
        free = int(model.jnt_type[joint]) == int(mujoco.mjtJoint.mjJNT_FREE)
        if free and int(model.jnt_bodyid[joint]) in roots:
            return int(model.jnt_qposadr[joint]), int(model.jnt_dofadr[joint])
    return None
