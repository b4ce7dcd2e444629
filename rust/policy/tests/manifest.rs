//! The manifest: every field removed, mistyped, doubled or contradicted has its named error.

mod common;

use cadenza_policy::{Manifest, ManifestError};
use common::manifest;
use proptest::prelude::*;
use serde_json::{Value, json};

fn refused(v: &Value) -> String {
    Manifest::from_json(v.to_string().as_bytes()).expect_err("must be refused").to_string()
}

/// The error after one change.
fn after(path: &str, value: Value) -> String {
    let mut m = manifest(16, 6);
    put(&mut m, path, value);
    refused(&m)
}

fn put(m: &mut Value, path: &str, value: Value) {
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = m.pointer_mut(parent).unwrap();
    match key.parse::<usize>() {
        Ok(i) => parent[i] = value,
        Err(_) => parent[key] = value,
    }
}

#[test]
fn required_fields_are_named_when_they_are_missing() {
    let whole = manifest(16, 6);
    let optional =
        ["physics_dt", "model_sha256", "position", "velocity_max", "effort_max", "offset", "provenance"];
    fn fields(v: &Value, at: String, out: &mut Vec<String>) {
        match v {
            Value::Object(map) => map.iter().for_each(|(k, v)| {
                out.push(format!("{at}/{k}"));
                fields(v, format!("{at}/{k}"), out);
            }),
            Value::Array(list) => list.iter().take(1).for_each(|v| fields(v, format!("{at}/0"), out)),
            _ => {}
        }
    }
    let mut all = vec![];
    fields(&whole, String::new(), &mut all);
    let mut checked = 0;
    for path in all {
        let (parent, key) = path.rsplit_once('/').unwrap();
        // Mistyped: no field takes a list of lists of truth values.
        let mut wrong = whole.clone();
        put(&mut wrong, &path, json!([[true]]));
        let error = refused(&wrong);
        assert!(!error.is_empty(), "{path}");
        // The keys of `inputs` are names, not fields.
        if optional.contains(&key) || parent.contains("provenance") || parent.ends_with("inputs") {
            continue;
        }
        let mut less = whole.clone();
        less.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        let error = refused(&less);
        assert!(error.contains(key) || error.contains(parent.rsplit('/').next().unwrap()), "{path}: {error}");
        checked += 1;
    }
    assert!(checked > 35, "{checked}");
}

#[test]
fn unknown_and_double_keys_at_any_level() {
    assert_eq!(
        after("/rates/policy_hz", json!(50)),
        "rates.policy_hz: unknown field `policy_hz`, expected one of `policy_dt`, `control_dt`, `physics_dt` (written by cadenza 0.1.0)"
    );
    assert!(after("/joints/0/gear", json!(1)).starts_with("joints[0].gear: unknown field `gear`"));
    // x- keys are nobody's business, unless a name is what the key is.
    let mut m = manifest(16, 6);
    let plain = Manifest::from_json(m.to_string().as_bytes()).unwrap();
    m["x-lab"] = json!({ "anything": [1, null] });
    m["joints"][0]["x-colour"] = json!("red");
    assert_eq!(Manifest::from_json(m.to_string().as_bytes()).unwrap(), plain);
    m["action"]["scale"]["x-joint"] = json!(1.0);
    assert!(refused(&m).starts_with("action.scale: \"x-joint\" is unknown; known: joint_0"));

    let text = manifest(16, 6).to_string();
    let double = text.replacen("\"kd\":0.5", "\"kd\":0.5,\"kd\":0.5", 1);
    let error = Manifest::from_json(double.as_bytes()).unwrap_err();
    assert_eq!(error, ManifestError::DuplicateKey { path: "joints.0.kd".into() });
    let inside = text.replacen("\"name\":\"test\"", "\"name\":\"test\",\"x-a\":{\"b\":1,\"b\":2}", 1);
    let error = Manifest::from_json(inside.as_bytes()).unwrap_err();
    assert_eq!(error, ManifestError::DuplicateKey { path: "x-a.b".into() });
}

#[test]
fn numbers_nesting_and_format() {
    let text = manifest(16, 6).to_string();
    let error =
        |from: &str, to: &str| Manifest::from_json(text.replacen(from, to, 1).as_bytes()).unwrap_err();
    assert!(matches!(error("0.25", "1e999"), ManifestError::Syntax { line: 1, .. }));
    assert!(matches!(error("0.25", "NaN"), ManifestError::Syntax { .. }));
    assert!(matches!(error("\"format\":1", "\"format\":2"), ManifestError::NewerFormat { .. }));
    assert_eq!(
        error("\"format\":1", "\"format\":1.5").to_string(),
        "format 1.5, but this version reads format 1"
    );
    let deep = format!("\"x-deep\":{}1{},\"format\"", "[".repeat(33), "]".repeat(33));
    assert!(matches!(error("\"format\"", &deep), ManifestError::TooDeep { limit: 32, .. }));
    let bottomless = format!("\"x-deep\":{}", "[".repeat(100_000));
    assert!(matches!(error("\"name\"", &bottomless), ManifestError::TooDeep { .. }));
    let fine = format!("\"x-deep\":{}1{},\"format\"", "[".repeat(31), "]".repeat(31));
    assert!(Manifest::from_json(text.replacen("\"format\"", &fine, 1).as_bytes()).is_ok());
    assert!(matches!(
        Manifest::from_json(&vec![b' '; (1 << 20) + 1]).unwrap_err(),
        ManifestError::TooLong { .. }
    ));
    assert!(matches!(Manifest::from_json(b"{} {}").unwrap_err(), ManifestError::Syntax { .. }));
}

#[test]
fn rules_between_fields() {
    let cases: &[(&str, Value, &str)] = &[
        ("/name", json!(""), "name: empty"),
        ("/rates/policy_dt", json!(0.0), "rates.policy_dt: 0 is not positive"),
        (
            "/rates/policy_dt",
            json!(0.0201),
            "rates.policy_dt: 0.0201 is not a whole multiple of rates.control_dt",
        ),
        (
            "/robot/model_sha256",
            json!("AB"),
            "robot.model_sha256: \"AB\" is not a SHA-256 in lower-case hexadecimal",
        ),
        ("/joints/1/name", json!("joint_0"), "joints: \"joint_0\" stands there twice"),
        ("/joints/0/kp", json!(-1.0), "joints.joint_0.kp: -1 is negative or not finite"),
        (
            "/joints/0/position",
            json!([1.0, 1.0]),
            "joints.joint_0.position: 1 is not below the upper end of its range",
        ),
        ("/joints/0/effort_max", json!(0.0), "joints.joint_0.effort_max: 0 is not positive"),
        ("/observation/size", json!(15), "observation.size: 15 numbers, but 16 are needed"),
        ("/observation/terms/0/size", json!(0), "observation.terms.all.size: 0 is not between 1 and 65536"),
        (
            "/observation/terms/0/source",
            json!("joint_pos"),
            "observation.terms.all.size: 16 numbers, but 6 are needed",
        ),
        ("/observation/terms/0/source", json!("x-"), "observation.terms.all.source: empty"),
        (
            "/observation/terms/0/offset",
            json!([1.0]),
            "observation.terms.all.offset: 1 numbers, but 16 are needed",
        ),
        (
            "/observation/terms/0/clip",
            json!([2, 1]),
            "observation.terms.all.clip: 2 is not below the upper end of its range",
        ),
        (
            "/action/joints/0",
            json!("knee"),
            "action.joints: \"knee\" is unknown; known: joint_0, joint_1, joint_2, joint_3, joint_4, joint_5",
        ),
        ("/action/joints/1", json!("joint_0"), "action.joints: \"joint_0\" stands there twice"),
        ("/action/joints", json!([]), "action.joints: 0 numbers, but 1 are needed"),
        ("/action/scale", json!({"joint_0": 1.0}), "action.scale: \"joint_1\" is unknown; known: joint_0"),
        (
            "/action/channels",
            json!({"gripper": "discrete"}),
            "action.channels: \"gripper\" is unknown; known: joint_0, joint_1, joint_2, joint_3, joint_4, joint_5",
        ),
        ("/action/raw_clip", json!([1, -1]), "action.raw_clip: 1 is not below the upper end of its range"),
        ("/action/reset", json!([0.0]), "action.reset: 1 numbers, but 6 are needed"),
        (
            "/action/leash",
            json!(0.2),
            "action.leash: 0.2 rad, but only position_increment has a leash, not Position",
        ),
        ("/action/kind", json!("effort"), "action.offset: the default positions are no offset of Effort"),
        (
            "/in_graph/action_scale",
            json!(true),
            "action.scale: the graph already does this (in_graph.action_scale), so it must be empty",
        ),
        (
            "/in_graph/action_offset",
            json!(true),
            "action.offset: the graph already does this (in_graph.action_offset), so it must be empty",
        ),
        ("/in_graph/normalize", json!(true), "normalizer.where: None, but in_graph.normalize is true"),
        ("/normalizer/where", json!("graph"), "normalizer.where: Graph, but in_graph.normalize is false"),
        ("/normalizer/where", json!("runtime"), "normalizer.mean: 0 numbers, but 16 are needed"),
        ("/normalizer/clip", json!(0.0), "normalizer.clip: 0 is not positive"),
        ("/chunk/horizon", json!(2), "chunk: mode none has one action, not a horizon of 2 and 0 past rows"),
        ("/chunk/execute", json!(2), "chunk: execute 2 is longer than the horizon 1"),
        ("/chunk/execute", json!(0), "chunk.execute: 0 is not a length between 1 and 65536"),
        ("/chunk/seam", json!("fade"), "chunk: a fade of 0 ticks does not fit the horizon 1"),
        ("/chunk/mode", json!("open"), "chunk.mode: needs the output \"actions\" of the function \"step\""),
        ("/chunk/mode", json!("lazy"), "chunk.mode: needs the function \"init\""),
        ("/functions", json!({}), "functions: \"step\" is unknown; known: "),
        (
            "/functions/step/file",
            json!("init.onnx"),
            "functions.step.file: \"init.onnx\", but the function comes from step.onnx",
        ),
        (
            "/weights",
            json!("bf16"),
            "weights: unknown variant `bf16`, expected `f32` or `int8` (written by cadenza 0.1.0)",
        ),
        ("/functions/step/batch", json!(0), "functions.step.batch: 0 is not between 1 and 65536"),
        (
            "/functions/step/inputs/obs",
            json!("observations"),
            "functions.step.inputs: \"observations\" is unknown; known: observation, previous_action, time, noise, state, control, params",
        ),
        ("/functions/step/inputs/obs", json!("carry.h"), "functions.step.inputs: \"h\" is unknown; known: "),
        (
            "/functions/step/inputs/obs",
            json!("source.gyro"),
            "functions.step.inputs: \"gyro\" is unknown; known: x-test",
        ),
        (
            "/functions/step/inputs/more",
            json!("observation"),
            "functions.step.inputs: \"observation\" stands there twice",
        ),
        ("/functions/step/outputs/action", json!("aux."), "functions.step.outputs: empty"),
        (
            "/carry",
            json!({"h": {"shape": [1, 4], "init": "zeros"}}),
            "carry.h: needs the output \"carry.h\" of the function \"step\"",
        ),
        (
            "/noise",
            json!({"kind": "clipped_gaussian_pre_tanh", "std": 0.1, "clip": 3.0}),
            "noise: needs the output \"presquash\" of the function \"step\"",
        ),
        (
            "/noise",
            json!({"kind": "bounded", "amplitude": {"knee": 0.1}, "rate": {}, "seed": 0}),
            "noise.amplitude: \"knee\" is unknown; known: joint_0, joint_1, joint_2, joint_3, joint_4, joint_5",
        ),
        (
            "/commands",
            json!([{"name": "vx", "range": [0.25, 0.5]}]),
            "commands.vx.default: 0 lies outside the slot's range",
        ),
        (
            "/monitors",
            json!([{"name": "up", "dt": 0.003, "trip": "violated", "action": "log"}]),
            "monitors.up.dt: 0.003 is not a whole multiple of rates.control_dt",
        ),
        (
            "/monitors",
            json!([{"name": "up", "dt": 0.002, "trip": "violated", "action": "log"},
                             {"name": "up", "dt": 0.002, "trip": "violated", "action": "log"}]),
            "monitors: \"up\" stands there twice",
        ),
        (
            "/frames",
            json!([{"name": "tool", "chain": [{"pos": [0, 0, 0], "quat": [1, 0, 0, 0.1], "joint": null,
                            "axis": [0, 0, 1], "kind": "hinge", "zero": 0.0}]}]),
            "frames.tool.chain.0.quat: 1.004987562112089 is the length, not 1",
        ),
        (
            "/frames",
            json!([{"name": "tool", "chain": [{"pos": [0, 0, 0], "quat": [1, 0, 0, 0], "joint": "hip",
                            "axis": [0, 0, 1], "kind": "hinge", "zero": 0.0}]}]),
            "frames.tool.chain.0.joint: \"hip\" is unknown; known: joint_0, joint_1, joint_2, joint_3, joint_4, joint_5",
        ),
        (
            "/parity",
            json!({"file": "parity.safetensors", "source": "", "atol": -1.0, "rtol": 0.0, "measured": 0.0}),
            "parity.atol: -1 is negative or not finite",
        ),
        (
            "/files",
            json!({"step.onnx": {"bytes": 1, "sha256": "xyz"}}),
            "files.step.onnx.sha256: \"xyz\" is not a SHA-256 in lower-case hexadecimal",
        ),
    ];
    for (path, value, expected) in cases {
        assert_eq!(after(path, value.clone()), *expected, "{path} = {value}");
    }
    let unknown = after("/observation/terms/0/source", json!("lidar"));
    assert!(
        unknown
            .starts_with("observation.terms.all.source: \"lidar\" is unknown; known: joint_pos, joint_vel")
    );
}

#[test]
fn terms_take_their_own_settings() {
    let term = |source: &str, size: usize, params: Value| {
        let mut m = manifest(size, 6);
        m["observation"]["terms"][0]["source"] = json!(source);
        m["observation"]["terms"][0]["params"] = params;
        m["commands"] = json!([{"name": "x", "range": [-1, 1]}, {"name": "y", "range": [-1, 1]}, {"name": "z", "range": [-1, 1]}]);
        m["frames"] = json!([{ "name": "tool", "chain": [] }]);
        Manifest::from_json(m.to_string().as_bytes()).map(|_| ()).map_err(|e| e.to_string())
    };
    let fine = [
        ("joint_pos", 6, json!({"absolute": true})),
        ("joint_target_error", 6, json!({})),
        ("command", 2, json!({"commands": ["z", "x"]})),
        ("command", 3, json!({})),
        ("phase", 2, json!({"period": 0.8})),
        ("constant", 2, json!({"value": [1.0, 2.0]})),
        ("frame_pos", 3, json!({"frame": "tool"})),
        (
            "frame_pos_error",
            3,
            json!({"frame": "tool", "target": ["x", "y", "z"], "in": "tool", "soft": 0.2}),
        ),
        ("target_cylindrical", 2, json!({"target": ["x", "y", "z"]})),
        ("object_pos_error", 3, json!({"object": "cup", "frame": "tool"})),
        ("last_action", 6, json!({})),
        ("mission.goal", 4, json!({})),
        ("x-lidar", 40, json!({})),
    ];
    for (source, size, params) in fine {
        assert_eq!(term(source, size, params.clone()), Ok(()), "{source} {params}");
    }
    let error = |source: &str, size: usize, params: Value| term(source, size, params).unwrap_err();
    assert_eq!(error("phase", 2, json!({})), "observation.terms.all.params: the source phase needs period");
    assert_eq!(
        error("gyro", 3, json!({"period": 1.0})),
        "observation.terms.all.params: the source gyro takes no period"
    );
    assert!(
        error("frame_pos", 3, json!({"frame": "foot"}))
            .ends_with("params.frame: \"foot\" is unknown; known: tool")
    );
    assert!(error("command", 1, json!({"commands": ["w"]})).ends_with("\"w\" is unknown; known: x, y, z"));
    assert_eq!(error("gyro", 4, json!({})), "observation.terms.all.size: 4 numbers, but 3 are needed");
}

proptest! {
    #[test]
    fn any_numbers_survive_printing(kp in 0.0..1e300f64, scale in any::<i64>(), dt in 1e-4..1.0f64) {
        let mut m = manifest(16, 6);
        m["joints"][0]["kp"] = json!(kp);
        m["action"]["scale"]["*"] = json!(scale as f64 * 1e-7);
        m["rates"]["policy_dt"] = json!(dt);
        m["rates"]["control_dt"] = json!(dt);
        let first = Manifest::from_json(m.to_string().as_bytes()).unwrap();
        let text = first.to_json();
        let again = Manifest::from_json(text.as_bytes()).unwrap();
        prop_assert_eq!(&again, &first);
        prop_assert_eq!(again.to_json(), text);
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_panic(cut in 0usize..2000, byte in any::<u8>()) {
        let mut text = manifest(16, 6).to_string().into_bytes();
        let at = cut % text.len();
        text[at] = byte;
        let _ = Manifest::from_json(&text);
        let _ = Manifest::from_json(&text[..at]);
    }
}
