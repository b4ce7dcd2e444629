"""What a training run is told: the algorithms there are, and a run's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cadenza.algos.sac import Sac
from cadenza.algos.sac_config import SacConfig
from cadenza.algos.symphony import Symphony
from cadenza.algos.symphony_config import SymphonyConfig
from cadenza.sim.domain import Domain

ALGORITHMS: dict[str, tuple[type, type]] = {
    "symphony": (SymphonyConfig, Symphony),
    "sac": (SacConfig, Sac),
}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run.

    Attributes:
        task: id of the task, e.g. "cadenza/ReachArm6-v0" or "gym:Hopper-v5".
        algorithm: name of the algorithm.
        settings: its settings.
        steps: transitions to collect, over all environments.
        envs: parallel environments, of each collector where there are actors.
        actors: collectors on Ray that feed the learner; None: the learner collects by itself.
        seed: seeds the agent and the environments.
        eval_every: transitions between evaluations; they begin with the first update.
        eval_episodes: episodes of an evaluation.
        eval_seed: seed of the evaluation's starts, the same for every run and every evaluation.
        log_every: transitions between two rows of training metrics.
        checkpoint_every: transitions between two checkpoints; there is always one at the end.
        sim_threads: threads of the simulation; they change the speed, never a number.
        torch_threads: threads of torch; more than one may change the last bits.
        device: where the networks are trained.
        domain: how simulations differ from the model, in training and evaluation; the task's own when None.
        keep_best: keep the policy of the best evaluation as `best.cadenza`.
        snapshots: keep the policy's weights at each evaluation in `snapshots/`, so that policies can be
            compared at equal return.
    """

    task: str = "cadenza/ReachArm6-v0"
    algorithm: Literal["symphony", "sac"] = "symphony"
    settings: SymphonyConfig | SacConfig = field(default_factory=SymphonyConfig)
    steps: int = 100_000
    envs: int = 1
    actors: int | None = None
    seed: int = 0
    eval_every: int = 2_500
    eval_episodes: int = 10
    eval_seed: int = 20_000
    log_every: int = 1_000
    checkpoint_every: int = 10_000
    sim_threads: int = 1
    torch_threads: int = 1
    device: str = "cpu"
    domain: Domain | None = None
    keep_best: bool = True
    snapshots: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm {self.algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        if type(self.settings) is not ALGORITHMS[self.algorithm][0]:
            raise ValueError(f"settings of {self.algorithm} are no {type(self.settings).__name__}")
        for name in (
            "steps", "envs", "eval_every", "eval_episodes", "log_every", "checkpoint_every", "sim_threads",
            "torch_threads",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"actors {self.actors} must be at least 1")
