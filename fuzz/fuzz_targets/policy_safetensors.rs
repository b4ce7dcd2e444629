#![no_main]
//! Parity vectors → replay: no panic, bounded, and a report whose numbers are numbers.

use arbitrary::{Result, Unstructured};
use cadenza_fuzz::{STRUCTURED, manifest, onnx, parse, tight};
use cadenza_policy::{Bundle, Policy, write_bundle};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

/// `obs, h_in → action, h`.
fn recurrent() -> Vec<u8> {
    let mut g = onnx::Graph::new(18);
    g.input("obs", &[1, 2]);
    g.input("h_in", &[1, 2]);
    g.floats("w", &[2, 1], &[0.5, -0.25]);
    g.node("Add", &["obs", "h_in"], &["sum"], &[]);
    g.node("Tanh", &["sum"], &["h"], &[]);
    g.node("MatMul", &["h", "w"], &["action"], &[]);
    g.output("action");
    g.output("h");
    g.bytes()
}

/// `obs [2, 2] → v [2, 1]`.
fn critic() -> Vec<u8> {
    let mut g = onnx::Graph::new(18);
    g.input("obs", &[0, 2]);
    g.floats("w", &[2, 1], &[1.0, 1.0]);
    g.node("MatMul", &["obs", "w"], &["v"], &[]);
    g.output("v");
    g.bytes()
}

/// A file of tensors that nearly are what they should be.
fn tensors(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let steps = u.int_in_range(0..=3)?;
    let should: [(&str, [u64; 4]); 8] = [
        ("obs", [2, steps, 2, 0]),
        ("previous_action", [2, steps, 1, 0]),
        ("expected", [2, steps, 1, 0]),
        ("carry.h", [2, 1, 2, 0]),
        ("critic.obs", [steps, 2, 2, 0]),
        ("critic.value", [steps, 2, 1, 0]),
        ("frame.gyro", [2, steps, 3, 0]),
        ("__metadata__", [0, 0, 0, 0]),
    ];
    for (name, shape) in should {
        if u.ratio(1, 8)? {
            continue;
        }
        let mut shape = shape[..3].to_vec();
        if u.ratio(1, 6)? {
            let i = u.choose_index(3)?;
            shape[i] = *u.choose(&[0, 1, 3, 1 << 20, 1 << 40, 1 << 60, u64::MAX])?;
        }
        let count = shape.iter().try_fold(1u64, |n, &d| n.checked_mul(d)).filter(|&n| n < 1000).unwrap_or(7);
        let start = data.len();
        for _ in 0..count {
            let x = match u.int_in_range(0..=30)? {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::MAX,
                n => n as f32 * 0.1 - 1.0,
            };
            data.extend(x.to_le_bytes());
        }
        let mut offsets = [start as u64, data.len() as u64];
        if u.ratio(1, 16)? {
            offsets[u.choose_index(2)?] = u.arbitrary()?;
        }
        let dtype = if u.ratio(1, 12)? { *u.choose(&["F64", "I64", "BF16", "BOOL", "F8"])? } else { "F32" };
        header.insert(name.to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }
    let header = serde_json::Value::from(header).to_string();
    let length = if u.ratio(1, 16)? { u.arbitrary()? } else { header.len() as u64 };
    Ok([&length.to_le_bytes()[..], header.as_bytes(), &data].concat())
}

fuzz_target!(|data: &[u8]| {
    let file = match data.split_first() {
        Some((&STRUCTURED, rest)) => match tensors(&mut Unstructured::new(rest)) {
            Ok(file) => file,
            Err(_) => return,
        },
        _ => data.to_vec(),
    };
    let mut m = manifest();
    m["functions"] = json!({
        "step": { "file": "step.onnx", "batch": 1, "inputs": { "obs": "observation", "h_in": "carry.h" },
                  "outputs": { "action": "action", "h": "carry.h" } },
        "critic": { "file": "critic.onnx", "batch": 2, "inputs": { "obs": "observation" }, "outputs": { "v": "value" } } });
    m["carry"] = json!({ "h": { "shape": [1, 2], "init": "zeros" } });
    m["parity"] = json!({ "file": "parity.safetensors", "source": "fuzz", "atol": 1e-6, "rtol": 1e-5, "measured": 0.0 });
    let entries = [
        ("step.onnx".to_owned(), recurrent()),
        ("critic.onnx".to_owned(), critic()),
        ("parity.safetensors".to_owned(), file),
    ];
    let Ok(bytes) = write_bundle(parse(&m), &entries) else {
        return;
    };
    let bundle = Bundle::from_bytes(bytes).expect("the writer has read it back");
    let mut policy = Policy::load(&bundle, &tight()).expect("the networks are right");
    if let Ok(report) = policy.verify(&bundle) {
        assert!(report.vectors > 0 && report.measured.is_finite() && report.worst.allowed > 0.0);
        assert!(report.worst.expected.is_finite() && report.worst.got.is_finite());
    }
});
