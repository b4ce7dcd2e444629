//! The approximate Gelu.

use super::{Uses, as_scaled, as_unary, both, number, replace};
use crate::graph::{Graph, ValueId};
use crate::op::{Binary, Op, Unary};

/// `½ · x · (1 + tanh(√(2/π)·(x + 0.044715·x³)))`, the factors in any order.
pub(super) fn tanh(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let found = factors(graph, uses, index).into_iter().find(|&[half, x, gate]| {
        number(graph, half) == Some(0.5)
            && inside(graph, uses, gate).is_some_and(|sum| is_sum(graph, uses, sum, x))
    });
    found.is_some_and(|[_, x, _]| replace(graph, index, Op::Unary(Unary::GeluTanh), vec![x]))
}

/// The three factors of a product in every order, however it is bracketed.
fn factors(graph: &Graph, uses: &Uses, index: usize) -> Vec<[ValueId; 3]> {
    let product = Op::Binary(Binary::Mul);
    if graph.nodes[index].op != product {
        return vec![];
    }
    let mut all = vec![];
    for (left, right) in both(&graph.nodes[index]) {
        if let Some(inner) = uses.only(graph, left).filter(|n| n.op == product) {
            let [a, b] = [inner.inputs[0], inner.inputs[1]];
            all.extend([
                [a, b, right],
                [b, a, right],
                [a, right, b],
                [right, a, b],
                [b, right, a],
                [right, b, a],
            ]);
        }
    }
    all
}

fn near(c: f64, to: f64) -> bool {
    (c - to).abs() < 1e-6
}

/// `gate` as `1 + tanh(√(2/π)·sum)`; gives the sum.
fn inside(graph: &Graph, uses: &Uses, gate: ValueId) -> Option<ValueId> {
    let (t, one) = as_scaled(graph, uses, gate, Binary::Add)?;
    let scaled = as_unary(graph, uses, t, Unary::Tanh).filter(|_| one == 1.0)?;
    let (sum, by) = as_scaled(graph, uses, scaled, Binary::Mul)?;
    near(by, std::f64::consts::FRAC_2_PI.sqrt()).then_some(sum)
}

/// Whether `sum` is `x + 0.044715·x³`.
fn is_sum(graph: &Graph, uses: &Uses, sum: ValueId, x: ValueId) -> bool {
    let Some(node) = uses.only(graph, sum).filter(|n| n.op == Op::Binary(Binary::Add)) else { return false };
    both(node).into_iter().any(|(own, term)| {
        own == x
            && as_scaled(graph, uses, term, Binary::Mul)
                .is_some_and(|(cube, by)| near(by, 0.044_715) && is_cube(graph, uses, cube, x))
    })
}

/// Whether `value` is `x³`, as a power or as products.
fn is_cube(graph: &Graph, uses: &Uses, value: ValueId, x: ValueId) -> bool {
    if as_unary(graph, uses, value, Unary::Cube) == Some(x) {
        return true;
    }
    let Some(node) = uses.only(graph, value).filter(|n| n.op == Op::Binary(Binary::Mul)) else {
        return false;
    };
    both(node).into_iter().any(|(own, square)| {
        let squared = as_unary(graph, uses, square, Unary::Square) == Some(x);
        let product = uses.only(graph, square).filter(|n| n.op == Op::Binary(Binary::Mul));
        own == x && (squared || product.is_some_and(|n| n.inputs == [x, x]))
    })
}
