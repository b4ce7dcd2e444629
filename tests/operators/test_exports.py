"""Networks as torch's two exporters write them: the engine agrees with onnxruntime, patterns are fused."""

import io
import logging
import re
import warnings

import numpy as np
import onnx
import pytest
import torch
from test_operators import ISAS, oracle
from torch import nn

from cadenza import _native

EXPORTS = [(True, 18), (True, 20), (True, 23), (False, 11), (False, 17)]


def exported(net, args, *, dynamo, opset):
    file = io.BytesIO()
    more = {"external_data": False, "verbose": False} if dynamo else {}
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(), args, None if dynamo else file, opset_version=opset, dynamo=dynamo, **more
        )
    logging.disable(logging.NOTSET)
    if dynamo:
        program.save(file)
    return file.getvalue()


class Rms(nn.Module):
    """RMSNorm written out, as many networks do; the legacy exporter has no other."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5)

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Sine(nn.Module):
    """ReSine of Symphony, sigma 0.5."""

    def forward(self, x):
        q = torch.sin(x / 0.5)
        return 0.5 * q * torch.sigmoid(1.5 * q)


class Scale(nn.Module):
    def forward(self, x):
        return x * 0.25 - 0.5


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "elu": nn.ELU(),
    "tanh": nn.Tanh(),
    "swish": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelutanh": nn.GELU("tanh"),
    "softplus": nn.Softplus(),
    "mish": nn.Mish(),
    "selu": nn.SELU(),
    "leakyrelu": nn.LeakyReLU(0.1),
}


def mlp():
    layers = []
    for activation in ACTIVATIONS.values():
        layers += [nn.Linear(16, 16), activation]
    layers += [nn.LayerNorm(16), nn.Linear(16, 16), Rms(16), nn.Linear(16, 16), Scale(), Sine()]
    return nn.Sequential(*layers), (torch.randn(2, 16),)


def convolutions():
    net = nn.Sequential(
        nn.Conv1d(4, 16, 5, padding=2),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 16, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.GroupNorm(8, 16),
        nn.Mish(),
        nn.ReplicationPad1d((1, 2)),
        nn.Conv1d(16, 16, 3, groups=4, dilation=2),
        nn.InstanceNorm1d(16, affine=True),
        nn.SiLU(),
        nn.ConvTranspose1d(16, 8, 4, stride=2, padding=1, output_padding=1),
        nn.Tanh(),
    )
    for module in net:
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, nn.BatchNorm1d | nn.GroupNorm | nn.InstanceNorm1d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net, (torch.randn(1, 4, 16),)


def names(kernels):
    """Kernels without sizes and constants."""
    return [re.sub(r" ?[\d.]+(x[\d.]+)*|\(.*?\)", "", k).strip() for k in kernels]


def fused_mlp(dynamo, opset):
    rows = [f"gemm {a}" for a in ACTIVATIONS]
    # The scale, the shift and the division of the sine went into the layer before.
    return [*rows, "layernorm", "gemm", "rmsnorm", "gemm sin", "copy", "mul", "mul", "sigmoid", "mul"]


def fused_convolutions(dynamo, opset):
    return [
        *["unfold", "conv relu"],
        *["rearrange", "unfold", "conv", "groupnorm", "mish"],
        *["rearrange", "unfold", "conv", "groupnorm", "swish"],
        *["unfold", "conv", "overlap", "tanh"],
    ]


@pytest.mark.parametrize(("dynamo", "opset"), EXPORTS)
@pytest.mark.parametrize(("network", "kernels"), [(mlp, fused_mlp), (convolutions, fused_convolutions)])
def test_exported_networks_agree_and_fuse(network, kernels, dynamo, opset):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net, args = network()
    model = exported(net, args, dynamo=dynamo, opset=opset)
    assert onnx.load_from_string(model).opset_import[0].version == opset
    x = args[0].numpy()
    name = _native.Network(model).inputs[0][0]
    expected = oracle(model, {name: x})[0]
    for isa in ISAS:
        loaded = _native.Network(model, isa=isa)
        np.testing.assert_allclose(loaded.run([x])[0], expected, rtol=1e-5, atol=1e-5)
        assert names(loaded.kernels) == kernels(dynamo, opset)
