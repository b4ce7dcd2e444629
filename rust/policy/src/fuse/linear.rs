//! What a linear layer takes in: its bias, and the activation behind it.

use super::{Uses, both, constant, replace};
use crate::graph::Graph;
use crate::op::{Binary, Op};
use crate::tensor::{DType, Tensor};

/// `x·W + b` with a constant `b` for each output.
pub(super) fn bias(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if graph.nodes[index].op != Op::Binary(Binary::Add) {
        return false;
    }
    for (product, bias) in both(&graph.nodes[index]) {
        let Some(linear) = uses.only(graph, product) else { continue };
        if linear.op != Op::Linear(None) || linear.inputs.len() != 2 {
            continue;
        }
        let (x, w) = (linear.inputs[0], linear.inputs[1]);
        let n = graph.values[w].shape[1];
        let Some(b) = graph.values[bias].constant.clone() else { continue };
        let same = graph.values[product].shape == graph.values[graph.nodes[index].output].shape;
        let row = b.data.len() == 1 || (b.data.len() == n && b.shape.last() == Some(&n));
        if !same || !row {
            continue;
        }
        let data = (0..n).map(|i| b.data[i % b.data.len()]).collect();
        let row = constant(graph, Tensor { dtype: DType::F32, shape: vec![n], data });
        return replace(graph, index, Op::Linear(None), vec![x, w, row]);
    }
    false
}

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
