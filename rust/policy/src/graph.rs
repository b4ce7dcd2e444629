//! A checked graph: names resolved, every shape static, constants folded, each operator on the allow-list.
//!
//! [`Graph::build`] reads the nodes in order. Each is lowered by the room of its class in [`crate::lower`] to the few
//! operations of [`crate::op`]; an operation whose inputs are all constant is evaluated at once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::eval;
use crate::finite;
use crate::limits::Limits;
use crate::lower;
use crate::onnx::{self, GraphProto, NodeProto, OnnxError, ValueInfoProto};
use crate::op::{Binary, Op, Unary};
use crate::tensor::{self, DType, Tensor};
use crate::text::shown;

/// Why a graph is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The file around the graph.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// An operator that this version does not run.
    #[error("node {node:?}: operator {} is not supported{hint}", shown(op))]
    Unsupported {
        /// The node.
        node: String,
        /// The operator, with its domain if that is not the default one.
        op: String,
        /// What to do instead, if anything is known.
        hint: String,
    },
    /// An attribute has a value, or a name, that the operator does not take here.
    #[error("node {node:?}: attribute {}: {why}", shown(attribute))]
    Attribute {
        /// The node.
        node: String,
        /// The attribute.
        attribute: String,
        /// What is wrong.
        why: String,
    },
    /// An input is missing, or must be constant and is not.
    #[error("node {node:?}: input {index} {why}")]
    Input {
        /// The node.
        node: String,
        /// Which input.
        index: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A dimension is not known before running.
    #[error("tensor {tensor:?}: dimension {axis} is dynamic; export with a fixed shape")]
    DynamicShape {
        /// The tensor.
        tensor: String,
        /// Which dimension.
        axis: usize,
    },
    /// A shape that does not fit.
    #[error("tensor {tensor:?}: {why}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// An element type that is not read.
    #[error("tensor {tensor:?}: element type {code} is not read")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// ONNX's number of the type.
        code: i32,
    },
    /// NaN or infinity among the weights.
    #[error("tensor {tensor:?}: element {index} is {value}")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// Which element.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// Nothing before the node computes one of its inputs (a cycle looks like this too).
    #[error("node {node:?}: tensor {tensor:?} is not computed before it")]
    Dangling {
        /// The node, or `graph outputs`.
        node: String,
        /// The tensor.
        tensor: String,
    },
    /// Two things have the same name.
    #[error("tensor {tensor:?} is defined twice")]
    Redefined {
        /// The tensor.
        tensor: String,
    },
    /// Folding the constants, or listing the elements that are moved, would take too long.
    #[error("node {node:?}: loading the graph takes more than {limit} elements")]
    Folding {
        /// The node where the budget ran out.
        node: String,
        /// The budget.
        limit: usize,
    },
    /// One run would take too long.
    #[error("node {node:?}: one run of the graph takes more than {limit} operations")]
    Work {
        /// The node where the budget ran out.
        node: String,
        /// The budget.
        limit: usize,
    },
}

/// Index of a value in [`Graph::values`].
pub(crate) type ValueId = usize;

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    pub(crate) constant: Option<Arc<Tensor>>,
}

impl Value {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) output: ValueId,
}

/// A checked graph. Nodes stand in an order in which they can run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) outputs: Vec<ValueId>,
    /// Names of the outputs; a value keeps the name of its first maker.
    pub(crate) output_names: Vec<String>,
}

impl Graph {
    /// Decodes and checks an ONNX file. A leading dimension that the file leaves open becomes `batch`.
    pub(crate) fn build(file: &[u8], batch: usize, limits: &Limits) -> Result<Self, GraphError> {
        let (proto, opset) = onnx::decode(file, limits)?;
        let mut b =
            Builder { graph: Self::default(), names: HashMap::new(), opset, limits, folded: 0, work: 0 };
        b.constants_and_inputs(&proto, batch)?;
        for node in &proto.node {
            lower::node(&mut b, node)?;
        }
        onnx::within("graph outputs", proto.output.len(), limits.ports)?;
        for output in &proto.output {
            let id = b.lookup("graph outputs", &output.name)?;
            if b.graph.values[id].dtype != DType::F32 {
                let why = "an output must be float; integers exist only in folded constants".to_owned();
                return Err(GraphError::Shape { tensor: output.name.clone(), why });
            }
            b.graph.outputs.push(id);
            b.graph.output_names.push(output.name.clone());
        }
        b.graph.drop_dead();
        finite::check(&b.graph)?;
        Ok(b.graph)
    }

    /// Drops nodes that no output needs.
    pub(crate) fn drop_dead(&mut self) {
        let mut needed = vec![false; self.values.len()];
        self.outputs.iter().for_each(|&o| needed[o] = true);
        for node in self.nodes.iter().rev() {
            if needed[node.output] {
                node.inputs.iter().for_each(|&i| needed[i] = true);
            }
        }
        self.nodes.retain(|n| needed[n.output]);
    }
}

/// A graph under construction.
pub(crate) struct Builder<'a> {
    pub(crate) graph: Graph,
    names: HashMap<String, ValueId>,
    pub(crate) opset: i64,
    pub(crate) limits: &'a Limits,
    folded: usize,
    work: usize,
}

impl Builder<'_> {
    fn constants_and_inputs(&mut self, proto: &GraphProto, batch: usize) -> Result<(), GraphError> {
        for t in &proto.initializer {
            let tensor = tensor::read(t, &t.name, self.limits)?;
            let id = self.constant(&t.name, tensor);
            self.define(&t.name, id)?;
        }
        for input in &proto.input {
            // Up to IR version 3, initialisers stand among the inputs as well.
            if self.names.get(&input.name).is_some_and(|&id| self.graph.values[id].constant.is_some()) {
                continue;
            }
            let (dtype, shape) = self.declared(input, batch)?;
            if dtype != DType::F32 {
                let why = "an input must be float".to_owned();
                return Err(GraphError::Shape { tensor: input.name.clone(), why });
            }
            let id = self.value(&input.name, dtype, shape, None);
            self.define(&input.name, id)?;
            self.graph.inputs.push(id);
            onnx::within("graph inputs", self.graph.inputs.len(), self.limits.ports)?;
        }
        Ok(())
    }

    /// The type and shape that the file declares for an input.
    fn declared(&self, info: &ValueInfoProto, batch: usize) -> Result<(DType, Vec<usize>), GraphError> {
        let name = || info.name.clone();
        let bad = |why: &str| GraphError::Shape { tensor: name(), why: why.to_owned() };
        let t = info.kind.as_ref().and_then(|k| k.tensor_type.as_ref()).ok_or_else(|| bad("not a tensor"))?;
        let dims = t.shape.as_ref().map(|s| &s.dim).ok_or_else(|| bad("no shape"))?;
        let mut shape = Vec::with_capacity(dims.len());
        for (axis, d) in dims.iter().enumerate() {
            match d.dim_value {
                Some(n) if n > 0 => shape.push(usize::try_from(n).unwrap_or(usize::MAX)),
                _ if axis == 0 => shape.push(batch),
                _ => return Err(GraphError::DynamicShape { tensor: name(), axis }),
            }
        }
        tensor::elements(&shape, &info.name, self.limits)?;
        if matches!(t.elem_type, 10 | 11 | 16) {
            return Err(bad("half and double precision exist only in constants; export in float"));
        }
        Ok((tensor::dtype(t.elem_type, &info.name)?, shape))
    }

    /// Gives a value its name.
    pub(crate) fn define(&mut self, name: &str, id: ValueId) -> Result<(), GraphError> {
        if self.names.insert(name.to_owned(), id).is_some() {
            return Err(GraphError::Redefined { tensor: name.to_owned() });
        }
        Ok(())
    }

    /// The value called `name`, for `node`.
    pub(crate) fn lookup(&self, node: &str, name: &str) -> Result<ValueId, GraphError> {
        let missing = || GraphError::Dangling { node: node.to_owned(), tensor: name.to_owned() };
        self.names.get(name).copied().ok_or_else(missing)
    }

    fn value(&mut self, name: &str, dtype: DType, shape: Vec<usize>, constant: Option<Tensor>) -> ValueId {
        self.graph.values.push(Value {
            name: name.to_owned(),
            dtype,
            shape,
            constant: constant.map(Arc::new),
        });
        self.graph.values.len() - 1
    }

    /// Adds a constant; `name` stands in errors.
    pub(crate) fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        self.value(name, tensor.dtype, tensor.shape.clone(), Some(tensor))
    }

    /// Shape of a value.
    pub(crate) fn shape(&self, id: ValueId) -> &[usize] {
        &self.graph.values[id].shape
    }

    /// Kind of a value's elements.
    pub(crate) fn dtype(&self, id: ValueId) -> DType {
        self.graph.values[id].dtype
    }

    /// The constant behind a value.
    pub(crate) fn as_constant(&self, id: ValueId) -> Option<Arc<Tensor>> {
        self.graph.values[id].constant.clone()
    }

    /// Takes `count` elements from the folding budget.
    pub(crate) fn spend(&mut self, name: &str, count: usize) -> Result<(), GraphError> {
        self.folded = self.folded.saturating_add(count);
        if self.folded > self.limits.folding {
            return Err(GraphError::Folding { node: name.to_owned(), limit: self.limits.folding });
        }
        Ok(())
    }

    /// Adds an operation with the shape of its result, or evaluates it when all inputs are constant.
    pub(crate) fn emit(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        dtype: DType,
        shape: Vec<usize>,
    ) -> Result<ValueId, GraphError> {
        let count = tensor::elements(&shape, name, self.limits)?;
        if count == 0 && inputs.iter().any(|&i| self.graph.values[i].constant.is_none()) {
            return Err(GraphError::Shape { tensor: name.to_owned(), why: format!("{shape:?} is empty") });
        }
        // One node of the file may become many operations and tensors.
        onnx::within("operations", self.graph.nodes.len() + 1, self.limits.nodes)?;
        onnx::within("tensors", self.graph.values.len() + 1, 4 * self.limits.tensors)?;
        let work = match &op {
            Op::Linear(_) | Op::MatMul => {
                count.saturating_mul(self.shape(inputs[0]).last().copied().unwrap_or(1))
            }
            Op::Attention(a) => a.macs(),
            Op::Recurrent(cell) => count.saturating_add(2 * cell.macs()),
            Op::Conv { .. } => count.saturating_mul(self.shape(inputs[1])[1]),
            _ => count + self.graph.values[inputs[0]].len(),
        };
        let constants: Option<Vec<_>> = inputs.iter().map(|&i| self.as_constant(i)).collect();
        if let Some(constants) = constants {
            self.spend(name, work)?;
            let tensors: Vec<&Tensor> = constants.iter().map(|c| &**c).collect();
            let result = eval::apply(&op, &tensors, dtype, &shape);
            if let Some(index) = result.data.iter().position(|x| x.is_nan()) {
                return Err(GraphError::NonFinite { tensor: name.to_owned(), index, value: f64::NAN });
            }
            return Ok(self.constant(name, result));
        }
        if count.saturating_mul(4) > self.limits.arena {
            let why = format!("{shape:?} does not fit an arena of {} bytes", self.limits.arena);
            return Err(GraphError::Shape { tensor: name.to_owned(), why });
        }
        if dtype == DType::Int {
            let why = "integers are computed from an input; they exist only in folded constants".to_owned();
            return Err(GraphError::Shape { tensor: name.to_owned(), why });
        }
        self.work = self.work.saturating_add(work);
        if self.work > self.limits.work {
            return Err(GraphError::Work { node: name.to_owned(), limit: self.limits.work });
        }
        if matches!(op, Op::Linear(_) | Op::LayerNorm { .. } | Op::RmsNorm { .. }) {
            inputs[1..].iter().try_for_each(|&i| self.finite(i))?;
        }
        let output = self.value(name, dtype, shape, None);
        self.graph.nodes.push(Node { op, inputs: inputs.to_vec(), output });
        Ok(output)
    }

    /// Weights must be finite after folding, too: an infinite one could hide behind a saturating function.
    fn finite(&self, id: ValueId) -> Result<(), GraphError> {
        let Some(t) = &self.graph.values[id].constant else { return Ok(()) };
        match t.data.iter().position(|x| !x.is_finite()) {
            Some(index) => {
                let tensor = self.graph.values[id].name.clone();
                Err(GraphError::NonFinite { tensor, index, value: t.data[index] })
            }
            None => Ok(()),
        }
    }

    /// Emits a function of one number, with the input's shape.
    pub(crate) fn unary(&mut self, name: &str, f: Unary, x: ValueId) -> Result<ValueId, GraphError> {
        let (mut dtype, shape) = (self.dtype(x), self.shape(x).to_vec());
        if matches!(f, Unary::Not | Unary::IsNan | Unary::Truth) {
            dtype = DType::Bool;
        }
        self.emit(name, Op::Unary(f), &[x], dtype, shape)
    }

    /// Emits a function of two numbers, broadcasting.
    pub(crate) fn binary(
        &mut self,
        name: &str,
        f: Binary,
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, GraphError> {
        let shape = self.broadcast(name, &[a, b])?;
        let dtype = if f.is_truth() { DType::Bool } else { self.dtype(a) };
        self.emit(name, Op::Binary(f), &[a, b], dtype, shape)
    }

    /// The shape that numpy's broadcasting gives.
    pub(crate) fn broadcast(&self, name: &str, ids: &[ValueId]) -> Result<Vec<usize>, GraphError> {
        let rank = ids.iter().map(|&i| self.shape(i).len()).max().unwrap_or(0);
        let mut shape = vec![1; rank];
        for &id in ids {
            let own = self.shape(id);
            for (s, &d) in shape[rank - own.len()..].iter_mut().zip(own) {
                if *s == 1 {
                    *s = d;
                } else if d != 1 && d != *s {
                    let shapes: Vec<_> = ids.iter().map(|&i| self.shape(i)).collect();
                    let why = format!("the shapes {shapes:?} do not broadcast");
                    return Err(GraphError::Shape { tensor: name.to_owned(), why });
                }
            }
        }
        Ok(shape)
    }
}

/// What errors call a node.
pub(crate) fn label(node: &NodeProto) -> String {
    if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() }
}
