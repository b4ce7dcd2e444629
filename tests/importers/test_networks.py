"""Whole networks of the field: recurrent ones keep their state, token and convolution ones give their chunk.

They need the engine's GRU, LSTM, attention, convolution and group normalisation.
"""

import sys

import numpy as np
import pytest
from foreign import FOREIGN, ROBOT, close, facts, opened, session

from cadenza.importers import import_policy

STATES = {"h_in": "h_out", "c_in": "c_out"}


@pytest.mark.parametrize("name", ["rsl_rl_gru", "rsl_rl_lstm", "torch_gru", "torch_lstm"])
def test_recurrent_policies_follow_onnxruntime_and_forget_exactly(tmp_path, name):
    report = import_policy(FOREIGN / f"{name}.onnx", tmp_path / "p.cadenza", manifest=facts(), robot=ROBOT)
    policy, manifest, _ = opened(report.path)
    run = session((FOREIGN / f"{name}.onnx").read_bytes())
    rows = np.random.default_rng(0).normal(0, 1, (40, 22)).astype(np.float32)
    step = manifest["functions"]["step"]
    carried = [port for port, binding in step["inputs"].items() if binding.startswith("carry.")]
    assert set(carried) == ({"h_in", "c_in"} if "lstm" in name else {"h_in"})
    state = {p: np.zeros(manifest["carry"][p[0]]["shape"], np.float32) for p in carried}
    theirs = []
    for row in rows:
        out = run({"obs": row[None], **state})
        state = {p: out[STATES[p]] for p in carried}
        theirs.append(out["actions"][0])
    first = np.stack([policy.act(row) for row in rows])
    assert close(first, np.stack(theirs))
    policy.reset()
    np.testing.assert_array_equal(np.stack([policy.act(row) for row in rows]), first)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "horizon"), [("act", 100), ("unet", 16)])
def test_chunks_of_token_and_convolution_networks_are_onnxruntimes(tmp_path, monkeypatch, name, horizon):
    monkeypatch.syspath_prepend(FOREIGN / "tools")
    torch_worker = __import__("torch_worker")
    sys.modules.pop("torch_worker")
    graph = tmp_path / f"{name}.onnx"
    torch_worker.export(name, graph)
    chunk = {"mode": "open", "horizon": horizon, "execute": 8, "on_exhausted": "hold", "seam": "replace"}
    report = import_policy(
        graph, tmp_path / "p.cadenza", kind="onnx", manifest=facts() | {"chunk": chunk}, robot=ROBOT
    )
    policy, _, _ = opened(report.path)
    run = session(graph.read_bytes())
    for row in np.random.default_rng(0).normal(0, 1, (5, 22)).astype(np.float32):
        theirs = run({"obs": row[None]})["actions"][0]
        ours = np.zeros(horizon * 4, np.float32)
        policy.act(row, out=ours)
        assert theirs.shape == (horizon, 4) and theirs.std() > 1e-3
        assert np.allclose(ours.reshape(horizon, 4), theirs, rtol=1e-4, atol=1e-4)
