//! Builds ONNX files for unit tests.

use prost::Message;

use crate::graph::{Graph, GraphError};
use crate::isa::{Isa, Level};
use crate::limits::Limits;
use crate::manifest::{Function, Weights};
use crate::onnx::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use crate::session::Session;

/// A model under construction: one input `x`, one output `y` unless said otherwise.
#[derive(Clone)]
pub(crate) struct Model(pub(crate) ModelProto);

impl Model {
    /// An empty graph with the input `x` of `shape` and the output `y`.
    pub(crate) fn new(opset: i64, shape: &[i64]) -> Self {
        let graph = GraphProto {
            input: vec![info("x", shape)],
            output: vec![info("y", &[])],
            ..GraphProto::default()
        };
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
        Self(ModelProto { graph: Some(graph), opset_import, functions: vec![] })
    }

    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.as_mut().expect("made with a graph")
    }

    /// Adds a node; its outputs are the names after `->`: `"x w -> y"`.
    pub(crate) fn node(mut self, op: &str, ports: &str, attributes: Vec<AttributeProto>) -> Self {
        let (i, o) = ports.split_once("->").expect("inputs -> outputs");
        let names =
            |s: &str| s.split_whitespace().map(|n| if n == "_" { String::new() } else { n.into() }).collect();
        let node = NodeProto {
            input: names(i),
            output: names(o),
            op_type: op.into(),
            attribute: attributes,
            ..NodeProto::default()
        };
        self.graph().node.push(node);
        self
    }

    /// Adds a float constant.
    pub(crate) fn floats(mut self, name: &str, shape: &[i64], data: &[f32]) -> Self {
        let raw = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let t = TensorProto {
            name: name.into(),
            dims: shape.to_vec(),
            data_type: 1,
            raw_data: Some(raw),
            ..TensorProto::default()
        };
        self.graph().initializer.push(t);
        self
    }

    /// Adds a vector of integers.
    pub(crate) fn ints(mut self, name: &str, data: &[i64]) -> Self {
        let t = TensorProto {
            name: name.into(),
            dims: vec![data.len() as i64],
            data_type: 7,
            int64_data: data.to_vec(),
            ..TensorProto::default()
        };
        self.graph().initializer.push(t);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    pub(crate) fn build(&self) -> Result<Graph, GraphError> {
        Graph::build(&self.bytes(), 1, &Limits::default())
    }

    /// The refusal, as text.
    pub(crate) fn error(&self) -> String {
        self.build().map(|_| ()).expect_err("must be refused").to_string()
    }

    /// Runs the graph on `x`, with and without fusion, on every instruction set of this machine, each with a poisoned
    /// arena; all answers.
    pub(crate) fn run(&self, x: &[f32]) -> Vec<Vec<f32>> {
        let graph = self.build().unwrap_or_else(|e| panic!("{e}"));
        let mut fused = graph.clone();
        crate::fuse::fuse(&mut fused);
        let mut answers = vec![];
        for graph in [graph, fused] {
            for level in [Isa::Scalar, Isa::Avx2, Isa::Neon].into_iter().filter_map(Level::of) {
                let mut s = session(graph.clone(), level);
                s.input_mut(0).copy_from_slice(x);
                let mut twice = vec![];
                for _ in 0..2 {
                    s.poison();
                    s.run().unwrap_or_else(|e| panic!("{e}"));
                    twice.push(s.output(0).to_vec());
                }
                assert_eq!(bits(&twice[0]), bits(&twice[1]), "a poisoned arena changes the result");
                answers.push(twice.swap_remove(0));
            }
        }
        answers
    }

    /// Runs the graph every way and compares with `expected`.
    pub(crate) fn gives(&self, x: &[f32], expected: &[f64], tolerance: f64) {
        for y in self.run(x) {
            assert_eq!(y.len(), expected.len());
            for (i, (&y, e)) in y.iter().zip(expected).enumerate() {
                assert!((f64::from(y) - e).abs() <= tolerance, "element {i}: {y} instead of {e}");
            }
        }
    }
}

/// A session around a graph.
pub(crate) fn session(graph: Graph, level: Level) -> Session {
    let f = Function {
        file: "step.onnx".into(),
        batch: 1,
        inputs: Default::default(),
        outputs: Default::default(),
    };
    Session::plan(graph, &f, Weights::F32, level, &Limits::default()).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

pub(crate) fn info(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = shape.iter().map(|&d| DimensionProto { dim_value: (d >= 0).then_some(d) }).collect();
    let tensor = TensorTypeProto { elem_type: 1, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type: Some(tensor) }) }
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, kind: 2, ..AttributeProto::default() }
}

pub(crate) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, kind: 1, ..AttributeProto::default() }
}

pub(crate) fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: v.to_vec(), kind: 7, ..AttributeProto::default() }
}

pub(crate) fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: s.as_bytes().to_vec(), kind: 3, ..AttributeProto::default() }
}
