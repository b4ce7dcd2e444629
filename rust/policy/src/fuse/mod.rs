//! Rewrites a graph into fewer operations that compute the same: one file for each family of rules.

mod activation;
mod affine;
mod attention;
mod gelu;
mod legalise;
mod linear;
mod norm;
mod recurrent;

use std::sync::Arc;

pub(crate) use legalise::legalise;

use crate::graph::{Graph, Node, Value, ValueId};
use crate::op::{Binary, Op, Unary};
use crate::tensor::Tensor;

/// A rule looks at the node with this index; it rewrites the graph and answers true, or leaves it alone.
type Rule = fn(&mut Graph, &Uses, usize) -> bool;

/// One line for each family, in the order in which they are tried.
const RULES: &[Rule] = &[
    recurrent::gru,
    recurrent::lstm,
    activation::softplus,
    activation::swish,
    activation::mish,
    activation::gelu,
    attention::guard,
    attention::recognise,
    gelu::tanh,
    norm::layer,
    norm::rms,
    norm::group,
    affine::channels,
    affine::conv_activation,
    linear::activation,
];

/// Applies every rule until none fires, then takes out the moves that an operation can do by itself.
pub(crate) fn fuse(graph: &mut Graph) {
    let mut view = Uses::of(graph);
    let mut index = 0;
    while index < graph.nodes.len() {
        if RULES.iter().any(|rule| rule(graph, &view, index)) {
            graph.drop_dead();
            view = Uses::of(graph);
            index = 0;
        } else {
            index += 1;
        }
    }
    attention::absorb(graph);
}

/// Who computes a value and how often it is read.
struct Uses {
    producer: Vec<Option<usize>>,
    count: Vec<usize>,
}

impl Uses {
    fn of(graph: &Graph) -> Self {
        let mut uses = Self { producer: vec![None; graph.values.len()], count: vec![0; graph.values.len()] };
        for (i, node) in graph.nodes.iter().enumerate() {
            uses.producer[node.output] = Some(i);
            node.inputs.iter().for_each(|&v| uses.count[v] += 1);
        }
        graph.outputs.iter().for_each(|&v| uses.count[v] += 1);
        uses
    }

    /// The operation that computes `value`, if nobody else reads it.
    fn only<'g>(&self, graph: &'g Graph, value: ValueId) -> Option<&'g Node> {
        self.producer[value].filter(|_| self.count[value] == 1).map(|i| &graph.nodes[i])
    }
}

/// The one number that a constant holds.
fn number(graph: &Graph, value: ValueId) -> Option<f64> {
    graph.values[value].constant.as_ref().filter(|t| t.data.len() == 1).map(|t| t.data[0])
}

/// Operands of a binary node, in both orders.
fn both(node: &Node) -> [(ValueId, ValueId); 2] {
    [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])]
}

/// `value` as `f(x)`, read only here; gives `x`.
fn as_unary(graph: &Graph, uses: &Uses, value: ValueId, f: Unary) -> Option<ValueId> {
    uses.only(graph, value).filter(|n| n.op == Op::Unary(f)).map(|n| n.inputs[0])
}

/// `value` as `x ∘ constant`, read only here; gives `x` and the constant.
fn as_scaled(graph: &Graph, uses: &Uses, value: ValueId, f: Binary) -> Option<(ValueId, f64)> {
    let node = uses.only(graph, value).filter(|n| n.op == Op::Binary(f))?;
    let orders = if f == Binary::Div { 1 } else { 2 };
    both(node)[..orders].iter().find_map(|&(x, c)| Some((x, number(graph, c)?)))
}

fn is_product(graph: &Graph, index: usize) -> bool {
    graph.nodes[index].op == Op::Binary(Binary::Mul)
}

fn replace(graph: &mut Graph, index: usize, op: Op, inputs: Vec<ValueId>) -> bool {
    graph.nodes[index].op = op;
    graph.nodes[index].inputs = inputs;
    true
}

fn constant(graph: &mut Graph, tensor: Tensor) -> ValueId {
    let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
    graph.values.push(Value { name: String::new(), dtype, shape, constant: Some(Arc::new(tensor)) });
    graph.values.len() - 1
}
