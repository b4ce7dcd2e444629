"""Settings of Symphony and its presets (spec/symphony.md §3.6, §4)."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from cadenza.algos.symphony_loss import CRITICS

MAX_AUTHORITY = 1.0 / math.tanh(1.0)  # the noise-free policy then reaches the bounds

_PAPER: dict[str, Any] = {
    "action_bounds": "unit",
    "q_floor": 0.0,
    "reward_floor": 0.0,
    "return_scale": 1.0,
    "final_fall_steps": 50,
    "protect_terminals": "forever",
}
PRESETS: dict[str, dict[str, Any]] = {
    "s3": {},
    "se": {"noise_std": 1.0 / math.pi, "noise_clip": math.pi},
    "s2": {"explore_steps": 20_480, "tiles": 25, "lr": 5e-5, "gradient_dropout": 0.5},
    "ed": {"explore_steps": 7_680, "hidden": 384, "updates_per_step": 2},
    "small": {
        "explore_steps": 5_120,
        "tiles": 10,
        "hidden": 256,
        "updates_per_step": 1,
        "lr": 3e-4,
        "return_scale": 50.0,
    },
    "tiny": {"explore_steps": 2_560, "hidden": 128, "lr": 3e-4},
}


@dataclass(frozen=True)
class SymphonyConfig:
    """Settings of Symphony; `from_preset` fills in the published sizes.

    Attributes:
        preset: name of the preset that the sizes came from.
        hidden: width h of every block; the critics have 3h/4 nodes and the batch has as many rows.
        explore_steps: transitions collected before training, over all environments.
        tiles: how often the explored block is repeated; the replay holds explore_steps·tiles.
        updates_per_step: gradient steps per stored transition.
        updates_per_vector_step: gradient steps per step of all environments together; None: updates_per_step
            times their number.
        lr: learning rate.
        gamma: discount per step.
        tau: share of the online critics that enters the target per update.
        noise_std: factor of the exploration noise, added before the last tanh.
        noise_clip: bound of the standard normal before that factor.
        gradient_dropout: share of block outputs whose gradient is dropped (preset s2).
        action_bounds: "robot": actions span the environment's bounds; "unit": ±1 for every joint (paper).
        authority: stretches the noise-free policy, 1 to 1/tanh 1, which reaches the bounds.
        q_floor: least denominator of the advantage.
        reward_floor: least mean magnitude of exploration's rewards that counts.
        return_scale: rewards are divided by that magnitude times this, at least 1.
        final_fall_steps: zero the learned action that many steps before an episode's limit (paper: 50).
        protect_terminals: "once": a terminal survives one extra cycle; "forever": the official code's rule.
        paper_mode: the paper's choice for the last six fields but authority, wherever they hold their
            default.
    """

    preset: str = "s3"
    hidden: int = 512
    explore_steps: int = 10_240
    tiles: int = 50
    updates_per_step: int = 3
    updates_per_vector_step: int | None = None
    lr: float = 1e-4
    gamma: float = 0.99
    tau: float = 0.005
    noise_std: float = 1.0 / math.e
    noise_clip: float = math.e
    gradient_dropout: float = 0.0
    action_bounds: Literal["robot", "unit"] = "robot"
    authority: float = 1.0
    q_floor: float = 1e-2
    reward_floor: float = 1e-2
    return_scale: float = 1.0
    final_fall_steps: int = 0
    protect_terminals: Literal["once", "forever"] = "once"
    paper_mode: bool = False

    def __post_init__(self) -> None:
        if self.paper_mode:
            defaults = {f.name: f.default for f in fields(self)}
            for name, value in _PAPER.items():
                if getattr(self, name) == defaults[name]:
                    object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"unknown preset {self.preset!r}; there are {', '.join(PRESETS)}")
        if self.hidden < 8 or self.hidden % 4:
            raise ValueError(f"hidden {self.hidden} must be at least 8 and divisible by 4")
        for name in ("explore_steps", "tiles", "updates_per_step", "updates_per_vector_step"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} {value} must be at least 1")
        for name, low, high in (
            ("lr", 0.0, math.inf), ("gamma", 0.0, 1.0), ("tau", 0.0, 1.0), ("noise_std", 0.0, math.inf),
            ("noise_clip", 0.0, math.inf), ("gradient_dropout", 0.0, 1.0), ("authority", 1.0, MAX_AUTHORITY),
            ("q_floor", 0.0, math.inf), ("reward_floor", 0.0, math.inf), ("return_scale", 1.0, math.inf),
            ("final_fall_steps", 0, math.inf),
        ):  # fmt: skip
            value = getattr(self, name)
            if not (low <= value <= high and math.isfinite(value)):
                raise ValueError(f"{name} {value} is outside [{low}, {high}]")
        for name, choices in (
            ("action_bounds", ("robot", "unit")),
            ("protect_terminals", ("once", "forever")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(choices)}")

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "SymphonyConfig":
        """The named preset with some fields replaced. Raises ValueError for an unknown name."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(**{"preset": name, **PRESETS[name], **overrides})

    @property
    def nodes(self) -> int:
        """Critic nodes, which is also the number of batch rows."""
        return CRITICS * (self.hidden // 4)
