"""Sensor-level parity: the runtime builds a policy's observations from recorded sensors, or does not arm."""

import json

import numpy as np
import pytest

from cadenza import _native
from cadenza.robot import load_robot
from cadenza.runtime import RunConfig, Runtime, SimDevice, bundle_scene


def parts(bundle):
    """Manifest, entries and tensors of a bundle, ready to be written again."""
    data = bundle.entry("parity.safetensors")
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors = {
        name: np.frombuffer(data[8 + size :][slice(*x["data_offsets"])], np.float32).reshape(x["shape"])
        for name, x in header.items()
    }
    document = json.loads(bundle.manifest)
    document.pop("files")
    names = ("step.onnx", "spec.stl", "x-scene.xml")
    entries = {name: data for name in names if (data := bundle.entry(name)) is not None}
    return document, entries, tensors


def rewritten(path, document, entries, tensors):
    path.write_bytes(_native.write_bundle(json.dumps(document), entries, tensors))
    return path


@pytest.fixture
def bundle(reach_bundle):
    return _native.Bundle(reach_bundle)


def test_an_export_records_sensors_and_check_rebuilds_from_them(bundle, reach_bundle, cadenza):
    _, _, tensors = parts(bundle)
    frames = {name: x.shape for name, x in tensors.items() if name.startswith("frame.")}
    assert frames["frame.joint_pos"] == (2, 16, 7) and frames["frame.command"] == (2, 16, 3)
    assert np.ptp(tensors["frame.joint_pos"], axis=1).max() > 0.01, "a robot that stands still proves nothing"
    assert tensors["obs"].shape == (10, 16, 32)
    out = cadenza("check", reach_bundle, "--robot", "arm6").stdout
    assert "32/32 observations rebuilt from sensors" in out
    assert "joint_pos" in next(
        line for line in cadenza("inspect", reach_bundle).stdout.splitlines() if "sensors" in line
    )


def swap(tensors):
    swapped = tensors["frame.joint_pos"].copy()
    swapped[..., [1, 2]] = swapped[..., [2, 1]]
    return {"frame.joint_pos": swapped}


def without_target(tensors):
    return {"frame.joint_target": None}


@pytest.mark.parametrize(
    "change, words",
    [
        (swap, ("sequence 0, step 0", "in training")),
        (without_target, ("reads joint_target", "no frame.joint_target")),
        (lambda t: {"frame.command": t["frame.command"] + 0.2}, ("term tool_error",)),
        (lambda t: {"frame.joint_pos": t["frame.joint_pos"][:, :, :6]}, ("frame.joint_pos", "[2, 16, 7]")),
        (lambda t: {"frame.joint_pos": t["frame.joint_pos"][:, :8]}, ("[2, 8, 7]",)),
        (lambda t: {"frame.odour": t["frame.time"]}, ("no sensor \"odour\"", "joint_pos")),
        (lambda t: {"frame.time": t["frame.time"][0]}, ("frame.time", "[16, 1]")),
    ],
)  # fmt: skip
def test_other_sensors_are_refused_by_check_and_before_arming(bundle, tmp_path, cadenza, change, words):
    document, entries, tensors = parts(bundle)
    tensors = {name: x for name, x in (tensors | change(tensors)).items() if x is not None}
    tensors = {name: np.ascontiguousarray(x) for name, x in tensors.items()}
    path = rewritten(tmp_path / "bent.cadenza", document, entries, tensors)
    text = cadenza("check", path, "--robot", "arm6", code=3).stderr
    assert all(word in text for word in words), text
    with pytest.raises(_native.RunError) as refused:
        Runtime(path, robot="arm6", device="null", config=RunConfig(virtual_clock=True, seconds=0.1))
    assert all(word in str(refused.value) for word in words)


def test_a_wrong_scale_of_the_manifest_is_found(bundle, tmp_path, cadenza):
    document, entries, tensors = parts(bundle)
    velocity = next(t for t in document["observation"]["terms"] if t["source"] == "joint_vel")
    velocity["scale"] = 2 * velocity["scale"]
    path = rewritten(tmp_path / "scaled.cadenza", document, entries, tensors)
    assert f"term {velocity['name']}" in cadenza("check", path, "--robot", "arm6", code=3).stderr


def test_a_bundle_without_sensors_says_so(bundle, tmp_path, cadenza):
    document, entries, tensors = parts(bundle)
    path = rewritten(
        tmp_path / "plain.cadenza", document, entries, {k: tensors[k] for k in ("obs", "expected")}
    )
    assert "none recorded" in cadenza("check", path, "--robot", "arm6").stdout
    assert "none recorded" in cadenza("inspect", path).stdout


def test_a_robot_of_another_order_rebuilds_the_same(bundle, tmp_path, cadenza, reach_bundle):
    """The sensors are recorded by name: a permuted robot.toml gives the same observations."""
    import tomllib

    source = load_robot("arm6").path
    text = source.read_text().replace('model = "model.xml"', f'model = "{source.parent / "model.xml"}"')
    head, *joints = text.split("[[joint]]")
    assert next(j["name"] for j in tomllib.loads(text)["joint"]) == "shoulder_pan"
    (tmp_path / "robot.toml").write_text("[[joint]]".join([head, *reversed(joints)]))
    out = cadenza("check", reach_bundle, "--robot", tmp_path / "robot.toml").stdout
    assert "32/32 observations rebuilt from sensors" in out


@pytest.mark.parametrize("change", ["none", "moved", "gone"])
def test_objects_are_sensors_too(untrained_pick, tmp_path, change):
    document, entries, tensors = parts(_native.Bundle(untrained_pick))
    name = "frame.object.cube"
    assert tensors[name].shape == (2, 16, 3)
    if change == "moved":
        tensors[name] = tensors[name] + [0, 0, 0.01]
    elif change == "gone":
        del tensors[name]
    path = rewritten(
        tmp_path / "p.cadenza", document, entries, {k: np.float32(v) for k, v in tensors.items()}
    )
    robot = load_robot("arm6")
    device = SimDevice.of(robot, scene=bundle_scene(_native.Bundle(path)))
    config = RunConfig(0.1, virtual_clock=True)
    if change == "none":
        assert Runtime(path, robot=robot, device=device, config=config).run().exit_code == 0
        return
    told = r"\(term cube(_error)?\) is .* in training" if change == "moved" else "needs object cube"
    with pytest.raises(ValueError, match=told):
        Runtime(path, robot=robot, device=device, config=config)
