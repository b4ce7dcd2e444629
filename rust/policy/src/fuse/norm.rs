//! Normalisations that exporters write out in single operations.

use super::{Uses, as_scaled, as_unary, both, constant, number, replace};
use crate::graph::{Graph, Node, ValueId};
use crate::op::{Binary, Op, Reduction, Unary};
use crate::tensor::{DType, Tensor};

/// `d/√(mean(d²) + eps)` with `d = x − mean(x)`: LayerNormalization before opset 17.
pub(super) fn layer(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Some((d, width, eps)) = normalized(graph, uses, index) else { return false };
    let Some(centred) = producer(graph, uses, d).filter(|n| n.op == Op::Binary(Binary::Sub)) else {
        return false;
    };
    let (x, mean) = (centred.inputs[0], centred.inputs[1]);
    if mean_of(graph, uses, mean) != Some((x, width)) {
        return false;
    }
    let inputs = vec![x, filled(graph, width, 1.0), filled(graph, width, 0.0)];
    replace(graph, index, Op::LayerNorm { width, eps }, inputs)
}

/// `x/√(mean(x²) + eps)`.
pub(super) fn rms(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Some((x, width, eps)) = normalized(graph, uses, index) else { return false };
    let inputs = vec![x, filled(graph, width, 1.0)];
    replace(graph, index, Op::RmsNorm { width, eps }, inputs)
}

/// A normalisation of channels between two reshapes, as torch writes GroupNorm: the groups as channels of their own.
pub(super) fn group(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let node = &graph.nodes[index];
    if node.op != Op::View {
        return false;
    }
    let Some(norm) = uses.only(graph, node.inputs[0]) else { return false };
    let Op::GroupNorm { groups, eps } = norm.op else { return false };
    let Some(inner) = uses.only(graph, norm.inputs[0]).filter(|n| n.op == Op::View) else { return false };
    let (x, scale, bias) = (inner.inputs[0], norm.inputs[1], norm.inputs[2]);
    let (own, within) = (&graph.values[x].shape, &graph.values[norm.inputs[0]].shape);
    let same = *own == graph.values[node.output].shape && own.len() >= 2 && own[0] == within[0];
    if !same || own[1] % groups != 0 || own[1] % within[1] != 0 {
        return false;
    }
    let (channels, each) = (own[1], own[1] / within[1]);
    let mut spread = |v: ValueId| {
        let t = graph.values[v].constant.clone()?;
        let data = (0..channels).map(|c| t.data[c / each]).collect();
        Some(constant(graph, Tensor { dtype: DType::F32, shape: vec![channels], data }))
    };
    let Some((scale, bias)) = spread(scale).zip(spread(bias)) else { return false };
    replace(graph, index, Op::GroupNorm { groups, eps }, vec![x, scale, bias])
}

fn producer<'g>(graph: &'g Graph, uses: &Uses, value: ValueId) -> Option<&'g Node> {
    uses.producer[value].map(|i| &graph.nodes[i])
}

/// Node `index` as `z/√(mean(z²) + eps)`; gives `z`, the length of a row, and eps.
fn normalized(graph: &Graph, uses: &Uses, index: usize) -> Option<(ValueId, usize, f32)> {
    let node = &graph.nodes[index];
    let (z, shifted) = match node.op {
        Op::Binary(Binary::Div) => (node.inputs[0], as_unary(graph, uses, node.inputs[1], Unary::Sqrt)?),
        Op::Binary(Binary::Mul) => {
            both(node).into_iter().find_map(|(z, r)| Some((z, inverse_root(graph, uses, r)?)))?
        }
        _ => return None,
    };
    let (mean, eps) = as_scaled(graph, uses, shifted, Binary::Add)?;
    let (square, width) = uses.only(graph, mean).and_then(|_| mean_of(graph, uses, mean))?;
    let squared = uses.only(graph, square)?;
    let fits = match squared.op {
        Op::Unary(Unary::Square) => squared.inputs[0] == z,
        Op::Binary(Binary::Mul) => squared.inputs == [z, z],
        _ => false,
    };
    (fits && eps >= 0.0).then_some((z, width, eps as f32))
}

/// `value` as `1/√y`; gives `y`.
fn inverse_root(graph: &Graph, uses: &Uses, value: ValueId) -> Option<ValueId> {
    if let Some(y) = as_unary(graph, uses, value, Unary::ReciprocalSqrt) {
        return Some(y);
    }
    let root = as_unary(graph, uses, value, Unary::Reciprocal).or_else(|| {
        let node = uses.only(graph, value).filter(|n| n.op == Op::Binary(Binary::Div))?;
        (number(graph, node.inputs[0]) == Some(1.0)).then_some(node.inputs[1])
    })?;
    as_unary(graph, uses, root, Unary::Sqrt)
}

/// `value` as the mean over the last axes, which it keeps as ones; gives what is averaged and how many.
fn mean_of(graph: &Graph, uses: &Uses, value: ValueId) -> Option<(ValueId, usize)> {
    let node = producer(graph, uses, value)?;
    let Op::Reduce { kind: Reduction::Mean, width } = node.op else { return None };
    let x = node.inputs[0];
    let (from, to) = (&graph.values[x].shape, &graph.values[value].shape);
    let same = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let ones = from.len() == to.len() && to[same..].iter().all(|&d| d == 1);
    (ones && from[same..].iter().product::<usize>() == width).then_some((x, width))
}

fn filled(graph: &mut Graph, width: usize, value: f64) -> ValueId {
    constant(graph, Tensor { dtype: DType::F32, shape: vec![width], data: vec![value; width] })
}
