//! What exporters write out becomes one operation again, and what only looks like it does not. The graphs are torch
//! 2.13's, from both exporters.

use super::properties::numbers;
use crate::op::{Op, Unary};
use crate::testing::{Model, float, int, ints};

/// Operations after fusion, views left out.
fn fused(m: &Model) -> Vec<Op> {
    let mut graph = m.build().unwrap_or_else(|e| panic!("{e}"));
    crate::fuse::fuse(&mut graph);
    graph.nodes.into_iter().map(|n| n.op).filter(|op| *op != Op::View).collect()
}

/// Fused or not, the numbers must stay.
fn same_numbers(m: &Model, x: &[f32]) {
    let answers = m.run(x);
    for y in &answers[1..] {
        for (a, b) in y.iter().zip(&answers[0]) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{a} instead of {b}");
        }
    }
}

const ROWS: [f32; 8] = [-3.0, -1.0, -0.1, 0.5, 2.0, 0.3, 4.0, -2.0];

fn rms_dynamo(exponent: f32) -> Model {
    Model::new(18, &[2, 4])
        .floats("two", &[], &[exponent])
        .floats("eps", &[], &[1e-5])
        .floats("w", &[4], &[1.0, 2.0, 3.0, 4.0])
        .ints("axes", &[-1])
        .node("Pow", "x two -> p", vec![])
        .node("ReduceMean", "p axes -> m", vec![int("noop_with_empty_axes", 0), int("keepdims", 1)])
        .node("Add", "m eps -> a", vec![])
        .node("Sqrt", "a -> s", vec![])
        .node("Reciprocal", "s -> r", vec![])
        .node("Mul", "x r -> n", vec![])
        .node("Mul", "n w -> y", vec![])
}

#[test]
fn rms_norm() {
    let m = rms_dynamo(2.0);
    assert_eq!(fused(&m), [Op::RmsNorm { width: 4, eps: 1e-5 }]);
    same_numbers(&m, &ROWS);
    // The legacy exporter: 1/√ as a division, the weight on the left.
    let legacy = Model::new(11, &[2, 4])
        .floats("two", &[], &[2.0])
        .floats("eps", &[], &[1e-6])
        .floats("one", &[], &[1.0])
        .floats("w", &[4], &[1.0, 2.0, 3.0, 4.0])
        .node("Pow", "x two -> p", vec![])
        .node("ReduceMean", "p -> m", vec![ints("axes", &[-1]), int("keepdims", 1)])
        .node("Add", "m eps -> a", vec![])
        .node("Sqrt", "a -> s", vec![])
        .node("Div", "one s -> r", vec![])
        .node("Mul", "x r -> n", vec![])
        .node("Mul", "w n -> y", vec![]);
    assert_eq!(fused(&legacy), [Op::RmsNorm { width: 4, eps: 1e-6 }]);
    same_numbers(&legacy, &ROWS);
    // x·x and x/√.
    let product = Model::new(18, &[2, 4])
        .floats("eps", &[], &[1e-6])
        .ints("axes", &[1])
        .node("Mul", "x x -> p", vec![])
        .node("ReduceMean", "p axes -> m", vec![])
        .node("Add", "eps m -> a", vec![])
        .node("Sqrt", "a -> s", vec![])
        .node("Div", "x s -> y", vec![]);
    assert_eq!(fused(&product), [Op::RmsNorm { width: 4, eps: 1e-6 }]);
    same_numbers(&product, &ROWS);
    // Another power, another axis.
    assert_eq!(fused(&rms_dynamo(3.0)).len(), 7);
    let mut columns = rms_dynamo(2.0);
    columns.graph().initializer.retain(|t| t.name != "axes");
    assert!(fused(&columns.ints("axes", &[0])).len() > 5);
}

fn layer_legacy(second: &str) -> Model {
    Model::new(11, &[2, 4])
        .floats("two", &[], &[2.0])
        .floats("eps", &[], &[1e-5])
        .floats("w", &[4], &[1.0, 2.0, 3.0, 4.0])
        .floats("b", &[4], &[0.1, 0.2, 0.3, 0.4])
        .node("ReduceMean", "x -> m", vec![ints("axes", &[-1])])
        .node("Sub", "x m -> d", vec![])
        .node("Pow", "d two -> p", vec![])
        .node("ReduceMean", &format!("{second} -> v"), vec![ints("axes", &[-1])])
        .node("Add", "v eps -> a", vec![])
        .node("Sqrt", "a -> s", vec![])
        .node("Div", "d s -> n", vec![])
        .node("Mul", "n w -> q", vec![])
        .node("Add", "q b -> y", vec![])
}

#[test]
fn layer_norm() {
    let m = layer_legacy("p");
    assert_eq!(fused(&m), [Op::LayerNorm { width: 4, eps: 1e-5 }]);
    same_numbers(&m, &ROWS);
    // The mean of something that is not the square.
    assert!(
        !fused(&layer_legacy("d")).iter().any(|op| matches!(op, Op::LayerNorm { .. } | Op::RmsNorm { .. }))
    );
}

fn gelu_dynamo(cubic: f32) -> Model {
    Model::new(18, &[2, 4])
        .floats("three", &[], &[3.0])
        .floats("c", &[], &[cubic])
        .floats("k", &[], &[0.797_884_6])
        .floats("one", &[], &[1.0])
        .floats("half", &[], &[0.5])
        .node("Pow", "x three -> p", vec![])
        .node("Mul", "c p -> q", vec![])
        .node("Add", "x q -> s", vec![])
        .node("Mul", "k s -> t", vec![])
        .node("Tanh", "t -> h", vec![])
        .node("Add", "h one -> g", vec![])
        .node("Mul", "half g -> f", vec![])
        .node("Mul", "x f -> y", vec![])
}

#[test]
fn gelu_with_tanh() {
    let m = gelu_dynamo(0.044_715);
    assert_eq!(fused(&m), [Op::Unary(Unary::GeluTanh)]);
    same_numbers(&m, &ROWS);
    assert_eq!(fused(&gelu_dynamo(0.05)).len(), 8);
    let legacy = Model::new(17, &[2, 4])
        .floats("c", &[], &[0.044_715])
        .floats("k", &[], &[0.797_884_6])
        .floats("one", &[], &[1.0])
        .floats("half", &[], &[0.5])
        .node("Mul", "x x -> p", vec![])
        .node("Mul", "x p -> q", vec![])
        .node("Mul", "c q -> r", vec![])
        .node("Add", "x r -> s", vec![])
        .node("Mul", "k s -> t", vec![])
        .node("Tanh", "t -> h", vec![])
        .node("Add", "one h -> g", vec![])
        .node("Mul", "x g -> f", vec![])
        .node("Mul", "half f -> y", vec![]);
    assert_eq!(fused(&legacy), [Op::Unary(Unary::GeluTanh)]);
    same_numbers(&legacy, &ROWS);
}

fn group_norm(shape: &[i64]) -> Model {
    Model::new(18, &[1, 4, 2])
        .floats("one", &[2], &[1.0, 1.5])
        .floats("zero", &[2], &[0.0, 0.5])
        .floats("w", &[4, 1], &[1.0, 2.0, 3.0, 4.0])
        .floats("b", &[4, 1], &[0.1, 0.2, 0.3, 0.4])
        .ints("in", &[0, 2, -1])
        .ints("out", shape)
        .node("Reshape", "x in -> r", vec![int("allowzero", 0)])
        .node("InstanceNormalization", "r one zero -> i", vec![float("epsilon", 1e-5)])
        .node("Reshape", "i out -> o", vec![int("allowzero", 0)])
        .node("Mul", "o w -> q", vec![])
        .node("Add", "q b -> y", vec![])
}

#[test]
fn group_norm_between_reshapes() {
    let m = group_norm(&[1, 4, 2]);
    assert_eq!(fused(&m), [Op::GroupNorm { groups: 2, eps: 1e-5 }]);
    same_numbers(&m, &ROWS);
    // Reshaped to something else than what came in.
    let other = group_norm(&[2, 4, 1]);
    assert_eq!(fused(&other).len(), 3);
}

#[test]
fn constants_and_batch_norm_go_into_weights() {
    let linear = |c: &[i64], op: &str| {
        let data: Vec<f32> = (0..c.iter().product()).map(|i| 0.5 + i as f32).collect();
        Model::new(17, &[2, 4])
            .floats("w", &[4, 3], &[0.25; 12])
            .floats("b", &[3], &[1.0, 2.0, 3.0])
            .floats("c", c, &data)
            .node("Gemm", "x w b -> g", vec![])
            .node(op, "g c -> y", vec![])
    };
    for op in ["Mul", "Div", "Add", "Sub"] {
        for shape in [&[3i64][..], &[1, 3], &[], &[1]] {
            let m = linear(shape, op);
            assert_eq!(fused(&m), [Op::Linear(None)], "{op} {shape:?}");
            same_numbers(&m, &ROWS);
        }
        // One number for each row is no number for each output.
        assert_eq!(fused(&linear(&[2, 1], op)).len(), 2);
    }
    let batch = |conv: bool| {
        let m = Model::new(17, if conv { &[1, 2, 4] } else { &[2, 4] })
            .floats("w", if conv { &[3, 2, 3] } else { &[3, 4] }, &[0.25; 18][..if conv { 18 } else { 12 }])
            .floats("p", &[3], &[0.5, 1.0, 2.0]);
        let layer = if conv { ("Conv", vec![]) } else { ("Gemm", vec![int("transB", 1)]) };
        m.node(layer.0, "x w -> g", layer.1)
            .node(
                "BatchNormalization",
                "g p p p p -> n",
                vec![float("epsilon", 1e-5), float("momentum", 0.9)],
            )
            .node("Relu", "n -> y", vec![])
    };
    assert_eq!(fused(&batch(false)), [Op::Linear(Some(Unary::Relu))]);
    assert!(matches!(
        fused(&batch(true))[..],
        [Op::Unfold(_), Op::Conv { groups: 1, act: Some(Unary::Relu) }]
    ));
    same_numbers(&batch(false), &ROWS);
    same_numbers(&batch(true), &ROWS);
    // A transposed convolution has its weights in the product before it; here two groups of two channels.
    let transposed = |more: bool| {
        let m = Model::new(17, &[1, 4, 5])
            .floats("w", &[4, 2, 3], &numbers(7, 24, 1.0))
            .floats("b", &[4], &numbers(8, 4, 1.0))
            .floats("m", &[4], &numbers(9, 4, 1.0))
            .floats("v", &[4], &[0.5, 1.0, 2.0, 3.0])
            .node("ConvTranspose", "x w b -> g", vec![ints("strides", &[2]), int("group", 2)])
            .node("BatchNormalization", "g m b m v -> n", vec![]);
        if more { m.node("Add", "g n -> y", vec![]) } else { m.node("Relu", "n -> y", vec![]) }
    };
    assert!(matches!(
        fused(&transposed(false))[..],
        [Op::Unfold(_), Op::Conv { groups: 2, act: None }, Op::Overlap(_), Op::Unary(Unary::Relu)]
    ));
    let x = numbers(10, 20, 1.0);
    same_numbers(&transposed(false), &x);
    // What is read before it, too, keeps its numbers.
    assert_eq!(fused(&transposed(true)).len(), 7);
    same_numbers(&transposed(true), &x);
    // In front of a layer it stays: a large mean would cancel.
    let before = Model::new(17, &[2, 4])
        .floats("w", &[4, 3], &[0.25; 12])
        .floats("p", &[4], &[0.5, 1.0, 2.0, 3.0])
        .node("BatchNormalization", "x p p p p -> n", vec![])
        .node("MatMul", "n w -> y", vec![]);
    assert_eq!(fused(&before).len(), 4);
    // A weight that would overflow stays as well.
    let huge = Model::new(17, &[2, 4])
        .floats("w", &[4, 3], &[1e30; 12])
        .floats("c", &[], &[1e30])
        .node("MatMul", "x w -> g", vec![])
        .node("Mul", "g c -> y", vec![]);
    assert_eq!(fused(&huge).len(), 2);
}
