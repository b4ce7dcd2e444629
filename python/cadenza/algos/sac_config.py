"""Settings of SAC and its presets."""

import math
from dataclasses import dataclass
from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "tiny": {"hidden": 64, "batch": 64, "explore_steps": 1_000, "capacity": 100_000, "lr": 1e-3},
}


@dataclass(frozen=True)
class SacConfig:
    """Settings of SAC; the defaults are those of the usual baselines on MuJoCo tasks.

    Attributes:
        preset: name of the preset that the sizes came from.
        hidden: width of both hidden layers of every network.
        batch: transitions of an update.
        capacity: transitions that the replay holds.
        explore_steps: decisions drawn uniformly from the action space before training.
        updates_per_step: gradient steps per stored transition.
        lr: learning rate of actor, critics and temperature.
        gamma: discount per decision.
        tau: share of the online critics that enters the target per update.
        initial_temperature: temperature before the first update.
        target_entropy: entropy that the temperature aims at; None: minus the number of actions.
        action_repeat: environment steps for which an action is held (SAC-J); a transition then spans them,
            its reward is their sum.
    """

    preset: str = "default"
    hidden: int = 256
    batch: int = 256
    capacity: int = 1_000_000
    explore_steps: int = 5_000
    updates_per_step: int = 1
    lr: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    initial_temperature: float = 1.0
    target_entropy: float | None = None
    action_repeat: int = 1

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; there are {', '.join(PRESETS)}")
        for name in (
            "hidden", "batch", "capacity", "explore_steps", "updates_per_step", "action_repeat",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.explore_steps > self.capacity:
            raise ValueError(f"explore_steps {self.explore_steps} exceed the capacity {self.capacity}")
        for name, low, high in (("lr", 0.0, math.inf), ("gamma", 0.0, 1.0), ("tau", 0.0, 1.0)):
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"{name} {value} is outside [{low}, {high}]")
        if not (0.0 < self.initial_temperature < math.inf):
            raise ValueError(f"initial_temperature {self.initial_temperature} must be positive and finite")
        if self.target_entropy is not None and not math.isfinite(self.target_entropy):
            raise ValueError(f"target_entropy {self.target_entropy} is not finite")

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "SacConfig":
        """The named preset with some fields replaced. Raises ValueError for an unknown name."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(**{"preset": name, **PRESETS[name], **overrides})
