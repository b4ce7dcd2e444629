"""Bundles: torch, onnxruntime and the engine agree; what does not fit is refused and leaves no file."""

import io
import json
import re
import struct
import zipfile
import zlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from cadenza import _native
from cadenza.export import (
    ExportError,
    ParityConfig,
    export,
    export_onnx,
    export_run,
    parity_observations,
    to_onnx,
)
from cadenza.tasks import make_task
from cadenza.train import load_agent

TASK = "cadenza/ReachArm6-v0"
OBS = 32
OPERATORS = ["Abs", "Gemm", "LayerNormalization", "Mul", "Sigmoid", "Sin", "Slice", "Tanh"]


def manifest():
    return make_task(TASK).manifest()


def mlp(actions=6):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(OBS, 16), nn.ReLU(), nn.Linear(16, actions), nn.Tanh())


@pytest.fixture(scope="module")
def bundle(reach_bundle):
    return _native.Bundle(reach_bundle)


@pytest.fixture
def module(reach_run):
    return load_agent(reach_run)[1].deploy_module().eval()


def parity_vectors(bundle):
    """Recorded observations and torch's answers, by the published layout of safetensors."""
    data = bundle.entry("parity.safetensors")
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])

    def tensor(name):
        start, end = header[name]["data_offsets"]
        assert header[name]["dtype"] == "F32"
        return np.frombuffer(data[8 + size :][start:end], np.float32).reshape(header[name]["shape"])

    return tensor("obs"), tensor("expected")


def test_engine_torch_and_onnxruntime_agree(bundle, module):
    recorded, expected = parity_vectors(bundle)
    rng = np.random.default_rng(5)
    random = rng.normal(0, 2, (512, OBS)).astype(np.float32)
    obs = np.concatenate([recorded.reshape(-1, OBS), random])
    with torch.inference_mode():
        torch_says = module(torch.from_numpy(obs)).numpy()
    session = onnxruntime.InferenceSession(bundle.entry("step.onnx"), providers=["CPUExecutionProvider"])
    ort_says = np.concatenate([session.run(["action"], {"obs": row[None]})[0] for row in obs])
    policy = _native.Policy(bundle)
    engine_says = np.stack([policy.act(row) for row in obs])
    tolerance = 1e-5 * np.maximum(1.0, np.abs(torch_says))
    assert (np.abs(engine_says - torch_says) <= tolerance).all()
    assert (np.abs(ort_says - torch_says) <= tolerance).all()
    rows = expected.reshape(-1, 6)
    np.testing.assert_allclose(rows, torch_says[: len(rows)], atol=1e-6)
    # The network answers differently to different questions: agreement on a constant would prove nothing.
    assert engine_says.std(axis=0).min() > 0.05


def test_the_vectors_hold_rollout_zeros_and_extremes(bundle):
    obs, _ = parity_vectors(bundle)
    rows = obs.reshape(-1, OBS)
    assert len(rows) >= 64
    assert (rows == 0).all(axis=1).any()
    assert (rows == 10).all(axis=1).any() and (rows == -10).all(axis=1).any()
    one_hot = (np.abs(rows) == 10).sum(axis=1) == 1
    assert one_hot.sum() >= 20
    report = _native.Policy(bundle).verify(bundle)
    assert report.passed and report.vectors == len(rows) and 0 < report.max_difference < 1e-5


def test_parity_observations_repeat_and_follow_the_rollout():
    rollout = np.full((10, 3), 7.0) + np.arange(3)
    one = parity_observations(3, ParityConfig(seed=1, rollout=rollout))
    np.testing.assert_array_equal(one, parity_observations(3, ParityConfig(seed=1, rollout=rollout)))
    assert one.shape == (8, 16, 3) and one.dtype == np.float32
    np.testing.assert_array_equal(one.reshape(-1, 3)[:64], np.tile([7, 8, 9], (64, 1)))


def test_the_graph_is_the_actor_and_nothing_else(bundle, module):
    graph = onnx.load_from_string(bundle.entry("step.onnx")).graph
    assert sorted({node.op_type for node in graph.node}) == OPERATORS
    assert [v.name for v in graph.input] == ["obs"] and [v.name for v in graph.output] == ["action"]
    numbers = sum(int(np.prod(i.dims)) for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT)
    actor = sum(p.numel() for p in module.parameters())
    assert (
        0.9 * actor < numbers < 1.1 * actor
    )  # a few constants beside the actor; one critic has as many again
    names = " ".join(i.name for i in graph.initializer).lower()
    assert not re.search("critic|value|target|log_std|optim", names)
    assert len(bundle.entry("step.onnx")) < 6 * actor


def test_no_path_of_the_exporting_machine_is_in_the_bundle(bundle):
    assert b"/site-packages/" not in bundle.entry("step.onnx")
    assert b".py" not in bundle.entry("step.onnx")


def test_the_manifest_says_what_the_numbers_mean(bundle):
    m = json.loads(bundle.manifest)
    assert m["format"] == 1
    assert m["in_graph"] == {
        "normalize": False,
        "squash": True,
        "action_scale": False,
        "action_offset": False,
    }
    assert m["action"]["kind"] == "position_increment" and m["observation"]["size"] == OBS
    assert m["provenance"]["environment"] == TASK and m["provenance"]["algorithm"] == "symphony"
    assert m["parity"]["measured"] == pytest.approx(_native.Policy(bundle).verify(bundle).max_difference)
    assert "spec workspace" in bundle.specification and "spec reached" in bundle.specification
    model = onnx.load_from_string(bundle.entry("step.onnx"))
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["joint_names"].split(",")[0] == "shoulder_pan"
    assert metadata["action_scale"] == ",".join(["0.1"] * 6)


def test_equal_exports_are_equal_bytes(reach_run, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one = export_run(reach_run, tmp_path / "one.cadenza")
    two = export_run(reach_run, tmp_path / "two.cadenza")
    assert (tmp_path / "one.cadenza").read_bytes() == (tmp_path / "two.cadenza").read_bytes()
    assert one.id == two.id and one.bytes == (tmp_path / "one.cadenza").stat().st_size
    assert json.loads(_native.Bundle(tmp_path / "one.cadenza").manifest)["provenance"]["created"].startswith(
        "2023-11-14"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.cadenza", "two.cadenza"]


def test_the_graph_alone_runs_in_onnxruntime(reach_run, module, tmp_path):
    path = export_onnx(reach_run, tmp_path / "reach.onnx")
    obs = np.random.default_rng(0).normal(size=(1, OBS)).astype(np.float32)
    [action] = onnxruntime.InferenceSession(path).run(None, {"obs": obs})
    with torch.inference_mode():
        np.testing.assert_allclose(action, module(torch.from_numpy(obs)).numpy(), atol=1e-5)


def refused(tmp_path, module, error, match, **changes):
    path = tmp_path / "x.cadenza"
    with pytest.raises(error, match=match):
        export(path, module, manifest=manifest() | changes, specification=make_task(TASK).spec())
    assert list(tmp_path.iterdir()) == []


def test_an_ill_conditioned_network_is_refused(tmp_path):
    class Cancels(nn.Module):
        def forward(self, x):
            return ((x[:, :6] + 1e5) - 1e5) * 10.0

    refused(tmp_path, Cancels(), ExportError, r"ill-conditioned.*output \d")


def test_an_output_that_is_not_finite_is_refused(tmp_path):
    class Log(nn.Module):
        def forward(self, x):
            return torch.log(x[:, :6])

    refused(tmp_path, Log(), ExportError, "not finite")


def test_a_wrong_output_size_is_refused(tmp_path):
    refused(tmp_path, mlp(5), ExportError, r"\(1, 5\), the manifest has 6 actions")


def test_an_observation_that_its_terms_do_not_fill_is_refused(tmp_path):
    observation = manifest()["observation"] | {"size": OBS, "terms": manifest()["observation"]["terms"][:-1]}
    refused(tmp_path, mlp(), _native.BundleError, "32|26", observation=observation)


def test_an_unknown_manifest_key_is_refused(tmp_path):
    refused(tmp_path, mlp(), _native.BundleError, "colour", colour="red")


class Convolution(nn.Module):
    def forward(self, x):
        image = x[:, :28].reshape(len(x), 1, 4, 7)
        return nn.functional.conv2d(image, torch.ones(1, 1, 2, 2, dtype=x.dtype)).flatten(1)[:, :6]


class Einsum(nn.Module):
    def forward(self, x):
        return torch.einsum("bi,bj->bij", x[:, :2], x[:, :3]).flatten(1)


def spoil(bundle, change):
    """The bundle's parts with a changed graph, written again by the one writer."""
    model = onnx.load_from_string(bundle.entry("step.onnx"))
    change(model.graph)
    document = json.loads(bundle.manifest)
    document.pop("files")
    obs, expected = parity_vectors(bundle)
    entries = {"step.onnx": model.SerializeToString(), "spec.stl": bundle.specification.encode()}
    return _native.Bundle.from_bytes(
        _native.write_bundle(json.dumps(document), entries, {"obs": obs, "expected": expected})
    )


@pytest.mark.parametrize("operator", ["MaxPool", "Einsum", "Acosh"])
def test_an_unknown_operator_is_named(bundle, operator):
    def change(graph):
        next(node for node in graph.node if node.op_type == "Sin").op_type = operator

    with pytest.raises(_native.BundleError, match=f"step.onnx.*operator {operator} is not supported"):
        _native.Policy(spoil(bundle, change))


@pytest.mark.parametrize("module, operator", [(Convolution(), "Conv in 2 dimensions"), (Einsum(), "Einsum")])
def test_exporting_an_unknown_operator_names_it(tmp_path, module, operator):
    refused(tmp_path, module, _native.BundleError, f"operator {operator} is not supported")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(bundle, value):
    names = []

    def change(graph):
        weight = next(i for i in graph.initializer if len(i.dims) == 2)
        array = onnx.numpy_helper.to_array(weight).copy()
        array.reshape(-1)[11] = value
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
        names.append(weight.name)

    with pytest.raises(_native.BundleError) as error:
        _native.Policy(spoil(bundle, change))
    text = str(error.value).lower()
    assert "step.onnx" in text and names[0].lower() in text and "11" in text
    assert ("nan" if np.isnan(value) else "inf") in text


def test_a_spoilt_weight_fails_the_vectors(bundle):
    def change(graph):
        weight = next(i for i in graph.initializer if len(i.dims) == 2)
        array = onnx.numpy_helper.to_array(weight).copy()
        array[0, 0] += 0.5
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))

    changed = spoil(bundle, change)
    report = _native.Policy(changed).verify(changed)
    assert not report.passed and report.max_difference > 1e-4


def test_act_writes_into_the_given_array(bundle):
    policy = _native.Policy(bundle)
    obs = np.linspace(-1, 1, OBS, dtype=np.float32)
    out = np.full(6, 9, np.float32)
    fresh = policy.act(obs)
    assert policy.act(obs, out=out) is out
    np.testing.assert_array_equal(out, fresh)
    assert fresh.dtype == np.float32 and fresh.shape == (6,)
    policy.reset()
    np.testing.assert_array_equal(policy.act(obs), fresh)


@pytest.mark.parametrize(
    "obs, out, numbers",
    [(31, 6, ("31", "32")), (33, 6, ("33", "32")), (32, 5, ("5", "6")), (32, 7, ("7", "6"))],
)
def test_wrong_lengths_are_errors(bundle, obs, out, numbers):
    policy = _native.Policy(bundle)
    with pytest.raises(_native.BundleError) as error:
        policy.act(np.zeros(obs, np.float32), out=np.zeros(out, np.float32))
    assert all(n in str(error.value) for n in numbers)
    policy.act(np.zeros(OBS, np.float32))  # and the policy still works


def test_a_nan_observation_is_an_error_and_does_not_stick(bundle):
    policy = _native.Policy(bundle)
    obs = np.zeros(OBS, np.float32)
    before = policy.act(obs)
    obs[13] = np.nan
    with pytest.raises(_native.BundleError, match="element 13 is not finite"):
        policy.act(obs)
    np.testing.assert_array_equal(policy.act(np.zeros(OBS, np.float32)), before)


def ranges(data):
    """Name → first byte and end of each entry's data."""
    places = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            start = info.header_offset + 30 + name + extra
            places[info.filename] = (start, start + info.file_size)
    return places


def test_every_flipped_byte_is_refused(reach_bundle, tmp_path):
    data = reach_bundle.read_bytes()
    places = ranges(data)
    assert set(places) == {"manifest.json", "step.onnx", "parity.safetensors", "spec.stl"}
    rng = np.random.default_rng(0)
    samples = list(rng.integers(0, len(data), 160))
    samples += [int(rng.integers(*places[name])) for name in places for _ in range(10)]
    for at in samples:
        bent = bytearray(data)
        bent[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(_native.BundleError) as error:
            _native.Bundle.from_bytes(bytes(bent))
        inside = next((name for name, (start, end) in places.items() if start <= at < end), "")
        assert inside in str(error.value), f"byte {at} of {inside}: {error.value}"
    path = tmp_path / "bent.cadenza"
    bent = bytearray(data)
    bent[places["step.onnx"][0] + 500] ^= 1
    path.write_bytes(bent)
    with pytest.raises(_native.BundleError, match=r"bent\.cadenza.*step\.onnx"):
        _native.Bundle(path)


def archive(parts):
    """A bundle's own form of a zip file, written a second time from its description (spec/policy.md §1)."""
    body, directory = b"", b""
    for name, data in parts.items():
        padding = -(len(body) + 30 + len(name) + 4) % 64
        fields = (10, 0, 0, 0, 0x21, zlib.crc32(data), len(data), len(data), len(name))
        directory += (
            struct.pack("<IH5H3I2H", 0x02014B50, 10, *fields, 0) + bytes(10) + struct.pack("<I", len(body))
        )
        directory += name.encode()
        body += struct.pack("<I5H3I2H", 0x04034B50, *fields, padding + 4) + name.encode()
        body += struct.pack("<HH", 0xCADE, padding) + bytes(padding) + data
    end = struct.pack("<I4H2IH", 0x06054B50, 0, 0, len(parts), len(parts), len(directory), len(body), 0)
    return body + directory + end


def test_a_missing_or_foreign_entry_is_named(reach_bundle):
    with zipfile.ZipFile(reach_bundle) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    assert archive(parts) == reach_bundle.read_bytes()
    for lost in ("step.onnx", "parity.safetensors", "spec.stl"):
        with pytest.raises(_native.BundleError, match=f"{re.escape(lost)}.*missing"):
            _native.Bundle.from_bytes(archive({k: v for k, v in parts.items() if k != lost}))
    with pytest.raises(_native.BundleError, match=r"x-more.*not listed"):
        _native.Bundle.from_bytes(archive(parts | {"x-more": b"1"}))
    with pytest.raises(_native.BundleError, match=r"virus\.py"):
        _native.Bundle.from_bytes(archive(parts | {"virus.py": b"1"}))


@pytest.mark.parametrize("cut", [0, 1, 30, 1000, -1])
def test_a_cut_bundle_is_refused(reach_bundle, cut):
    with pytest.raises(_native.BundleError):
        _native.Bundle.from_bytes(reach_bundle.read_bytes()[:cut])


def test_a_bundle_that_is_not_there(tmp_path):
    with pytest.raises(_native.BundleError, match=r"absent\.cadenza"):
        _native.Bundle(tmp_path / "absent.cadenza")


@pytest.mark.parametrize("layer", [nn.ReLU, nn.ELU, nn.Tanh])
def test_a_plain_network_goes_the_same_way(tmp_path, layer):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(OBS, 32), layer(), nn.LayerNorm(32), nn.Linear(32, 6), nn.Tanh())
    report = export(tmp_path / "mlp.cadenza", net, manifest=manifest(), specification=make_task(TASK).spec())
    bundle = _native.Bundle(report.path)
    obs = np.random.default_rng(0).normal(size=OBS).astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(obs)[None]).numpy()[0]
    np.testing.assert_allclose(_native.Policy(bundle).act(obs), expected, atol=1e-5)
    assert report.max_difference <= 1e-5


def test_the_graph_names_its_ports():
    graph = onnx.load_from_string(to_onnx(mlp(), np.zeros((1, OBS), np.float32), {"k": "v"}))
    assert graph.opset_import[0].version == 18
    assert [p.key for p in graph.metadata_props] == ["k"]
