//! Random networks: fused, unfused and the f64 reference agree, and no two live buffers overlap.

use proptest::prelude::*;

use crate::eval;
use crate::graph::Graph;
use crate::layout::Layout;
use crate::limits::Limits;
use crate::tensor::Tensor;
use crate::testing::{Model, float, int};

/// Evaluates a graph in f64, operation by operation.
pub(super) fn reference(graph: &Graph, x: &[f32]) -> Vec<f64> {
    let mut values: Vec<Option<Tensor>> =
        graph.values.iter().map(|v| v.constant.as_deref().cloned()).collect();
    let input = &graph.values[graph.inputs[0]];
    let data = x.iter().map(|&v| v.into()).collect();
    values[graph.inputs[0]] = Some(Tensor { dtype: input.dtype, shape: input.shape.clone(), data });
    for node in &graph.nodes {
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&i| values[i].as_ref().unwrap()).collect();
        let out = &graph.values[node.output];
        values[node.output] = Some(eval::apply(&node.op, &inputs, out.dtype, &out.shape));
    }
    values[graph.outputs[0]].clone().unwrap().data
}

/// One layer: its kind, its width and a seed for its weights.
type Layer = (usize, usize, u64);

const KINDS: usize = 14;

pub(super) fn numbers(mut seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * scale).collect()
}

/// A network of `layers` on `[rows, width]`.
fn network(rows: usize, width: usize, layers: &[Layer]) -> Model {
    let mut m = Model::new(20, &[rows as i64, width as i64]);
    let mut at = "x".to_owned();
    let mut n = width;
    for (i, &(kind, next, seed)) in layers.iter().enumerate() {
        let (a, b, y) = (
            format!("a{i}"),
            format!("b{i}"),
            if i + 1 == layers.len() { "y".into() } else { format!("v{i}") },
        );
        let simple = ["Relu", "Elu", "Tanh", "Gelu", "Mish", "Softplus", "HardSwish"];
        match kind {
            0 | 1 => {
                let scale = 1.0 / (n as f32).sqrt();
                m = m.floats(&a, &[n as i64, next as i64], &numbers(seed, n * next, scale)).floats(
                    &b,
                    &[next as i64],
                    &numbers(seed ^ 1, next, 1.0),
                );
                m = if kind == 0 {
                    m.node("Gemm", &format!("{at} {a} {b} -> {y}"), vec![])
                } else {
                    let p = format!("p{i}");
                    m.node("MatMul", &format!("{at} {a} -> {p}"), vec![]).node(
                        "Add",
                        &format!("{b} {p} -> {y}"),
                        vec![],
                    )
                };
                n = next;
            }
            2 => {
                m = m
                    .floats(&a, &[n as i64], &numbers(seed, n, 2.0))
                    .floats(&b, &[n as i64], &numbers(seed ^ 1, n, 1.0))
                    .node(
                        "LayerNormalization",
                        &format!("{at} {a} {b} -> {y}"),
                        vec![float("epsilon", 1e-3)],
                    );
            }
            3 => {
                m = m.node("Sigmoid", &format!("{at} -> {a}"), vec![]).node(
                    "Mul",
                    &format!("{at} {a} -> {y}"),
                    vec![],
                );
            }
            4 => {
                // A residual: the operand stays alive.
                m = m.node("Sin", &format!("{at} -> {a}"), vec![]).node(
                    "Add",
                    &format!("{a} {at} -> {y}"),
                    vec![],
                );
            }
            5 => {
                m = m
                    .node("Transpose", &format!("{at} -> {a}"), vec![])
                    .node("Softmax", &format!("{a} -> {b}"), vec![int("axis", 0)])
                    .node("Transpose", &format!("{b} -> {y}"), vec![]);
            }
            6 => {
                m = m
                    .node("Split", &format!("{at} -> {a} {b}"), vec![int("axis", 1), int("num_outputs", 2)])
                    .node("Concat", &format!("{b} {a} -> {y}"), vec![int("axis", 1)]);
                if n < 2 {
                    // A split into an empty half is refused; double the row instead.
                    let nodes = &mut m.graph().node;
                    let concat = nodes.pop().unwrap();
                    nodes.pop();
                    nodes.push(crate::onnx::NodeProto { input: vec![at.clone(), at.clone()], ..concat });
                    n *= 2;
                }
            }
            k => m = m.node(simple[k - 7], &format!("{at} -> {y}"), vec![]),
        }
        at = y;
    }
    m
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn fused_unfused_and_reference_agree(
        rows in 1usize..4,
        width in 1usize..48,
        layers in prop::collection::vec((0..KINDS, 1usize..80, any::<u64>()), 1..12),
        seed in any::<u64>(),
    ) {
        let model = network(rows, width, &layers);
        let x = numbers(seed, rows * width, 2.0);
        let graph = model.build().unwrap();
        let expected = reference(&graph, &x);
        // Each layer may lose a few ulps, and a normalisation of a flat row magnifies them.
        let tolerance = 2e-4 * expected.iter().fold(1.0f64, |a, v| a.max(v.abs()));
        model.gives(&x, &expected, tolerance);
    }

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn live_buffers_never_overlap(
        width in 1usize..64,
        layers in prop::collection::vec((0..KINDS, 1usize..200, any::<u64>()), 1..16),
    ) {
        let mut graph = network(2, width, &layers).build().unwrap();
        for fused in [false, true] {
            if fused {
                crate::fuse::fuse(&mut graph);
            }
            crate::fuse::legalise(&mut graph, usize::MAX).unwrap();
            prop_assert!(!Layout::new(&graph).has_conflict());
        }
    }
}

/// No placement of intervals is always tight; on the networks that torch exports it must be nearly so.
#[test]
fn the_arena_is_hardly_larger_than_what_lives_at_once() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/policy");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "onnx") {
            let mut graph = Graph::build(&std::fs::read(&path).unwrap(), 1, &Limits::default()).unwrap();
            crate::fuse::fuse(&mut graph);
            crate::fuse::legalise(&mut graph, usize::MAX).unwrap();
            let layout = Layout::new(&graph);
            let (floats, least) = (layout.floats, layout.live_peak());
            assert!(
                !layout.has_conflict() && floats * 5 <= least * 6,
                "{}: {floats} for {least}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen >= 10);
}

#[test]
fn near_misses_do_not_fuse() {
    let count = |m: &Model| {
        let mut graph = m.build().unwrap();
        crate::fuse::fuse(&mut graph);
        graph.nodes.len()
    };
    let base = || Model::new(18, &[1, 4]);
    // x·sigmoid(z) with another z; 0.5·x·(1 + erf(x/√3)); x·tanh(softplus(2x)).
    let silu = base().node("Neg", "x -> z", vec![]).node("Sigmoid", "z -> s", vec![]).node(
        "Mul",
        "x s -> y",
        vec![],
    );
    assert_eq!(count(&silu), 3);
    let gelu = |divisor: f32| {
        base()
            .floats("d", &[], &[divisor])
            .floats("one", &[], &[1.0])
            .floats("half", &[], &[0.5])
            .node("Div", "x d -> a", vec![])
            .node("Erf", "a -> e", vec![])
            .node("Add", "e one -> g", vec![])
            .node("Mul", "x g -> p", vec![])
            .node("Mul", "p half -> y", vec![])
    };
    assert_eq!(count(&gelu(3f32.sqrt())), 5);
    assert_eq!(count(&gelu(2f32.sqrt())), 1);
    let softplus = |threshold: f32| {
        base()
            .floats("t", &[], &[threshold])
            .node("Softplus", "x -> s", vec![])
            .node("Greater", "x t -> g", vec![])
            .node("Where", "g x s -> y", vec![])
    };
    assert_eq!((count(&softplus(20.0)), count(&softplus(5.0))), (1, 3));
    // A bias that is not one for each output.
    let rows = Model::new(18, &[2, 4])
        .floats("w", &[4, 2], &[0.5; 8])
        .floats("b", &[2, 1], &[1.0, 2.0])
        .node("MatMul", "x w -> p", vec![])
        .node("Add", "p b -> y", vec![]);
    assert_eq!(count(&rows), 2);
    // A product that something else reads as well.
    let shared = base()
        .floats("w", &[4, 4], &[0.5; 16])
        .node("MatMul", "x w -> p", vec![])
        .node("Relu", "p -> r", vec![])
        .node("Add", "p r -> y", vec![]);
    assert_eq!(count(&shared), 3);
}
