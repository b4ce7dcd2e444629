//! What the fuzz targets share: small bundles around hostile parts, and a writer of ONNX files that does what no
//! honest exporter would.

pub mod graph;
pub mod onnx;

use cadenza_policy::{Bundle, Isa, Limits, LoadError, Manifest, Options, Policy, Session, write_bundle};
use serde_json::{Value, json};

/// Inputs that start with this byte are instructions for a generator; others are the file itself. No format that we
/// read starts with it.
pub const STRUCTURED: u8 = 0xFF;

/// Caps under which any load and any run is a matter of milliseconds, so that a slow one is a finding.
pub fn tight() -> Options {
    let mut limits = Limits::default();
    limits.nodes = 512;
    limits.elements = 1 << 16;
    limits.folding = 1 << 18;
    limits.work = 1 << 22;
    limits.weights = 1 << 20;
    limits.arena = 1 << 20;
    let mut options = Options::default();
    options.limits = limits;
    options
}

/// The manifest of a policy with two observations and one joint.
pub fn manifest() -> Value {
    json!({
        "format": 1, "name": "fuzz",
        "robot": { "name": "bench", "model_sha256": null },
        "rates": { "policy_dt": 0.02, "control_dt": 0.002, "physics_dt": null },
        "joints": [ { "name": "hip", "default": 0.1, "kp": 20.0, "kd": 0.5, "position": [-2.0, 2.0],
                      "velocity_max": 10.0, "effort_max": null } ],
        "observation": { "size": 2, "interleave": "term",
                         "terms": [ { "name": "all", "source": "x-fuzz", "size": 2 } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position", "joints": ["hip"], "scale": { "*": 0.25 }, "offset": "default" },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": { "step": { "file": "step.onnx", "batch": 1,
                                 "inputs": { "obs": "observation" }, "outputs": { "action": "action" } } },
        "in_graph": { "normalize": false, "squash": false, "action_scale": false, "action_offset": false },
        "weights": "f32",
        "provenance": {}
    })
}

/// Parses a manifest that must be right.
pub fn parse(manifest: &Value) -> Manifest {
    Manifest::from_json(manifest.to_string().as_bytes()).expect("the targets' own manifests are right")
}

/// `obs [1, 2] → action [1, 1]`.
pub fn step() -> Vec<u8> {
    let mut g = onnx::Graph::new(18);
    g.input("obs", &[1, 2]);
    g.floats("w", &[2, 1], &[0.5, -0.25]);
    g.node("MatMul", &["obs", "w"], &["action"], &[]);
    g.output("action");
    g.bytes()
}

/// Loads a network as the function `model`, which says nothing about the sizes of its inputs and outputs.
pub fn model(
    file: Vec<u8>,
    inputs: &[String],
    outputs: &[String],
    isa: Option<Isa>,
) -> Result<Policy, LoadError> {
    let bind = |names: &[String], to: &[&str]| -> Value {
        let pairs = names.iter().zip(to).map(|(name, binding)| (name.clone(), json!(binding)));
        pairs.collect::<serde_json::Map<_, _>>().into()
    };
    let mut m = manifest();
    m["functions"]["model"] = json!({
        "file": "model.onnx", "batch": 2,
        "inputs": bind(inputs, &["state", "control", "params"]),
        "outputs": bind(outputs, &["signals", "next_state", "aux.a", "aux.b"]) });
    let entries = [("step.onnx".to_owned(), step()), ("model.onnx".to_owned(), file)];
    let bytes = write_bundle(parse(&m), &entries).expect("a bundle does not look into its networks");
    let bundle = Bundle::from_bytes(bytes).expect("the writer has read it back");
    let mut options = tight();
    options.isa = isa;
    Policy::load(&bundle, &options)
}

/// Runs a function on numbers made from `seed`; the bits of all outputs.
pub fn run(s: &mut Session, seed: usize) -> Result<Vec<u32>, cadenza_policy::ActError> {
    for i in 0..s.inputs().len() {
        for (k, x) in s.input_mut(i).iter_mut().enumerate() {
            *x = ((k * 37 + i * 11 + seed) % 17) as f32 * 0.25 - 2.0;
        }
    }
    s.run()?;
    let outputs = (0..s.outputs().len()).flat_map(|i| s.output(i).iter());
    Ok(outputs.inspect(|x| assert!(x.is_finite())).map(|x| x.to_bits()).collect())
}
