"""The networks that are timed (spec/policy.md §10), each as a bundle with random weights.

A 48-256-256-12 and K 64-512-256-128-29 with ELU, B 376-512-512-512-17 with LayerNorm and ELU, and the demo's
Symphony actor. C is one step of a recurrent policy, a GRU cell 64-256 and a head of 12; its state comes with
the observation and goes with the actions, so that every engine gets it the same way. `lazy` writes SRL's
actor (spec/srl.md §3), 17 observations and sequences of 16 times 6 actions, as `init` and `step`. D is a
pre-LN transformer (4 layers, width 256, 4 heads, FFN 1024, 100 tokens); XS, S and M are the wavelet nets of
spec/wavelet.md §3. K comes with a robot of 29 joints and ten monitors, so that a whole loop can run it;
K-plain is K without the monitors. `product` holds one matrix product of 96x1024x256, the floor of the token
networks.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cadenza import _native
from cadenza.export import ParityConfig, PolicyIO, export, to_onnx

CONTROL_HZ = 1000.0
JOINTS = 29
COMMANDS = ("vx", "vy", "wz")
MONITORS = 10


def mlp(sizes: Sequence[int], *, norm: bool = False) -> nn.Sequential:
    """Linear layers with ELU between them, after a LayerNorm when asked for."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes[:-1]):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), nn.ELU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class Cell(nn.Module):
    """A GRU cell and a head: input and state in one row, actions and new state in one row."""

    def __init__(self, inputs: int, hidden: int, actions: int) -> None:
        super().__init__()
        self.sizes = [inputs, hidden]
        self.cell, self.head = nn.GRUCell(inputs, hidden), nn.Linear(hidden, actions)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        x, h = obs.split(self.sizes, dim=1)
        h = self.cell(x, h)
        return torch.cat((self.head(h), h), dim=1)


class Decoder(nn.Module):
    """One step of SRL's actor: the previous action and the state to the action and the new state."""

    def __init__(self, actions: int, hidden: int) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(actions, hidden), nn.Linear(hidden, actions)

    def forward(self, previous: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.cell(previous, h)
        return torch.tanh(self.head(h)), h


class Transformer(nn.Module):
    """A row of tokens, the same observation added to each; the actions of all tokens, flat."""

    def __init__(
        self, observation: int, actions: int, tokens: int, width: int, heads: int, layers: int
    ) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(tokens, width))
        self.first = nn.Linear(observation, width)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(layers)])
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, actions)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        x = self.places + self.first(obs)[:, None]
        for layer in self.layers:
            x = layer(x)
        return self.last(self.norm(x)).flatten(1)


def haar(rows: int, levels: int) -> tuple[torch.Tensor, list[int]]:
    """The orthonormal Haar transform of `rows` numbers as a matrix, and the length of each band."""
    average, bands = np.eye(rows), []
    for _ in range(levels):
        even, odd = average[0::2], average[1::2]
        bands.insert(0, (even - odd) / np.sqrt(2))
        average = (even + odd) / np.sqrt(2)
    bands.insert(0, average)
    return torch.tensor(np.concatenate(bands), dtype=torch.float32), [len(b) for b in bands]


class Band(nn.Module):
    """Decoder layer, gate and head of one band of coefficients."""

    def __init__(self, length: int, width: int, heads: int, ffn: int, actions: int) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(
            width, heads, ffn, dropout=0.0, batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)
        each, over = width // 2, max(1, length // 2)
        self.each = nn.Sequential(
            nn.Linear(width, each, bias=False), nn.ReLU(), nn.Linear(each, 1, bias=False)
        )
        self.over = nn.Sequential(
            nn.Linear(length, over, bias=False), nn.ReLU(), nn.Linear(over, length, bias=False)
        )
        self.head = nn.Linear(width, actions)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.layer(x, memory))
        gate = torch.sigmoid(self.over(self.each(x).squeeze(-1)))
        return self.head(x + x * gate.unsqueeze(-1))


class Wavelet(nn.Module):
    """The wavelet network of spec/wavelet.md §3 with Haar, J = 3; the actions of all rows, flat."""

    def __init__(self, width: int, ffn: int, layers: int, rows: int, observation: int, actions: int) -> None:
        super().__init__()
        heads = 4
        matrix, self.lengths = haar(rows, 3)
        self.register_buffer("forwards", matrix)
        self.register_buffer("backwards", matrix.T.contiguous())
        self.first, self.second = nn.Linear(observation, width), nn.Linear(width, 2 * width)
        self.tokens = nn.Parameter(0.02 * torch.randn(rows, width))
        layer = nn.TransformerEncoderLayer(width, heads, ffn, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.ModuleList([copy.deepcopy(layer) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.places = nn.Parameter(0.02 * torch.randn(rows, width))
        self.bands = nn.ModuleList([Band(n, width, heads, ffn, actions) for n in self.lengths])

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        gain, shift = self.second(torch.relu(self.first(obs)))[:, None].chunk(2, dim=-1)
        x = self.tokens * (1.0 + gain) + shift
        for layer in self.layers:
            x = layer(x)
        memory = self.norm(x)
        queries = (self.forwards @ memory + self.places).split(self.lengths, dim=1)
        bands = [band(q, memory) for band, q in zip(self.bands, queries, strict=True)]
        return (self.backwards @ torch.cat(bands, dim=1)).flatten(1)


def term(source: str, size: int, history: int = 1) -> dict[str, Any]:
    """An observation term as it comes."""
    params = {"period": 1.0} if source == "phase" else {}
    length = {"length": history, "order": "oldest_first", "fill": "repeat"}
    return {"name": source, "source": source, "size": size, "params": params, "history": length}


def manifest(name: str, joints: int, terms: list[dict[str, Any]], control_hz: float) -> dict[str, Any]:
    """A policy of `joints` position offsets, one inference in each control tick."""
    names = [f"joint_{i}" for i in range(joints)]
    dt = 1.0 / control_hz
    return {
        "name": name,
        "robot": {"name": f"robot_{joints}", "model_sha256": None},
        "rates": {"policy_dt": dt, "control_dt": dt, "physics_dt": None},
        "joints": [
            {"name": n, "default": 0.0, "kp": 50.0, "kd": 2.0,
             "position": None, "velocity_max": None, "effort_max": None} for n in names
        ],
        "observation": {
            "size": sum(t["size"] * t["history"]["length"] for t in terms),
            "interleave": "term",
            "terms": terms,
        },
        "normalizer": {"where": "none"},
        "action": {"kind": "position_offset", "joints": names, "scale": {"*": 0.25}, "offset": "default"},
        "chunk": {"mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace"},
        "in_graph": {"normalize": False, "squash": False, "action_scale": False, "action_offset": False},
        "commands": [{"name": c, "range": [-1.0, 1.0]} for c in COMMANDS],
        "weights": "f32",
        "provenance": {},
    }  # fmt: skip


def robot_toml(joints: int, control_hz: float = CONTROL_HZ) -> str:
    """A robot without a model: joints of ±3 rad on the null device."""
    head = (
        f'schema = 1\nname = "robot_{joints}"\n[device]\nkind = "null"\n'
        f"[rates]\ncontrol_hz = {control_hz:g}\n"
        '[imu]\npresent = true\n[safety]\ngain_ramp = "0s"\nauthority_ramp = "0.1s"\n'
        # a late tick of a busy machine is a figure here, not a fault
        'stale_after = "2s"\nlost_after = "5s"\n'
    )
    joint = (
        '[[joint]]\nname = "joint_{}"\nhome = 0.0\n'
        "limits = {{ position = [-3.0, 3.0], velocity = 20.0, acceleration = 2000.0, effort = 50.0 }}\n"
        "gains = {{ kp_max = 50.0, kd_max = 2.0, kd_damp = 1.0 }}\n"
    )
    return head + "".join(joint.format(i) for i in range(joints))


def legged(joints: int) -> list[dict[str, Any]]:
    """What a walking policy sees."""
    return [
        term("joint_pos", joints), term("joint_vel", joints),
        term("projected_gravity", 3), term("command", len(COMMANDS)),
    ]  # fmt: skip


def symphony_actor() -> tuple[nn.Module, dict[str, Any], str]:
    """The demo's actor with its manifest and its properties."""
    from cadenza.algos.symphony import Symphony
    from cadenza.recipes import recipe
    from cadenza.tasks import make_task

    task = make_task("cadenza/ReachArm6-v0")
    document, high = task.manifest(), np.ones(task.action_size)
    settings = recipe("cadenza/ReachArm6-v0").settings
    learner = Symphony(settings, document["observation"]["size"], -high, high, seed=0)  # pyright: ignore
    return learner.deploy_module(), document, task.spec() or ""


def networks(control_hz: float = CONTROL_HZ) -> dict[str, tuple[nn.Module, dict[str, Any], str | None]]:
    """Module, manifest and properties by name."""
    torch.manual_seed(0)
    a = [*legged(12), term("last_action", 12), term("gyro", 3), term("accelerometer", 3)]
    b = [term("joint_pos", 17, 11), term("joint_vel", 17, 11), term("phase", 2)]
    k = manifest("K", JOINTS, legged(JOINTS), control_hz)
    k["monitors"] = [
        {"name": f"fast_{i}", "dt": 1.0 / control_hz, "trip": "violated", "action": "log"}
        for i in range(MONITORS)
    ]
    watched = "".join(
        f"spec fast_{i}: G[0,50] (abs(dq.joint_{i}) < 30 and abs(q.joint_{i}) < 4);\n"
        for i in range(MONITORS)
    )
    actor, reach, spec = symphony_actor()
    network = mlp((64, 512, 256, 128, JOINTS))
    return {
        "actor": (actor, {**reach, "name": "actor"}, spec),
        "A": (mlp((48, 256, 256, 12)), manifest("A", 12, a, control_hz), None),
        "B": (mlp((376, 512, 512, 512, 17), norm=True), manifest("B", 17, b, control_hz), None),
        # 268 numbers as 67 rows of 4 actions: the format knows no other flat answer of that length.
        "C": (Cell(64, 256, 12), sequence("C", 4, 320, 67, control_hz), None),
        "K": (network, k, watched),
        "K-plain": (network, {**k, "monitors": []}, None),
        **{
            name: (module, sequence(name, 14, 42, rows, control_hz), None)
            for name, (module, rows) in sequences().items()
        },
    }


def sequences() -> dict[str, tuple[nn.Module, int]]:
    """The token networks, 42 observations to rows of 14 actions: module and rows."""
    return {
        "D": (Transformer(42, 14, 100, 256, 4, 4), 100),
        "XS": (Wavelet(32, 128, 1, 32, 42, 14), 32),
        "S": (Wavelet(64, 256, 2, 40, 42, 14), 40),
        "M": (Wavelet(128, 512, 2, 64, 42, 14), 64),
    }


def sequence(name: str, joints: int, observation: int, rows: int, control_hz: float) -> dict[str, Any]:
    """A manifest for `rows` actions from one inference."""
    document = manifest(name, joints, [term("joint_pos", joints, observation // joints)], control_hz)
    document["chunk"] |= {"mode": "open", "horizon": rows, "execute": rows}
    return document


def product(folder: Path) -> Path:
    """A bundle with one linear layer of 96 rows, as its function `critic`."""
    m, k, n = 96, 1024, 256
    document = manifest("product", 12, [term("x-any", k)], CONTROL_HZ)
    step, critic = nn.Linear(k, 12), nn.Linear(k, n)
    ports = {"obs": "observation"}
    document |= {
        "format": 1,
        "functions": {
            "step": {"file": "step.onnx", "batch": 1, "inputs": ports, "outputs": {"action": "action"}},
            "critic": {"file": "critic.onnx", "batch": m, "inputs": ports, "outputs": {"action": "aux.y"}},
        },
    }
    rows = np.zeros((m, k), np.float32)
    entries = {"step.onnx": to_onnx(step, rows[:1]), "critic.onnx": to_onnx(critic, rows)}
    path = folder / "product.cadenza"
    path.write_bytes(_native.write_bundle(json.dumps(document), entries, {}))
    return path


def lazy(path: Path) -> None:
    """Writes SRL's actor: it sees the state once and decodes 16 actions, one in each tick."""
    observation, actions, hidden, horizon = 17, 6, 256, 16
    torch.manual_seed(0)
    init = nn.Sequential(nn.Linear(observation, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
    document = manifest("SRL", actions, [term("x-state", observation)], CONTROL_HZ)
    document["chunk"] |= {"mode": "lazy", "horizon": horizon, "execute": horizon}
    io = PolicyIO(
        inputs=("previous_action", "carry.h"),
        outputs=("action", "carry.h"),
        init_outputs=("carry.h",),
        carry={"h": (1, hidden)},
    )
    export(path, Decoder(actions, hidden), init=init, manifest=document, io=io, parity=ParityConfig(2, 8))


def open_bundle(path: Path, module: nn.Module, document: dict[str, Any]) -> None:
    """Writes a network that gives action sequences, without vectors."""
    example = np.zeros((1, document["observation"]["size"]), np.float32)
    ports = {"inputs": {"obs": "observation"}, "outputs": {"action": "actions"}}
    step = {"file": "step.onnx", "batch": 1, **ports}
    document = {**document, "format": 1, "functions": {"step": step}}
    entries = {"step.onnx": to_onnx(module.eval(), example)}
    path.write_bytes(_native.write_bundle(json.dumps(document), entries, {}))


def bundles(
    folder: Path, names: Sequence[str], control_hz: float = CONTROL_HZ
) -> dict[str, tuple[Path, nn.Module]]:
    """Writes the named networks into `folder`; path and module of each."""
    out = {}
    for name, (module, document, spec) in networks(control_hz).items():
        if name in names:
            path = folder / f"{name}.cadenza"
            if document["chunk"]["mode"] == "open":
                open_bundle(path, module, document)
            else:
                export(path, module, manifest=document, specification=spec, parity=ParityConfig(2, 8))
            out[name] = (path, module.eval())
    return out
