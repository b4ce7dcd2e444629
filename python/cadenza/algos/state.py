"""What the agents' checkpoints have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def check_state(
    state: Mapping[str, Any], mine: Mapping[str, Any], generators: Mapping[str, torch.Generator]
) -> None:
    """Refuse a checkpoint that does not belong to this agent.

    Args:
        state: the checkpoint.
        mine: this agent's own state, without replay: its entries have to be there, its format, algorithm,
            sizes, bounds and settings have to be equal, its tensors of equal shapes.
        generators: generators that entries of the state restore, by entry.

    Raises:
        ValueError: with the entry, and both values.
    """
    for name in mine:
        if name not in state:
            raise ValueError(f"checkpoint lacks {name}")
    for name in ("format", "algorithm", "obs_dim"):
        if state[name] != mine[name]:
            raise ValueError(f"checkpoint {name} is {state[name]!r}, expected {mine[name]!r}")
    for name, value in mine["config"].items():
        if state["config"].get(name) != value:
            raise ValueError(
                f"checkpoint was made with {name} = {state['config'].get(name)!r}, not {value!r}"
            )
    for name in ("action_low", "action_high"):
        if not np.array_equal(state[name], mine[name]):
            raise ValueError(f"checkpoint {name} is {list(state[name])}, expected {list(mine[name])}")
    for name, value in mine.items():
        if isinstance(value, torch.Tensor) and name not in generators:
            theirs = state[name]
            if theirs.shape != value.shape or theirs.dtype != value.dtype:
                raise ValueError(
                    f"checkpoint {name} is {theirs.dtype}{list(theirs.shape)}, "
                    f"expected {value.dtype}{list(value.shape)}"
                )
    for name, generator in generators.items():
        try:
            torch.Generator(generator.device).set_state(state[name])
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"checkpoint {name} is not a generator state: {error}") from error
