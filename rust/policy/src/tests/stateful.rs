//! Recurrent states of a whole policy.

use crate::testing::{Model, info};
use crate::{ActError, Bundle, LoadError, Manifest, Options, Policy, Port, write_bundle};

/// `y = x + h`, `h' = y·h₀…`: a policy whose state adds up its observations, with an `init` that has no inputs.
fn policy(init: Model, gain: f32) -> Result<Policy, LoadError> {
    let manifest = r#"{
        "format": 1, "name": "sum", "robot": { "name": "bench", "model_sha256": null },
        "rates": { "policy_dt": 0.02, "control_dt": 0.02, "physics_dt": null },
        "joints": [ { "name": "a", "default": 0, "kp": 1, "kd": 1, "position": null, "velocity_max": null, "effort_max": null },
                    { "name": "b", "default": 0, "kp": 1, "kd": 1, "position": null, "velocity_max": null, "effort_max": null } ],
        "observation": { "size": 2, "interleave": "term", "terms": [ { "name": "q", "source": "joint_pos", "size": 2 } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position", "joints": ["a", "b"], "scale": { "*": 1 } },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": {
            "init": { "file": "init.onnx", "batch": 1, "inputs": {}, "outputs": { "y": "carry.h" } },
            "step": { "file": "step.onnx", "batch": 1, "inputs": { "x": "observation", "h": "carry.h" },
                      "outputs": { "y": "action", "next": "carry.h" } } },
        "carry": { "h": { "shape": [1, 2], "init": "init" } },
        "in_graph": { "normalize": false, "squash": false, "action_scale": false, "action_offset": false },
        "weights": "f32", "provenance": {}
    }"#;
    let mut step = Model::new(18, &[1, 2]).floats("gain", &[], &[gain]).node("Add", "x h -> y", vec![]).node(
        "Mul",
        "y gain -> next",
        vec![],
    );
    step.graph().input.push(info("h", &[1, 2]));
    step.graph().output.push(info("next", &[]));
    let entries = [("step.onnx".to_owned(), step.bytes()), ("init.onnx".to_owned(), init.bytes())];
    let file = write_bundle(Manifest::from_json(manifest.as_bytes()).unwrap(), &entries).unwrap();
    Policy::load(&Bundle::from_bytes(file).unwrap(), &Options::default())
}

fn start(values: &[f32]) -> Model {
    let mut init = Model::new(18, &[]).floats("start", &[1, 2], values).node("Exp", "start -> y", vec![]);
    init.graph().input.clear();
    init
}

#[test]
fn an_init_without_inputs_is_the_reset_value() {
    let mut p = policy(start(&[0.0, 2f32.ln()]), 1.0).unwrap();
    let mut out = [0.0; 2];
    for _ in 0..2 {
        p.act(&[10.0, 20.0], &[], &mut out).unwrap();
        assert!((out[0] - 11.0).abs() < 1e-5 && (out[1] - 22.0).abs() < 1e-5, "{out:?}");
        p.act(&[10.0, 20.0], &[], &mut out).unwrap();
        assert!((out[0] - 21.0).abs() < 1e-5 && (out[1] - 42.0).abs() < 1e-5, "{out:?}");
        p.reset();
    }
}

#[test]
fn a_failed_step_keeps_the_state() {
    // The second output overflows on a large observation: neither action nor state may change.
    let mut p = policy(start(&[0.0, 0.0]), 1e30).unwrap();
    let mut out = [7.0; 2];
    let error = p.act(&[1e20, 0.0], &[], &mut out).unwrap_err();
    assert_eq!(error, ActError::NonFiniteOutput { port: Port::Output(1), index: 0 });
    assert_eq!(out, [7.0; 2]);
    p.act(&[-0.5, -0.5], &[], &mut out).unwrap();
    assert_eq!(out, [0.5, 0.5]);
}

#[test]
fn tiny_states_become_zero() {
    let mut p = policy(start(&[0.0, 0.0]), 1e-35).unwrap();
    let mut out = [0.0; 2];
    p.act(&[0.0, 0.0], &[], &mut out).unwrap();
    assert_eq!((out, p.state(0)), ([1.0; 2], &[0.0; 2][..]));
}

#[test]
fn an_infinite_start_is_refused() {
    let error = policy(start(&[200.0, 0.0]), 1.0).unwrap_err();
    assert!(matches!(error, LoadError::Init(_)), "{error}");
}
