//! The recurrent cells that torch's exporters write out, as [`Cell`]s again.

use super::{Uses, both, constant, replace};
use crate::graph::{Graph, Node, Value, ValueId};
use crate::op::{Binary, Op, Run, Unary, runs};
use crate::recurrent::{Cell, CellKind};
use crate::tensor::{DType, Tensor};

/// The state's part of the gates: a linear layer without activation.
struct Own {
    h: ValueId,
    r: ValueId,
    bias: Option<ValueId>,
}

/// Looks for patterns.
struct Finder<'g> {
    graph: &'g Graph,
    uses: &'g Uses,
}

impl<'g> Finder<'g> {
    fn made(&self, value: ValueId) -> Option<&'g Node> {
        self.uses.producer[value].map(|i| &self.graph.nodes[i])
    }

    fn unary(&self, value: ValueId, f: Unary) -> Option<ValueId> {
        self.made(value).filter(|n| n.op == Op::Unary(f)).map(|n| n.inputs[0])
    }

    /// Operands of a commutative `value`, in both orders; nothing if it is something else.
    fn pair(&self, value: ValueId, f: Binary) -> impl Iterator<Item = (ValueId, ValueId)> + use<'g> {
        self.made(value).filter(|n| n.op == Op::Binary(f)).map(both).into_iter().flatten()
    }

    /// Which tensor `value` is a block of along its last axis, and which block.
    fn block(&self, value: ValueId) -> Option<(ValueId, usize)> {
        let node = self.made(value)?;
        let Op::Rearrange(lists) = &node.op else { return None };
        let ([given], [whole]) = (&lists[..], &node.inputs[..]) else { return None };
        let size = |v: ValueId| self.graph.values[v].shape.last().copied().filter(|&n| n > 0);
        let (n, wide) = (size(value)?, size(*whole)?);
        let rows = self.graph.values[*whole].len() / wide;
        let starts = |k: usize| (0..rows).map(move |r| r * wide + k * n);
        let expected = |k: usize| runs(starts(k).flat_map(|s| s..s + n), 0);
        let k = given.first()?.src / n;
        (wide.is_multiple_of(n) && *given == expected(k)).then_some((*whole, k))
    }

    /// `value` as `f` of a block: which tensor, if it is block `k`.
    fn gate(&self, value: ValueId, f: Unary, k: usize) -> Option<ValueId> {
        self.block(self.unary(value, f)?).filter(|&(_, block)| block == k).map(|(whole, _)| whole)
    }

    /// `value` as `σ` of the sum of block `k` of `x` and of `own`.
    fn summed(&self, value: ValueId, k: usize, x: ValueId, own: ValueId) -> bool {
        let sum = self.unary(value, Unary::Sigmoid);
        let mut orders = sum.into_iter().flat_map(|s| self.pair(s, Binary::Add));
        orders.any(|(a, b)| self.block(a) == Some((x, k)) && self.block(b) == Some((own, k)))
    }

    /// `value` as `h·R + b`, with `gates` blocks of the state's size.
    fn own(&self, value: ValueId, gates: usize) -> Option<Own> {
        let node = self.made(value).filter(|n| n.op == Op::Linear(None))?;
        let (h, r) = (node.inputs[0], node.inputs[1]);
        let shape = &self.graph.values[r].shape;
        let square = self.graph.values[r].constant.is_some() && shape[1] == gates * shape[0];
        square.then(|| Own { h, r, bias: node.inputs.get(2).copied() })
    }

    /// `(h − n)·z + n` with `n = tanh(xₙ + r·ownₙ)`, at the sum: the gates, and the state's part.
    fn gru(&self, index: usize) -> Option<(ValueId, Own)> {
        let sum = self.graph.nodes[index].output;
        for (product, n) in self.pair(sum, Binary::Add) {
            for (difference, z) in self.pair(product, Binary::Mul) {
                let Some(from) = self.made(difference).filter(|d| d.op == Op::Binary(Binary::Sub)) else {
                    continue;
                };
                let inner = self.unary(n, Unary::Tanh).filter(|_| from.inputs[1] == n);
                for (xn, late) in inner.into_iter().flat_map(|s| self.pair(s, Binary::Add)) {
                    for (r, on) in self.pair(late, Binary::Mul) {
                        let (Some((x, 2)), Some((own, 2))) = (self.block(xn), self.block(on)) else {
                            continue;
                        };
                        let Some(found) = self.own(own, 3).filter(|o| o.h == from.inputs[0]) else {
                            continue;
                        };
                        if self.summed(r, 0, x, own) && self.summed(z, 1, x, own) {
                            return Some((x, found));
                        }
                    }
                }
            }
        }
        None
    }

    /// `o·tanh(c')` with `c' = f·c + i·g`, at the product: the gates, the state's part, `c'` and `c`.
    fn lstm(&self, index: usize) -> Option<(ValueId, Own, ValueId, ValueId)> {
        for (o, t) in self.pair(self.graph.nodes[index].output, Binary::Mul) {
            let (Some(all), Some(next)) = (self.gate(o, Unary::Sigmoid, 3), self.unary(t, Unary::Tanh))
            else {
                continue;
            };
            for (kept, fresh) in self.pair(next, Binary::Add) {
                let is = |value, f, k| self.gate(value, f, k) == Some(all);
                let mut news = self.pair(fresh, Binary::Mul);
                if !news.any(|(i, g)| is(i, Unary::Sigmoid, 0) && is(g, Unary::Tanh, 2)) {
                    continue;
                }
                let Some((_, c)) = self.pair(kept, Binary::Mul).find(|&(f, _)| is(f, Unary::Sigmoid, 1))
                else {
                    continue;
                };
                let mut sums = self.pair(all, Binary::Add);
                if let Some((x, own)) = sums.find_map(|(x, own)| Some((x, self.own(own, 4)?))) {
                    return Some((x, own, next, c));
                }
            }
        }
        None
    }
}

/// torch's `GRUCell`.
pub(super) fn gru(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Some((gates, own)) = (Finder { graph, uses }).gru(index) else { return false };
    let Some((cell, all)) = insert(graph, index, CellKind::Gru, gates, &own, None) else { return false };
    view(graph, index + 1, all, 0, cell.state())
}

/// torch's `LSTMCell`.
pub(super) fn lstm(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Some((gates, own, next, c)) = (Finder { graph, uses }).lstm(index) else { return false };
    let Some(at) = uses.producer[next] else { return false };
    let Some((cell, all)) = insert(graph, at, CellKind::Lstm, gates, &own, Some(c)) else { return false };
    view(graph, index + 1, all, 0, cell.state()) && view(graph, at + 1, all, cell.states(), cell.state())
}

/// Puts the cell in front of node `index`, if all sizes are those of one step.
fn insert(
    graph: &mut Graph,
    index: usize,
    kind: CellKind,
    gates: ValueId,
    own: &Own,
    c: Option<ValueId>,
) -> Option<(Cell, ValueId)> {
    let hidden = graph.values[own.r].shape[0];
    let cell = Cell { kind, length: 1, batch: graph.values[own.h].len() / hidden, hidden };
    let wide = cell.gates() * hidden;
    let sizes = [(gates, cell.batch * wide), (own.h, cell.state())];
    let fits = |&(v, len): &(ValueId, usize)| graph.values[v].len() == len;
    if !sizes.iter().chain(c.map(|c| (c, cell.state())).iter()).all(fits) {
        return None;
    }
    let zeros = || Tensor { dtype: DType::F32, shape: vec![wide], data: vec![0.0; wide] };
    let bias = match own.bias {
        Some(bias) => bias,
        None => constant(graph, zeros()),
    };
    let inputs = [gates, own.r, bias, own.h].into_iter().chain(c).collect();
    let shape = vec![cell.output()];
    graph.values.push(Value { name: String::new(), dtype: DType::F32, shape, constant: None });
    let output = graph.values.len() - 1;
    graph.nodes.insert(index, Node { op: Op::Recurrent(cell), inputs, output });
    Some((cell, output))
}

/// Makes node `index` a part of `all`.
fn view(graph: &mut Graph, index: usize, all: ValueId, src: usize, len: usize) -> bool {
    replace(graph, index, Op::Rearrange(vec![vec![Run { src, dst: 0, len }]]), vec![all])
}
