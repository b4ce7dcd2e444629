"""Settings that are known to learn a task, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence

from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.evaluate import Evaluation
from cadenza.train_config import ALGORITHMS, TrainConfig

RECIPES: dict[str, TrainConfig] = {
    "cadenza/ReachArm6-v0": TrainConfig(
        task="cadenza/ReachArm6-v0",
        settings=SymphonyConfig(
            hidden=64, explore_steps=4096, tiles=16, updates_per_vector_step=8, lr=5e-4, gamma=0.9
        ),
        steps=28_000,
        envs=16,
        eval_every=1024,
        eval_episodes=50,
        log_every=512,
    ),
    "cadenza/StandHumanoid29-v0": TrainConfig(
        task="cadenza/StandHumanoid29-v0",
        settings=SymphonyConfig(
            hidden=96, explore_steps=4096, tiles=16, updates_per_vector_step=8, lr=5e-4, gamma=0.97
        ),
        steps=131_072,
        envs=16,
        eval_every=8192,
        eval_episodes=20,
        log_every=4096,
    ),
}


def recipe(task_id: str, algorithm: str = "symphony") -> TrainConfig:
    """The recipe of a task; without one Symphony's preset `small`, or another algorithm's defaults."""
    if algorithm != "symphony":
        settings, _ = ALGORITHMS[algorithm]
        return TrainConfig(task=task_id, algorithm=algorithm, settings=settings())  # pyright: ignore[reportArgumentType]
    return RECIPES.get(task_id, TrainConfig(task=task_id, settings=SymphonyConfig.from_preset("small")))


def reached(evaluations: Sequence[Evaluation], *, success: float = 0.9, action_change: float = 0.1) -> bool:
    """Whether the last two evaluations both succeed often enough and move gently enough."""
    return len(evaluations) >= 2 and all(
        e.success is not None and e.success >= success and e.action_change < action_change
        for e in evaluations[-2:]
    )
