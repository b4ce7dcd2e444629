//! GRU and LSTM: golden values, sequences and batches against the 64-bit reference, cells that torch writes out.

use crate::eval;
use crate::fuse;
use crate::graph::Graph;
use crate::isa::{Isa, Level};
use crate::onnx::AttributeProto;
use crate::op::Op;
use crate::recurrent::Cell;
use crate::tensor::Tensor;
use crate::testing::{Model, info, int, session, text};

fn strings(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|v| v.as_bytes().to_vec()).collect();
    AttributeProto { name: name.into(), strings, kind: 8, ..AttributeProto::default() }
}

/// The layer of the golden values: `blocks` gates of two states, one input.
fn golden(op: &str, blocks: usize, inputs: &str, outputs: &str, attributes: Vec<AttributeProto>) -> Model {
    let rows = 2 * blocks;
    let w: Vec<f32> = (0..rows).map(|r| 0.1 * (r as f32 + 1.0)).collect();
    let r: Vec<f32> = (0..rows).flat_map(|r| (0..2).map(move |k| 0.05 * (r as f32 - k as f32))).collect();
    let b: Vec<f32> = (0..2 * rows).map(|i| 0.01 * i as f32).collect();
    let rows = rows as i64;
    Model::new(18, &[1, 1, 1])
        .floats("w", &[1, rows, 1], &w)
        .floats("r", &[1, rows, 2], &r)
        .floats("b", &[1, 2 * rows], &b)
        .floats("h", &[1, 1, 2], &[0.5, -0.25])
        .floats("c", &[1, 1, 2], &[0.1, 0.2])
        .node(op, &format!("{inputs} -> {outputs}"), attributes)
}

#[test]
fn layers_have_their_golden_values() {
    let gru = |reset: i64| golden("GRU", 3, "x w r b _ h", "_ y", vec![int("linear_before_reset", reset)]);
    gru(0).gives(&[1.0], &[0.540873993, 0.138809433], 2e-7);
    gru(1).gives(&[1.0], &[0.529267211, 0.130147358], 2e-7);
    golden("LSTM", 4, "x w r b _ h c", "y", vec![]).gives(&[1.0], &[0.274145385, 0.349687696], 2e-7);
    golden("LSTM", 4, "x w r b _ h c", "_ y", vec![]).gives(&[1.0], &[0.274145385, 0.349687696], 2e-7);
    golden("LSTM", 4, "x w r b _ h c", "_ _ y", vec![]).gives(&[1.0], &[0.481747563, 0.609150911], 2e-7);
}

fn numbers(seed: usize, n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + seed * 13) as f32 * 0.61).sin() * scale).collect()
}

/// Evaluates a graph operation by operation in 64 bits.
fn reference(graph: &Graph, inputs: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let mut values: Vec<Option<Tensor>> =
        graph.values.iter().map(|v| v.constant.as_deref().cloned()).collect();
    for (&id, x) in graph.inputs.iter().zip(inputs) {
        let v = &graph.values[id];
        let data = x.iter().map(|&x| x.into()).collect();
        values[id] = Some(Tensor { dtype: v.dtype, shape: v.shape.clone(), data });
    }
    for node in &graph.nodes {
        let inputs: Vec<&Tensor> = node.inputs.iter().map(|&i| values[i].as_ref().unwrap()).collect();
        let out = &graph.values[node.output];
        values[node.output] = Some(eval::apply(&node.op, &inputs, out.dtype, &out.shape));
    }
    graph.outputs.iter().map(|&o| values[o].clone().unwrap().data).collect()
}

/// All outputs, from a poisoned arena, on every instruction set, fused and not; compares with the reference.
fn check(model: &Model, inputs: &[Vec<f32>], tolerance: f64) {
    let graph = model.build().unwrap_or_else(|e| panic!("{e}"));
    let expected = reference(&graph, inputs);
    let mut fused = graph.clone();
    fuse::fuse(&mut fused);
    for graph in [graph, fused] {
        for level in [Isa::Scalar, Isa::Avx2, Isa::Neon].into_iter().filter_map(Level::of) {
            let mut s = session(graph.clone(), level);
            inputs.iter().enumerate().for_each(|(i, x)| s.input_mut(i).copy_from_slice(x));
            s.poison();
            s.run().unwrap();
            for (o, expected) in expected.iter().enumerate() {
                assert_eq!(s.output(o).len(), expected.len());
                for (i, (&y, e)) in s.output(o).iter().zip(expected).enumerate() {
                    assert!((f64::from(y) - e).abs() <= tolerance, "output {o}, element {i}: {y} for {e}");
                }
            }
        }
    }
}

#[test]
fn sequences_and_batches_agree_with_the_reference() {
    for (op, blocks, reset) in [("GRU", 3, 0), ("GRU", 3, 1), ("LSTM", 4, 0)] {
        for (length, batch, inputs, hidden) in [(1, 1, 3, 5), (7, 1, 4, 33), (3, 4, 1, 8), (256, 2, 2, 3)] {
            let wide = blocks * hidden;
            let attributes = if op == "GRU" { vec![int("linear_before_reset", reset)] } else { vec![] };
            let (h, ports, outputs) = match op {
                "LSTM" => (vec!["h", "c"], "x w r b _ h c -> y last cell", vec!["last", "cell"]),
                _ => (vec!["h"], "x w r b _ h -> y last", vec!["last"]),
            };
            let mut m = Model::new(14, &[length, batch, inputs])
                .floats("w", &[1, wide, inputs], &numbers(1, (wide * inputs) as usize, 0.7))
                .floats("r", &[1, wide, hidden], &numbers(2, (wide * hidden) as usize, 0.4))
                .floats("b", &[1, 2 * wide], &numbers(3, 2 * wide as usize, 0.3))
                .node(op, ports, attributes);
            let state = [1, batch, hidden];
            let mut given = vec![numbers(4, (length * batch * inputs) as usize, 1.5)];
            for (i, name) in h.into_iter().enumerate() {
                m.graph().input.push(info(name, &state));
                given.push(numbers(5 + i, (batch * hidden) as usize, 0.9));
            }
            outputs.into_iter().for_each(|o| m.graph().output.push(info(o, &[])));
            check(&m, &given, 3e-6);
        }
    }
}

#[test]
fn absent_states_and_biases_are_zeros() {
    let zeros = Model::new(18, &[2, 1, 1])
        .floats("w", &[1, 6, 1], &numbers(1, 6, 0.5))
        .floats("r", &[1, 6, 2], &numbers(2, 12, 0.5))
        .floats("b", &[1, 12], &[0.0; 12])
        .floats("h", &[1, 1, 2], &[0.0; 2])
        .node("GRU", "x w r b _ h -> _ y", vec![]);
    let mut absent = zeros.clone();
    absent.graph().node[0].input.truncate(3);
    assert_eq!(zeros.run(&[0.4, -0.3]), absent.run(&[0.4, -0.3]));
}

#[test]
fn a_layer_of_constants_folds_away() {
    let m = Model::new(18, &[1, 1, 1])
        .floats("k", &[3, 1, 1], &[0.5, -1.0, 2.0])
        .floats("w", &[1, 6, 1], &numbers(1, 6, 0.5))
        .floats("r", &[1, 6, 2], &numbers(2, 12, 0.5))
        .node("GRU", "k w r -> _ h", vec![])
        .node("Add", "x h -> y", vec![]);
    assert_eq!(m.build().unwrap().nodes.len(), 1);
}

#[test]
fn tiny_states_become_zero_inside_a_layer() {
    // All weights are zero: the gates are one half, the candidate is zero, so the state halves.
    for reset in [0, 1] {
        let m = Model::new(18, &[4, 1, 1])
            .floats("w", &[1, 3, 1], &[0.0; 3])
            .floats("r", &[1, 3, 1], &[0.0; 3])
            .floats("h", &[1, 1, 1], &[6e-30])
            .node("GRU", "x w r _ _ h -> y", vec![int("linear_before_reset", reset)]);
        for y in m.run(&[0.0; 4]) {
            assert_eq!(y, [3e-30, 1.5e-30, 0.0, 0.0]);
        }
    }
}

#[test]
fn variants_that_are_not_run_are_refused() {
    let gru = |attributes| golden("GRU", 3, "x w r b _ h", "y", attributes);
    let error = |m: Model| m.error();
    assert_eq!(
        error(gru(vec![text("direction", "reverse")])),
        "node \"y\": attribute direction: reverse; a policy runs forward in time"
    );
    assert!(error(gru(vec![int("layout", 1)])).contains("attribute layout: only 0"));
    assert!(error(gru(vec![crate::testing::float("clip", 3.0)])).contains("attribute clip"));
    assert!(error(gru(vec![int("hidden_size", 3)])).contains("hidden_size: 3, but R has 2"));
    let activations = strings("activations", &["Sigmoid", "Relu"]);
    assert!(error(gru(vec![activations])).contains("activations: [\"Sigmoid\", \"Relu\"]; only"));
    gru(vec![strings("activations", &["Sigmoid", "Tanh"])]).build().unwrap();
    assert!(error(golden("GRU", 3, "x w r b h h", "y", vec![])).contains("input 4 (sequence_lens)"));
    assert!(error(golden("LSTM", 4, "x w r b _ h c c", "y", vec![])).contains("input 7 (peepholes)"));
    assert!(error(golden("LSTM", 3, "x w r b _ h c", "y", vec![])).contains("does not fit"));
    assert!(error(golden("RNN", 1, "x w r b _ h", "y", vec![])).contains("use GRU or LSTM"));
    let long =
        Model::new(18, &[257, 1, 1]).floats("w", &[1, 3, 1], &[0.1; 3]).floats("r", &[1, 3, 1], &[0.1; 3]);
    assert!(error(long.node("GRU", "x w r -> y", vec![])).contains("257 steps, more than 256"));
    let mut wrong = gru(vec![]);
    wrong.graph().initializer[3].dims = vec![1, 2, 1];
    assert!(error(wrong).contains("a first state has the shape [1, 2, 1], not [1, 1, 2]"));
    // The backward layer of a bidirectional one comes as a second direction in W.
    assert!(error(golden("GRU", 6, "x w r b _ h", "y", vec![])).contains("does not fit"));
}

/// torch's GRUCell written out, for `rows` rows of `n` states; `change` may spoil the names of the chunks.
fn written_gru(rows: i64, n: i64, chunks: &str, end: &str) -> Model {
    let wide = 3 * n;
    let mut m = Model::new(18, &[rows, 4])
        .floats("wi", &[wide, 4], &numbers(1, (wide * 4) as usize, 0.6))
        .floats("wh", &[wide, n], &numbers(2, (wide * n) as usize, 0.5))
        .floats("bi", &[wide], &numbers(3, wide as usize, 0.2))
        .floats("bh", &[wide], &numbers(4, wide as usize, 0.2))
        .node("Gemm", "x wi bi -> gi", vec![int("transB", 1)])
        .node("Split", "gi -> ir iz in", vec![int("axis", 1), int("num_outputs", 3)])
        .node("Gemm", "h wh bh -> gh", vec![int("transB", 1)])
        .node("Split", &format!("gh -> {chunks}"), vec![int("axis", 1), int("num_outputs", 3)])
        .node("Add", "hr ir -> ar", vec![])
        .node("Sigmoid", "ar -> r", vec![])
        .node("Add", "hz iz -> az", vec![])
        .node("Sigmoid", "az -> z", vec![])
        .node("Mul", "hn r -> m", vec![])
        .node("Add", "in m -> an", vec![])
        .node("Tanh", "an -> n", vec![])
        .node("Sub", end, vec![])
        .node("Mul", "d z -> e", vec![])
        .node("Add", "e n -> y", vec![]);
    m.graph().input.push(info("h", &[rows, n]));
    m
}

fn cells(m: &Model) -> (usize, usize) {
    let mut graph = m.build().unwrap();
    fuse::fuse(&mut graph);
    (
        graph.nodes.iter().filter(|n| matches!(n.op, Op::Recurrent(Cell { length: 1, .. }))).count(),
        graph.nodes.len(),
    )
}

#[test]
fn a_gru_cell_written_out_becomes_one_again() {
    for rows in [1, 3] {
        let m = written_gru(rows, 6, "hr hz hn", "h n -> d");
        // The input's gates, the cell, and a view of its output.
        assert_eq!(cells(&m), (1, 3));
        check(&m, &[numbers(5, 4 * rows as usize, 1.0), numbers(6, 6 * rows as usize, 0.8)], 2e-6);
    }
    // Chunks in another order, or (n − h)·z + n, are other functions.
    for m in [written_gru(1, 6, "hz hr hn", "h n -> d"), written_gru(1, 6, "hr hz hn", "n h -> d")] {
        assert_eq!(cells(&m).0, 0);
        check(&m, &[numbers(5, 4, 1.0), numbers(6, 6, 0.8)], 2e-6);
    }
    // The difference is taken from something that is not the state.
    let mut other = written_gru(1, 4, "hr hz hn", "x n -> d");
    assert_eq!(cells(&other).0, 0);
    // A state that is read again later stays available.
    other = written_gru(1, 6, "hr hz hn", "h n -> d");
    other.graph().output.push(info("n", &[]));
    assert_eq!(cells(&other).0, 1);
    check(&other, &[numbers(5, 4, 1.0), numbers(6, 6, 0.8)], 2e-6);
}

/// torch's LSTMCell written out, with the chunks in this order.
fn written_lstm(chunks: &str) -> Model {
    let (n, wide) = (5, 20);
    let mut m = Model::new(18, &[1, 4])
        .floats("wi", &[wide, 4], &numbers(1, 80, 0.6))
        .floats("wh", &[wide, n], &numbers(2, 100, 0.5))
        .floats("bh", &[wide], &numbers(4, 20, 0.2))
        .node("Gemm", "h wh bh -> gh", vec![int("transB", 1)])
        .node("Gemm", "x wi -> gi", vec![int("transB", 1)])
        .node("Add", "gh gi -> g", vec![])
        .node("Split", &format!("g -> {chunks}"), vec![int("axis", 1), int("num_outputs", 4)])
        .node("Sigmoid", "ai -> i", vec![])
        .node("Sigmoid", "af -> f", vec![])
        .node("Tanh", "ag -> q", vec![])
        .node("Sigmoid", "ao -> o", vec![])
        .node("Mul", "f c -> kept", vec![])
        .node("Mul", "i q -> fresh", vec![])
        .node("Add", "kept fresh -> cell", vec![])
        .node("Tanh", "cell -> t", vec![])
        .node("Mul", "o t -> y", vec![]);
    m.graph().input.extend([info("h", &[1, n]), info("c", &[1, n])]);
    m.graph().output.push(info("cell", &[]));
    m
}

#[test]
fn an_lstm_cell_written_out_becomes_one_again() {
    for (chunks, found) in [("ai af ag ao", (1, 4)), ("ai ag af ao", (0, 13))] {
        let m = written_lstm(chunks);
        assert_eq!(cells(&m).0, found.0);
        if found.0 == 1 {
            assert_eq!(cells(&m).1, found.1);
        }
        check(&m, &[numbers(5, 4, 1.0), numbers(6, 5, 0.8), numbers(7, 5, 0.8)], 2e-6);
    }
}
