#![no_main]
//! Protobuf → graph → plan → run: whatever loads runs without a panic, in bounded time, gives finite numbers or an
//! error, and gives the same again whatever ran in between (nothing stale is read).

use arbitrary::Unstructured;
use cadenza_fuzz::{STRUCTURED, graph, manifest, parse, run, step, tight};
use cadenza_policy::{Bundle, Isa, Policy, Session, write_bundle};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const INPUTS: [&str; 3] = ["state", "control", "params"];
const OUTPUTS: [&str; 4] = ["signals", "next_state", "aux.a", "aux.b"];

/// The function `model` says nothing about the sizes of its inputs and outputs, so any graph may stand there.
fn load(file: Vec<u8>, inputs: Value, outputs: Value, isa: Option<Isa>) -> Option<Policy> {
    let mut m = manifest();
    m["functions"]["model"] =
        json!({ "file": "model.onnx", "batch": 2, "inputs": inputs, "outputs": outputs });
    let entries = [("step.onnx".to_owned(), step()), ("model.onnx".to_owned(), file)];
    let bundle = Bundle::from_bytes(write_bundle(parse(&m), &entries).ok()?).ok()?;
    let mut options = tight();
    options.isa = isa;
    Policy::load(&bundle, &options).ok()
}

fn bind(names: &[String], to: &[&str]) -> Value {
    names
        .iter()
        .zip(to)
        .map(|(name, binding)| (name.clone(), json!(binding)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fuzz_target!(|data: &[u8]| {
    let isa = (data.len() % 2 == 1).then_some(Isa::Scalar);
    let loaded = match data.split_first() {
        Some((&STRUCTURED, rest)) => match graph::net(&mut Unstructured::new(rest)) {
            Ok(net) => load(net.file, bind(&net.inputs, &INPUTS), bind(&net.outputs, &OUTPUTS), isa),
            Err(_) => None,
        },
        // The names of the networks in tests/golden/policy.
        _ => load(data.to_vec(), json!({ "obs": "state" }), json!({ "action": "signals" }), isa),
    };
    let Some(mut policy) = loaded else { return };
    let s: &mut Session = policy.function("model").expect("the manifest has it");
    let first = run(s, 1);
    let _ = run(s, 2);
    assert_eq!(run(s, 1), first);
});
