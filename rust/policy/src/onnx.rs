//! ONNX protobuf messages, the fields that we read, and their decoding within [`Limits`].
//!
//! Before `prost` allocates anything, [`decode`] walks the bytes and counts: nodes, tensors, attributes, strings.
//! Sub-graphs of attributes are never decoded (If, Loop and Scan are refused), so messages do not recurse.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::limits::Limits;

/// Why an ONNX file is refused before its graph is looked at.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Not a protobuf message of the ONNX schema.
    #[error("not an ONNX file: {0}")]
    Malformed(String),
    /// More of something than the limits allow.
    #[error("{got} {what}, more than {limit}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        got: usize,
        /// Most allowed.
        limit: usize,
    },
    /// No graph.
    #[error("the file holds no graph")]
    NoGraph,
    /// Version of the operator set.
    #[error("opset {found} of the default domain; {lowest} to {highest} are read")]
    Opset {
        /// Version of the file; 0 when it names none.
        found: i64,
        /// Oldest that is read.
        lowest: i64,
        /// Newest that is read.
        highest: i64,
    },
    /// Model-local functions.
    #[error("model-local function {0:?}: export with functions inlined")]
    LocalFunction(String),
    /// Weights in another file.
    #[error(
        "tensor {0:?} keeps its data in another file; save with external_data=False (onnx.save_model) to inline it"
    )]
    ExternalData(String),
}

/// Oldest and newest operator set that is read.
pub(crate) const OPSETS: (i64, i64) = (11, 24);

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "25")]
    pub(crate) functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct FunctionProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfoProto>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(crate) sparse_initializer: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(float, tag = "2")]
    pub(crate) f: f32,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<TensorProto>,
    #[prost(float, repeated, tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(crate) strings: Vec<Vec<u8>>,
    #[prost(int32, tag = "20")]
    pub(crate) kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(crate) raw_data: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    pub(crate) double_data: Vec<f64>,
    #[prost(bytes = "vec", repeated, tag = "13")]
    pub(crate) external_data: Vec<Vec<u8>>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub(crate) dim_value: Option<i64>,
}

/// Decodes a model, and checks everything that needs no look at its operators. Returns the graph and the opset.
pub(crate) fn decode(bytes: &[u8], limits: &Limits) -> Result<(GraphProto, i64), OnnxError> {
    let mut census = Census::new(limits);
    census.message(bytes, Kind::Model)?;
    let model = ModelProto::decode(bytes).map_err(|e| OnnxError::Malformed(e.to_string()))?;
    if let Some(f) = model.functions.first() {
        return Err(OnnxError::LocalFunction(f.name.clone()));
    }
    let default = |d: &str| d.is_empty() || d == "ai.onnx";
    let opset =
        model.opset_import.iter().filter(|o| default(&o.domain)).map(|o| o.version).max().unwrap_or(0);
    if !(OPSETS.0..=OPSETS.1).contains(&opset) {
        return Err(OnnxError::Opset { found: opset, lowest: OPSETS.0, highest: OPSETS.1 });
    }
    let graph = model.graph.ok_or(OnnxError::NoGraph)?;
    if !graph.sparse_initializer.is_empty() {
        return Err(OnnxError::Malformed("sparse initialisers are not read; store them dense".into()));
    }
    let in_nodes = graph.node.iter().flat_map(|n| &n.attribute).filter_map(|a| a.t.as_ref());
    if let Some(t) =
        graph.initializer.iter().chain(in_nodes).find(|t| t.data_location != 0 || !t.external_data.is_empty())
    {
        return Err(OnnxError::ExternalData(t.name.clone()));
    }
    Ok((graph, opset))
}

/// Messages that the census enters.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
}

/// Counts what a model would make `prost` allocate.
struct Census<'a> {
    limits: &'a Limits,
    nodes: usize,
    tensors: usize,
    fields: usize,
    metadata: usize,
}

impl<'a> Census<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self { limits, nodes: 0, tensors: 0, fields: 0, metadata: 0 }
    }

    fn message(&mut self, mut bytes: &[u8], kind: Kind) -> Result<(), OnnxError> {
        let malformed = |e: prost::DecodeError| OnnxError::Malformed(e.to_string());
        let (mut attributes, mut inputs) = (0, 0);
        while bytes.has_remaining() {
            let (tag, wire) = decode_key(&mut bytes).map_err(malformed)?;
            self.fields += 1;
            within("protobuf fields", self.fields, 96 * (self.limits.nodes + self.limits.tensors))?;
            if wire != WireType::LengthDelimited {
                skip_field(wire, tag, &mut bytes, DecodeContext::default()).map_err(malformed)?;
                continue;
            }
            let length = decode_varint(&mut bytes).map_err(malformed)?;
            if length > bytes.len() as u64 {
                return Err(OnnxError::Malformed(format!(
                    "field {tag} has {length} bytes, but {} follow",
                    bytes.len()
                )));
            }
            let (field, rest) = bytes.split_at(length as usize);
            bytes = rest;
            let inner = match (kind, tag) {
                (Kind::Model, 7) => Some(Kind::Graph),
                (Kind::Graph, 1) => {
                    self.nodes += 1;
                    within("nodes", self.nodes, self.limits.nodes)?;
                    Some(Kind::Node)
                }
                (Kind::Graph, 5) => {
                    self.tensors += 1;
                    Some(Kind::Tensor)
                }
                (Kind::Graph, 11 | 12) => {
                    self.tensors += 1;
                    Some(Kind::ValueInfo)
                }
                (Kind::ValueInfo, 2) => Some(Kind::Type),
                (Kind::Type, 1) => Some(Kind::TensorType),
                (Kind::TensorType, 2) => Some(Kind::Shape),
                (Kind::Node, 1) => {
                    inputs += 1;
                    within("inputs of a node", inputs, self.limits.nodes)?;
                    None
                }
                (Kind::Node, 2) => {
                    self.tensors += 1;
                    None
                }
                (Kind::Node, 5) => {
                    attributes += 1;
                    within("attributes of a node", attributes, self.limits.attributes)?;
                    Some(Kind::Attribute)
                }
                (Kind::Attribute, 5) => Some(Kind::Tensor),
                (Kind::Model, 14) | (Kind::Graph, 16) => {
                    self.metadata += field.len();
                    within("bytes of metadata_props", self.metadata, self.limits.metadata)?;
                    None
                }
                _ => None,
            };
            within("tensors", self.tensors, self.limits.tensors)?;
            let is_string = matches!(
                (kind, tag),
                (Kind::Node, 1..=4 | 7)
                    | (Kind::Attribute, 1 | 4 | 9)
                    | (Kind::Tensor, 8)
                    | (Kind::ValueInfo, 1)
            );
            if is_string {
                within("bytes in a string", field.len(), self.limits.string)?;
            }
            // Packed numbers take up to eight times as much memory as in the file.
            if matches!((kind, tag), (Kind::Tensor, 1) | (Kind::Attribute, 7 | 8)) {
                within("bytes in a list", field.len(), self.limits.string)?;
            }
            if let Some(inner) = inner {
                self.message(field, inner)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn within(what: &'static str, got: usize, limit: usize) -> Result<(), OnnxError> {
    if got > limit { Err(OnnxError::TooMany { what, got, limit }) } else { Ok(()) }
}
