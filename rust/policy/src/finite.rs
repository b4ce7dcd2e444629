//! Which constants may hold infinities: only −∞, and only where it is added to, or chosen for, what goes into a softmax.

use crate::graph::{Graph, GraphError, Node};
use crate::op::{Binary, Op};

/// Checks the constants that nodes read.
pub(crate) fn check(graph: &Graph) -> Result<(), GraphError> {
    // A value may be −∞ when somebody reads it and every reader turns it into a share of zero.
    let mut read = vec![false; graph.values.len()];
    let mut safe = vec![true; graph.values.len()];
    graph.outputs.iter().for_each(|&o| safe[o] = false);
    for node in graph.nodes.iter().rev() {
        let onward = read[node.output] && safe[node.output];
        for (i, &v) in node.inputs.iter().enumerate() {
            read[v] = true;
            safe[v] &= takes_infinity(node, i, onward);
        }
    }
    for (id, value) in graph.values.iter().enumerate().filter(|(id, _)| read[*id]) {
        let Some(t) = &value.constant else { continue };
        let bad = |x: &f64| !(x.is_finite() || safe[id] && *x == f64::NEG_INFINITY);
        if let Some(index) = t.data.iter().position(bad) {
            return Err(GraphError::NonFinite { tensor: value.name.clone(), index, value: t.data[index] });
        }
    }
    Ok(())
}

/// Whether input `i` of `node` may be −∞; `onward` is whether its output may.
fn takes_infinity(node: &Node, i: usize, onward: bool) -> bool {
    match &node.op {
        Op::Softmax { log: false, .. } => true,
        Op::Attention(_) => i == 3,
        Op::Where => i > 0 && onward,
        Op::Binary(Binary::Add) | Op::View | Op::Rearrange(_) => onward,
        _ => false,
    }
}
