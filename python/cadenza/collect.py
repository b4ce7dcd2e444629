"""Collecting: act → step → check → follow, with nothing of learning.

The same `Collector` works in the learner's process, on the agent's own policy, and in a process of its own,
where a `Worker` wraps it: weights come with each call, a fragment of steps goes back together with the state
after them. Since a call holds everything that its fragment depends on, any process can repeat it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cadenza import __version__
from cadenza.algos import EnvInfo
from cadenza.algos.acting import Acting
from cadenza.algos.boundary import Transitions
from cadenza.sim.batch import SimulationDiverged
from cadenza.tasks import TASKS, make
from cadenza.tasks.task import Environment, Task, Transition
from cadenza.train_config import ALGORITHMS, TrainConfig

FRAGMENT = 32
"""Transitions of a fragment, about: more cost less to send, fewer are made by a newer policy."""
_ACTORS = 2  # of the run's seed; 0 are the environments and 1 is the agent of a run without actors


@dataclass(frozen=True)
class Step:
    """One step of a collector's k environments.

    Attributes:
        rows: the transitions that it completed, to be stored.
        reward: [k].
        terminated: [k].
        truncated: [k].
    """

    rows: Transitions
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Fault(Exception):
    """A simulation diverged or gave a number that is not finite.

    Attributes:
        dump: observation, action, transition and state of the environments.
    """

    def __init__(self, text: str, dump: dict[str, Any]) -> None:
        super().__init__(text)
        self.dump = dump


class Source(Protocol):
    """Where steps come from."""

    def step(self) -> Step:
        """The next step. Raises Fault."""
        ...

    def actor(self) -> int:
        """Whose environments made the last step, from 0."""
        ...

    def metrics(self) -> dict[str, float]:
        """Figures since the last call."""
        ...

    def dump(self) -> dict[str, Any]:
        """The last step, for a loss that is not finite."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs beside the agent."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Collector:
    """Environments, and a policy that acts in them (a `Source`).

    Args:
        env: the environments.
        acting: the acting part of an agent.
    """

    def __init__(self, env: Environment, acting: Acting) -> None:
        self._env, self._acting = env, acting
        self._obs = env.reset()
        self._last: tuple[np.ndarray | None, Transition | None] = (None, None)
        self._before = self._obs

    def step(self) -> Step:
        """Act, step, check, and let the policy follow. Raises Fault."""
        self._before, self._last = self._obs, (None, None)
        action = self._acting.act(self._obs, explore=True)
        self._last = (action, None)
        try:
            t = self._env.step(action)
        except SimulationDiverged as error:
            raise Fault(str(error), self.dump()) from error
        self._last = (action, t)
        if (text := _not_finite(t)) is not None:
            raise Fault(text, self.dump())
        rows = self._acting.follow(self._obs, action, t.reward, t.next_obs, t.terminated, t.truncated)
        self._obs = t.obs
        return Step(rows, t.reward, t.terminated, t.truncated)

    def actor(self) -> int:
        """See `Source.actor`."""
        return 0

    def metrics(self) -> dict[str, float]:
        """See `Source.metrics`."""
        return {}

    def dump(self) -> dict[str, Any]:
        """The last step, finished or not, and the environments after it."""
        action, t = self._last
        out: dict[str, Any] = {"obs": self._before, "action": action, "env": self._env.state_dict()}
        if t is not None:
            names = ("next_obs", "reward", "terminated", "truncated")
            out["transition"] = {name: getattr(t, name) for name in names}
        return out

    def state_dict(self) -> dict[str, Any]:
        """The environments; the policy's own state is the agent's."""
        return {"obs": self._obs, "env": self._env.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`."""
        self._obs = self._env.load_state_dict(state["env"])

    def close(self) -> None:
        """Close the environments."""
        self._env.close()


@dataclass(frozen=True)
class Setup:
    """What makes a collector in another process.

    Attributes:
        config: settings of the run.
        index: which one, from 0: it decides on the seeds.
        task: makes the run's robot task, so that one that a program has added is known there; None for
            gymnasium's.
        version: of cadenza.
    """

    config: TrainConfig
    index: int
    task: Callable[[], Task] | None
    version: str = __version__


@dataclass(frozen=True)
class Fragment:
    """What a call gave.

    Attributes:
        steps: the steps.
        state: of the collector after them.
        fault: text and dump of a fault that ended it.
    """

    steps: list[Step]
    state: dict[str, Any]
    fault: tuple[str, dict[str, Any]] | None = None


class Worker:
    """A collector in a process of its own. It is made by the first call, whose errors are then the caller's.

    Args:
        setup: what it is.
        state: where it goes on; None for the beginning.
    """

    def __init__(self, setup: Setup, state: Mapping[str, Any] | None) -> None:
        self._setup, self._state = setup, state
        self._made: tuple[Collector, Acting] | None = None

    def collect(self, weights: np.ndarray, ready: bool) -> Fragment:
        """About `FRAGMENT` transitions by the policy with these weights; `ready` as in `Acting`."""
        if self._made is None:
            self._made = self._make()
        collector, acting = self._made
        acting.load_weights(weights)
        acting.ready = ready
        steps: list[Step] = []
        try:
            for _ in range(max(1, FRAGMENT // self._setup.config.envs)):
                steps.append(collector.step())
        except Fault as fault:
            return Fragment([], {}, (str(fault), fault.dump))
        return Fragment(steps, {**collector.state_dict(), "acting": acting.state_dict()})

    def _make(self) -> tuple[Collector, Acting]:
        setup = self._setup
        config = setup.config
        if setup.version != __version__:
            raise ValueError(f"cadenza {__version__} here, {setup.version} where the learner is")
        if setup.task is not None:
            TASKS[config.task] = setup.task
        sequence = np.random.SeedSequence(config.seed, spawn_key=(_ACTORS, setup.index))
        env_seed, noise_seed = sequence.spawn(2)
        env = make_environments(config, env_seed)
        acting = make_acting(config, env, int(noise_seed.generate_state(1)[0]))
        collector = Collector(env, acting)
        if self._state is not None:
            collector.load_state_dict(self._state)
            acting.load_state_dict(self._state["acting"])
        return collector, acting


def make_environments(config: TrainConfig, seed: np.random.SeedSequence) -> Environment:
    """A collector's environments, as a run's settings ask for."""
    return make(
        config.task, config.envs, seed=seed, threads=config.sim_threads, stagger=True, domain=config.domain
    )


def make_acting(config: TrainConfig, env: Environment, seed: int) -> Acting:
    """The acting part of a run's algorithm, without weights."""
    _, algorithm = ALGORITHMS[config.algorithm]
    return algorithm.Acting.alone(
        config.settings, env.obs_size, env.action_low, env.action_high, seed=seed, env_info=info(env)
    )


def info(env: Environment) -> EnvInfo:
    """What an algorithm may know about a task."""
    return EnvInfo(task=env.name, joints=env.action_names, max_episode_steps=env.episode_steps)


def _not_finite(t: Transition) -> str | None:
    """Where a number is not finite."""
    for name, rows in (("reward", t.reward[:, None]), ("observation", t.next_obs)):
        bad = ~np.isfinite(rows)
        if bad.any():
            env, i = (int(x) for x in np.argwhere(bad)[0])
            what = f"{name} {rows[env, i]}" + (f" in component {i}" if name == "observation" else "")
            return f"{what} in environment {env}"
    return None
