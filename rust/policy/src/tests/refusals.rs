//! Graphs that must not load, each with its error.

use crate::graph::{Graph, GraphError};
use crate::limits::Limits;
use crate::onnx::{FunctionProto, OnnxError};
use crate::testing::{Model, info, int};

fn identity() -> Model {
    Model::new(18, &[1, 2]).node("Identity", "x -> y", vec![])
}

#[test]
fn operators_outside_the_list_are_named() {
    let op = |op: &str| Model::new(18, &[1, 2]).node(op, "x -> y", vec![]).error();
    assert_eq!(op("Frobnicate"), "node \"y\": operator Frobnicate is not supported");
    assert_eq!(
        op("If"),
        "node \"y\": operator If is not supported; a tick has no control flow: export a straight graph"
    );
    assert_eq!(op("Einsum"), "node \"y\": operator Einsum is not supported; write matmul");
    assert_eq!(
        op("DequantizeLinear"),
        "node \"y\": operator DequantizeLinear is not supported; export f32 and set weights=int8"
    );
    let mut m = Model::new(18, &[1, 2]).node("FusedMatMul", "x -> y", vec![]);
    m.graph().node[0].domain = "com.microsoft".into();
    assert!(m.error().ends_with("export without onnxruntime's offline optimiser"), "{}", m.error());
}

#[test]
fn an_attribute_that_is_not_read_is_refused() {
    let m = Model::new(18, &[1, 2]).node("Relu", "x -> y", vec![int("surprise", 1)]);
    assert_eq!(m.error(), "node \"y\": attribute surprise: is not read by this version");
}

#[test]
fn weights_must_be_finite() {
    for bad in [f32::NAN, f32::INFINITY] {
        let m = Model::new(18, &[1, 2]).floats("w", &[2, 1], &[1.0, bad]).node("MatMul", "x w -> y", vec![]);
        assert_eq!(m.error(), format!("tensor \"w\": element 1 is {bad}"));
    }
    // −∞ may only mask a softmax.
    let mask = || Model::new(18, &[1, 2]).floats("m", &[2], &[0.0, f32::NEG_INFINITY]);
    let bad = "tensor \"m\": element 1 is -inf";
    assert_eq!(mask().node("Add", "x m -> y", vec![]).error(), bad);
    assert_eq!(mask().node("Add", "x m -> a", vec![]).node("Exp", "a -> y", vec![]).error(), bad);
    let both = mask().node("Add", "x m -> a", vec![]).node("Softmax", "a -> s", vec![]);
    assert_eq!(both.node("Add", "a s -> y", vec![]).error(), bad);
    let soft = mask().node("Add", "m x -> a", vec![]).node("Softmax", "a -> y", vec![]);
    soft.gives(&[3.0, 5.0], &[1.0, 0.0], 0.0);
    let infinite = Model::new(18, &[1, 2]).floats("c", &[], &[f32::INFINITY]);
    assert_eq!(infinite.node("Mul", "x c -> y", vec![]).error(), "tensor \"c\": element 0 is inf");
}

#[test]
fn cycles_and_loose_ends_are_dangling() {
    let cycle = Model::new(18, &[1, 2]).node("Add", "x b -> a", vec![]).node("Neg", "a -> b", vec![]);
    assert_eq!(
        cycle.node("Neg", "b -> y", vec![]).error(),
        "node \"a\": tensor \"b\" is not computed before it"
    );
    let none = Model::new(18, &[1, 2]).node("Neg", "x -> z", vec![]);
    assert_eq!(none.error(), "node \"graph outputs\": tensor \"y\" is not computed before it");
    let twice = identity().node("Neg", "x -> y", vec![]);
    assert_eq!(twice.error(), "tensor \"y\" is defined twice");
    let mask =
        Model::new(18, &[1, 2]).node("Dropout", "x -> z mask", vec![]).node("Neg", "mask -> y", vec![]);
    assert!(mask.error().contains("\"mask\" is not computed"));
}

#[test]
fn shapes_must_be_static_and_small() {
    let open = Model::new(18, &[1, -1]).node("Neg", "x -> y", vec![]);
    assert_eq!(open.error(), "tensor \"x\": dimension 1 is dynamic; export with a fixed shape");
    // A leading open dimension is the batch.
    assert_eq!(Model::new(18, &[-1, 2]).node("Neg", "x -> y", vec![]).run(&[1.0, 2.0])[0], [-1.0, -2.0]);
    let huge = Model::new(18, &[1, i64::MAX]).node("Neg", "x -> y", vec![]);
    assert!(huge.error().contains("beyond the limits"), "{}", huge.error());
    let product = Model::new(18, &[60_000, 60_000]).node("Neg", "x -> y", vec![]);
    assert!(product.error().contains("beyond the limits"));
    let grow = Model::new(18, &[1]).ints("n", &[60_000, 60_000]).node("Expand", "x n -> y", vec![]);
    assert!(grow.error().contains("beyond the limits"));
    // A constant whose shape promises more than the file holds.
    let mut lie = identity().floats("w", &[1], &[1.0]);
    lie.graph().initializer[0].dims = vec![60_000];
    assert_eq!(lie.error(), "tensor \"w\": 4 raw bytes for 60000 elements of type 1");
    let mismatch = Model::new(18, &[1, 2]).floats("c", &[3], &[0.0; 3]).node("Add", "x c -> y", vec![]);
    assert_eq!(mismatch.error(), "tensor \"y\": the shapes [[1, 2], [3]] do not broadcast");
}

#[test]
#[cfg_attr(miri, ignore = "large or many files take minutes under Miri")]
fn folding_has_a_budget() {
    let m = Model::new(18, &[1])
        .ints("n", &[60_000, 1000])
        .node("ConstantOfShape", "n -> a", vec![])
        .node("Exp", "a -> b", vec![])
        .node("ReduceSum", "b -> c", vec![])
        .node("Mul", "x c -> y", vec![]);
    assert!(matches!(m.build().unwrap_err(), GraphError::Folding { .. }));
}

#[test]
#[cfg_attr(miri, ignore = "large or many files take minutes under Miri")]
fn broadcasts_have_a_budget_and_tensors_an_arena() {
    // Eight selections, each of which would have to write a scalar out four million times.
    let mut m = Model::new(18, &[4096, 1024]).floats("c", &[], &[1.0]).node("Abs", "x -> v0", vec![]);
    for i in 0..8 {
        m = m.node("Greater", &format!("v{i} c -> g{i}"), vec![]);
        m = m.node("Where", &format!("g{i} c v{i} -> v{}", i + 1), vec![]);
    }
    let graph = m.node("Neg", "v8 -> y", vec![]).build().unwrap();
    let legal = crate::fuse::legalise(&mut graph.clone(), Limits::default().folding);
    assert!(matches!(legal.unwrap_err(), GraphError::Folding { .. }));
    let wide = Model::new(18, &[1000, 1]).ints("n", &[1000, 65_000]).node("Expand", "x n -> y", vec![]);
    assert!(matches!(wide.build().unwrap_err(), GraphError::Folding { .. }));
    let outer =
        Model::new(18, &[60_000, 1]).floats("r", &[1, 1200], &[1.0; 1200]).node("Mul", "x r -> y", vec![]);
    assert!(outer.error().contains("beyond the limits"), "{}", outer.error());
}

#[test]
fn initialisers_among_the_inputs_are_no_inputs() {
    let mut m = Model::new(11, &[1, 2]).floats("c", &[2], &[1.0, 2.0]).node("Add", "x c -> y", vec![]);
    m.graph().input.push(info("c", &[2]));
    assert_eq!(m.build().unwrap().inputs.len(), 1);
    m.gives(&[1.0, 1.0], &[2.0, 3.0], 0.0);
}

#[test]
fn files_that_are_not_plain_graphs() {
    let mut m = identity();
    m.0.functions.push(FunctionProto { name: "f".into() });
    assert_eq!(m.error(), "model-local function \"f\": export with functions inlined");
    let mut m = identity().floats("w", &[1], &[1.0]);
    m.graph().initializer[0].data_location = 1;
    assert!(
        m.error().starts_with("tensor \"w\" keeps its data in another file; save with external_data=False")
    );
    let mut m = identity();
    m.0.opset_import[0].version = 25;
    assert_eq!(m.error(), "opset 25 of the default domain; 11 to 24 are read");
    let limits = Limits::default();
    let garbage = Graph::build(&[0xFF; 40], 1, &limits).unwrap_err();
    assert!(matches!(garbage, GraphError::Onnx(OnnxError::Malformed(_))));
    assert_eq!(
        Graph::build(&[], 1, &limits).unwrap_err().to_string(),
        "opset 0 of the default domain; 11 to 24 are read"
    );
}

#[test]
#[cfg_attr(miri, ignore = "large or many files take minutes under Miri")]
fn caps_hold_before_anything_is_decoded() {
    let error = |m: &Model| m.build().unwrap_err();
    let mut m = identity();
    for i in 0..4096 {
        m = m.node("Neg", &format!("x -> n{i}"), vec![]);
    }
    assert_eq!(error(&m), OnnxError::TooMany { what: "nodes", got: 4097, limit: 4096 }.into());
    let m = Model::new(18, &[1]).node("Neg", "x -> y", (0..65).map(|i| int(&format!("a{i}"), 0)).collect());
    assert_eq!(error(&m), OnnxError::TooMany { what: "attributes of a node", got: 65, limit: 64 }.into());
    let long = "n".repeat(70_000);
    let m = Model::new(18, &[1]).node(&long, "x -> y", vec![]);
    assert_eq!(
        error(&m),
        OnnxError::TooMany { what: "bytes in a string", got: 70_000, limit: 65_536 }.into()
    );
    let mut m = identity();
    (0..16_384).for_each(|i| m.graph().input.push(info(&format!("i{i}"), &[])));
    assert!(matches!(error(&m), GraphError::Onnx(OnnxError::TooMany { what: "tensors", .. })));
}

#[test]
#[cfg_attr(miri, ignore = "large or many files take minutes under Miri")]
fn truncated_and_flipped_files_never_panic() {
    let file = Model::new(18, &[1, 4])
        .floats("w", &[4, 3], &[0.5; 12])
        .floats("g", &[3], &[1.0; 3])
        .ints("s", &[3, 1])
        .node("MatMul", "x w -> a", vec![])
        .node("LayerNormalization", "a g -> b", vec![int("axis", -1)])
        .node("Reshape", "b s -> c", vec![])
        .node("Softmax", "c -> y", vec![int("axis", 0)])
        .bytes();
    let limits = Limits::default();
    for end in 0..file.len() {
        let _ = Graph::build(&file[..end], 1, &limits);
    }
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut bad = file.clone();
            bad[at] ^= 1 << bit;
            if let Ok(graph) = Graph::build(&bad, 1, &limits) {
                // Whatever still loads must also run without reading out of bounds.
                let mut s = crate::testing::session(graph, crate::isa::Level::best());
                let _ = s.run();
            }
        }
    }
}
