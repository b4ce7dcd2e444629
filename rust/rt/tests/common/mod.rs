//! A small bundle, a small robot, and the program as its user runs it.

// Each test binary uses its own part of this file.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

use cadenza_policy::{Manifest, write_bundle};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const STEP: &[u8] = include_bytes!("../../../../tests/golden/policy/mlp_tanh.onnx");
const VECTORS: &str = include_str!("../../../../tests/golden/policy/mlp_tanh.json");

pub(crate) const JOINTS: [&str; 6] = ["pan", "lift", "elbow", "roll", "flex", "turn"];

/// What the program said and how it ended.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// The exit code was `code`; returns what was said.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> String {
        assert_eq!(self.code, code, "\n{}\n{}", self.out, self.err);
        self.out + &self.err
    }
}

/// A folder with `walk.cadenza` and `robot/robot.toml`.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.at("robot")).unwrap();
        place.write("robot/robot.toml", robot(500.0, &JOINTS));
        place.write("walk.cadenza", bundle(|_| {}));
        place
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap()
    }

    /// Runs the words of `line` in the folder.
    pub(crate) fn run(&self, line: &str) -> Said {
        run_in(self.dir.path(), &line.split_whitespace().collect::<Vec<_>>())
    }
}

pub(crate) fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cadenza-rt"));
    command.current_dir(dir).env_remove("SOURCE_DATE_EPOCH");
    command
}

pub(crate) fn run_in(dir: &Path, args: &[&str]) -> Said {
    let output = program(dir).args(args).output().unwrap();
    Said {
        code: output.status.code().expect("ended by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A robot.toml.
pub(crate) fn robot(hz: f64, joints: &[&str]) -> String {
    let mut text = format!(
        "schema = 1\nname = \"desk\"\n\n[device]\nkind = \"null\"\n\n[rates]\ncontrol_hz = {hz}\n\n\
         [safety]\ngain_ramp = \"100ms\"\nauthority_ramp = \"100ms\"\n"
    );
    for joint in joints {
        text += &format!(
            "\n[[joint]]\nname = \"{joint}\"\n\
             limits = {{ position = [-1.0, 1.0], velocity = 4.0, acceleration = 60.0, effort = 40.0 }}\n\
             gains = {{ kp_max = 100.0, kd_max = 10.0, kd_damp = 5.0 }}\n"
        );
    }
    text
}

fn manifest() -> Value {
    let joint = |name: &&str| {
        json!({ "name": name, "default": 0.1, "kp": 120.0, "kd": 4.0, "position": [-2.0, 2.0],
                "velocity_max": 3.0, "effort_max": 30.0 })
    };
    let term =
        |name: &str, source: &str, size: usize| json!({ "name": name, "source": source, "size": size });
    let command = |name: &str| json!({ "name": name, "range": [-1.0, 1.0], "default": 0.25 });
    let mut bias = term("bias", "constant", 1);
    bias["params"] = json!({ "value": [1.0] });
    json!({
        "format": 1,
        "name": "walk",
        "robot": { "name": "desk", "model_sha256": null },
        "rates": { "policy_dt": 0.04, "control_dt": 0.002, "physics_dt": null },
        "joints": JOINTS.iter().map(joint).collect::<Vec<_>>(),
        "observation": { "size": 16, "interleave": "term", "terms": [
            term("q", "joint_pos", 6), term("dq", "joint_vel", 6), term("goal", "command", 3), bias,
        ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position_offset", "joints": JOINTS, "scale": { "*": 0.5 }, "offset": "default",
                    "raw_clip": [-1.0, 1.0] },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": { "step": { "file": "step.onnx", "batch": 1, "inputs": { "obs": "observation" },
                                 "outputs": { "action": "action" } } },
        "in_graph": { "normalize": false, "squash": false, "action_scale": false, "action_offset": false },
        "monitors": [ { "name": "fence", "dt": 0.04, "trip": "violated", "action": "soft_stop" } ],
        "commands": [command("goal_x"), command("goal_y"), command("goal_z")],
        "weights": "f32",
        "parity": { "file": "parity.safetensors", "source": "onnxruntime", "atol": 1e-5, "rtol": 1e-5,
                    "measured": 1e-7 },
        "provenance": { "algorithm": "none", "seed": 7, "steps": 9 },
    })
}

/// The vectors that torch computed for the network.
pub(crate) fn parity(error: f32) -> Vec<u8> {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let column = |list: &str, name: &str| -> Vec<f32> {
        let rows = vectors[list].as_array().unwrap();
        let all = rows.iter().flat_map(|row| row[name].as_array().unwrap());
        all.map(|x| x.as_f64().unwrap() as f32).collect()
    };
    let obs = column("inputs", "obs");
    let mut expected = column("outputs", "action");
    expected[7] += error;
    let steps = obs.len() / 16;
    let bytes = |data: &[f32]| -> Vec<u8> { data.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let (obs, expected) = (bytes(&obs), bytes(&expected));
    let tensor = |shape: [usize; 3], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let tensors = [("obs", tensor([1, steps, 16], &obs)), ("expected", tensor([1, steps, 6], &expected))];
    safetensors::serialize(tensors, None).unwrap()
}

/// The bundle, with `change` made to its manifest.
pub(crate) fn bundle(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    bundle_with(change, parity(0.0), "spec fence: G[0,5] (q.pan < 5);\n")
}

pub(crate) fn bundle_with(change: impl FnOnce(&mut Value), parity: Vec<u8>, stl: &str) -> Vec<u8> {
    let mut value = manifest();
    change(&mut value);
    let manifest = Manifest::from_json(value.to_string().as_bytes()).unwrap();
    let entries = [("step.onnx", STEP.to_vec()), ("parity.safetensors", parity), ("spec.stl", stl.into())];
    write_bundle(manifest, &entries.map(|(name, data)| (name.to_owned(), data))).unwrap()
}
