"""Policies made by their own tools, imported, answer as onnxruntime and their makers do."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import pytest
from foreign import COMMANDS, FOREIGN, JOINTS, ROBOT, close, facts, gravity, observe, opened, sensors, session

from cadenza.importers import ForeignPolicyError, import_policy


def test_every_fixture_is_what_its_tool_made():
    made = json.loads((FOREIGN / "made.json").read_text())
    ours = {"robot.toml", "made.json", "make.py"}
    assert {p.name for p in FOREIGN.iterdir() if p.is_file()} == set(made) | ours
    for name, record in made.items():
        assert hashlib.sha256((FOREIGN / name).read_bytes()).hexdigest() == record["sha256"], name
    makers = {record["by"].split(",")[0] for record in made.values()}
    assert makers >= {"rsl-rl-lib 5.5.1", "stable-baselines3 2.9.2", "mjlab 1.6.0", "kinfer 0.6.1"}


@pytest.mark.parametrize("name", ["rsl_rl", "sb3_ppo", "sb3_sac"])
def test_the_engine_answers_as_onnxruntime_does(tmp_path, name):
    report = import_policy(FOREIGN / f"{name}.onnx", tmp_path / "p.cadenza", manifest=facts(), robot=ROBOT)
    policy, manifest, bundle = opened(report.path)
    assert manifest["parity"]["source"].startswith("onnxruntime ")
    run = session((FOREIGN / f"{name}.onnx").read_bytes())
    [(port, _)] = manifest["functions"]["step"]["inputs"].items()
    rows = np.random.default_rng(0).normal(0, 2, (200, 22)).astype(np.float32)
    theirs = np.stack([next(iter(run({port: row[None]}).values()))[0] for row in rows])
    assert theirs.std(axis=0).min() > 0.01
    assert close(np.stack([policy.act(row) for row in rows]), theirs)
    assert manifest["in_graph"]["squash"] == (name == "sb3_sac")
    assert bundle.entry("step.onnx") == (FOREIGN / f"{name}.onnx").read_bytes()


def test_the_normaliser_of_rsl_rl_is_seen_in_the_graph(tmp_path):
    report = import_policy(FOREIGN / "rsl_rl.onnx", tmp_path / "p.cadenza", manifest=facts(), robot=ROBOT)
    _, manifest, _ = opened(report.path)
    weights = {
        w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(FOREIGN / "rsl_rl.onnx").graph.initializer
    }
    mean = next(value for name, value in weights.items() if name.endswith("_mean"))
    normalizer = manifest["normalizer"]
    assert normalizer["where"] == "graph" and manifest["in_graph"]["normalize"]
    np.testing.assert_allclose(normalizer["mean"], mean.reshape(-1))
    # the worker drew with standard deviations from 0.2 to 3, and rsl_rl adds 0.01
    np.testing.assert_allclose(normalizer["spread"], np.linspace(0.2, 3, 22) + 0.01, rtol=0.1)


@pytest.fixture
def unitree(tmp_path):
    """The folder that unitree_rl_lab leaves."""
    for name, place in (
        ("unitree.onnx", "exported/policy.onnx"),
        ("unitree/params/deploy.yaml", "params/deploy.yaml"),
    ):
        (tmp_path / "run" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(FOREIGN / name, tmp_path / "run" / place)
    return tmp_path / "run"


def test_unitree_joints_gains_and_action_are_those_of_deploy_yaml(unitree, tmp_path):
    pytest.importorskip("yaml", reason="deploy.yaml needs PyYAML")
    report = import_policy(unitree, tmp_path / "p.cadenza", robot=ROBOT)
    _, manifest, _ = opened(report.path)
    # SDK order is ankle, hip, knee, tail (motor ids of robot.toml), the policy's is joint_ids_map of it.
    got = {j["name"]: (j["default"], j["kp"], j["kd"]) for j in manifest["joints"]}
    assert list(got) == JOINTS
    assert got == {
        "hip": (0.1, 40.0, 2.0),
        "knee": (-0.4, 30.0, 1.5),
        "ankle": (0.3, 10.0, 0.02),
        "tail": (0.05, 5.0, 0.25),
    }
    action = manifest["action"]
    assert action["joints"] == JOINTS and action["kind"] == "position" and action["previous"] == "raw"
    assert action["scale"] == {"hip": 0.25, "knee": 0.35, "ankle": 0.5, "tail": 0.125}
    assert action["offset"] == {"hip": 0.1, "knee": -0.4, "ankle": 0.3, "tail": 0.05}
    assert action["clip"]["knee"] == [-1.3, 0.2]
    assert manifest["rates"]["policy_dt"] == 0.02 and manifest["rates"]["control_dt"] == 0.005
    assert [c["range"] for c in manifest["commands"]] == [[-0.5, 1.0], [-0.3, 0.3], [-1.2, 1.2]]
    assert any("motor ids" in fact for fact in report.assumed)


def deploy_observation(frames, steps):
    """The observations of deploy.yaml, from its own numbers, as unitree_rl_lab's C++ computes them."""
    default = np.array([0.1, -0.4, 0.3, 0.05])
    turn = 2 * np.pi * frames["time"][0].astype(np.float64) / 0.8
    raw = {
        "base_ang_vel": (frames["gyro"][0], None, [0.2, 0.3, 0.4], 5),
        "projected_gravity": (gravity(frames["base_quat"][0]), None, 1.0, 5),
        "velocity_commands": (frames["command"][0], None, [2.0, 2.0, 0.25], 1),
        "joint_pos_rel": (frames["joint_pos"][0] - default, None, 1.0, 5),
        "joint_vel_rel": (frames["joint_vel"][0], (-2.0, 3.0), 0.05, 2),
        "last_action": (frames["last_action"][0], (-0.5, 0.5), 1.0, 1),
        "gait_phase": (np.concatenate([np.sin(turn), np.cos(turn)], axis=1), None, 1.0, 1),
    }
    rows, buffers = [], {}
    for k in range(steps):
        row = []
        for name, (values, clip, scale, length) in raw.items():
            value = values[k] if clip is None else np.clip(values[k], *clip)
            value = value * np.array(scale)
            kept = buffers.setdefault(name, [value] * length)  # a reset adds the first one `length` times
            kept.append(value)
            del kept[0]
            row += [x for frame in kept for x in frame]
        rows.append(row)
    return np.array(rows)


def test_unitree_observations_are_those_of_its_own_arithmetic(unitree, tmp_path):
    pytest.importorskip("yaml", reason="deploy.yaml needs PyYAML")
    report = import_policy(unitree / "exported" / "policy.onnx", tmp_path / "p.cadenza", robot=ROBOT)
    policy, manifest, bundle = opened(report.path)
    frames = sensors(np.random.default_rng(1), 12, manifest, 4)
    wanted = deploy_observation(frames, 12)
    got = observe(bundle, frames)
    assert got.shape == (12, 67)
    np.testing.assert_allclose(got, wanted, atol=2e-6)
    run = session((FOREIGN / "unitree.onnx").read_bytes())
    theirs = np.stack([run({"obs": row[None].astype(np.float32)})["actions"][0] for row in wanted])
    assert close(np.stack([policy.act(row) for row in got]), theirs)


def mjlab_facts():
    return {
        "robot": {"name": "creature"},
        "rates": {"policy_dt": 0.02, "control_dt": 0.005},
        "commands": COMMANDS,
        "action": {"kind": "position_offset"},
    }


def test_mjlab_metadata_becomes_the_manifest_and_its_rounding_is_told(tmp_path):
    report = import_policy(FOREIGN / "mjlab.onnx", tmp_path / "p.cadenza", manifest=mjlab_facts())
    _, manifest, _ = opened(report.path)
    assert [(j["name"], j["kp"], j["kd"]) for j in manifest["joints"]] == [
        ("hip", 40.0, 2.0), ("knee", 30.0, 1.5), ("ankle", 10.0, 0.02), ("tail", 5.0, 0.25)
    ]  # fmt: skip
    terms = {t["name"]: t for t in manifest["observation"]["terms"]}
    assert terms["joint_vel"]["clip"] == [-1.5, 2.0] and terms["joint_vel"]["clip_stage"] == "before_scale"
    assert [t["history"]["length"] for t in terms.values()] == [5, 5, 1, 2, 1, 1]
    # mjlab was given 0.0123 and writes 0.012; a damping of 0.02 may have been 0.0204
    told = [fact for fact in report.assumed if "three decimals" in fact]
    assert any("action_scale of tail" in fact for fact in told)
    assert any("joint_damping of ankle" in fact for fact in told)
    assert not any("hip" in fact or "default_joint_pos" in fact for fact in told)


def test_mjlab_environment_observed_what_the_runtime_observes(tmp_path):
    """mjlab's own environment ran; its observations are built again from the states that it had."""
    report = import_policy(
        FOREIGN / "mjlab.onnx", tmp_path / "p.cadenza", manifest=mjlab_facts(), robot=ROBOT
    )
    policy, _, bundle = opened(report.path)
    seen = np.load(FOREIGN / "mjlab.npz")
    assert list(seen["joints"]) == JOINTS
    names = ("joint_pos", "joint_vel", "base_quat", "gyro", "command", "last_action")
    frames = {name: seen[name][None].astype(np.float32) for name in names}
    got = observe(bundle, frames)
    assert np.abs(seen["joint_vel"]).max() * 1.0 > 2.0, "the clip must have been at work"
    np.testing.assert_allclose(got, seen["obs"], atol=2e-5)
    run = session((FOREIGN / "mjlab.onnx").read_bytes())
    theirs = np.stack([run({"obs": row[None]})["actions"][0] for row in seen["obs"]])
    assert close(np.stack([policy.act(row) for row in seen["obs"]]), theirs)


def test_mjlab_gains_of_fewer_joints_than_names_are_not_guessed(tmp_path):
    with pytest.raises(ForeignPolicyError) as refused:
        import_policy(FOREIGN / "mjlab_passive.onnx", tmp_path / "p.cadenza", manifest=mjlab_facts())
    text = str(refused.value)
    for word in ("3 gains", "4 joints", '"name": "tail", "kp"', "which joints the 3 actions drive", "scale"):
        assert word in text, text
    driven = [("hip", 40.0, 2.0), ("knee", 30.0, 1.5), ("ankle", 10.0, 0.02), ("tail", 0.0, 0.0)]
    more = mjlab_facts() | {
        "joints": [{"name": name, "kp": kp, "kd": kd} for name, kp, kd in driven],
        "action": {
            "kind": "position_offset",
            "joints": ["hip", "knee", "ankle"],
            "scale": {"hip": 0.25, "knee": 0.35, "ankle": 0.5},
        },
    }
    report = import_policy(FOREIGN / "mjlab_passive.onnx", tmp_path / "p.cadenza", manifest=more)
    _, manifest, _ = opened(report.path)
    assert manifest["joints"][3] == {
        "name": "tail", "default": 0.0, "kp": 0.0, "kd": 0.0,
        "position": None, "velocity_max": None, "effort_max": None,
    }  # fmt: skip


def kinfer_facts():
    gains = {"knee": 30.0, "hip": 40.0, "tail": 5.0, "ankle": 10.0}
    return {
        "rates": {"policy_dt": 0.02},
        "joints": [{"name": name, "default": 0.0, "kp": kp, "kd": 1.0} for name, kp in gains.items()],
        "commands": [{"name": "vx", "range": [-2, 2]}, {"name": "wz", "range": [-2, 2]}],
        "observation": {"terms": [{"name": "projected_gravity", "scale": 1.0}]},
    }


def test_kinfer_replays_what_its_own_runner_did(tmp_path):
    report = import_policy(
        FOREIGN / "policy.kinfer", tmp_path / "p.cadenza", manifest=kinfer_facts(), robot=ROBOT
    )
    policy, manifest, _ = opened(report.path)
    assert [j["name"] for j in manifest["joints"]] == ["knee", "hip", "tail", "ankle"]
    assert manifest["carry"] == {"state": {"shape": [6], "init": "init"}}
    seen = np.load(FOREIGN / "kinfer.npz")
    for _ in range(2):  # the state starts with init_fn's value after every reset
        policy.reset()
        for k, targets in enumerate(seen["targets"]):
            row = np.concatenate([seen[term["name"]][k] for term in manifest["observation"]["terms"]])
            assert close(policy.act(row), targets), k
    terms = {t["name"]: t for t in manifest["observation"]["terms"]}
    assert terms["joint_angles"]["params"] == {"absolute": True}


def test_kinfer_does_not_say_gains_rate_ranges_and_the_unit_of_gravity(tmp_path):
    with pytest.raises(ForeignPolicyError) as refused:
        import_policy(FOREIGN / "policy.kinfer", tmp_path / "p.cadenza")
    text = str(refused.value)
    for word in (
        "robot's name",
        "period",
        "gains",
        "ranges of the commands",
        "unit of projected_gravity",
        "9.81",
    ):
        assert word in text, text
    assert not (tmp_path / "p.cadenza").exists()


def test_a_graph_with_sources_of_its_own_is_fed_by_source(tmp_path):
    """The gravity of a policy that was trained on m/s²."""
    scaled = kinfer_facts()
    scaled["observation"]["terms"][0]["scale"] = 9.81
    report = import_policy(FOREIGN / "policy.kinfer", tmp_path / "p.cadenza", manifest=scaled, robot=ROBOT)
    _, manifest, bundle = opened(report.path)
    frames = sensors(np.random.default_rng(2), 3, manifest, 4)
    at = 4 + 4
    np.testing.assert_allclose(
        observe(bundle, frames)[:, at : at + 3], 9.81 * gravity(frames["base_quat"][0]), atol=1e-5
    )


def test_what_the_user_says_wins_and_is_told(tmp_path):
    changed = mjlab_facts() | {"joints": [{"name": "tail", "kp": 6.0}]}
    report = import_policy(FOREIGN / "mjlab.onnx", tmp_path / "p.cadenza", manifest=changed)
    assert any("joints.tail.kp: 6.0 as given; the file says 5.0" in fact for fact in report.assumed)
    _, manifest, _ = opened(report.path)
    assert [j["kp"] for j in manifest["joints"]] == [40.0, 30.0, 10.0, 6.0]


def test_a_json_file_says_the_same_as_a_dictionary(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    (tmp_path / "facts.json").write_text(json.dumps(mjlab_facts()))
    ids = {
        import_policy(FOREIGN / "mjlab.onnx", tmp_path / "p.cadenza", manifest=given).id
        for given in (mjlab_facts(), tmp_path / "facts.json")
    }
    assert len(ids) == 1


def test_a_runtime_normaliser_is_applied_once(tmp_path):
    given = facts() | {
        "normalizer": {
            "where": "runtime",
            "form": "std_plus_eps",
            "mean": [0.5] * 22,
            "spread": [2.0] * 22,
            "eps": 0.01,
            "clip": 3.0,
        }
    }
    report = import_policy(FOREIGN / "sb3_ppo.onnx", tmp_path / "p.cadenza", manifest=given, robot=ROBOT)
    policy, _, _ = opened(report.path)
    run = session((FOREIGN / "sb3_ppo.onnx").read_bytes())
    for row in np.random.default_rng(0).normal(0, 5, (20, 22)).astype(np.float32):
        normal = np.clip((row - 0.5) / 2.01, -3, 3).astype(np.float32)
        assert close(policy.act(row), run({"observation": normal[None]})["action"][0])
