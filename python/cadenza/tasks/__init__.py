"""Tasks by id: `cadenza/ReachArm6-v0` for our robots, `gym:Hopper-v5` for gymnasium's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cadenza.robot import suggest
from cadenza.sim.domain import Domain
from cadenza.tasks.pick import PickArm6
from cadenza.tasks.reach import ReachArm6
from cadenza.tasks.stand import StandHumanoid29
from cadenza.tasks.task import Environment, Task

TASKS: dict[str, Callable[[], Task]] = {
    "cadenza/ReachArm6-v0": ReachArm6,
    "cadenza/PickArm6-v0": PickArm6,
    "cadenza/StandHumanoid29-v0": StandHumanoid29,
}
GYM_PREFIX = "gym:"


def make_task(task_id: str) -> Task:
    """The robot task of that id. Raises ValueError, with the nearest id, for an unknown one."""
    if task_id not in TASKS:
        import gymnasium

        if task_id in gymnasium.registry:
            raise ValueError(f"no task {task_id!r}; did you mean {GYM_PREFIX + task_id!r}?")
        raise ValueError(f"no task {task_id!r}{suggest(task_id, list(TASKS))}")
    return TASKS[task_id]()


def make(
    task_id: str,
    n: int,
    *,
    seed: int | np.random.SeedSequence = 0,
    threads: int = 1,
    stagger: bool = False,
    domain: Domain | None = None,
) -> Environment:
    """n running copies of a task.

    Args:
        task_id: an id of `TASKS`, or `gym:` and a gymnasium id.
        n: number of copies.
        seed: seeds their starts.
        threads: threads of the simulation (tasks on MuJoCo's batch); they never change a number.
        stagger: spread the first episodes' ends (robot tasks).
        domain: how simulations differ from the model (robot tasks); the task's own when None.

    Raises:
        ValueError: an unknown id (with the nearest one), a task with spaces that are no plain boxes, or a
            domain for a task without a robot.
    """
    if task_id.startswith(GYM_PREFIX):
        if domain is not None:
            raise ValueError(f"{task_id} has no robot whose domain could be varied")
        gym_id = task_id.removeprefix(GYM_PREFIX)
        from cadenza.tasks.gym_batch import BATCHED, BatchedGym
        from cadenza.tasks.gymnasium import GymEnvironment

        if gym_id in BATCHED:
            return BatchedGym(gym_id, n, seed=seed, threads=threads)
        return GymEnvironment(gym_id, n, seed=seed)
    from cadenza.sim.env import RobotEnvironment

    return RobotEnvironment(make_task(task_id), n, seed=seed, threads=threads, stagger=stagger, domain=domain)
