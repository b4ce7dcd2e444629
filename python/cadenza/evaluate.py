"""Evaluation: seeded, noise-free episodes in their own environments, so that training never notices.

Smoothness is measured on normalised actions u, which run from -1 to 1 over the environment's bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from cadenza.motion import energy_above, jerk
from cadenza.tasks.task import Environment

RESAMPLES = 2000


@dataclass(frozen=True)
class Evaluation:
    """What n episodes showed.

    Attributes:
        episodes: n.
        success: share of episodes that ended fulfilled; None when the task does not define it.
        return_mean: mean sum of rewards.
        return_std: its standard deviation over episodes.
        return_low: lower end of the 95 % bootstrap interval of the mean.
        return_high: upper end.
        length: mean steps of an episode.
        action_change: mean |Δu| between consecutive steps, over joints.
        jerk: root mean square of the third difference of u, 1/s³.
        high_frequency: share of the actions' power, mean aside, above a quarter of the policy rate.
    """

    episodes: int
    success: float | None
    return_mean: float
    return_std: float
    return_low: float
    return_high: float
    length: float
    action_change: float
    jerk: float
    high_frequency: float

    def scalars(self) -> dict[str, float]:
        """The numbers by name, without those that the task does not define."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}


def evaluate(
    act: Callable[[np.ndarray], np.ndarray],
    env: Environment,
    *,
    seed: int,
    hold: int = 1,
    watch: Callable[[], None] | None = None,
) -> Evaluation:
    """Run one episode in each of the environments.

    Args:
        act: actions [n, A] in environment units for observations [n, S].
        env: n copies of a task; they are reseeded.
        seed: the same seed gives the same starts.
        hold: steps for which an action holds.
        watch: called at every step of the first environment's episode, from its start on.
    """
    obs = env.reset(seed)
    alive = np.ones(env.n, bool)
    returns, lengths = np.zeros(env.n), np.zeros(env.n, np.int64)
    success: np.ndarray | None = None
    centre, span = (env.action_high + env.action_low) / 2.0, (env.action_high - env.action_low) / 2.0
    actions: list[np.ndarray] = []
    action = np.zeros(0)
    while alive.any():
        if watch is not None and alive[0]:
            watch()
        # only first episodes count, and they begin together
        action = act(obs) if len(actions) % hold == 0 else action
        t = env.step(action)
        obs = t.obs
        actions.append((np.asarray(action, np.float64) - centre) / span)
        returns[alive] += t.reward[alive]
        lengths[alive] += 1
        ended = alive & t.done
        if t.success is not None:
            success = np.zeros(env.n, bool) if success is None else success
            success[ended] = t.success[ended]
        alive &= ~t.done
    u = np.stack(actions, 1)
    episodes = [u[i, :length] for i, length in enumerate(lengths)]
    low, high = bootstrap(returns, seed)
    return Evaluation(
        episodes=env.n,
        success=None if success is None else float(success.mean()),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_low=low,
        return_high=high,
        length=float(lengths.mean()),
        action_change=action_change(episodes),
        jerk=jerk(episodes, env.dt)[1],
        high_frequency=energy_above(episodes, 1.0, 0.25),
    )


def bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % percentile interval of the mean."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def action_change(episodes: list[np.ndarray]) -> float:
    """Mean |Δu| over the steps of all episodes [T, A]; 0 when no episode has two steps."""
    changes = np.concatenate([np.abs(np.diff(u, axis=0)) for u in episodes])
    return float(changes.mean()) if changes.size else 0.0
