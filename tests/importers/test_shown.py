"""What a robot engineer sees before arming: `inspect`, `check`, `import`; and our graph in others' hands."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from foreign import FOREIGN, JOINTS, ROBOT, facts

from cadenza import _native
from cadenza.importers import import_policy
from cadenza.metadata import metadata_props


@pytest.fixture
def imported(tmp_path):
    """A bundle with history, clip before scale, several gains and a state that starts with `init`."""
    path = tmp_path / "creature.cadenza"
    given = {
        "robot": {"name": "creature"},
        "rates": {"policy_dt": 0.02, "control_dt": 0.005},
        "commands": [{"name": n, "range": [-0.5, 1.0]} for n in ("vx", "vy", "wz")],
        "action": {"kind": "position_offset"},
    }
    import_policy(FOREIGN / "mjlab.onnx", path, manifest=given)
    return path


def test_inspect_tells_everything_before_arming(imported, cadenza):
    text = cadenza("inspect", imported).stdout
    for words in (
        "policy 50 Hz, control 200 Hz (4 control ticks",
        "hip", "40", "5 oldest_first, repeat", "[-1.5, 2] first", "term by term",
        "in the graph: std_plus_eps",
        "8 sequences of 16 steps from onnxruntime",
        "they prove the engine, not the training code",
        "sensors      none recorded",
        "in the graph normaliser",
        "noise        none allowed",
        "of the control period",
        "joint_pos", "action [1, 4]",
    ):  # fmt: skip
        assert words in text, f"{words!r} is not in\n{text}"


def test_inspect_shows_numbers_settings_and_states_of_each_kind(tmp_path, cadenza):
    given = {
        "rates": {"policy_dt": 0.02},
        "joints": [
            {"name": n, "default": 0.0, "kp": 9.0, "kd": 1.0} for n in ("knee", "hip", "tail", "ankle")
        ],
        "commands": [{"name": "vx", "range": [-2, 2]}, {"name": "wz", "range": [-2, 2]}],
        "observation": {"terms": [{"name": "projected_gravity", "scale": [1.0, 2.0, 3.0]}]},
    }  # fmt: skip
    import_policy(FOREIGN / "policy.kinfer", tmp_path / "k.cadenza", manifest=given, robot=ROBOT)
    text = cadenza("inspect", tmp_path / "k.cadenza").stdout
    for words in ("scale 1, 2, 3", "absolute true", "state state [6], starts with init", "init.onnx"):
        assert words in text, f"{words!r} is not in\n{text}"


def test_check_proves_an_import_on_its_robot(imported, cadenza):
    text = cadenza("check", imported, "--robot", ROBOT).stdout
    assert "128/128" in text and "matched by name 4/4" in text and "4 ticks in a policy step" in text


def test_check_lists_every_mismatch_at_once(imported, tmp_path, cadenza):
    text = ROBOT.read_text()
    for old, new in (
        ('name = "tail"', 'name = "arm"'),
        ('name = "ankle"', 'name = "foot"'),
        ("control_hz = 200", "control_hz = 250"),
        ("[imu]\npresent = true", "[imu]\npresent = false"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "other.toml").write_text(text)
    refused = cadenza("check", imported, "--robot", tmp_path / "other.toml", code=2).stderr
    for words in (
        "mismatches", "no joint tail", "no joint ankle", "0.005 s, the robot runs at 0.004 s",
        "term base_ang_vel: the source gyro needs an IMU", "term projected_gravity",
    ):  # fmt: skip
        assert words in refused, refused
    assert refused.count("no joint tail") == 1


def test_check_lists_limits_that_exclude_each_other(tmp_path, cadenza):
    given = facts()
    given["joints"][0] |= {"position": [2.0, 3.0]}
    given["joints"][1] |= {"position": [-3.0, -2.0]}
    import_policy(FOREIGN / "rsl_rl.onnx", tmp_path / "p.cadenza", manifest=given, robot=ROBOT)
    refused = cadenza("check", tmp_path / "p.cadenza", "--robot", ROBOT, code=2).stderr
    assert "2 mismatches" in refused and "hip" in refused and "knee" in refused


def test_the_verb_prints_what_was_assumed_and_what_is_missing(tmp_path, cadenza):
    (tmp_path / "facts.json").write_text(json.dumps(facts()))
    out = cadenza(
        "import", FOREIGN / "rsl_rl.onnx", "--manifest", "facts.json", "--robot", ROBOT, "-o", "p.cadenza"
    ).stdout
    for words in (
        "parity 128 vectors of onnxruntime",
        "assumed: 4",
        "read as rsl_rl",
        "missing: 3",
        "joint limits",
    ):
        assert words in out, out
    assert "128/128" in cadenza("check", "p.cadenza", "--robot", ROBOT).stdout
    refused = cadenza("import", FOREIGN / "rsl_rl.onnx", "-o", "q.cadenza", code=2)
    assert "motion depends on" in refused.stderr and not (tmp_path / "q.cadenza").exists()


# The graph of our own exports, read by onnxruntime alone.


def test_a_third_party_runs_our_graph_with_onnxruntime_and_its_metadata(reach_bundle):
    bundle = _native.Bundle(reach_bundle)
    data = bundle.entry("step.onnx")
    inner = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    meta = inner.get_modelmeta().custom_metadata_map
    manifest = json.loads(bundle.manifest)
    names, terms = meta["observation_names"].split(","), manifest["observation"]["terms"]
    assert names == [t["name"] for t in terms]
    for key in ("scale", "flatten_history_dim", "history_length", "clip"):
        assert len(meta[f"observation_terms_{key}"].split(",")) == len(names), key
    assert meta["joint_names"].split(",") == [j["name"] for j in manifest["joints"]]
    assert [float(x) for x in meta["joint_stiffness"].split(",")] == [j["kp"] for j in manifest["joints"]]
    assert len(meta["action_scale"].split(",")) == inner.get_outputs()[0].shape[-1]
    assert meta["run_path"] == manifest["name"]
    [action] = inner.run(None, {"obs": np.zeros((1, 32), np.float32)})
    np.testing.assert_allclose(action[0], _native.Policy(bundle).act(np.zeros(32, np.float32)), atol=1e-6)


def test_metadata_reads_back_exactly_what_the_manifest_says(imported, tmp_path):
    """Through mjlab's keys and back: nothing but what the keys have no room for is lost."""
    bundle = _native.Bundle(imported)
    manifest = json.loads(bundle.manifest)
    manifest["joints"][0]["kp"] = 1 / 3  # mjlab would keep 0.333
    model = onnx.load_from_string(bundle.entry("step.onnx"))
    del model.metadata_props[:]
    for key, value in metadata_props(manifest).items():
        model.metadata_props.add(key=key, value=value)
    (tmp_path / "again.onnx").write_bytes(model.SerializeToString())
    report = import_policy(
        tmp_path / "again.onnx",
        tmp_path / "again.cadenza",
        manifest={
            "robot": {"name": "creature"},
            "rates": manifest["rates"],
            "commands": manifest["commands"],
            "action": {"kind": "position_offset"},
        },
    )
    again = json.loads(_native.Bundle(report.path).manifest)
    assert again["joints"] == manifest["joints"] and [j["name"] for j in again["joints"]] == JOINTS
    for key in ("observation", "normalizer", "functions", "commands", "rates"):
        assert again[key] == manifest[key], key
    assert again["action"]["scale"] == manifest["action"]["scale"]
    assert not any("three decimals" in fact for fact in report.assumed if "joint_stiffness" in fact)
