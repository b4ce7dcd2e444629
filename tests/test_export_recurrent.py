"""Bundles of policies with memory, with more than one network, and with 8-bit weights."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from cadenza import _native
from cadenza.export import ExportError, Function, ParityConfig, PolicyIO, export
from cadenza.tasks import make_task

OBS, ACTIONS, HIDDEN = 32, 6, 24
CONFIG = ParityConfig(sequences=3, steps=7)


def manifest(**changes):
    return make_task("cadenza/ReachArm6-v0").manifest() | {"monitors": []} | changes


class Gru(nn.Module):
    """A cell and a head: (obs, h) → (action, h)."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(OBS, HIDDEN), nn.Linear(HIDDEN, ACTIONS)

    def forward(self, obs, h):
        h = self.cell(obs, h)
        return torch.tanh(self.head(h)), h


GRU_IO = PolicyIO(inputs=("observation", "carry.h"), outputs=("action", "carry.h"), carry={"h": (1, HIDDEN)})


class Decoder(nn.Module):
    """One step of a sequence: (previous action, h) → (action, h)."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(ACTIONS, HIDDEN), nn.Linear(HIDDEN, ACTIONS)

    def forward(self, previous, h):
        h = self.cell(previous, h)
        return torch.tanh(self.head(h)), h


LAZY_IO = PolicyIO(
    inputs=("previous_action", "carry.h"),
    outputs=("action", "carry.h"),
    init_outputs=("carry.h",),
    carry={"h": (1, HIDDEN)},
)
LAZY = {"mode": "lazy", "horizon": 8, "execute": 4, "on_exhausted": "hold", "seam": "replace"}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    torch.set_num_threads(1)


def rows(n):
    return np.random.default_rng(3).normal(0, 1, (n, OBS)).astype(np.float32)


def test_a_gru_policy_remembers_as_in_torch_and_forgets_at_reset(tmp_path):
    net = Gru()
    report = export(tmp_path / "gru.cadenza", net, manifest=manifest(), io=GRU_IO, parity=CONFIG)
    assert report.vectors == 21 and report.max_difference < 1e-6
    policy = _native.Policy(_native.Bundle(tmp_path / "gru.cadenza"))
    answers = []
    for _ in range(2):
        policy.reset()
        h = torch.zeros(1, HIDDEN)
        for obs in rows(20):
            with torch.inference_mode():
                expected, h = net(torch.from_numpy(obs[None]), h)
            answers.append(policy.act(obs))
            np.testing.assert_allclose(answers[-1], expected[0], atol=1e-5)
    np.testing.assert_array_equal(answers[:20], answers[20:])
    # The memory matters: the first observation again gives something else.
    assert np.abs(policy.act(rows(1)[0]) - answers[0]).max() > 1e-3


def test_a_lazy_sequence_is_the_unrolled_torch_network(tmp_path):
    step, init = Decoder(), nn.Sequential(nn.Linear(OBS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN))
    path = tmp_path / "lazy.cadenza"
    report = export(path, step, init=init, manifest=manifest(chunk=LAZY), io=LAZY_IO, parity=CONFIG)
    assert report.max_difference < 1e-6
    policy = _native.Policy(_native.Bundle(path))
    for obs in rows(3):
        policy.begin(obs)
        previous = np.zeros(ACTIONS, np.float32)
        with torch.inference_mode():
            h = init(torch.from_numpy(obs[None]))
        for _ in range(4):
            with torch.inference_mode():
                expected, h = step(torch.from_numpy(previous[None]), h)
            answer = policy.next(previous)
            np.testing.assert_allclose(answer, expected[0], atol=1e-5)
            # Teacher forcing: what is committed goes through the cell, whatever it would have said itself.
            previous = (answer + 0.1).astype(np.float32)


def test_a_critic_answers_all_its_rows_in_one_call(tmp_path):
    critic = nn.Sequential(nn.Linear(OBS, 16), nn.ReLU(), nn.Linear(16, 1))
    path = tmp_path / "critic.cadenza"
    functions = {"critic": Function(critic, {"observation": (8, OBS)}, ("value",), batch=8)}
    step = nn.Sequential(nn.Linear(OBS, ACTIONS), nn.Tanh())
    report = export(path, step, manifest=manifest(), functions=functions, parity=CONFIG)
    assert report.vectors == 21 + 7
    assert json.loads(_native.Bundle(path).manifest)["functions"]["critic"]["batch"] == 8


@pytest.mark.parametrize("net", [Gru, None])
def test_eight_bits_cost_what_the_bundle_says(tmp_path, net):
    if net is None:
        step = nn.Sequential(
            nn.Linear(OBS, 64), nn.ELU(), nn.Linear(64, 64), nn.ELU(), nn.Linear(64, ACTIONS)
        )
        step, io = nn.Sequential(step, nn.Tanh()), None
    else:
        step, io = net(), GRU_IO
    path = tmp_path / "int8.cadenza"
    squashed = manifest() | {"in_graph": manifest()["in_graph"] | {"squash": True}}
    report = export(
        path, step, manifest=squashed, io=io, weights="int8", quantization_limit=0.2, parity=CONFIG
    )
    assert 1e-6 < report.quantization_error < 0.2
    # The engine computes with the rounded weights, and the vectors are theirs: as tight as ever.
    assert report.max_difference < 1e-5
    bundle = _native.Bundle(path)
    document = json.loads(bundle.manifest)
    assert document["weights"] == "int8"
    assert document["parity"]["quantization_error"] == pytest.approx(report.quantization_error)
    full, narrow = _native.Policy(bundle, weights="f32"), _native.Policy(bundle)
    differences = [np.abs(full.act(obs) - narrow.act(obs)).max() for obs in rows(50)]
    assert 0 < max(differences) < 0.2


def test_what_eight_bits_would_spoil_is_refused(tmp_path):
    step = nn.Sequential(nn.Linear(OBS, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, ACTIONS))
    path = tmp_path / "never.cadenza"
    with pytest.raises(ExportError, match=r"int8 changes the action of '\w+' by .* more than 0\.0% of its"):
        export(path, step, manifest=manifest(), weights="int8", quantization_limit=1e-9, parity=CONFIG)
    with pytest.raises(ExportError, match="'bf16' are not known: f32, int8"):
        export(path, step, manifest=manifest(), weights="bf16", parity=CONFIG)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("io", "words"),
    [
        (
            PolicyIO(inputs=("observation", "carry.c"), outputs=("action", "carry.c")),
            "no state 'c'; there are: none",
        ),
        (PolicyIO(inputs=("lidar",)), "input binding 'lidar' is not one of"),
        (PolicyIO(outputs=("action", "carry.h"), carry={"h": (1, 4)}), "1 tensors for the outputs|carry"),
    ],
)
def test_bindings_that_do_not_fit_are_refused(tmp_path, io, words):
    step = nn.Sequential(nn.Linear(OBS, ACTIONS))
    with pytest.raises((ExportError, _native.BundleError), match=words):
        export(tmp_path / "x.cadenza", step, manifest=manifest(), io=io, parity=CONFIG)
    assert not list(tmp_path.iterdir())
