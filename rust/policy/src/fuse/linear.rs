//! What a linear layer takes in: the activation behind it. Its bias is one of the constants of `affine`.

use super::{Uses, replace};
use crate::graph::Graph;
use crate::op::Op;

/// A function of one number right after a linear layer.
pub(super) fn activation(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Op::Unary(f) = graph.nodes[index].op else { return false };
    let Some(linear) = uses.only(graph, graph.nodes[index].inputs[0]) else { return false };
    if linear.op != Op::Linear(None) {
        return false;
    }
    let inputs = linear.inputs.clone();
    replace(graph, index, Op::Linear(Some(f)), inputs)
}
