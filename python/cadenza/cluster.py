"""Ray: a cluster to work on, and its processes for collectors. Ray is imported when it is asked for.

The machines of a cluster need the same version of cadenza. `RAY_ADDRESS` and `RAY_AUTH_MODE` are Ray's own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cadenza.actors import Lost
from cadenza.collect import Fragment, Setup, Worker

REACH_S = 5.0
"""Seconds for an address to answer."""


@contextlib.contextmanager
def connected(address: str | None, cpus: int | None = None) -> Iterator[Any]:
    """The module `ray`, connected; a cluster that is connected already is left so.

    Args:
        address: of a running cluster; one on this machine is started when None.
        cpus: cores that are needed; None for any number.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ValueError: nothing answers at the address, or the cluster has fewer cores.
    """
    import ray  # pyright: ignore[reportMissingImports]

    mine = not ray.is_initialized()
    if mine:
        _init(ray, address or os.environ.get("RAY_ADDRESS"), cpus)
    try:
        there = int(ray.cluster_resources().get("CPU", 0))
        if cpus is not None and there < cpus:
            raise ValueError(f"{cpus} cores are needed, the Ray cluster has {there}")
        yield ray
    finally:
        if mine:
            ray.shutdown()


def _init(ray: Any, address: str | None, cpus: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # more collectors than cores are the user's choice on his own machine
        ray.init(num_cpus=cpus, include_dashboard=False, **quiet)
        return
    try:
        # Ray itself tries for minutes
        if where := re.fullmatch(r"(?:ray://)?\[?([^/]+?)]?:(\d+)", address):
            socket.create_connection((where[1], int(where[2])), timeout=REACH_S).close()
        ray.init(address=address, **quiet)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"no Ray cluster answers at {address}: {text}") from error


class RayPool:
    """Collectors as Ray's actors (a `Pool`).

    Args:
        address: see `connected`.
        count: how many.
        threads: cores for each.
    """

    def __init__(self, address: str | None, count: int, threads: int) -> None:
        self._stack = contextlib.ExitStack()
        self._ray = self._stack.enter_context(connected(address, count * threads))
        self._actor = self._ray.remote(num_cpus=threads, max_restarts=0)(Worker)
        self._handles: dict[int, Any] = {}
        self._answers: dict[int, Any] = {}

    def start(self, index: int, setup: Setup, state: Mapping[str, Any] | None) -> None:
        """See `Pool.start`."""
        self._handles[index] = self._actor.remote(setup, state)

    def ask(self, index: int, weights: np.ndarray, ready: bool) -> None:
        """See `Pool.ask`."""
        self._answers[index] = self._handles[index].collect.remote(weights, ready)

    def answer(self, index: int) -> Fragment:
        """See `Pool.answer`."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(self._answers[index])
        except errors.RayTaskError as error:
            raise RuntimeError(f"{type(error.cause).__name__}: {error.cause}") from error
        except errors.RayError as error:  # the process, its machine or what it made is gone
            if getattr(error, "actor_init_failed", False):  # it would be again
                raise RuntimeError(str(error).strip().splitlines()[-1]) from error
            raise Lost(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error

    def close(self) -> None:
        """See `Pool.close`; a cluster that was started here ends with it."""
        for handle in self._handles.values():
            self._ray.kill(handle)
        self._handles.clear()
        self._stack.close()
