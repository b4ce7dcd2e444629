//! Graphs that were made to hurt: to panic, to take all memory, to take forever, or to mean two things.

use crate::graph::{Graph, GraphError};
use crate::isa::Level;
use crate::limits::Limits;
use crate::manifest::Function;
use crate::manifest::Weights;
use crate::onnx::OnnxError;
use crate::session::Session;
use crate::testing::{Model, info, int, ints};

fn too_many(model: &Model) -> (&'static str, usize) {
    match model.build().unwrap_err() {
        GraphError::Onnx(OnnxError::TooMany { what, got, .. }) => (what, got),
        other => panic!("{other}"),
    }
}

fn with(limits: impl Fn(&mut Limits), model: &Model) -> GraphError {
    let mut tight = Limits::default();
    limits(&mut tight);
    let f = Function {
        file: "step.onnx".into(),
        batch: 1,
        inputs: Default::default(),
        outputs: Default::default(),
    };
    Session::load(&model.bytes(), &f, Weights::F32, Level::best(), &tight).map(|_| ()).unwrap_err()
}

#[test]
fn rows_without_elements_fold_to_nothing() {
    let empty = |op: &str, ports: &str| {
        let m = Model::new(18, &[1, 2]).floats("e", &[2, 0], &[]).floats("g", &[0], &[]);
        m.node(op, ports, vec![]).node("Neg", "x -> y", vec![]).gives(&[1.0, -2.0], &[-1.0, 2.0], 0.0);
    };
    empty("Softmax", "e -> s");
    empty("LogSoftmax", "e -> s");
    empty("LayerNormalization", "e g -> s");
}

#[test]
fn a_dimension_of_0_hides_no_others() {
    // Two axes of 65 536 would be walked before the third is seen to be empty.
    let m = Model::new(18, &[1, 2]).floats("e", &[65_536, 65_536, 0], &[]);
    let error = m.node("Transpose", "e -> t", vec![]).node("Neg", "x -> y", vec![]).error();
    assert_eq!(error, "tensor \"e\": [65536, 65536, 0] is beyond the limits");
}

#[test]
fn an_axis_is_sliced_once() {
    // Applied twice, the start would lie past the end.
    let m = Model::new(18, &[4, 4]).ints("s", &[3, 3]).ints("e", &[4, 4]).ints("a", &[0, -2]);
    assert_eq!(m.node("Slice", "x s e a -> y", vec![]).error(), "tensor \"y\": axis 0 is sliced twice");
}

#[test]
#[cfg_attr(miri, ignore = "large files take minutes under Miri")]
fn lists_are_as_long_as_the_shape() {
    let many = vec![0; 60_000];
    let m = |op: &str| Model::new(18, &[4]).ints("many", &many).node(op, "x many -> y", vec![]);
    assert_eq!(m("Unsqueeze").error(), "tensor \"y\": a rank of 60001 is beyond the limits");
    assert_eq!(m("Reshape").error(), "tensor \"y\": a rank of 60000 is beyond the limits");
    assert_eq!(m("Split").error(), "tensor \"y\": 60000 lengths for 1 outputs");
    let perm = Model::new(18, &[4]).node("Transpose", "x -> y", vec![ints("perm", &many)]);
    assert_eq!(perm.error(), "node \"y\": attribute perm: 60000 axes for 1 dimensions");
    let longer = Model::new(18, &[4]).node("Transpose", "x -> y", vec![ints("perm", &vec![0; 70_000])]);
    assert_eq!(too_many(&longer), ("bytes in a list", 70_000));
}

#[test]
#[cfg_attr(miri, ignore = "large files take minutes under Miri")]
fn what_one_node_becomes_is_counted() {
    let wide = |inputs: usize, nodes: usize| {
        let ports = |to: String| format!("{}-> {to}", "x ".repeat(inputs));
        let m = (1..nodes).fold(Model::new(18, &[2]), |m, i| m.node("Max", &ports(format!("m{i}")), vec![]));
        m.node("Max", &ports("y".into()), vec![])
    };
    assert_eq!(too_many(&wide(4097, 1)), ("inputs of a node", 4097));
    assert_eq!(too_many(&wide(3000, 2)), ("operations", 4097));
    let ports = (0..256).fold(Model::new(18, &[2]), |mut m, i| {
        m.graph().input.push(info(&format!("i{i}"), &[1]));
        m
    });
    assert_eq!(too_many(&ports.node("Neg", "x -> y", vec![])), ("graph inputs", 257));
    let mut outputs = Model::new(18, &[2]).node("Neg", "x -> y", vec![]);
    (0..256).for_each(|_| outputs.graph().output.push(info("y", &[])));
    assert_eq!(too_many(&outputs), ("graph outputs", 257));
}

#[test]
fn the_work_of_a_run_and_its_weights_are_limited() {
    let m = Model::new(18, &[10, 4]).floats("w", &[4, 3], &[0.5; 12]).node("MatMul", "x w -> y", vec![]);
    let work = with(|l| l.work = 119, &m);
    assert_eq!(work.to_string(), "node \"y\": one run of the graph takes more than 119 operations");
    // Each row of three is padded to a vector of sixteen.
    let weights = with(|l| l.weights = 255, &m);
    assert_eq!(weights.to_string(), "tensor \"step.onnx\": the weights take 256 bytes, more than 255");
    let arena = with(|l| l.arena = 127, &m);
    assert!(arena.to_string().contains("127"), "{arena}");
}

#[test]
fn weights_are_finite_after_folding() {
    // The activation would hide an infinite sum.
    let m = Model::new(18, &[1, 2]).floats("w", &[2, 1], &[1.0, 3e38]).floats("s", &[1], &[10.0]);
    let m =
        m.node("Mul", "w s -> v", vec![]).node("MatMul", "x v -> a", vec![]).node("Tanh", "a -> y", vec![]);
    assert_eq!(m.error(), "tensor \"v\": element 1 is inf");
}

#[test]
fn an_attribute_means_one_thing() {
    let m = |attributes| Model::new(18, &[2, 2]).node("Softmax", "x -> y", attributes);
    assert_eq!(
        m(vec![int("axis", 0), int("axis", 1)]).error(),
        "node \"y\": attribute axis: stands there twice"
    );
    let mut float = int("axis", 0);
    float.kind = 1;
    assert_eq!(m(vec![float]).error(), "node \"y\": attribute axis: is not read by this version");
}

#[test]
fn an_operator_name_cannot_steer_a_terminal() {
    let m = Model::new(18, &[1]).node("\u{1b}[2JRelu", "x -> y", vec![]);
    assert_eq!(m.error(), "node \"y\": operator \\u{1b}[2JRelu is not supported");
}

#[test]
#[cfg_attr(miri, ignore = "large files take minutes under Miri")]
fn planning_a_graph_of_the_largest_size_takes_a_moment() {
    // Every value lives to the end: the hardest case for the layout.
    let mut m = Model::new(18, &[16]).node("Neg", "x -> v0", vec![]);
    for i in 1..2000 {
        m = m.node("Neg", &format!("v{} -> v{i}", i - 1), vec![]);
    }
    for i in 0..2000 {
        let (a, b) = (if i == 0 { "x".to_owned() } else { format!("s{i}") }, 1999 - i);
        m = m.node("Add", &format!("{a} v{b} -> s{}", i + 1), vec![]);
    }
    let graph: Graph = m.node("Neg", "s2000 -> y", vec![]).build().unwrap();
    let mut s = crate::testing::session(graph, Level::best());
    s.input_mut(0).fill(1.0);
    // 1 + Σ (−1)^(i+1), and its sign turned.
    s.run().unwrap();
    assert_eq!(s.output(0), [-1.0; 16]);
}
