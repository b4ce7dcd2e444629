//! The form that the plan can lay out.

use super::constant;
use crate::eval;
use crate::graph::{Graph, GraphError, Node, Value, ValueId};
use crate::kernels::elementwise::Repeat;
use crate::op::{Op, runs};
use crate::tensor::Tensor;

/// Writes out every broadcast that no loop of the kernels does, so that each element-wise step has one operand of the
/// result's size and another that repeats regularly. `budget` elements may be written out in all.
pub(crate) fn legalise(graph: &mut Graph, budget: usize) -> Result<(), GraphError> {
    let mut work = Legaliser { nodes: Vec::with_capacity(graph.nodes.len()), budget, limit: budget };
    for mut node in std::mem::take(&mut graph.nodes) {
        let to = graph.values[node.output].shape.clone();
        let len: usize = to.iter().product();
        let full = |graph: &Graph, v: ValueId| graph.values[v].len() == len;
        match node.op {
            Op::Binary(_) => {
                for i in 0..2 {
                    if Repeat::of(&graph.values[node.inputs[i]].shape, &to).is_none() {
                        node.inputs[i] = work.expand(graph, node.inputs[i], &to)?;
                    }
                }
                if !full(graph, node.inputs[0]) && !full(graph, node.inputs[1]) {
                    node.inputs[0] = work.expand(graph, node.inputs[0], &to)?;
                }
            }
            Op::Where => {
                for i in 0..3 {
                    if !full(graph, node.inputs[i]) {
                        node.inputs[i] = work.expand(graph, node.inputs[i], &to)?;
                    }
                }
            }
            _ => {}
        }
        work.nodes.push(node);
    }
    graph.nodes = work.nodes;
    Ok(())
}

struct Legaliser {
    nodes: Vec<Node>,
    budget: usize,
    limit: usize,
}

impl Legaliser {
    fn expand(&mut self, graph: &mut Graph, x: ValueId, to: &[usize]) -> Result<ValueId, GraphError> {
        let name = graph.values[x].name.clone();
        let left = self.budget.checked_sub(to.iter().product());
        self.budget = left.ok_or(GraphError::Folding { node: name.clone(), limit: self.limit })?;
        let sources = eval::sources(&graph.values[x].shape, to);
        let dtype = graph.values[x].dtype;
        if let Some(t) = graph.values[x].constant.clone() {
            let data = sources.into_iter().map(|i| t.data[i]).collect();
            return Ok(constant(graph, Tensor { dtype, shape: to.to_vec(), data }));
        }
        graph.values.push(Value { name, dtype, shape: to.to_vec(), constant: None });
        let output = graph.values.len() - 1;
        self.nodes.push(Node { op: Op::Rearrange(vec![runs(sources, 0)]), inputs: vec![x], output });
        Ok(output)
    }
}
