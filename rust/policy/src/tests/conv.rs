//! Convolutions, padding and norms by channel: golden values (torch, f64), refusals, random networks.

use proptest::prelude::*;

use super::properties::{numbers, reference};
use crate::graph::Graph;
use crate::limits::Limits;
use crate::testing::{Model, float, int, ints, text};

/// `lo, lo + step, …`
fn ramp(n: usize, lo: f32, step: f32) -> Vec<f32> {
    (0..n).map(|i| lo + step * i as f32).collect()
}

#[test]
fn convolutions_have_their_golden_values() {
    Model::new(18, &[1, 2, 6])
        .floats("w", &[2, 2, 3], &ramp(12, -0.5, 0.1))
        .floats("b", &[2], &[0.5, -1.0])
        .node(
            "Conv",
            "x w b -> y",
            vec![ints("strides", &[2]), ints("pads", &[1, 1]), ints("dilations", &[2])],
        )
        .gives(&ramp(12, -1.0, 0.25), &[0.8, 0.625, -0.1, 0.925], 2e-6);
    Model::new(18, &[1, 2, 3])
        .floats("w", &[2, 2, 3], &ramp(12, -0.5, 0.1))
        .floats("b", &[2], &[0.5, -1.0])
        .node(
            "ConvTranspose",
            "x w b -> y",
            vec![ints("strides", &[2]), ints("pads", &[1, 1]), ints("output_padding", &[1])],
        )
        .gives(
            &[-1.0, -0.75, -0.5, 0.5, 0.75, 1.0],
            &[1.0, 1.4, 0.95, 1.3, 0.9, 0.95, -0.65, -0.25, -0.55, -0.05, -0.45, -0.4],
            2e-6,
        );
}

#[test]
fn group_norm_has_its_golden_values() {
    let expected = [
        -1.592_186_491_7,
        -1.302_698_038_7,
        -1.013_209_585_6,
        -0.723_721_132_6,
        -0.434_232_679_6,
        -0.144_744_226_5,
        1.289_488_453,
        1.868_465_359_1,
        2.447_442_265_3,
        3.026_419_171_3,
        3.605_396_077_4,
        4.184_372_983_5,
    ];
    for (shift, tolerance) in [(0.0, 1e-6), (1e3, 2e-4)] {
        Model::new(21, &[1, 2, 6])
            .floats("s", &[2], &[1.0, 2.0])
            .floats("b", &[2], &[0.0, 1.0])
            .node("GroupNormalization", "x s b -> y", vec![int("num_groups", 1), float("epsilon", 1e-3)])
            .gives(&ramp(12, -1.0 + shift, 0.25), &expected, tolerance);
    }
}

#[test]
fn padding_keeps_reflects_and_cuts() {
    let pad = |mode: &str, before: i64, after: i64, expected: &[f64]| {
        Model::new(18, &[1, 4])
            .ints("p", &[0, before, 0, after])
            .floats("v", &[], &[9.0])
            .node("Pad", "x p v -> y", vec![text("mode", mode)])
            .gives(&[1.0, 2.0, 3.0, 4.0], expected, 0.0);
    };
    pad("constant", 2, 1, &[9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 9.0]);
    pad("constant", -1, 1, &[2.0, 3.0, 4.0, 9.0]);
    pad("edge", 2, 1, &[1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
    pad("reflect", 3, 2, &[4.0, 3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let conv = |op: &str, shape: &[i64], weights: &[i64], attributes| {
        let count = weights.iter().product::<i64>() as usize;
        Model::new(18, shape).floats("w", weights, &vec![0.5; count]).node(op, "x w -> y", attributes).error()
    };
    assert_eq!(
        conv("Conv", &[1, 3, 8, 8], &[4, 3, 3, 3], vec![]),
        "node \"y\": operator Conv in 2 dimensions is not supported; convolutions have one: keep vision outside the \
         tick"
    );
    assert!(conv("ConvTranspose", &[1, 3, 8, 8], &[3, 4, 3, 3], vec![]).contains("in 2 dimensions"));
    assert!(conv("Conv", &[1, 3, 8], &[4, 2, 3], vec![]).contains("[1, 3, 8] in 1 groups does not fit"));
    assert!(conv("Conv", &[1, 2, 2], &[4, 2, 3], vec![]).contains("3 taps do not fit a length of 2"));
    assert!(conv("Conv", &[1, 2, 8], &[4, 2, 3], vec![ints("strides", &[0])]).contains("strides: 0 is not"));
    assert!(
        conv("Conv", &[1, 2, 8], &[4, 2, 3], vec![text("auto_pad", "FULL")])
            .contains("\"FULL\" is not known")
    );
    assert!(conv("Conv", &[1, 2, 8], &[4, 2, 3], vec![ints("pads", &[-1, 0])]).contains("attribute pads"));
    let far = vec![ints("output_padding", &[2]), ints("strides", &[2])];
    assert!(conv("ConvTranspose", &[1, 2, 8], &[2, 4, 3], far).contains("attribute output_padding"));
    let all = conv("ConvTranspose", &[1, 2, 1], &[2, 4, 3], vec![ints("pads", &[2, 1])]);
    assert!(all.contains("leave nothing of 3"), "{all}");
    let computed = Model::new(18, &[1, 1, 4]).node("Conv", "x x -> y", vec![]);
    assert_eq!(computed.error(), "node \"y\": input 1 must be constant");
    let wrap = Model::new(19, &[4]).ints("p", &[1, 1]).node("Pad", "x p -> y", vec![text("mode", "wrap")]);
    assert!(wrap.error().contains("constant, edge and reflect are known"));
    let far = Model::new(18, &[4]).ints("p", &[4, 0]).node("Pad", "x p -> y", vec![text("mode", "reflect")]);
    assert!(far.error().contains("cannot be padded by 4 and 0"), "{}", far.error());
    let huge = Model::new(18, &[4]).ints("p", &[i64::MAX, 1]).node("Pad", "x p -> y", vec![]);
    assert!(huge.error().contains("cannot be padded"), "{}", huge.error());
    let training = Model::new(18, &[1, 2]).floats("c", &[2], &[1.0; 2]).node(
        "BatchNormalization",
        "x c c c c -> y",
        vec![int("training_mode", 1)],
    );
    assert!(training.error().contains("only 0 (inference)"));
    let flat = Model::new(18, &[1, 2]).floats("c", &[2], &[1.0; 2]).floats("z", &[2], &[0.0; 2]).node(
        "BatchNormalization",
        "x c c c z -> y",
        vec![float("epsilon", 0.0)],
    );
    assert!(flat.error().contains("channel 0 has no positive variance"));
    let groups = Model::new(21, &[1, 4, 2]).floats("c", &[4], &[1.0; 4]).node(
        "GroupNormalization",
        "x c c -> y",
        vec![int("num_groups", 3)],
    );
    assert!(groups.error().contains("3 does not divide 4 channels"));
}

#[test]
fn operators_are_refused_before_their_time_and_with_a_hint() {
    let refused = |opset: i64, op: &str| Model::new(opset, &[1, 2]).node(op, "x -> y", vec![]).error();
    assert_eq!(
        refused(18, "Gelu"),
        "node \"y\": operator Gelu is not supported in opset 18; it came with 20"
    );
    for (op, hint) in [
        ("Loop", "straight graph"),
        ("Scan", "straight graph"),
        ("SequenceConstruct", "stack tensors along an axis"),
        ("SplitToSequence", "use Split and Concat"),
        ("StringNormalizer", "no strings"),
        ("RandomNormalLike", "binding noise"),
        ("QLinearConv", "weights=int8"),
        ("DynamicQuantizeLinear", "weights=int8"),
        ("MatMulInteger", "weights=int8"),
    ] {
        let error = refused(18, op);
        assert!(
            error.contains(&format!("operator {op} is not supported")) && error.contains(hint),
            "{error}"
        );
    }
    let half = Model::new(18, &[1, 2]).node("Cast", "x -> y", vec![int("to", 10)]);
    assert!(half.error().contains("half and double precision exist only in constants"));
    let mut double = Model::new(18, &[1, 2]).node("Neg", "x -> y", vec![]);
    if let Some(tensor) = double.graph().input[0].kind.as_mut().and_then(|k| k.tensor_type.as_mut()) {
        tensor.elem_type = 11;
    }
    assert!(double.error().contains("half and double precision exist only in constants"));
    let words = Model::new(18, &[1, 2]).node("Constant", "-> y", vec![text("value_string", "walk")]);
    assert!(words.error().contains("attribute value_string: is not read"), "{}", words.error());
    let twice = Model::new(18, &[2]).ints("a", &[1, 1]).node("Unsqueeze", "x a -> y", vec![]);
    assert_eq!(twice.error(), "tensor \"y\": axis 1 is inserted twice");
}

/// A network of convolutions on `[samples, c, length]`.
fn network(samples: usize, c: usize, length: usize, layers: &[(usize, usize, usize, u64)]) -> Option<Model> {
    let mut m = Model::new(21, &[samples as i64, c as i64, length as i64]);
    let (mut n, mut l, mut at) = (c, length, "x".to_owned());
    for (i, &(kind, next, taps, seed)) in layers.iter().enumerate() {
        let y = if i + 1 == layers.len() { "y".into() } else { format!("v{i}") };
        let (w, b, a) = (format!("w{i}"), format!("b{i}"), format!("a{i}"));
        let scale = 1.0 / ((n * taps) as f32).sqrt();
        let (seed, taps) = (seed, taps.min(l));
        match kind {
            0 => {
                m = m
                    .floats(&w, &[next as i64, n as i64, taps as i64], &numbers(seed, next * n * taps, scale))
                    .floats(&b, &[1, next as i64, 1], &numbers(seed ^ 1, next, 1.0))
                    .node("Conv", &format!("{at} {w} -> {a}"), vec![text("auto_pad", "SAME_UPPER")])
                    .node("Add", &format!("{a} {b} -> {y}"), vec![]);
                n = next;
            }
            1 => {
                m = m
                    .floats(&w, &[n as i64, next as i64, taps as i64], &numbers(seed, next * n * taps, scale))
                    .node("ConvTranspose", &format!("{at} {w} -> {y}"), vec![ints("strides", &[2])]);
                l = (l - 1) * 2 + taps;
                n = next;
            }
            2 => {
                m = m
                    .floats(&w, &[n as i64], &numbers(seed, n, 1.0))
                    .floats(&b, &[n as i64], &numbers(seed ^ 1, n, 1.0))
                    .node(
                        "GroupNormalization",
                        &format!("{at} {w} {b} -> {a}"),
                        vec![int("num_groups", 1), float("epsilon", 1e-2)],
                    )
                    .node("Mish", &format!("{a} -> {y}"), vec![]);
            }
            3 => {
                m = m
                    .floats(&w, &[n as i64], &numbers(seed, n, 1.0))
                    .floats(&b, &[n as i64], &vec![0.7; n])
                    .node("BatchNormalization", &format!("{at} {w} {w} {w} {b} -> {a}"), vec![])
                    .node("Relu", &format!("{a} -> {y}"), vec![]);
            }
            _ => {
                m = m.ints(&w, &[0, 0, 2, 0, 0, 1]).node(
                    "Pad",
                    &format!("{at} {w} -> {y}"),
                    vec![text("mode", "edge")],
                );
                l += 3;
            }
        }
        at = y;
    }
    (l * n < 20_000).then_some(m)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn networks_of_convolutions_agree_with_the_reference(
        samples in 1usize..3,
        channels in 1usize..20,
        length in 1usize..20,
        layers in prop::collection::vec((0usize..5, 1usize..40, 1usize..5, any::<u64>()), 1..6),
        seed in any::<u64>(),
    ) {
        if let Some(model) = network(samples, channels, length, &layers) {
            let x = numbers(seed, samples * channels * length, 2.0);
            let expected = reference(&model.build().unwrap(), &x);
            let tolerance = 2e-4 * expected.iter().fold(1.0f64, |a, v| a.max(v.abs()));
            model.gives(&x, &expected, tolerance);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "large or many files take minutes under Miri")]
fn flipped_convolutions_never_panic() {
    let file = Model::new(18, &[1, 2, 5])
        .floats("w", &[2, 2, 3], &[0.5; 12])
        .floats("s", &[2], &[1.0; 2])
        .ints("p", &[0, 0, 1, 0, 0, 2])
        .node("Pad", "x p -> a", vec![])
        .node("Conv", "a w -> b", vec![ints("strides", &[2]), ints("pads", &[1, 1]), int("group", 1)])
        .node("ConvTranspose", "b w -> c", vec![ints("output_shape", &[9])])
        .node("InstanceNormalization", "c s s -> y", vec![])
        .bytes();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            if let Ok(graph) = Graph::build(&bad, 1, &Limits::default()) {
                let mut s = crate::testing::session(graph, crate::isa::Level::best());
                let _ = s.run();
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "three dozen models take minutes under Miri")]
fn empty_constants_are_no_reason_to_panic() {
    // All of this happens while folding: what is computed from an input is never empty.
    for (op, extra) in [
        ("Softmax", ""),
        ("LayerNormalization", " c"),
        ("InstanceNormalization", " c c"),
        ("GroupNormalization", " c c"),
        ("Conv", " w"),
        ("ConvTranspose", " w"),
        ("ReduceSum", ""),
        ("ReduceMax", ""),
        ("CumSum", " i"),
        ("Trilu", ""),
        ("Transpose", ""),
        ("Relu", ""),
    ] {
        for shape in [[1, 2, 0], [0, 2, 1], [1, 0, 1]] {
            let attributes = if op == "GroupNormalization" { vec![int("num_groups", 1)] } else { vec![] };
            let m = Model::new(21, &[1])
                .floats("e", &shape, &[])
                .floats("c", &[2], &[1.0; 2])
                .floats("w", &[2, 2, 1], &[1.0; 4])
                .ints("i", &[1])
                .node(op, &format!("e{extra} -> f"), attributes)
                .node("ReduceSum", "f -> s", vec![])
                .node("Add", "x s -> y", vec![]);
            if let Ok(graph) = m.build() {
                assert_eq!(graph.nodes.len(), 1, "{op} {shape:?}");
            }
        }
    }
}
