//! Networks as torch exports them: the engine agrees with onnxruntime, on every instruction set, and fuses what it
//! should.

mod common;

use cadenza_policy::{ActError, Isa, Options, Policy, Port, Session};
use common::{bundle, distance, flat, golden, lazy, manifest, parity, plain, recorded, tensors};
use serde_json::json;

fn load(b: &cadenza_policy::Bundle, isa: Option<Isa>) -> Policy {
    let mut options = Options::default();
    options.isa = isa;
    Policy::load(b, &options).unwrap()
}

#[test]
fn plain_networks_agree_with_onnxruntime() {
    let expected = [
        ("mlp_relu", "linear 16x32 relu, linear 32x32 relu, linear 32x6"),
        ("mlp_elu", "linear 16x32 elu(1.0), linear 32x32 elu(1.0), linear 32x6"),
        ("mlp_tanh", "linear 16x32 tanh, linear 32x32 tanh, linear 32x6"),
        ("mlp_silu", "linear 16x32 swish(1.0), linear 32x32 swish(1.0), linear 32x6"),
        ("mlp_gelu", "linear 16x32 gelu, linear 32x32 gelu, linear 32x6"),
        ("mlp_softplus", "linear 16x32 softplus, linear 32x32 softplus, linear 32x6"),
        ("mlp_mish", "linear 16x32 mish, linear 32x32 mish, linear 32x6"),
        (
            "mlp_selu",
            "linear 16x32 selu(1.6732632, 1.050701), linear 32x32 selu(1.6732632, 1.050701), linear 32x6",
        ),
        ("mlp_elu_opset11", "linear 16x32 elu(1.0), linear 32x32 elu(1.0), linear 32x6"),
        (
            "mlp_norm",
            "copy 16, sub 16, div 16, clip(-5.0, 5.0) 16, linear 16x32, layernorm 32, elu(1.0) 32, linear 32x32, \
             layernorm 32, elu(1.0) 32, linear 32x6",
        ),
        (
            "mlp_norm_opset20",
            "copy 16, sub 16, div 16, clip(-5.0, 5.0) 16, linear 16x32, layernorm 32, gelu 32, linear 32x32, \
             layernorm 32, gelu 32, linear 32x6",
        ),
        (
            "symphony",
            "linear 32x64, layernorm 64, linear 64x64 sin, copy 64, mul 64, mul 64, sigmoid 64, mul 64, \
             linear 64x18, copy 6, div 6, tanh 6, abs 6, copy 6, div 6, tanh 6, mul 6, tanh 6",
        ),
    ];
    for (name, kernels) in expected {
        let b = plain(name);
        let (inputs, outputs) = recorded(name);
        for isa in [None, Some(Isa::Scalar)] {
            let mut policy = load(&b, isa);
            for (i, o) in inputs.iter().zip(&outputs) {
                let mut out = vec![0.0; o["action"].len()];
                policy.act(&i["obs"], &[], &mut out).unwrap();
                let d = distance(&out, &o["action"]);
                assert!(d < 4e-6, "{name} {isa:?}: {d}");
            }
            assert_eq!(policy.footprint().kernels.join(", "), kernels, "{name}");
        }
    }
}

/// Attention by itself and inside an encoder layer, from both of torch's exporters: everything around the heads is gone.
#[test]
fn attention_is_fused_whoever_exported_it() {
    let heads = "attention 2x7x7x8";
    let written = format!("gemm 7x16x16, gemm 7x16x16, gemm 7x16x16, {heads}, gemm 7x16x16");
    let encoder = format!(
        "copy 112, layernorm 16, gemm 7x16x48, {heads}, gemm 7x16x16, add 112, copy 112, layernorm 16, \
         gemm 7x16x32 relu, gemm 7x32x16, add 112"
    );
    let multihead = format!("gemm 7x16x48, {heads}, gemm 7x16x16");
    let cross = "gemm 4x16x16, gemm 7x16x32, attention 2x4x7x8, gemm 4x16x16";
    let expected: [(&str, &[u32], &str); 8] = [
        ("encoder", &[18, 20, 23], &encoder),
        ("multihead", &[17, 18, 20, 23], &multihead),
        ("weights", &[17, 18, 23], &multihead),
        ("cross", &[17, 18, 23], cross),
        ("written", &[17, 18, 23], &written),
        ("mask", &[17, 18, 20, 23], "attention 2x7x7x4 mask"),
        ("causal", &[18, 23], "attention 2x7x7x4 mask"),
        ("groups", &[18, 23], "attention 2x7x7x4"),
    ];
    for (name, opsets, kernels) in expected {
        for name in opsets.iter().map(|o| format!("{name}_{o}")) {
            let b = plain(&name);
            let (inputs, outputs) = recorded(&name);
            for isa in [None, Some(Isa::Scalar)] {
                let mut policy = load(&b, isa);
                for (i, o) in inputs.iter().zip(&outputs) {
                    let mut out = vec![0.0; o["action"].len()];
                    policy.act(&i["obs"], &[], &mut out).unwrap();
                    let d = distance(&out, &o["action"]);
                    assert!(d < 1e-5, "{name} {isa:?}: {d}");
                }
                assert_eq!(policy.footprint().kernels.join(", "), kernels, "{name}");
            }
        }
    }
}

#[test]
fn a_diffusion_step_agrees_with_onnxruntime() {
    // What a residual block with FiLM becomes: (linear + mish of the condition come first).
    let block = "unfold 96, conv 12x16x8, groupnorm 16, mish 128, mul 128, add 128, unfold 384, conv 48x16x8, \
                 groupnorm 16, mish 128";
    for name in ["unet", "unet_opset11"] {
        let (inputs, outputs) = recorded(name);
        for isa in [None, Some(Isa::Scalar)] {
            let mut options = Options::default();
            options.isa = isa;
            let mut net = Session::from_onnx(&golden(&format!("{name}.onnx")), 1, &options).unwrap();
            for (i, o) in inputs.iter().zip(&outputs) {
                for (port, x) in ["sample", "step", "condition"].into_iter().enumerate() {
                    assert_eq!(net.inputs()[port].name, x);
                    net.input_mut(port).copy_from_slice(&i[x]);
                }
                net.run().unwrap();
                let d = distance(net.output(0), &o["noise"]);
                assert!(d < 1e-5, "{name} {isa:?}: {d}");
            }
            let kernels = net.kernels().join(", ");
            assert!(kernels.contains(block), "{name}: {kernels}");
            assert!(!kernels.contains("tanh") && !kernels.contains("softplus"), "{name}: {kernels}");
        }
    }
}

#[test]
fn same_inputs_same_bits() {
    let b = plain("symphony");
    let (inputs, _) = recorded("symphony");
    let (mut a, mut c) = (load(&b, None), load(&b, None));
    let (mut x, mut y) = ([0.0f32; 6], [0.0f32; 6]);
    let bits = |v: &[f32; 6]| v.map(f32::to_bits);
    // Two policies interleaved, one of them with something else in between.
    for i in &inputs {
        a.act(&i["obs"], &[], &mut x).unwrap();
        c.act(&inputs[0]["obs"], &[], &mut y).unwrap();
        c.reset();
        c.act(&i["obs"], &[], &mut y).unwrap();
        assert_eq!(bits(&x), bits(&y));
    }
}

#[test]
fn bad_input_leaves_the_output_alone() {
    let mut policy = load(&plain("mlp_tanh"), None);
    let mut out = [7.0; 6];
    let mut obs = [0.0; 16];
    let mut check = |obs: &[f32], prev: &[f32], n: usize, error| {
        assert_eq!(policy.act(obs, prev, &mut out[..n]), Err(error));
        assert_eq!(out, [7.0; 6]);
    };
    check(&obs[..15], &[], 6, ActError::Length { port: Port::Observation, expected: 16, got: 15 });
    check(&obs, &[0.0; 5], 6, ActError::Length { port: Port::PreviousAction, expected: 6, got: 5 });
    check(&obs, &[], 5, ActError::Length { port: Port::Action, expected: 6, got: 5 });
    check(&obs, &[f32::INFINITY; 6], 6, ActError::NonFiniteInput { port: Port::PreviousAction, index: 0 });
    obs[3] = f32::NAN;
    check(&obs, &[], 6, ActError::NonFiniteInput { port: Port::Observation, index: 3 });
    assert_eq!(policy.begin(&[0.0; 16]), Err(ActError::Mode));
    assert_eq!(policy.next(&[], &mut out), Err(ActError::Mode));
}

#[test]
fn an_overflow_inside_is_an_error_not_an_action() {
    let mut policy = load(&plain("mlp_relu"), None);
    let mut out = [7.0; 6];
    let error = policy.act(&[f32::MAX; 16], &[], &mut out).unwrap_err();
    assert!(matches!(error, ActError::NonFiniteOutput { port: Port::Output(0), .. }), "{error}");
    assert_eq!(out, [7.0; 6]);
}

#[test]
fn a_runtime_normaliser_equals_one_in_the_graph() {
    // Recorded inputs are what the graph sees; the raw observation is mean + input·divisor.
    let (inputs, outputs) = recorded("mlp_elu");
    let mut m = manifest(16, 6);
    let (mean, spread): (Vec<f64>, Vec<f64>) =
        (0..16).map(|i| (f64::from(i) - 4.0, 0.5 + f64::from(i))).unzip();
    m["normalizer"] =
        json!({ "where": "runtime", "form": "std_plus_eps", "mean": mean, "spread": spread, "eps": 0.01 });
    let mut policy = load(&bundle(&m, &[("step.onnx", golden("mlp_elu.onnx"))]), None);
    let mut out = [0.0; 6];
    for (i, o) in inputs.iter().zip(&outputs) {
        let raw: Vec<f32> = i["obs"]
            .iter()
            .zip(mean.iter().zip(&spread))
            .map(|(x, (m, s))| x * (s + 0.01) as f32 + *m as f32)
            .collect();
        policy.act(&raw, &[], &mut out).unwrap();
        assert!(distance(&out, &o["action"]) < 1e-5);
    }
}

#[test]
fn action_sequences_come_row_by_row() {
    let (inputs, outputs) = recorded("open");
    let mut m = manifest(16, 6);
    m["chunk"] = json!({ "mode": "open", "horizon": 6, "past": 2, "execute": 3, "on_exhausted": "hold",
                         "seam": "fade", "fade_ticks": 2 });
    m["functions"]["step"]["outputs"] = json!({ "actions": "actions" });
    let mut policy = load(&bundle(&m, &[("step.onnx", golden("open.onnx"))]), None);
    let mut out = vec![0.0; 48];
    for (i, o) in inputs.iter().zip(&outputs) {
        policy.act(&i["obs"], &[], &mut out).unwrap();
        assert!(distance(&out, &o["actions"]) < 1e-5);
    }
}

#[test]
fn lazy_sequences_carry_their_state() {
    let mut policy = load(&lazy(), None);
    let (obs, first) = recorded("lazy_init");
    let (steps, after) = recorded("lazy_step");
    let mut out = [3.0; 6];
    assert_eq!(policy.next(&[0.0; 6], &mut out), Err(ActError::NotBegun));
    assert_eq!(policy.act(&[0.0; 16], &[], &mut out), Err(ActError::Mode));
    for ((o, h), (s, a)) in obs.iter().zip(&first).zip(steps.iter().zip(&after)) {
        policy.begin(&o["obs"]).unwrap();
        let init = policy.function("init").unwrap();
        assert!(distance(init.output(0), &h["h"]) < 2e-6);
        // The recorded step starts from a state of its own.
        let step = policy.function("step").unwrap();
        step.input_mut(0).copy_from_slice(&s["previous"]);
        step.input_mut(1).copy_from_slice(&s["h_in"]);
        step.run().unwrap();
        assert!(distance(step.output(0), &a["action"]) < 2e-6 && distance(step.output(1), &a["h"]) < 2e-6);
    }
    // begin, then two steps, equals the same done by hand.
    let (mut a, mut b) = ([0.0; 6], [0.0; 6]);
    policy.begin(&obs[0]["obs"]).unwrap();
    policy.next(&steps[0]["previous"], &mut a).unwrap();
    // A failed step changes neither the state nor the output.
    assert!(policy.next(&[f32::NAN; 6], &mut b).is_err() && b == [0.0; 6]);
    policy.next(&steps[1]["previous"], &mut b).unwrap();
    let mut hand = load(&lazy(), None);
    let mut h = first[0]["h"].clone();
    let mut actions = vec![];
    for s in &steps[..2] {
        let step = hand.function("step").unwrap();
        step.input_mut(0).copy_from_slice(&s["previous"]);
        step.input_mut(1).copy_from_slice(&h);
        step.run().unwrap();
        actions.push(step.output(0).to_vec());
        h = step.output(1).to_vec();
    }
    assert!(distance(&a, &actions[0]) < 1e-6 && distance(&b, &actions[1]) < 1e-6);
}

#[test]
fn sensors_with_inputs_of_their_own_get_their_part_of_the_observation() {
    // Two terms, frame by frame: a b a b. The network has one input for each sensor.
    let mut m = manifest(30, 6);
    let history = json!({ "length": 2, "order": "oldest_first", "fill": "zero" });
    m["observation"] = json!({ "size": 30, "interleave": "time", "terms": [
        { "name": "a", "source": "x-a", "size": 3, "history": history },
        { "name": "b", "source": "x-b", "size": 12, "history": history } ] });
    m["functions"]["step"]["inputs"] = json!({ "previous": "source.x-a", "h_in": "source.x-b" });
    m["functions"]["step"]["outputs"] = json!({ "action": "action", "h": "aux.h" });
    let mut policy = load(&bundle(&m, &[("step.onnx", golden("lazy_step.onnx"))]), None);
    let (inputs, outputs) = recorded("lazy_step");
    for (i, o) in inputs.iter().zip(&outputs) {
        let (a, b) = (&i["previous"], &i["h_in"]);
        let obs = [&a[..3], &b[..12], &a[3..], &b[12..]].concat();
        let mut out = [0.0; 6];
        policy.act(&obs, &[], &mut out).unwrap();
        assert!(distance(&out, &o["action"]) < 2e-6);
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    fn sendable<T: Send>(_: &T) {}
    let foreign = if cfg!(target_arch = "aarch64") { Isa::Avx2 } else { Isa::Neon };
    let mut options = Options::default();
    options.isa = Some(foreign);
    let error = Policy::load(&plain("mlp_relu"), &options).unwrap_err();
    assert_eq!(error.to_string(), format!("this machine has no {foreign}"));
    sendable(&load(&plain("mlp_relu"), None));
}

#[test]
fn verify_replays_and_names_the_worst_entry() {
    let (inputs, outputs) = recorded("mlp_elu");
    let mut m = manifest(16, 6);
    m["parity"] = parity(4e-6);
    let vectors = |expected: Vec<f32>| {
        tensors(&[("obs", vec![2, 4, 16], flat(&inputs, "obs")), ("expected", vec![2, 4, 6], expected)])
    };
    let expected = flat(&outputs, "action");
    let entries = |v: Vec<u8>| [("step.onnx", golden("mlp_elu.onnx")), ("parity.safetensors", v)];
    let b = bundle(&m, &entries(vectors(expected.clone())));
    let report = load(&b, None).verify(&b).unwrap();
    assert!(report.passed && report.vectors == 8 && report.measured < 4e-6, "{report:?}");

    let mut wrong = expected.clone();
    wrong[6 * 5 + 2] += 0.01;
    let b = bundle(&m, &entries(vectors(wrong)));
    let report = load(&b, None).verify(&b).unwrap();
    assert!(!report.passed);
    assert_eq!((report.worst.sequence, report.worst.step, report.worst.output), (1, 1, 2));
    assert_eq!(report.worst.tensor, "action");

    let error = |v: Vec<u8>| {
        let b = bundle(&m, &entries(v));
        load(&b, None).verify(&b).unwrap_err().to_string()
    };
    let mut nan = expected.clone();
    nan[7] = f32::NAN;
    assert_eq!(error(vectors(nan)), "parity.safetensors: tensor \"expected\" is NaN at element 7");
    let short = tensors(&[("obs", vec![2, 4, 16], flat(&inputs, "obs"))]);
    assert_eq!(error(short), "parity.safetensors: tensor \"expected\" is missing");
    let shape = tensors(&[("obs", vec![8, 16], flat(&inputs, "obs"))]);
    assert_eq!(
        error(shape),
        "parity.safetensors: tensor \"obs\" has the shape [8, 16], not [sequences, steps, 16]"
    );
    assert!(error(b"\xff\xff\xff\xff\x00\x00\x00\x00".to_vec()).contains("header of 4294967295 bytes"));
    let b = plain("mlp_elu");
    assert_eq!(load(&b, None).verify(&b).unwrap_err().to_string(), "the bundle has no parity vectors");
}

/// Multiplies every float initialiser of an ONNX file (model.graph = 7, graph.initializer = 5, tensor.raw_data = 9).
fn scale_weights(file: &mut [u8], factor: f32) {
    fn varint(bytes: &[u8], at: &mut usize) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let b = bytes[*at];
            *at += 1;
            value |= usize::from(b & 127) << shift;
            shift += 7;
            if b < 128 {
                return value;
            }
        }
    }
    fn walk(bytes: &mut [u8], path: &[usize], factor: f32) {
        let Some((&wanted, path)) = path.split_first() else {
            let floats = bytes.as_chunks_mut::<4>().0;
            return floats.iter_mut().for_each(|b| *b = (f32::from_le_bytes(*b) * factor).to_le_bytes());
        };
        let mut at = 0;
        while at < bytes.len() {
            let key = varint(bytes, &mut at);
            let length = match key & 7 {
                0 => {
                    varint(bytes, &mut at);
                    0
                }
                1 => 8,
                2 => varint(bytes, &mut at),
                5 => 4,
                wire => panic!("wire type {wire}"),
            };
            if key >> 3 == wanted && key & 7 == 2 {
                walk(&mut bytes[at..at + length], path, factor);
            }
            at += length;
        }
    }
    walk(file, &[7, 5, 9], factor);
}

#[test]
fn weights_changed_by_one_percent_fail_verify() {
    let (inputs, outputs) = recorded("mlp_tanh");
    let mut m = manifest(16, 6);
    m["parity"] = parity(4e-6);
    let vectors = tensors(&[
        ("obs", vec![1, 8, 16], flat(&inputs, "obs")),
        ("expected", vec![1, 8, 6], flat(&outputs, "action")),
    ]);
    let mut file = golden("mlp_tanh.onnx");
    scale_weights(&mut file, 1.01);
    // Correctly rehashed by the writer.
    let b = bundle(&m, &[("step.onnx", file), ("parity.safetensors", vectors)]);
    let report = load(&b, None).verify(&b).unwrap();
    assert!(
        !report.passed && report.worst.tensor == "action" && report.worst.got != report.worst.expected,
        "{report:?}"
    );
}

#[test]
fn functions_beside_step_are_run_and_verified() {
    let (inputs, outputs) = recorded("critic");
    let mut m = manifest(16, 6);
    m["functions"]["critic"] = json!({ "file": "critic.onnx", "batch": 5,
        "inputs": { "obs": "observation" }, "outputs": { "value": "value" } });
    m["parity"] = parity(4e-6);
    let (si, so) = recorded("mlp_relu");
    let build = |value: Vec<f32>| {
        let vectors = tensors(&[
            ("obs", vec![8, 1, 16], flat(&si, "obs")),
            ("expected", vec![8, 1, 6], flat(&so, "action")),
            ("critic.obs", vec![8, 5, 16], flat(&inputs, "obs")),
            ("critic.value", vec![8, 5], value),
        ]);
        let entries = [("step.onnx", golden("mlp_relu.onnx")), ("critic.onnx", golden("critic.onnx"))];
        bundle(&m, &[&entries[..], &[("parity.safetensors", vectors)]].concat())
    };
    let good = flat(&outputs, "value");
    let b = build(good.clone());
    let report = load(&b, None).verify(&b).unwrap();
    assert!(report.passed && report.vectors == 16, "{report:?}");
    let mut bad = good;
    bad[12] += 1e-3;
    let b = build(bad);
    let worst = load(&b, None).verify(&b).unwrap().worst;
    assert_eq!((worst.tensor.as_str(), worst.sequence, worst.output), ("critic.value", 2, 2));
}

#[test]
fn verify_checks_recurrent_states_too() {
    // Expected values by hand: init, then the recorded cells one after the other.
    let (obs, first) = recorded("lazy_init");
    let (steps, _) = recorded("lazy_step");
    let mut hand = load(&lazy(), None);
    let step = hand.function("step").unwrap();
    let (mut h, mut actions, mut previous) = (first[0]["h"].clone(), vec![], vec![]);
    for s in &steps[..3] {
        step.input_mut(0).copy_from_slice(&s["previous"]);
        step.input_mut(1).copy_from_slice(&h);
        step.run().unwrap();
        actions.extend_from_slice(step.output(0));
        previous.extend_from_slice(&s["previous"]);
        h = step.output(1).to_vec();
    }
    let observations = obs[0]["obs"].repeat(3);
    let with_state = |h: Vec<f32>| {
        let vectors = tensors(&[
            ("obs", vec![1, 3, 16], observations.clone()),
            ("previous_action", vec![1, 3, 6], previous.clone()),
            ("expected", vec![1, 3, 6], actions.clone()),
            ("carry.h", vec![1, 1, 24], h),
        ]);
        let base = lazy();
        let mut m: serde_json::Value = serde_json::from_slice(base.entry("manifest.json").unwrap()).unwrap();
        m["parity"] = parity(1e-6);
        let onnx = |n: &str| base.entry(n).unwrap().to_vec();
        let networks = [("init.onnx", onnx("init.onnx")), ("step.onnx", onnx("step.onnx"))];
        bundle(&m, &[&networks[..], &[("parity.safetensors", vectors)]].concat())
    };
    let b = with_state(h.clone());
    let report = load(&b, None).verify(&b).unwrap();
    assert!(report.passed && report.vectors == 3, "{report:?}");
    h[20] += 1e-3;
    let b = with_state(h);
    let report = load(&b, None).verify(&b).unwrap();
    assert!(!report.passed);
    assert_eq!((report.worst.tensor.as_str(), report.worst.output), ("carry.h", 20));
}
