"""Writes tests/golden/policy: small networks as torch exports them, with inputs and onnxruntime's answers.

Run from the repository root; needs torch, onnxscript and onnxruntime. The Rust tests read `<name>.onnx` and
`<name>.json` (`inputs` and `outputs`: name -> flat numbers, one list for each of the recorded runs).
"""

import json
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

OUT = Path(__file__).parent / "policy"
RUNS = 8


class Normalizer(nn.Module):
    """The observation normaliser as a step of its own: subtract, divide, clip."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(size) * 3)
        self.register_buffer("std", torch.rand(size) + 0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((x - self.mean) / self.std).clamp(-5.0, 5.0)


class ReSine(nn.Module):
    """sigma * sin(x / sigma) * sigmoid(1.5 * sin(x / sigma)), sigma learned."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.randn(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sigma = torch.sigmoid(self.s)
        q = torch.sin(x / sigma)
        return sigma * q * torch.sigmoid(1.5 * q)


class Symphony(nn.Module):
    """The actor of Symphony up to u; the third head is dropped at deployment."""

    def __init__(self, observation: int = 32, hidden: int = 64, action: int = 6) -> None:
        super().__init__()
        self.action = action
        self.body = nn.Sequential(
            nn.Linear(observation, hidden),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden),
            ReSine(hidden),
            nn.Linear(hidden, 3 * action),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, s, _ = torch.split(self.body(x), self.action, dim=-1)
        return torch.tanh(torch.abs(torch.tanh(s / 2)) * torch.tanh(a / 2))


class Step(nn.Module):
    """A recurrent step: one GRU cell and a head."""

    def __init__(self, action: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(action, hidden)
        self.head = nn.Linear(hidden, action)

    def forward(self, previous: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.cell(previous, h)
        return torch.tanh(self.head(h)), h


class Layers(nn.Module):
    """A recurrent policy as rsl_rl exports one: two layers, states of shape [layers, 1, hidden], a head."""

    def __init__(
        self, kind: type[nn.GRU] | type[nn.LSTM], observation: int, hidden: int, action: int
    ) -> None:
        super().__init__()
        self.layers = kind(observation, hidden, 2)
        self.head = nn.Linear(hidden, action)

    def forward(self, obs: torch.Tensor, h: torch.Tensor, c: torch.Tensor | None = None):
        if c is None:
            y, h = self.layers(obs.unsqueeze(0), h)
            return self.head(y.squeeze(0)), h
        y, (h, c) = self.layers(obs.unsqueeze(0), (h, c))
        return self.head(y.squeeze(0)), h, c


class Sequence(nn.Module):
    """An action sequence: a network gives coefficients; a constant matrix on the left makes rows."""

    def __init__(self, observation: int, rows: int, action: int) -> None:
        super().__init__()
        self.rows, self.action = rows, action
        self.net = nn.Sequential(nn.Linear(observation, 32), nn.Mish(), nn.Linear(32, rows * action))
        t = torch.arange(rows)
        basis = torch.cos(math.pi / rows * (t[None] + 0.5) * t[:, None]).T.contiguous()
        self.register_buffer("basis", basis)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.basis @ self.net(x).reshape(-1, self.rows, self.action)


class Tokens(nn.Module):
    """A network on `[1, tokens, width]`, from and to flat rows."""

    def __init__(self, net: nn.Module, tokens: int, width: int) -> None:
        super().__init__()
        self.net, self.tokens, self.width = net, tokens, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.reshape(-1, self.tokens, self.width)).flatten(1)


class MultiHead(nn.Module):
    """torch's own attention, over the tokens alone or from the first four of them to all."""

    def __init__(self, width: int, heads: int, *, weights: bool = False, cross: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.weights, self.cross = weights, cross

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x[:, :4] if self.cross else x, x, x, need_weights=self.weights)[0]


class Written(nn.Module):
    """Attention as people write it themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        q, k, v = (f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        shares = ((q @ k.transpose(-2, -1)) / math.sqrt(d // self.heads)).softmax(-1)
        return self.out((shares @ v).transpose(1, 2).reshape(b, t, d))


class DotProduct(nn.Module):
    """torch's function, with two query heads; the second row of the mask forbids everything."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        allowed = torch.rand(7, 7) < 0.6
        allowed[1] = False
        self.register_buffer("allowed", allowed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (p.unflatten(-1, (2, 4)).transpose(1, 2) for p in x.split(8, dim=-1))
        scaled = nn.functional.scaled_dot_product_attention
        match self.kind:
            case "mask":
                y = scaled(q, k, v, attn_mask=self.allowed, scale=0.3)
            case "causal":
                y = scaled(q, k, v, is_causal=True)
            case _:
                y = scaled(q, k[:, :1], v[:, :1], enable_gqa=True)
        return y.transpose(1, 2).flatten(2)


class ConvBlock(nn.Sequential):
    """Conv1d, GroupNorm(8), Mish."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv1d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.Mish())


class Residual(nn.Module):
    """Two blocks with a FiLM of the condition between them, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = ConvBlock(inputs, outputs), ConvBlock(outputs, outputs)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outputs))
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        scale, bias = self.film(c).unsqueeze(-1).chunk(2, dim=1)
        return self.second(scale * self.first(x) + bias) + self.shortcut(x)


class UNet(nn.Module):
    """A denoising step of a diffusion policy: actions [1, rows, n], step [1], condition [1, m] -> noise."""

    def __init__(self, action: int = 4, condition: int = 8, width: int = 16, embedding: int = 8) -> None:
        super().__init__()
        self.half = embedding // 2
        self.time = nn.Sequential(nn.Linear(embedding, 16), nn.Mish(), nn.Linear(16, embedding))
        c = condition + embedding
        self.enter, self.inner = Residual(action, width, c), Residual(width, width, c)
        self.down = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.middle = Residual(width, width, c)
        self.up = nn.ConvTranspose1d(width, width, 4, stride=2, padding=1)
        self.merge = Residual(2 * width, width, c)
        self.leave = nn.Sequential(ConvBlock(width, width), nn.Conv1d(width, action, 1))

    def forward(self, x: torch.Tensor, step: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        rate = torch.exp(torch.arange(self.half) * (-math.log(10_000.0) / (self.half - 1)))
        angle = step[:, None] * rate[None]
        c = torch.cat([self.time(torch.cat([angle.sin(), angle.cos()], -1)), condition], -1)
        skip = self.inner(self.enter(x.transpose(1, 2), c), c)
        x = self.up(self.middle(self.down(skip), c))
        return self.leave(self.merge(torch.cat([x, skip], 1), c)).transpose(1, 2)


def mlp(activation: type[nn.Module], *, norm: bool = False) -> nn.Sequential:
    """16-32-32-6, with a normaliser in front and LayerNorm inside if asked for."""
    layers: list[nn.Module] = [Normalizer(16)] if norm else []
    for a, b in ((16, 32), (32, 32)):
        layers += [nn.Linear(a, b), *([nn.LayerNorm(b)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(32, 6))


def write(
    name: str,
    net: nn.Module,
    args: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    *,
    opset: int = 18,
    dynamo: bool = True,
    runs: int = RUNS,
) -> None:
    """Exports one network and records what onnxruntime computes."""
    path = OUT / f"{name}.onnx"
    torch.onnx.export(
        net.eval(),
        args,
        path,
        input_names=inputs,
        output_names=outputs,
        opset_version=opset,
        dynamo=dynamo,
        **({"external_data": False, "verbose": False} if dynamo else {}),
    )
    model = onnx.load(path)
    # Stack traces with paths of this machine, of no use to anybody.
    model.doc_string = ""
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        value.ClearField("metadata_props")
    record(name, model, {n: tuple(a.shape) for n, a in zip(inputs, args, strict=True)}, outputs, runs)


def record(
    name: str,
    model: onnx.ModelProto,
    inputs: dict[str, tuple[int, ...]],
    outputs: list[str],
    runs: int = RUNS,
) -> None:
    """Writes a network and what onnxruntime computes with it."""
    path = OUT / f"{name}.onnx"
    onnx.checker.check_model(model)
    onnx.save_model(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    recorded = []
    for _ in range(runs):
        feed = {n: torch.randn(shape).numpy() * 2 for n, shape in inputs.items()}
        recorded.append((feed, dict(zip(outputs, session.run(outputs, feed), strict=True))))
    flat = [{n: [float(v) for v in np.ravel(x)] for n, x in part.items()} for run in recorded for part in run]
    answers = {"opset": model.opset_import[0].version, "inputs": flat[0::2], "outputs": flat[1::2]}
    (OUT / f"{name}.json").write_text(json.dumps(answers) + "\n")
    size = path.stat().st_size
    assert size < 90_000, f"{path} has {size} bytes"
    print(f"{name}: {size} bytes, {sorted({n.op_type for n in model.graph.node})}")


def main() -> None:
    """Writes every fixture."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    row = torch.zeros
    activations = {
        "relu": nn.ReLU,
        "elu": nn.ELU,
        "tanh": nn.Tanh,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "softplus": nn.Softplus,
        "mish": nn.Mish,
        "selu": nn.SELU,
    }
    for name, activation in activations.items():
        write(f"mlp_{name}", mlp(activation), (row(1, 16),), ["obs"], ["action"])
    write("mlp_norm", mlp(nn.ELU, norm=True), (row(1, 16),), ["obs"], ["action"])
    write("mlp_elu_opset11", mlp(nn.ELU), (row(1, 16),), ["obs"], ["action"], opset=11, dynamo=False)
    write("mlp_norm_opset20", mlp(nn.GELU, norm=True), (row(1, 16),), ["obs"], ["action"], opset=20)
    write("symphony", Symphony(), (row(1, 32),), ["obs"], ["action"])
    critic = nn.Sequential(nn.Linear(16, 32), nn.ELU(), nn.Linear(32, 1))
    write("critic", critic, (row(5, 16),), ["obs"], ["value"])
    init = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24))
    write("lazy_init", init, (row(1, 16),), ["obs"], ["h"])
    write("lazy_step", Step(6, 24), (row(1, 6), row(1, 24)), ["previous", "h_in"], ["action", "h"])
    write("open", Sequence(16, 8, 6), (row(1, 16),), ["obs"], ["actions"])
    torch.manual_seed(1)
    encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
    # torch's older exporter cannot export the encoder layer (is_causal becomes a tensor), nor grouped heads.
    attention: list[tuple[str, nn.Module, int, list[int]]] = [
        ("encoder", encoder, 16, [18, 20, 23]),
        ("multihead", MultiHead(16, 2), 16, [17, 18, 20, 23]),
        ("weights", MultiHead(16, 2, weights=True), 16, [17, 18, 23]),
        ("cross", MultiHead(16, 2, cross=True), 16, [17, 18, 23]),
        ("written", Written(16, 2), 16, [17, 18, 23]),
        ("mask", DotProduct("mask"), 24, [17, 18, 20, 23]),
        ("causal", DotProduct("causal"), 24, [18, 23]),
        ("groups", DotProduct("groups"), 24, [18, 23]),
    ]
    for name, net, width, opsets in attention:
        tokens = Tokens(net, 7, width)
        for opset in opsets:
            args = (row(1, 7 * width),)
            write(
                f"{name}_{opset}", tokens, args, ["obs"], ["action"], opset=opset, dynamo=opset > 17, runs=2
            )
    presquash()
    unet()
    unroll("lazy_unrolled", steps=8)
    state = row(2, 1, 12)
    names = ["obs", "h"], ["action", "h_out"]
    gru = Layers(nn.GRU, 16, 12, 6)
    write("gru_opset11", gru, (row(1, 16), state), *names, opset=11, dynamo=False)
    names = ["obs", "h", "c"], ["action", "h_out", "c_out"]
    write("lstm", Layers(nn.LSTM, 16, 12, 6), (row(1, 16), state, state), *names)


def unroll(name: str, steps: int) -> None:
    """Joins `lazy_init` and `steps` times `lazy_step` into one graph: obs -> actions [steps, 6]."""
    graph = onnx.load(OUT / "lazy_init.onnx")
    graph = onnx.compose.add_prefix(graph, "init_")
    cell = onnx.load(OUT / "lazy_step.onnx")
    start = onnx.helper.make_tensor("start", onnx.TensorProto.FLOAT, [1, 6], [0.0] * 6)
    graph.graph.initializer.extend([start, *cell.graph.initializer])
    h, action, actions = "init_h", "start", []
    for k in range(steps):
        # Every step reads the same weights.
        part = onnx.compose.add_prefix(cell, f"step{k}_")
        joined = {f"step{k}_{i.name}": i.name for i in cell.graph.initializer}
        joined |= {f"step{k}_previous": action, f"step{k}_h_in": h}
        for node in part.graph.node:
            node.input[:] = [joined.get(i, i) for i in node.input]
        graph.graph.node.extend(part.graph.node)
        h, action = f"step{k}_h", f"step{k}_action"
        actions.append(action)
    graph.graph.node.append(onnx.helper.make_node("Concat", actions, ["actions"], axis=0))
    del graph.graph.output[:], graph.graph.value_info[:]
    rows = onnx.helper.make_tensor_value_info("actions", onnx.TensorProto.FLOAT, [steps, 6])
    graph.graph.output.append(rows)
    record(name, graph, {"init_obs": (1, 16)}, ["actions"])


def presquash() -> None:
    """mlp_tanh with a last tanh, and with what goes into it as an output of its own; no recorded runs."""
    model = onnx.load(OUT / "mlp_tanh.onnx")
    graph = model.graph
    (before,) = graph.output
    last = graph.node[-1]
    assert last.output[0] == before.name
    graph.output.append(before)
    last.output[0] = graph.output[1].name = "presquash"
    graph.node.append(onnx.helper.make_node("Tanh", ["presquash"], [graph.output[0].name]))
    onnx.checker.check_model(model)
    onnx.save(model, OUT / "presquash.onnx")


def unet() -> None:
    """Writes the U-Net as both exporters spell it."""
    torch.manual_seed(1)
    net = UNet()
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    args = (torch.zeros(1, 8, 4), torch.zeros(1), torch.zeros(1, 8))
    for name, opset, dynamo in (("unet", 18, True), ("unet_opset11", 11, False)):
        write(name, net, args, ["sample", "step", "condition"], ["noise"], opset=opset, dynamo=dynamo)


if __name__ == "__main__":
    main()
