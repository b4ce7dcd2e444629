"""Graphs of rsl_rl and Isaac Lab: the network, and nothing about the robot.

Inputs `obs[, h_in[, c_in]]`, outputs `actions[, h_out[, c_out]]`, states `[layers, 1, H]`; the normaliser, if
the policy has one, stands in the graph as `(x − μ)/(σ + 0.01)`. Everything else must come from the user.
"""

from __future__ import annotations

from cadenza.importers.draft import Draft
from cadenza.importers.graph import ForeignPolicyError, Graph

STATES = {"h_in": "h_out", "c_in": "c_out"}


def read(graph: Graph, name: str) -> Draft:
    """The draft of an exported actor.

    Raises:
        ForeignPolicyError: other inputs or outputs than rsl_rl writes.
    """
    draft = Draft(kind="rsl_rl", name=name, graphs={"step": graph})
    known_in, known_out = ["obs", *STATES], ["actions", *STATES.values()]
    inputs, outputs = [p.name for p in graph.inputs], [p.name for p in graph.outputs]
    states = [name for name in STATES if name in inputs]
    if (
        inputs[:1] != ["obs"]
        or outputs[:1] != ["actions"]
        or {*inputs} - {*known_in}
        or {*outputs} - {*known_out}
    ):
        raise ForeignPolicyError(
            f"{graph.name} is not what rsl_rl writes (inputs {', '.join(known_in)}, outputs "
            f'{", ".join(known_out)}): {graph.ports}; import it as "onnx" with a manifest of your own'
        )
    if [STATES[s] for s in states] != outputs[1:]:
        raise ForeignPolicyError(f"{graph.name}: each state goes in and comes out: {graph.ports}")
    step = {
        "file": "step.onnx",
        "batch": 1,
        "inputs": {"obs": "observation"} | {s: f"carry.{s[0]}" for s in states},
        "outputs": {"actions": "action"} | {STATES[s]: f"carry.{s[0]}" for s in states},
    }
    draft.manifest["functions"] = {"step": step}
    ports = {port.name: port for port in graph.inputs}
    draft.manifest["carry"] = {
        s[0]: {"shape": [d or 1 for d in ports[s].shape], "init": "zeros"} for s in states
    }
    if states:
        draft.assumed.append(f"{', '.join(states)} start at zero in every episode, as rsl_rl's do")
    normalizer_in_graph(draft, graph)
    return draft


def normalizer_in_graph(draft: Draft, graph: Graph, name: str = "obs") -> None:
    """Notes the normaliser that stands in the graph, or that there is none."""
    found = graph.normalizer(name)
    if found is None:
        draft.assumed.append("normalizer: none outside the graph, and none found in it")
        return
    draft.manifest["normalizer"] = {
        "where": "graph",
        "form": "std_plus_eps",
        "mean": found.mean.tolist(),
        "spread": found.spread.tolist(),
        "eps": 0.0,
    }
