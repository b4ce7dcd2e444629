"""Foreign files are hostile or incomplete: each is refused with its reason, and leaves no bundle."""

import gzip
import io
import json
import pickle
import sys
import tarfile
import zlib

import numpy as np
import onnx
import pytest
import torch
from foreign import FOREIGN, ROBOT, facts

from cadenza.importers import ForeignPolicyError, import_policy, kinfer, unitree
from cadenza.importers.graph import Graph

DEPLOY = FOREIGN / "unitree" / "params" / "deploy.yaml"


def refused(tmp_path, source, *words, error=ForeignPolicyError, **how):
    """Imports, expects the refusal with all of `words`, and no file."""
    out = tmp_path / "out" / "p.cadenza"
    with pytest.raises(error) as caught:
        import_policy(source, out, **how)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert not out.parent.exists() or not list(out.parent.iterdir())
    return text


def written(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def test_all_that_is_missing_is_listed_at_once_with_the_lines_to_write(tmp_path):
    text = refused(tmp_path, FOREIGN / "rsl_rl.onnx", "read as rsl_rl", "obs [1, 22]", "actions [1, 4]")
    for fact in ("name", "period", "gains", "default", "terms", "what an action is", "scale of the action"):
        assert fact in text, fact
    lines = [
        '"robot": { "name"', '"rates": { "policy_dt"', '"joints": [', '"observation": {', '"kind"', '"scale"'
    ]  # fmt: skip
    assert all(line in text for line in lines)


@pytest.mark.parametrize(
    "lost, word",
    [
        (("rates",), "the policy's period"),
        (("joints", 1, "kp"), '"name": "knee", "kp"'),
        (("joints", 3, "default"), '"name": "tail", "default"'),
        (("action", "scale"), "scale of the action"),
        (("action", "kind"), "what an action is"),
        (("commands",), "commands that the observation reads"),
        (("observation", "terms", 2, "source"), "what the observation terms command are"),
    ],
)
def test_each_fact_with_motion_consequences_is_asked_for(tmp_path, lost, word):
    given = facts()
    *way, last = lost
    part = given
    for key in way:
        part = part[key]
    del part[last]
    refused(tmp_path, FOREIGN / "rsl_rl.onnx", word, manifest=given, robot=ROBOT)


def test_without_a_robot_its_name_and_period_are_asked_for(tmp_path):
    refused(tmp_path, FOREIGN / "rsl_rl.onnx", "robot's name", "control period", manifest=facts())


def test_terms_of_another_size_are_shown_beside_the_graph(tmp_path):
    given = facts()
    given["observation"]["terms"].pop()
    refused(
        tmp_path, FOREIGN / "rsl_rl.onnx", "21 numbers", "wants 22", "before: last_action, 4 × 1",
        manifest=given, robot=ROBOT,
    )  # fmt: skip


@pytest.mark.parametrize(
    "text, word",
    [
        ('{"rates": {}, "rates": {}}', "'rates' stands twice"),
        ("[1]", "JSON object"),
        ("{", "facts.json"),
        ('{"a":' * 100_000, "facts.json"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, text, word):
    refused(tmp_path, FOREIGN / "rsl_rl.onnx", word, manifest=written(tmp_path, "facts.json", text.encode()))


def test_an_unknown_key_of_the_manifest_is_named(tmp_path):
    refused(
        tmp_path, FOREIGN / "rsl_rl.onnx", "colour",
        error=ValueError, manifest=facts() | {"colour": "red"}, robot=ROBOT,
    )  # fmt: skip


def test_torch_checkpoints_and_pickles_are_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    checkpoint = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, checkpoint)
    for name, data in (("model.pt", checkpoint.getvalue()), ("agent.pkl", pickle.dumps(Bomb()))):
        for kind in ("auto", "rsl_rl", "onnx"):
            refused(tmp_path, written(tmp_path, name, data), "torch checkpoint", "ONNX", kind=kind)


@pytest.mark.parametrize("data", [b"", b"\x00" * 64, b"not a model at all", bytes(range(256)) * 4])
def test_other_bytes_are_no_model(tmp_path, data):
    refused(tmp_path, written(tmp_path, "policy.onnx", data), "not an ONNX model")


def test_external_weights_are_refused_with_the_way_to_inline_them(tmp_path):
    refused(tmp_path, FOREIGN / "rsl_rl_external.onnx", "another file", "onnx.save(onnx.load(")
    model = onnx.load(FOREIGN / "rsl_rl.onnx")
    weight = model.graph.initializer[0]
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    refused(tmp_path, written(tmp_path, "evil.onnx", model.SerializeToString()), "another file")


def test_a_graph_above_the_cap_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate((128 << 20) + 1)
    refused(tmp_path, path, "at most 134217728", kind="onnx")


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    model = onnx.load(FOREIGN / "rsl_rl.onnx")
    weight = next(w for w in model.graph.initializer if w.name == "mlp.0.weight")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0, 0] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    path = written(tmp_path, "nan.onnx", model.SerializeToString())
    refused(tmp_path, path, "mlp.0.weight", "NaN", error=ValueError, manifest=facts(), robot=ROBOT)


def test_a_loop_without_end_never_reaches_onnxruntime(tmp_path):
    make, float32 = onnx.helper.make_node, onnx.TensorProto.FLOAT

    def info(name, kind, shape):
        return onnx.helper.make_tensor_value_info(name, kind, shape)

    body = onnx.helper.make_graph(
        [make("Identity", ["go"], ["on"]), make("Identity", ["x"], ["y"])],
        "body",
        [info("i", 7, []), info("go", 9, []), info("x", float32, [1, 22])],
        [info("on", 9, []), info("y", float32, [1, 22])],
    )
    true = onnx.numpy_helper.from_array(np.array(True), "true")
    nodes = [
        make("Loop", ["", "true", "obs"], ["z"], body=body),
        make("Slice", ["z", "a", "b", "c"], ["actions"]),
    ]
    cut = [onnx.numpy_helper.from_array(np.array([v]), n) for n, v in (("a", 0), ("b", 4), ("c", 1))]
    graph = onnx.helper.make_graph(
        nodes, "g", [info("obs", float32, [1, 22])], [info("actions", float32, [1, 4])], [true, *cut]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    path = written(tmp_path, "loop.onnx", model.SerializeToString())
    refused(tmp_path, path, "Loop", error=ValueError, manifest=facts(), robot=ROBOT)


def test_inputs_that_are_none_of_rsl_rls_are_listed(tmp_path):
    refused(tmp_path, FOREIGN / "sb3_ppo.onnx", "observation [1, 22]", "action [1, 4]", kind="rsl_rl")


def test_several_inputs_without_bindings_are_listed_with_their_shapes(tmp_path):
    refused(
        tmp_path, FOREIGN / "torch_lstm.onnx", "h_in [2, 1, 16]", "c_out [2, 1, 16]", '"functions"',
        kind="onnx", manifest=facts(), robot=ROBOT,
    )  # fmt: skip
    bound = facts() | {"functions": {"step": {"inputs": {"image": "observation"}}}}
    refused(tmp_path, FOREIGN / "sb3_ppo.onnx", "'image'", "observation [1, 22]", kind="onnx", manifest=bound)


def test_unknown_kinds_and_files_are_named(tmp_path):
    refused(tmp_path, FOREIGN / "rsl_rl.onnx", "'tflite'", "kinfer", kind="tflite")
    refused(tmp_path, tmp_path / "nowhere.onnx", "nowhere.onnx", "no such file")
    refused(tmp_path, FOREIGN / "rsl_rl.onnx", "did you mean 'arm6'", error=ValueError, robot="arm7")


# mjlab


def with_metadata(tmp_path, **changes):
    model = onnx.load(FOREIGN / "mjlab.onnx")
    values = {p.key: p.value for p in model.metadata_props} | changes
    del model.metadata_props[:]
    for key, value in values.items():
        if value is not None:
            model.metadata_props.add(key=key, value=value)
    return written(tmp_path, "mjlab.onnx", model.SerializeToString())


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"joint_damping": None}, ("lacks joint_damping",)),
        ({"joint_damping": "1.000,2.000"}, ("joint_damping has 2 entries, 4 wanted",)),
        ({"default_joint_pos": "0.1,b,0.3,0"}, ("default_joint_pos", "'b'")),
        ({"observation_terms_scale": "1.000"}, ("observation_terms_scale has 1 entries, 6",)),
        ({"observation_terms_clip": ",".join(["1"] * 6)}, ("no range",)),
        ({"observation_terms_flatten_history_dim": ",".join(["0.000"] * 6)}, ("dimension of its own",)),
        ({"observation_names": "base_ang_vel,height_scan,command,joint_pos,joint_vel,x"}, ("height_scan",)),
        ({"action_scale": None}, ("lacks action_scale",)),
    ],
)  # fmt: skip
def test_metadata_that_does_not_fit_itself_is_refused(tmp_path, changes, words):
    refused(tmp_path, with_metadata(tmp_path, **changes), *words)


# unitree_rl_lab


def deploy(tmp_path, change=lambda text: text):
    pytest.importorskip("yaml", reason="deploy.yaml needs PyYAML")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "policy.onnx").write_bytes((FOREIGN / "unitree.onnx").read_bytes())
    (folder / "deploy.yaml").write_text(change(DEPLOY.read_text()))
    return folder


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("[1, 2, 0, 3]", "[1, 2, 0, 4]", ("goes up to 4", "4 joints")),
        ("[1, 2, 0, 3]", "[1, 2, 0, 0]", ("index twice",)),
        ("[10.0, 40.0, 30.0, 5.0]", "[10.0, 40.0, 30.0]", ("stiffness has 3 numbers in SDK order",)),
        ("scale: [0.25, 0.35, 0.5, 0.125]", "scale: [0.25, 0.35]", ("scale has 2 numbers, 4",)),
        ("step_dt: 0.02", "step_dt: .nan", ("step_dt", "nan")),
        ("step_dt: 0.02\n", "", ("step_dt", "None")),
        ("JointPositionAction", "SpecialAction", ("actions.SpecialAction", "JointPositionAction")),
        ("lin_vel_x: [-0.5, 1.0]", "lin_vel_x: null", ("lin_vel_x",)),
        ("- [-0.2, 0.3]", "- [0.3, -0.2]", ("[0.3, -0.2] is no range",)),
        ("- [-0.2, 0.3]", "- [0.3, .inf]", ("open at one end",)),
        ("history_length: 2", "history_length: -1", ("history_length", "-1")),
        ("period: 0.8", "length: 0.8", ("period",)),
        ("gait_phase", "height_scan", ("height_scan", '"source"')),
        ("[null, null, null]", "[null, null, null, null]", ("no slice",)),
        ("[null, null, null]", "[0, 4, 0]", ("no slice",)),
        ("[null, null, null]", '["a"]', ("no slice",)),
        ("builtins.slice [null, null, null]", 'os.system ["touch pwned"]', ("os.system",)),
        ("builtins.slice [null, null, null]", "builtins.eval ['1']", ("builtins.eval",)),
        ("object/apply:builtins.slice [null, null, null]", "name:os.system", ("name:os.system",)),
        ("step_dt: 0.02", "step_dt: &a 0.02\nx: *a", ("no aliases",)),
        ("joint_ids_map: [1, 2, 0, 3]", "- 1", ("deploy.yaml",)),
    ],
)  # fmt: skip
def test_a_deploy_yaml_that_does_not_fit_is_refused(tmp_path, monkeypatch, old, new, words):
    monkeypatch.chdir(tmp_path)
    assert old in DEPLOY.read_text()
    refused(tmp_path, deploy(tmp_path, lambda text: text.replace(old, new)), *words, robot=ROBOT)
    assert not (tmp_path / "pwned").exists()


def test_the_one_tag_gives_a_slice_and_nothing_else(tmp_path):
    pytest.importorskip("yaml", reason="deploy.yaml needs PyYAML")
    path = tmp_path / "deploy.yaml"
    path.write_text("a: !!python/object/apply:builtins.slice [1, 3, null]")
    assert unitree.load_yaml(path) == {"a": slice(1, 3, None)}


def test_joints_chosen_by_a_slice_are_those_of_the_slice(tmp_path):
    def two(text):
        head, tail = text.replace("[null, null, null]", "[1, 3, null]").split("  joint_pos_rel:")
        return head + "  joint_pos_rel:" + tail.replace("[1.0, 1.0, 1.0, 1.0]", "[1.0, 1.0]", 1)

    refused(
        tmp_path,
        deploy(tmp_path, two),
        "57 numbers",
        "wants 67",
        "joint_pos_rel: joint_pos, 2 × 5",
        robot=ROBOT,
    )


def test_deploy_yaml_without_a_robot_asks_for_it(tmp_path):
    refused(tmp_path, deploy(tmp_path), "--robot")


def test_without_pyyaml_the_command_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    from cadenza.cli import main

    folder = deploy(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert main(["import", str(folder), "-o", str(tmp_path / "p.cadenza"), "--robot", str(ROBOT)]) == 2
    assert "yaml: pip install 'cadenza[import]'" in capsys.readouterr().err


def test_a_folder_without_its_parts_is_told_where_they_belong(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(tmp_path, tmp_path / "empty", "policy.onnx", "exported")


# kinfer


def entries():
    return kinfer.unpack((FOREIGN / "policy.kinfer").read_bytes(), "policy")


def packed(parts, kind=tarfile.REGTYPE):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in parts:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def archive(tmp_path, data):
    return written(tmp_path, "policy.kinfer", data)


@pytest.mark.parametrize(
    "name", ["../step_fn.onnx", "/etc/passwd", "init_fn.onnx", "agent.pkl", "./metadata.json"]
)
def test_traversal_doubled_and_further_entries_are_refused(tmp_path, name):
    data = packed([*entries().items(), (name, b"x")])
    refused(tmp_path, archive(tmp_path, data), repr(name), "each once")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_other_kinds_of_entries_are_refused(tmp_path, kind):
    refused(tmp_path, archive(tmp_path, packed([("init_fn.onnx", b"")], kind)), "init_fn.onnx")


@pytest.mark.parametrize("name", kinfer.ENTRIES)
def test_a_missing_entry_is_named(tmp_path, name):
    parts = [(k, v) for k, v in entries().items() if k != name]
    refused(tmp_path, archive(tmp_path, packed(parts)), name, "missing")


def test_a_bomb_is_noticed_before_it_has_gone_off(tmp_path, monkeypatch):
    monkeypatch.setattr(kinfer, "CAP", 1 << 20)
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()
    assert len(bomb) < 1 << 17
    refused(tmp_path, archive(tmp_path, bomb), "more than 1048576 bytes after decompression")


def test_damaged_archives_are_refused(tmp_path):
    whole = (FOREIGN / "policy.kinfer").read_bytes()
    for cut in (3, 40, len(whole) // 2, len(whole) - 4):
        refused(tmp_path, archive(tmp_path, whole[:cut]), "gzip", kind="kinfer")
    refused(tmp_path, archive(tmp_path, gzip.compress(b"no tar inside")), "tar")
    rng = np.random.default_rng(0)
    for _ in range(60):  # whatever the bytes are, the answer is a refusal or a question for facts
        bent = bytearray(whole)
        bent[int(rng.integers(10, len(bent)))] ^= 1 << int(rng.integers(8))
        refused(tmp_path, archive(tmp_path, bytes(bent)), kind="kinfer")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"carry_size": [7]}, ("carry_size", "[6]")),
        ({"joint_names": "knee"}, ("joint_names", "no list")),
        ({"carry_size": ["6"]}, ("carry_size", "no list of int")),
        ({"quantum": 1}, ("joint_names, command_names, carry_size",)),
    ],
)
def test_metadata_of_another_form_is_refused(tmp_path, change, words):
    parts = entries()
    document = json.loads(parts["metadata.json"]) | change
    parts["metadata.json"] = json.dumps(document).encode()
    refused(tmp_path, archive(tmp_path, packed(parts.items())), *words)


def test_an_input_that_is_none_of_kinfers_is_named(tmp_path):
    parts = entries()
    model = onnx.load_from_string(parts["step_fn.onnx"])
    model.graph.input[0].name = "camera"
    model.graph.node[0].input[0] = "camera"
    parts["step_fn.onnx"] = model.SerializeToString()
    refused(tmp_path, archive(tmp_path, packed(parts.items())), "'camera'", "joint_angles")


def test_an_initial_state_beyond_all_memory_is_refused(tmp_path):
    parts = entries()
    node = onnx.helper.make_node("ConstantOfShape", ["shape"], ["carry"])
    shape = onnx.numpy_helper.from_array(np.array([1 << 45]), "shape")
    carry = onnx.helper.make_tensor_value_info("carry", onnx.TensorProto.FLOAT, [6])
    graph = onnx.helper.make_graph([node], "init", [], [carry], [shape])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    parts["init_fn.onnx"] = model.SerializeToString()
    given = {
        "rates": {"policy_dt": 0.02},
        "joints": [
            {"name": n, "default": 0.0, "kp": 1.0, "kd": 1.0} for n in ("knee", "hip", "tail", "ankle")
        ],
        "commands": [{"name": n, "range": [-1, 1]} for n in ("vx", "wz")],
        "observation": {"terms": [{"name": "projected_gravity", "scale": 1.0}]},
    }
    data = archive(tmp_path, packed(parts.items()))
    refused(tmp_path, data, "init.onnx", error=ValueError, manifest=given, robot=ROBOT)


def test_a_pickle_inside_an_archive_is_never_opened(tmp_path):
    parts = entries() | {"step_fn.onnx": pickle.dumps({"a": 1})}
    refused(tmp_path, archive(tmp_path, packed(parts.items())), "step_fn.onnx", "torch checkpoint")


def test_graphs_read_their_own_shapes():
    graph = Graph.read(FOREIGN / "rsl_rl_lstm.onnx")
    assert graph.ports.startswith(
        "inputs obs [1, 22], h_in [2, 1, 16], c_in [2, 1, 16]; outputs actions [1, 4]"
    )
