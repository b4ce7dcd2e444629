"""Any ONNX graph, with a manifest of the user's own: names and sizes are checked, nothing is read into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cadenza.importers.draft import Draft
from cadenza.importers.graph import ForeignPolicyError, Graph
from cadenza.importers.rsl_rl import normalizer_in_graph


def read(graph: Graph, name: str, given: Mapping[str, Any]) -> Draft:
    """The draft: what the graph's inputs and outputs are bound to.

    With one of each there is no doubt.

    Raises:
        ForeignPolicyError: several inputs or outputs and no bindings; the text lists them with their shapes.
    """
    draft = Draft(kind="onnx", name=name, graphs={"step": graph})
    bound = given.get("functions", {}).get("step", {})
    inputs, outputs = bound.get("inputs"), bound.get("outputs")
    for what, names, ports in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        known = [port.name for port in ports]
        for extra in [n for n in names or [] if n not in known]:
            raise ForeignPolicyError(
                f"{graph.name}: the manifest binds the {what} {extra!r}; the graph has {graph.ports}"
            )
        for extra in [n for n in known if names is not None and n not in names]:
            raise ForeignPolicyError(
                f"{graph.name}: the {what} {extra!r} is not bound in the manifest: {graph.ports}"
            )
    sides = (("inputs", inputs, graph.inputs), ("outputs", outputs, graph.outputs))
    unbound = [what for what, names, ports in sides if names is None and len(ports) != 1]
    if unbound:
        ins = ", ".join(f'"{port.name}": "…"' for port in graph.inputs)
        outs = ", ".join(f'"{port.name}": "…"' for port in graph.outputs)
        raise ForeignPolicyError(
            f"{graph.name}: several {' and '.join(unbound)}, so say what they are bound to ({graph.ports}):\n"
            f'  "functions": {{ "step": {{ "inputs": {{ {ins} }}, "outputs": {{ {outs} }} }} }}\n'
            "  inputs: observation, previous_action, carry.NAME, source.SOURCE\n"
            "  outputs: action, actions, carry.NAME, aux.NAME"
        )
    step: dict[str, Any] = {"file": "step.onnx", "batch": 1}
    if inputs is None:
        step["inputs"] = {graph.inputs[0].name: "observation"}
        draft.assumed.append(f"the only input, {graph.inputs[0]}, is the observation")
    if outputs is None:
        rows = given.get("chunk", {}).get("mode", "none") == "open"
        step["outputs"] = {graph.outputs[0].name: "actions" if rows else "action"}
        draft.assumed.append(f"the only output, {graph.outputs[0]}, is the action")
    draft.manifest["functions"] = {"step": step}
    if "normalizer" not in given and inputs is None:
        normalizer_in_graph(draft, graph, graph.inputs[0].name)
    return draft
