"""Why a trace has its robustness."""

from __future__ import annotations

from dataclasses import dataclass

from cadenza._native import Node


@dataclass(frozen=True)
class Explanation:
    """The path from a formula to the one predicate value that decides its robustness; `str` gives one line.

    Attributes:
        robustness: the robustness; NaN if a NaN was read, and then there is no path.
        conjunct: position of the deciding conjunct in `formula.conjuncts`, if one decides.
        predicate: the deciding predicate; None if an empty window or a constant decides.
        step: the instant at which it is read. Changing its signals there changes the robustness.
        values: its signals and their values there.
        path: nodes and instants from the formula to the predicate.
        summary: one line, as `violated by 0.12: gap > $d at step 41 (G[0,100])`.
    """

    robustness: float
    conjunct: int | None
    predicate: Node | None
    step: int
    values: dict[str, float]
    path: tuple[tuple[Node, int], ...]
    summary: str

    def __str__(self) -> str:
        return self.summary


def explanation(nodes: tuple[Node, ...], parts: tuple) -> Explanation:
    """An explanation from what the extension says, where nodes are numbers."""
    robustness, conjunct, predicate, step, values, path, summary = parts
    return Explanation(
        robustness=robustness,
        conjunct=conjunct,
        predicate=None if predicate is None else nodes[predicate],
        step=step,
        values=dict(values),
        path=tuple((nodes[node], t) for node, t in path),
        summary=summary,
    )
