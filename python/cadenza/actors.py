"""Many collectors for one learner. They take turns, so a run's numbers do not depend on who was faster.

Each collector has one fragment under way. When its turn comes, the learner takes the fragment, sends the
newest weights for the next one, and goes through the steps as it would through its own: the same updates
follow each, so transitions and updates keep the ratio of a run without actors. A collector that is lost
starts again where its fragment began, with the same weights, and makes the same numbers. A checkpoint holds
just that: the calls that are under way. How calls get to the processes is the pool's affair
(`cadenza.cluster` has Ray's).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from cadenza.algos import Algorithm
from cadenza.algos.boundary import Transitions
from cadenza.collect import Fault, Fragment, Setup, Step
from cadenza.tasks import TASKS
from cadenza.train_config import TrainConfig

_log = logging.getLogger(__name__)
ATTEMPTS = 3
"""Losses of one collector in a row, after which the fault is not the machine's."""


class Lost(Exception):
    """The process of a collector is gone."""


class Pool(Protocol):
    """Processes for collectors, by index."""

    def start(self, index: int, setup: Setup, state: Mapping[str, Any] | None) -> None:
        """Make a `Worker`, in the place of an earlier one."""
        ...

    def ask(self, index: int, weights: np.ndarray, ready: bool) -> None:
        """Begin its `collect`; returns at once."""
        ...

    def answer(self, index: int) -> Fragment:
        """Wait for what was asked. Raises Lost, or RuntimeError with the error of the worker."""
        ...

    def close(self) -> None:
        """End them all."""
        ...


class ActorFailed(RuntimeError):
    """A collector failed, or was lost again and again; the text says which and why."""


@dataclass(frozen=True)
class Call:
    """A fragment that was asked for, and all that it depends on.

    Attributes:
        state: of the collector before it; None at the beginning.
        weights: of the policy.
        version: gradient steps that the policy had had.
        ready: exploration was over.
    """

    state: dict[str, Any] | None
    weights: np.ndarray
    version: int
    ready: bool


@dataclass
class _Lag:
    """Gradient steps between the policy that made a transition and the one that stores it."""

    total: int = 0
    steps: int = 0
    most: int = 0

    def add(self, versions: int) -> None:
        self.total, self.steps, self.most = self.total + versions, self.steps + 1, max(self.most, versions)


class Actors:
    """A `Source` of the steps of `config.actors` collectors, in turn.

    Args:
        config: settings of the run.
        agent: the learner; its policy is what the collectors get.
        pool: their processes; closed with this.
    """

    def __init__(self, config: TrainConfig, agent: Algorithm, pool: Pool) -> None:
        assert config.actors is not None
        self._agent, self._pool = agent, pool
        task = TASKS.get(config.task)
        self._setups = [Setup(config, i, task) for i in range(config.actors)]
        self._calls: list[Call] = []
        self._started = False
        self._rest: deque[Step] = deque()
        self._turn, self._version = 0, 0
        self._lag, self._lost = _Lag(), 0
        self._last: Step | None = None

    def step(self) -> Step:
        """The next step of the collector whose turn it is. Raises Fault and ActorFailed."""
        if not self._started:
            self._start()
        if not self._rest:
            self._fetch()
        self._lag.add(self._agent.updates - self._version)
        self._last = self._rest.popleft()
        return self._last

    def actor(self) -> int:
        """See `Source.actor`."""
        return (self._turn - 1) % len(self._setups)

    def metrics(self) -> dict[str, float]:
        """Mean and greatest policy lag in gradient steps, and collectors lost so far."""
        lag, self._lag = self._lag, _Lag()
        out: dict[str, float] = {"actors_lost": self._lost}
        if lag.steps:
            out |= {"policy_lag_mean": lag.total / lag.steps, "policy_lag_max": lag.most}
        return out

    def dump(self) -> dict[str, Any]:
        """The transitions that were stored last, and whose they were."""
        rows = {} if self._last is None else self._last.rows._asdict()
        return {"actor": self.actor(), "rows": rows}

    def state_dict(self) -> dict[str, Any]:
        """The calls that are under way, and what is left of the fragment that is being gone through."""
        rest = [{**vars(step), "rows": list(step.rows)} for step in self._rest]
        return {
            "actors": {
                "calls": [vars(call) for call in self._calls],
                "rest": rest,
                "turn": self._turn,
                "version": self._version,
                "lag": asdict(self._lag),
                "lost": self._lost,
            }
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict`. ValueError for another number of collectors."""
        saved = state["actors"]
        if len(saved["calls"]) not in (0, len(self._setups)):
            raise ValueError(f"state of {len(saved['calls'])} actors, expected {len(self._setups)}")
        self._calls = [Call(**call) for call in saved["calls"]]
        self._rest = deque(Step(**{**step, "rows": Transitions(*step["rows"])}) for step in saved["rest"])
        self._turn, self._version = int(saved["turn"]), int(saved["version"])
        self._lag, self._lost = _Lag(**saved["lag"]), int(saved["lost"])

    def close(self) -> None:
        """End the collectors."""
        self._pool.close()

    def _start(self) -> None:
        if not self._calls:
            self._calls = [self._call(None) for _ in self._setups]
        for index in range(len(self._setups)):
            self._begin(index)
        self._started = True

    def _begin(self, index: int) -> None:
        """Start a collector where its call says, and ask for its fragment."""
        call = self._calls[index]
        self._pool.start(index, self._setups[index], call.state)
        self._pool.ask(index, call.weights, call.ready)

    def _fetch(self) -> None:
        """Take the fragment of the next collector and ask it for another one by the newest policy."""
        index = self._turn
        fragment = self._answer(index)
        if fragment.fault is not None:
            text, dump = fragment.fault
            raise Fault(f"{text} of actor {index}", {"actor": index, **dump})
        self._rest.extend(fragment.steps)
        self._version = self._calls[index].version
        call = self._calls[index] = self._call(fragment.state)
        self._pool.ask(index, call.weights, call.ready)
        self._turn = (index + 1) % len(self._setups)

    def _answer(self, index: int) -> Fragment:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._pool.answer(index)
            except Lost as error:
                self._lost += 1
                if attempt == ATTEMPTS:
                    raise ActorFailed(f"actor {index} was lost {ATTEMPTS} times in a row: {error}") from error
                _log.warning("actor %d was lost and starts again where it was: %s", index, error)
                self._begin(index)
            except RuntimeError as error:
                raise ActorFailed(f"actor {index}: {error}") from error
        raise AssertionError

    def _call(self, state: dict[str, Any] | None) -> Call:
        acting = self._agent.acting
        return Call(state, acting.weights(), self._agent.updates, acting.ready)
