"""Blocks and ReSine: golden values, the batched kernel against autograd, storage layout."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cadenza import nn as cadenza_nn
from cadenza.nn import BlockBatch, BlockShape, ReSine, block

GOLDEN = json.loads((Path(__file__).parent / "golden" / "symphony.json").read_text())
torch.set_num_threads(1)


@pytest.mark.parametrize(("x", "s", "value", "d_x", "d_s"), GOLDEN["resine"]["rows"])
@pytest.mark.parametrize(
    ("dtype", "relative", "absolute"), [(torch.float64, 0, 1e-9), (torch.float32, 5e-5, 1e-7)]
)
def test_resine_golden(x, s, value, d_x, d_s, dtype, relative, absolute):
    layer = ReSine(torch.tensor([s], dtype=dtype))
    at = torch.tensor([x], dtype=dtype, requires_grad=True)
    out = layer(at)
    out.sum().backward()
    for got, want in ((out, value), (at.grad, d_x), (layer.s.grad, d_s)):
        assert got.item() == pytest.approx(want, rel=relative, abs=absolute)


def test_resine_gradcheck():
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)
    x = torch.randn(7, 5, dtype=torch.float64, generator=generator, requires_grad=True)

    def f(x, s):
        return torch.func.functional_call(ReSine(s.detach()), {"s": s}, (x,))

    assert torch.autograd.gradcheck(f, (x, s))


def test_frozen_resine_is_the_same_function_without_parameters():
    s = torch.randn(6, dtype=torch.float64)
    x = torch.randn(4, 6, dtype=torch.float64)
    frozen = ReSine(s, frozen=True)
    assert not list(frozen.parameters())
    torch.testing.assert_close(frozen(x), ReSine(s)(x), rtol=0, atol=1e-14)


def test_layout_names_every_scalar_once_and_stacks_the_same_memory():
    shape = BlockShape(5, 8, 3)
    assert shape.parameters == 8 * 5 + 8 + 2 * 8 + 8 * 8 + 8 + 8 + 3 * 8 + 3
    assert shape.stride % 16 == 0 and shape.stride >= shape.parameters
    flat = torch.zeros(3 * shape.stride)
    for i in range(3):
        for view in shape.named(flat, i).values():
            view.add_(1.0)
    assert flat.sum() == 3 * shape.parameters and flat.max() == 1.0
    stacked = shape.stacked(flat, 3)
    stacked["linear1.weight"][2, 4, 7] = 9.0
    assert shape.named(flat, 2)["linear1.weight"][4, 7] == 9.0
    stacked["norm.bias"][1, 0, 3] = 8.0
    assert shape.named(flat, 1)["norm.bias"][3] == 8.0


def test_initialisation_bounds():
    shape = BlockShape(9, 64, 12)
    flat = torch.full((shape.stride,), math.nan)
    shape.initialise(flat, 0, torch.Generator().manual_seed(1))
    views = shape.named(flat)
    for name, fan_in in (("linear0", 9), ("linear1", 64), ("linear2", 64)):
        for part in ("weight", "bias"):
            bound = views[f"{name}.{part}"].abs().max().item() * math.sqrt(fan_in)
            assert 0.8 < bound <= 1.0
    assert 0.9 / 8 < views["resine.s"].abs().max() <= 1 / 8
    assert (views["norm.weight"] == 1).all() and (views["norm.bias"] == 0).all()


@pytest.mark.parametrize("chunk", [32_768, 64, 16])
@pytest.mark.parametrize(("rows", "trained", "groups"), [(5, 3, 2), (1, 1, 1), (7, 2, 1)])
def test_batched_backward_equals_autograd(monkeypatch, chunk, rows, trained, groups):
    monkeypatch.setattr(
        cadenza_nn, "_CHUNK", chunk
    )  # small chunks exercise every split of the elementwise chain
    generator = torch.Generator().manual_seed(rows)
    shape, count = BlockShape(6, 16, 4), groups * trained

    def normal(*size):
        return torch.randn(*size, dtype=torch.float64, generator=generator)

    flat = normal(count * shape.stride)
    gradient = torch.full((trained * shape.stride,), 7.0, dtype=torch.float64)
    columns = slice(2, None) if groups == 2 else None
    net = BlockBatch(shape, flat, count, rows, gradient, groups=groups, input_columns=columns)
    inputs = [normal(rows, 6).requires_grad_() for _ in range(groups)]
    d_out = normal(count, rows, 4)
    for mine, given in zip(net.inputs, inputs, strict=True):
        mine.copy_(given.detach())
    net.forward()
    net.output_gradient.copy_(d_out)
    net.backward()

    modules = [block(shape.named(flat, i)) for i in range(count)]
    outputs = torch.stack([m(inputs[i * groups // count]) for i, m in enumerate(modules)])
    torch.testing.assert_close(net.output, outputs.detach(), rtol=1e-12, atol=1e-12)
    outputs.backward(d_out)
    layers = {"0": "linear0", "1": "norm", "2": "linear1", "3": "resine", "4": "linear2"}
    for i in range(trained):
        got = shape.named(gradient, i)
        for name, parameter in modules[i].named_parameters():
            layer, part = name.split(".")
            torch.testing.assert_close(got[f"{layers[layer]}.{part}"], parameter.grad, rtol=1e-10, atol=1e-10)
    if columns is not None:
        total = net.input_gradient.sum(0)
        torch.testing.assert_close(total, inputs[1].grad[:, columns], rtol=1e-10, atol=1e-10)


def test_forward_only_batch_agrees_with_numpy_of_one_row():
    shape = BlockShape(3, 8, 2)
    flat = torch.empty(shape.stride)
    flat.zero_()
    shape.initialise(flat, 0, torch.Generator().manual_seed(2))
    net = BlockBatch(shape, flat, 1, 1)
    net.inputs[0].copy_(torch.tensor([[0.1, -2.0, 0.7]]))
    p = {name: view.double().numpy() for name, view in shape.named(flat).items()}
    x = p["linear0.weight"] @ np.array([0.1, -2.0, 0.7]) + p["linear0.bias"]
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    x = p["linear1.weight"] @ x + p["linear1.bias"]
    sigma = 1 / (1 + np.exp(-p["resine.s"]))
    q = np.sin(x / sigma)
    out = p["linear2.weight"] @ (sigma * q / (1 + np.exp(-1.5 * q))) + p["linear2.bias"]
    np.testing.assert_allclose(net.forward()[0, 0].numpy(), out, rtol=2e-5, atol=1e-6)
