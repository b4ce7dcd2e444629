//! Rewrites a graph into fewer operations that compute the same, and into the form that the plan can lay out.

mod affine;
mod gelu;
mod norm;

use std::sync::Arc;

use crate::eval;
use crate::graph::{Graph, GraphError, Node, Value, ValueId};
use crate::op::{Binary, Op, Unary, runs};
use crate::plan::repeat;
use crate::tensor::{DType, Tensor};

/// Applies every rule until none fires.
pub(crate) fn fuse(graph: &mut Graph) {
    let mut view = Uses::of(graph);
    let mut index = 0;
    while index < graph.nodes.len() {
        let rules = [
            softplus,
            swish,
            mish,
            gelu,
            gelu::tanh,
            norm::layer,
            norm::rms,
            norm::group,
            linear_bias,
            affine::channels,
            affine::conv_activation,
            linear_activation,
        ];
        if rules.into_iter().any(|rule| rule(graph, &view, index)) {
            graph.drop_dead();
            view = Uses::of(graph);
            index = 0;
        } else {
            index += 1;
        }
    }
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

/// `x > t ? x : softplus(x)`, as torch writes it with t = 20. From 17 on the two branches are the same float.
fn softplus(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if graph.nodes[index].op != Op::Where {
        return false;
    }
    let [c, x, soft] = graph.nodes[index].inputs[..] else { return false };
    let over = uses.only(graph, c).filter(|n| n.op == Op::Binary(Binary::Greater) && n.inputs[0] == x);
    let threshold = over.and_then(|n| number(graph, n.inputs[1]));
    let fits =
        threshold.is_some_and(|t| t >= 17.0) && as_unary(graph, uses, soft, Unary::Softplus) == Some(x);
    fits && replace(graph, index, Op::Unary(Unary::Softplus), vec![x])
}

/// `x · sigmoid(x)`.
fn swish(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if !is_product(graph, index) {
        return false;
    }
    let found = both(&graph.nodes[index])
        .into_iter()
        .find(|&(x, gate)| as_unary(graph, uses, gate, Unary::Sigmoid) == Some(x));
    found.is_some_and(|(x, _)| replace(graph, index, Op::Unary(Unary::Swish(1.0)), vec![x]))
}

/// `x · tanh(softplus(x))`.
fn mish(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if !is_product(graph, index) {
        return false;
    }
    let found = both(&graph.nodes[index]).into_iter().find(|&(x, gate)| {
        let inner = as_unary(graph, uses, gate, Unary::Tanh);
        inner.and_then(|s| as_unary(graph, uses, s, Unary::Softplus)) == Some(x)
    });
    found.is_some_and(|(x, _)| replace(graph, index, Op::Unary(Unary::Mish), vec![x]))
}

/// `½ · x · (1 + erf(x/√2))`, the factors in any order.
fn gelu(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if !is_product(graph, index) {
        return false;
    }
    // The three factors of the product, however it is bracketed.
    for (left, right) in both(&graph.nodes[index]) {
        let Some(inner) = uses.only(graph, left).filter(|n| n.op == Op::Binary(Binary::Mul)) else {
            continue;
        };
        let f = [inner.inputs[0], inner.inputs[1], right];
        for [half, x, gate] in
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].map(|p| p.map(|i| f[i]))
        {
            let near = |c: f64, to: f64| (c - to).abs() < 1e-6;
            let Some((e, one)) = as_scaled(graph, uses, gate, Binary::Add) else { continue };
            let Some(scaled) = as_unary(graph, uses, e, Unary::Erf) else { continue };
            let by = as_scaled(graph, uses, scaled, Binary::Div)
                .filter(|&(_, c)| near(c, std::f64::consts::SQRT_2))
                .or(as_scaled(graph, uses, scaled, Binary::Mul)
                    .filter(|&(_, c)| near(c, std::f64::consts::FRAC_1_SQRT_2)));
            if number(graph, half) == Some(0.5) && one == 1.0 && by.is_some_and(|(inside, _)| inside == x) {
                return replace(graph, index, Op::Unary(Unary::Gelu), vec![x]);
            }
        }
    }
    false
}

/// `x·W + b` with a constant `b` for each output.
fn linear_bias(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
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
        let bias = constant(graph, Tensor { dtype: DType::F32, shape: vec![n], data });
        return replace(graph, index, Op::Linear(None), vec![x, w, bias]);
    }
    false
}

/// A function of one number right after a linear layer.
fn linear_activation(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Op::Unary(f) = graph.nodes[index].op else { return false };
    let Some(linear) = uses.only(graph, graph.nodes[index].inputs[0]) else { return false };
    if linear.op != Op::Linear(None) {
        return false;
    }
    let inputs = linear.inputs.clone();
    replace(graph, index, Op::Linear(Some(f)), inputs)
}

fn constant(graph: &mut Graph, tensor: Tensor) -> ValueId {
    let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
    graph.values.push(Value { name: String::new(), dtype, shape, constant: Some(Arc::new(tensor)) });
    graph.values.len() - 1
}

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
                    if repeat(&graph.values[node.inputs[i]].shape, &to).is_none() {
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
