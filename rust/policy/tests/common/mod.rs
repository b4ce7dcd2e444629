//! Bundles for the tests, around the networks of `tests/golden/policy`.

#![allow(dead_code)] // Each test binary uses its own part.

use std::collections::HashMap;
use std::path::PathBuf;

use cadenza_policy::{Bundle, Manifest, write_bundle};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// One recorded run: name → numbers.
pub(crate) type Record = HashMap<String, Vec<f32>>;

/// File `name` of the golden folder.
pub(crate) fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/policy").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Inputs and outputs that onnxruntime recorded for the network `name`.
pub(crate) fn recorded(name: &str) -> (Vec<Record>, Vec<Record>) {
    let v: Value = serde_json::from_slice(&golden(&format!("{name}.json"))).unwrap();
    let part = |key: &str| serde_json::from_value(v[key].clone()).unwrap();
    (part("inputs"), part("outputs"))
}

/// A manifest of a position policy with `n` observations and `joints` actions.
pub(crate) fn manifest(n: usize, joints: usize) -> Value {
    let names: Vec<String> = (0..joints).map(|i| format!("joint_{i}")).collect();
    let joint = |name: &String| {
        json!({ "name": name, "default": 0.1, "kp": 20.0, "kd": 0.5, "position": [-2.0, 2.0],
                "velocity_max": 10.0, "effort_max": null })
    };
    json!({
        "format": 1, "name": "test",
        "robot": { "name": "bench", "model_sha256": null },
        "rates": { "policy_dt": 0.02, "control_dt": 0.002, "physics_dt": null },
        "joints": names.iter().map(joint).collect::<Vec<_>>(),
        "observation": { "size": n, "interleave": "term", "terms": [
            { "name": "all", "source": "x-test", "size": n } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position", "joints": names, "scale": { "*": 0.25 }, "offset": "default" },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": { "step": { "file": "step.onnx", "batch": 1,
                                 "inputs": { "obs": "observation" }, "outputs": { "action": "action" } } },
        "in_graph": { "normalize": false, "squash": false, "action_scale": false, "action_offset": false },
        "weights": "f32",
        "provenance": { "cadenza": "0.1.0" }
    })
}

/// Parses a manifest that must be right.
pub(crate) fn parse(v: &Value) -> Manifest {
    Manifest::from_json(v.to_string().as_bytes()).unwrap()
}

/// Writes and opens a bundle.
pub(crate) fn bundle(m: &Value, entries: &[(&str, Vec<u8>)]) -> Bundle {
    let entries: Vec<_> = entries.iter().map(|(n, d)| ((*n).to_owned(), d.clone())).collect();
    Bundle::from_bytes(write_bundle(parse(m), &entries).unwrap()).unwrap()
}

/// A bundle of one network that maps `obs` to `action`.
pub(crate) fn plain(name: &str) -> Bundle {
    let (inputs, outputs) = recorded(name);
    bundle(
        &manifest(inputs[0]["obs"].len(), outputs[0]["action"].len()),
        &[("step.onnx", golden(&format!("{name}.onnx")))],
    )
}

/// A file of float tensors.
pub(crate) fn tensors(list: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        list.iter().map(|(_, _, d)| d.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = list.iter().zip(&bytes).map(|((name, shape, _), data)| {
        ((*name).to_owned(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The manifest's `parity` for a tolerance.
pub(crate) fn parity(atol: f64) -> Value {
    json!({ "file": "parity.safetensors", "source": "onnxruntime", "atol": atol, "rtol": 1e-5, "measured": 0.0 })
}

/// One long row of all runs of `key`.
pub(crate) fn flat(records: &[Record], key: &str) -> Vec<f32> {
    records.iter().flat_map(|r| r[key].clone()).collect()
}

/// Largest difference.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// A lazy policy: `init` from an observation of 16, then one recurrent step for each action of 6.
pub(crate) fn lazy() -> Bundle {
    let mut m = manifest(16, 6);
    m["chunk"] =
        json!({ "mode": "lazy", "horizon": 8, "execute": 4, "on_exhausted": "hold", "seam": "replace" });
    m["functions"] = json!({
        "init": { "file": "init.onnx", "batch": 1, "inputs": { "obs": "observation" }, "outputs": { "h": "carry.h" } },
        "step": { "file": "step.onnx", "batch": 1, "inputs": { "previous": "previous_action", "h_in": "carry.h" },
                  "outputs": { "action": "action", "h": "carry.h" } } });
    m["carry"] = json!({ "h": { "shape": [1, 24], "init": "init" } });
    bundle(&m, &[("init.onnx", golden("lazy_init.onnx")), ("step.onnx", golden("lazy_step.onnx"))])
}

/// A recurrent policy of two layers: `gru_opset11` with the state `h`, or `lstm` with `h` and `c`.
pub(crate) fn layers(name: &str, states: &[&str]) -> Bundle {
    let mut m = manifest(16, 6);
    let (mut inputs, mut outputs, mut carry) =
        (json!({ "obs": "observation" }), json!({ "action": "action" }), json!({}));
    for state in states {
        let binding = format!("carry.{state}");
        inputs[*state] = json!(binding);
        outputs[format!("{state}_out")] = json!(binding);
        carry[*state] = json!({ "shape": [2, 1, 12], "init": "zeros" });
    }
    m["functions"]["step"] = json!({ "file": "step.onnx", "batch": 1, "inputs": inputs, "outputs": outputs });
    m["carry"] = carry;
    bundle(&m, &[("step.onnx", golden(&format!("{name}.onnx")))])
}
