//! Activations that exporters write as several operators.

use super::{Uses, as_scaled, as_unary, both, is_product, number, replace};
use crate::graph::Graph;
use crate::op::{Binary, Op, Unary};

/// `x > t ? x : softplus(x)`, as torch writes it with t = 20. From 17 on the two branches are the same float.
pub(super) fn softplus(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
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
pub(super) fn swish(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if !is_product(graph, index) {
        return false;
    }
    let found = both(&graph.nodes[index])
        .into_iter()
        .find(|&(x, gate)| as_unary(graph, uses, gate, Unary::Sigmoid) == Some(x));
    found.is_some_and(|(x, _)| replace(graph, index, Op::Unary(Unary::Swish(1.0)), vec![x]))
}

/// `x · tanh(softplus(x))`.
pub(super) fn mish(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
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
pub(super) fn gelu(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
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
