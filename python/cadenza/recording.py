"""Records what a policy answers in torch: sequences with resets, recurrent states and fed-back actions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class PolicyIO:
    """What arguments and results of the exported modules mean: bindings, in their order.

    Inputs: `observation` `[1, n]`, `previous_action` `[1, m]`, `carry.<name>`, `source.<source>` `[1, k]`,
    `time` `[1, 1]` (s), `noise` `[1, noise]` (unit normals). Outputs: `action` `[1, m]` or `actions`
    `[1, rows, m]`, `carry.<name>`, `presquash`, `aux.<name>`.

    Attributes:
        inputs, outputs: of `step`.
        init_inputs, init_outputs: of `init`; without inputs, `init` gives the reset value once and for all.
        carry: shape of each recurrent state; it starts at what `init` gives, or at zeros.
        noise: numbers of the input `noise`.
    """

    inputs: tuple[str, ...] = ("observation",)
    outputs: tuple[str, ...] = ("action",)
    init_inputs: tuple[str, ...] = ("observation",)
    init_outputs: tuple[str, ...] = ()
    carry: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    noise: int = 0

    def manifest(self) -> dict[str, Any]:
        """The manifest's `carry`."""
        return {
            name: {
                "shape": list(shape),
                "init": "init" if f"carry.{name}" in self.init_outputs else "zeros",
            }
            for name, shape in self.carry.items()
        }


@dataclass(frozen=True)
class Function:
    """A network beside `step`, for example `critic` or `model`.

    Attributes:
        module: gives one tensor for each output.
        inputs: shape of each input by binding; the first dimension is `batch`.
        outputs: bindings.
        batch: rows of one call.
    """

    module: torch.nn.Module
    inputs: Mapping[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    batch: int = 1

    def draw(self, runs: int, seed: int) -> dict[str, np.ndarray]:
        """Unit normals for `runs` calls, float32."""
        rng = np.random.default_rng(seed)
        return {b: rng.standard_normal((runs, *s)).astype(np.float32) for b, s in self.inputs.items()}

    def answers(self, drawn: Mapping[str, np.ndarray], dtype: torch.dtype) -> dict[str, np.ndarray]:
        """The outputs by binding, one row for each call."""
        rows = []
        for call in zip(*drawn.values(), strict=True):
            rows.append(_call(self.module, [torch.from_numpy(x).to(dtype) for x in call]))
        return {b: np.stack([row[i] for row in rows]) for i, b in enumerate(self.outputs)}


@dataclass(frozen=True)
class Recording:
    """Answers of `step`: `expected` `[S, K, ...]`, `previous` `[S, K, m]`, states after the last step."""

    expected: np.ndarray
    previous: np.ndarray
    carry: dict[str, np.ndarray]

    def difference(self, other: Recording) -> np.ndarray:
        """Largest difference of each action, then of the states."""
        actions = np.abs(self.expected - other.expected).reshape(-1, self.expected.shape[-1]).max(axis=0)
        states = [np.abs(self.carry[name] - other.carry[name]).max() for name in self.carry]
        return np.concatenate([actions, states])


@dataclass(frozen=True)
class Recorder:
    """Plays `step` and `init` over recorded observations as the engine will.

    Attributes:
        io: bindings.
        manifest: the manifest's `observation`, `action`, `chunk` and `rates` are read.
        obs: observations `[S, K, n]`.
        noise: `[S, K, io.noise]`.
    """

    io: PolicyIO
    manifest: Mapping[str, Any]
    obs: np.ndarray
    noise: np.ndarray

    def time(self) -> np.ndarray:
        """Seconds since the reset `[S, K]`."""
        steps = np.arange(self.obs.shape[1]) * self.manifest["rates"]["policy_dt"]
        return np.broadcast_to(steps, self.obs.shape[:2]).astype(np.float32)

    def example(self, inputs: tuple[str, ...]) -> list[np.ndarray]:
        """Inputs of the first step."""
        values = self._values(0, 0, self._reset_action(), self._zeros(np.float32))
        return [values(binding) for binding in inputs]

    def play(
        self,
        step: torch.nn.Module,
        init: torch.nn.Module | None,
        dtype: torch.dtype = torch.float32,
        previous: np.ndarray | None = None,
    ) -> Recording:
        """All sequences, in the precision `dtype`; `previous` replaces the actions that `step` gives."""
        chunk = self.manifest["chunk"]
        lazy = chunk["mode"] == "lazy"
        row = chunk.get("past", 0) + chunk["execute"] - 1 if chunk["mode"] == "open" else 0
        output = self.io.outputs.index("actions" if chunk["mode"] == "open" else "action")
        joints = len(self.manifest["action"]["joints"])
        sequences, steps, _ = self.obs.shape
        expected, fed, states = [], [], []
        for s in range(sequences):
            carry, action = self._zeros(np.float64), self._reset_action()
            if init is not None and not self.io.init_inputs:
                self._advance(init, (), self.io.init_outputs, lambda _: None, carry, dtype)
            for k in range(steps):
                action = action if previous is None else previous[s, k]
                values = self._values(s, k, action, carry)
                if (
                    init is not None
                    and self.io.init_inputs
                    and k % (chunk["execute"] if lazy else steps) == 0
                ):
                    self._advance(init, self.io.init_inputs, self.io.init_outputs, values, carry, dtype)
                if lazy and k % chunk["execute"]:
                    # `step` sees the observation that the sequence began with.
                    values = self._values(s, k - k % chunk["execute"], action, carry, at=k)
                answers = self._advance(step, self.io.inputs, self.io.outputs, values, carry, dtype)
                fed.append(action)
                if answers[output].shape[-1] != joints:
                    shape = answers[output].shape
                    raise ValueError(f"the network gives {shape}, the manifest has {joints} actions")
                expected.append(answers[output].reshape(-1, joints))
                action = expected[-1][row].astype(np.float32)
            states.append({name: value.copy() for name, value in carry.items()})
        rows = np.stack(expected).reshape(sequences, steps, -1, joints)
        shaped = rows if chunk["mode"] == "open" else rows[:, :, 0]
        carried = {name: np.stack([state[name] for state in states]) for name in self.io.carry}
        return Recording(shaped, np.stack(fed).reshape(sequences, steps, joints), carried)

    def _advance(
        self,
        module: torch.nn.Module,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        values: Callable[[str], Any],
        carry: dict[str, np.ndarray],
        dtype: torch.dtype,
    ) -> list[np.ndarray]:
        """One call; the states in its results replace those in `carry`."""
        answers = _call(module, [torch.from_numpy(values(binding)).to(dtype) for binding in inputs])
        if len(answers) != len(outputs):
            raise ValueError(f"a module gives {len(answers)} tensors for the outputs {list(outputs)}")
        for binding, answer in zip(outputs, answers, strict=True):
            if binding.startswith("carry."):
                name = binding.removeprefix("carry.")
                carry[name] = answer.reshape(self.io.carry[name])
        return answers

    def _values(
        self, s: int, k: int, action: np.ndarray, carry: Mapping[str, np.ndarray], at: int | None = None
    ) -> Callable[[str], np.ndarray]:
        """The value of each input binding: the observation of step `k`, everything else of step `at`."""
        now = k if at is None else at

        def value(binding: str) -> np.ndarray:
            kind, _, name = binding.partition(".")
            if kind == "carry":
                if name not in carry:
                    raise ValueError(
                        f"binding {binding!r}: no state {name!r}; there are: {', '.join(carry) or 'none'}"
                    )
                return np.asarray(carry[name])
            if kind == "source":
                return self.obs[s, k][None, source_elements(self.manifest["observation"], name)]
            values = {
                "observation": lambda: self.obs[s, k][None],
                "previous_action": lambda: np.asarray(action, np.float32)[None],
                "time": lambda: self.time()[s, now].reshape(1, 1),
                "noise": lambda: self.noise[s, now][None],
            }
            if kind not in values:
                raise ValueError(
                    f"input binding {binding!r} is not one of {', '.join(values)}, carry.*, source.*"
                )
            return values[kind]()

        return value

    def _zeros(self, dtype: Any) -> dict[str, np.ndarray]:
        return {name: np.zeros(shape, dtype) for name, shape in self.io.carry.items()}

    def _reset_action(self) -> np.ndarray:
        action = self.manifest["action"]
        return np.asarray(action.get("reset") or [0.0] * len(action["joints"]), np.float32)


def source_elements(observation: Mapping[str, Any], source: str) -> np.ndarray:
    """Indices of the observation's elements that come from `source`, in their order there."""
    terms = observation["terms"]
    lengths = [term.get("history", {}).get("length", 1) for term in terms]
    if observation["interleave"] == "term":
        owners = [t["source"] for t, n in zip(terms, lengths, strict=True) for _ in range(t["size"] * n)]
    else:
        owners = [t["source"] for _ in range(lengths[0]) for t in terms for _ in range(t["size"])]
    return np.flatnonzero([owner == source for owner in owners])


def _call(module: torch.nn.Module, inputs: list[torch.Tensor]) -> list[np.ndarray]:
    with torch.inference_mode():
        answers = module(*inputs)
    answers = answers if isinstance(answers, tuple | list) else (answers,)
    return [answer.numpy() for answer in answers]
