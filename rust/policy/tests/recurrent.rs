//! Recurrent policies as torch exports them: agreement with onnxruntime, exact resets, forcing, weights of 8 bits.

mod common;

use cadenza_policy::manifest::Weights;
use cadenza_policy::{ActError, Bundle, Isa, LoadError, Options, Policy, Port};
use common::{bundle, distance, golden, layers, lazy, manifest, recorded};
use serde_json::json;

fn load(b: &Bundle, isa: Option<Isa>, weights: Option<Weights>) -> Policy {
    let mut options = Options::default();
    (options.isa, options.weights) = (isa, weights);
    Policy::load(b, &options).unwrap()
}

const NETS: [(&str, &[&str]); 2] = [("gru_opset11", &["h"]), ("lstm", &["h", "c"])];

#[test]
fn two_layers_agree_with_onnxruntime() {
    for (name, states) in NETS {
        let b = layers(name, states);
        let (inputs, outputs) = recorded(name);
        for isa in [None, Some(Isa::Scalar)] {
            let mut policy = load(&b, isa, None);
            let step = policy.function("step").unwrap();
            for (i, o) in inputs.iter().zip(&outputs) {
                for k in 0..step.inputs().len() {
                    let input = step.inputs()[k].name.clone();
                    step.input_mut(k).copy_from_slice(&i[&input]);
                }
                step.run().unwrap();
                for k in 0..step.outputs().len() {
                    let d = distance(step.output(k), &o[&step.outputs()[k].name]);
                    assert!(d < 2e-6, "{name} {isa:?}, output {k}: {d}");
                }
            }
        }
    }
}

#[test]
fn layers_and_cells_run_as_one_kernel_each() {
    let kernels = |b: &Bundle, weights| load(b, None, Some(weights)).footprint().kernels.join(", ");
    let layers = |i: usize| layers(NETS[i].0, NETS[i].1);
    let gru = "linear 16x36, gru 12, linear 12x36, gru 12, copy 12, copy 12, linear 12x6";
    let moves = |s: String| s.replace("rearrange 24", "copy 12");
    assert_eq!(moves(kernels(&layers(0), Weights::F32)), gru);
    let cell = "linear 6x72, gru 24, linear 24x6 tanh, linear 16x24 relu, linear 24x24";
    assert_eq!(kernels(&lazy(), Weights::F32), cell);
    let narrow = "linear 6x72 int8, gru 24 int8, linear 24x6 tanh, linear 16x24 relu int8, linear 24x24";
    assert_eq!(kernels(&lazy(), Weights::Int8), narrow);
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_reset_policy_is_a_fresh_one_and_two_do_not_interfere() {
    for ((name, states), weights) in
        NETS.into_iter().flat_map(|net| [Weights::F32, Weights::Int8].map(|w| (net, w)))
    {
        let b = layers(name, states);
        let (inputs, _) = recorded(name);
        let (mut fresh, mut used) = (load(&b, None, Some(weights)), load(&b, None, Some(weights)));
        let (mut x, mut y, mut first) = ([0.0; 6], [0.0; 6], [0.0; 6]);
        for i in &inputs {
            used.act(&i["obs"], &[], &mut y).unwrap();
        }
        used.reset();
        for (k, i) in inputs.iter().enumerate() {
            fresh.act(&i["obs"], &[], &mut x).unwrap();
            used.act(&i["obs"], &[], &mut y).unwrap();
            assert_eq!(bits(&x), bits(&y), "{name} {weights:?}, step {k}");
            // The state matters: the same observation later gives another action.
            fresh.act(&inputs[0]["obs"], &[], &mut x).unwrap();
            used.act(&inputs[0]["obs"], &[], &mut y).unwrap();
            assert_eq!(bits(&x), bits(&y), "{name} {weights:?}, step {k}");
            if k == 0 {
                first = x;
            }
        }
        assert!(distance(&first, &x) > 1e-3);
    }
}

#[test]
fn a_failed_call_leaves_state_and_output_alone() {
    for (name, states) in NETS {
        let b = layers(name, states);
        let (inputs, _) = recorded(name);
        let (mut clean, mut troubled) = (load(&b, None, None), load(&b, None, None));
        let mut x = [0.0; 6];
        for i in &inputs {
            let mut y = [7.0; 6];
            let error = troubled.act(&[f32::NAN; 16], &[], &mut y).unwrap_err();
            assert_eq!(error, ActError::NonFiniteInput { port: Port::Observation, index: 0 });
            assert!(troubled.act(&i["obs"][1..], &[], &mut y).is_err());
            assert!(troubled.begin(&i["obs"]).is_err() && troubled.next(&[], &mut y).is_err());
            assert_eq!(y, [7.0; 6]);
            clean.act(&i["obs"], &[], &mut x).unwrap();
            troubled.act(&i["obs"], &[], &mut y).unwrap();
            assert_eq!(bits(&x), bits(&y));
        }
    }
}

#[test]
fn steps_one_by_one_equal_the_unrolled_graph() {
    let (inputs, outputs) = recorded("lazy_unrolled");
    let mut m = manifest(16, 6);
    m["chunk"] =
        json!({ "mode": "open", "horizon": 8, "execute": 8, "on_exhausted": "hold", "seam": "replace" });
    m["functions"]["step"]["inputs"] = json!({ "init_obs": "observation" });
    m["functions"]["step"]["outputs"] = json!({ "actions": "actions" });
    let mut unrolled = load(&bundle(&m, &[("step.onnx", golden("lazy_unrolled.onnx"))]), None, None);
    // The first step's action is a constant zero, and so is what its weights make of it: that cell is folded apart.
    assert_eq!(unrolled.footprint().kernels.iter().filter(|k| *k == "gru 24").count(), 7);
    let mut steps = load(&lazy(), None, None);
    let mut all = [0.0; 48];
    for (i, o) in inputs.iter().zip(&outputs) {
        unrolled.act(&i["init_obs"], &[], &mut all).unwrap();
        assert!(distance(&all, &o["actions"]) < 3e-6);
        steps.begin(&i["init_obs"]).unwrap();
        let (mut previous, mut out) = ([0.0; 6], [0.0; 6]);
        for row in all.chunks_exact(6) {
            steps.next(&previous, &mut out).unwrap();
            assert!(distance(&out, row) < 1e-6);
            previous = out;
        }
    }
}

#[test]
fn committed_actions_are_forced_by_feeding_them() {
    // The first three actions were committed elsewhere: the network is told them, and goes on from there.
    let (inputs, _) = recorded("lazy_init");
    let (committed, _) = recorded("lazy_step");
    let mut policy = load(&lazy(), None, None);
    let mut out = [0.0; 6];
    policy.begin(&inputs[0]["obs"]).unwrap();
    for c in &committed[..3] {
        policy.next(&c["previous"], &mut out).unwrap();
    }
    // By hand: the recorded step, its state carried over.
    let mut hand = load(&lazy(), None, None);
    let init = hand.function("init").unwrap();
    init.input_mut(0).copy_from_slice(&inputs[0]["obs"]);
    init.run().unwrap();
    let mut h = init.output(0).to_vec();
    let step = hand.function("step").unwrap();
    for c in &committed[..3] {
        step.input_mut(0).copy_from_slice(&c["previous"]);
        step.input_mut(1).copy_from_slice(&h);
        step.run().unwrap();
        h = step.output(1).to_vec();
    }
    assert_eq!(bits(&out), bits(step.output(0)));
}

#[test]
fn weights_of_eight_bits_change_little_and_take_a_quarter() {
    for (name, states) in NETS {
        let b = layers(name, states);
        let (inputs, _) = recorded(name);
        let (mut full, mut small) = (load(&b, None, None), load(&b, None, Some(Weights::Int8)));
        let (mut scalar, mut z) = (load(&b, Some(Isa::Scalar), Some(Weights::Int8)), [0.0; 6]);
        let (mut x, mut y, mut largest) = ([0.0; 6], [0.0; 6], 0.0f32);
        for i in &inputs {
            full.act(&i["obs"], &[], &mut x).unwrap();
            small.act(&i["obs"], &[], &mut y).unwrap();
            scalar.act(&i["obs"], &[], &mut z).unwrap();
            assert!(distance(&y, &z) < 3e-6);
            largest = largest.max(distance(&x, &y));
        }
        assert!(largest > 0.0 && largest < 0.02, "{name}: {largest}");
        let (full, small) = (full.footprint(), small.footprint());
        assert!(full.macs == small.macs && small.weight_bytes * 2 < full.weight_bytes, "{small:?}");
    }
}

#[test]
fn time_and_noise_come_from_the_caller() {
    let mut m = manifest(1, 6);
    m["observation"]["terms"][0]["size"] = json!(1);
    m["functions"]["step"] = json!({ "file": "step.onnx", "batch": 1,
        "inputs": { "previous": "noise", "h_in": "carry.h" }, "outputs": { "action": "action", "h": "carry.h" } });
    m["carry"] = json!({ "h": { "shape": [1, 24], "init": "zeros" } });
    let mut policy = load(&bundle(&m, &[("step.onnx", golden("lazy_step.onnx"))]), None, None);
    let act = |policy: &mut Policy| {
        let mut out = [0.0; 6];
        policy.act(&[0.0], &[], &mut out).map(|()| out)
    };
    let quiet = act(&mut policy).unwrap();
    policy.reset();
    assert_eq!(policy.noise_mut().len(), 6);
    policy.noise_mut().fill(1.0);
    let loud = act(&mut policy).unwrap();
    assert!(distance(&quiet, &loud) > 1e-3 && !policy.takes_time());
    policy.noise_mut()[4] = f32::INFINITY;
    assert_eq!(act(&mut policy), Err(ActError::NonFiniteInput { port: Port::Input(0), index: 4 }));
    // Reset means zeros again.
    policy.reset();
    assert_eq!(bits(&act(&mut policy).unwrap()), bits(&quiet));
}

#[test]
fn init_may_run_at_the_first_step_and_step_may_see_where_a_sequence_began() {
    let base = lazy();
    let mut m: serde_json::Value = serde_json::from_slice(base.entry("manifest.json").unwrap()).unwrap();
    let entries = |b: &Bundle| ["init.onnx", "step.onnx"].map(|n| (n, b.entry(n).unwrap().to_vec()));
    // Mode none: init on the first observation after a reset, then only steps.
    m["chunk"] =
        json!({ "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" });
    let mut once = load(&bundle(&m, &entries(&base)), None, None);
    let mut each = load(&base, None, None);
    let (previous, obs, other) = ([0.3; 6], [0.5; 16], [-2.0; 16]);
    let (mut x, mut y) = ([0.0; 6], [0.0; 6]);
    for _ in 0..2 {
        // A first step that fails does not count.
        assert!(once.act(&other, &[f32::MAX; 5], &mut x).is_err());
        once.act(&obs, &previous, &mut x).unwrap();
        each.begin(&obs).unwrap();
        each.next(&previous, &mut y).unwrap();
        assert_eq!(bits(&x), bits(&y));
        once.act(&other, &previous, &mut x).unwrap();
        each.next(&previous, &mut y).unwrap();
        assert_eq!(bits(&x), bits(&y));
        once.reset();
    }
    // What init cannot be given is refused.
    m["chunk"] =
        json!({ "mode": "lazy", "horizon": 8, "execute": 4, "on_exhausted": "hold", "seam": "replace" });
    m["functions"]["init"] = json!({ "file": "init.onnx", "batch": 1,
        "inputs": { "previous": "previous_action", "h_in": "carry.h" },
        "outputs": { "action": "aux.a", "h": "carry.h" } });
    let networks = [("init.onnx", golden("lazy_step.onnx")), ("step.onnx", golden("lazy_step.onnx"))];
    let error = Policy::load(&bundle(&m, &networks), &Options::default()).unwrap_err();
    assert!(matches!(&error, LoadError::Binding { function, .. } if function == "init"), "{error}");
}

#[test]
fn a_lazy_step_sees_the_observation_that_the_sequence_began_with() {
    // `previous` of the step is the observation here, `h` the state; init maps nothing but the state.
    let mut m = manifest(16, 6);
    m["observation"] = json!({ "size": 16, "interleave": "term", "terms": [
        { "name": "a", "source": "x-a", "size": 6 }, { "name": "b", "source": "x-b", "size": 10 } ] });
    m["chunk"] =
        json!({ "mode": "lazy", "horizon": 8, "execute": 4, "on_exhausted": "hold", "seam": "replace" });
    m["functions"] = json!({
        "init": { "file": "init.onnx", "batch": 1, "inputs": { "obs": "observation" }, "outputs": { "h": "carry.h" } },
        "step": { "file": "step.onnx", "batch": 1, "inputs": { "previous": "source.x-a", "h_in": "carry.h" },
                  "outputs": { "action": "action", "h": "carry.h" } } });
    m["carry"] = json!({ "h": { "shape": [1, 24], "init": "init" } });
    let b = bundle(&m, &[("init.onnx", golden("lazy_init.onnx")), ("step.onnx", golden("lazy_step.onnx"))]);
    let (mut a, mut c) = (load(&b, None, None), load(&b, None, None));
    let (mut x, mut y) = ([0.0; 6], [0.0; 6]);
    let obs: Vec<f32> = (0..16).map(|i| i as f32 * 0.1).collect();
    a.begin(&obs).unwrap();
    c.begin(&obs).unwrap();
    for _ in 0..3 {
        // A failed begin in between changes nothing, not even what step sees.
        assert!(c.begin(&[f32::NAN; 16]).is_err() && c.begin(&[f32::MAX; 16]).is_err());
        a.next(&[], &mut x).unwrap();
        c.next(&[], &mut y).unwrap();
        assert_eq!(bits(&x), bits(&y));
    }
    let mut plain = load(&lazy(), None, None);
    plain.begin(&obs).unwrap();
    for _ in 0..3 {
        plain.next(&obs[..6], &mut y).unwrap();
    }
    assert_eq!(bits(&x), bits(&y));
}
