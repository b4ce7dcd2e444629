//! Attention as exporters write it, and the moves of elements around its heads.

use super::{Uses, as_unary, constant, is_product, number, replace};
use crate::eval;
use crate::graph::{Graph, ValueId};
use crate::kernels::attention::{Attention, Heads};
use crate::op::{Binary, Op, Run, Unary};
use crate::tensor::Tensor;

/// Elements that may be followed through moves in all; beyond it, moves stay.
const BUDGET: usize = 1 << 24;

/// `isnan(s) ? 0 : s` around a softmax: ours gives zeros by itself where a mask leaves nothing.
pub(super) fn guard(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    if graph.nodes[index].op != Op::Where {
        return false;
    }
    let [c, zero, s] = graph.nodes[index].inputs[..] else { return false };
    let soft = uses.producer[s].map(|i| &graph.nodes[i].op);
    let fits = matches!(soft, Some(Op::Softmax { log: false, .. }))
        && number(graph, zero) == Some(0.0)
        && graph.values[s].shape == graph.values[graph.nodes[index].output].shape
        && as_unary(graph, uses, c, Unary::IsNan) == Some(s);
    fits && replace(graph, index, Op::View, vec![s])
}

/// MatMul, scale, mask, Softmax, MatMul; the scale may also stand on the queries and keys, and the mask may be absent.
pub(super) fn recognise(graph: &mut Graph, uses: &Uses, index: usize) -> bool {
    let Some((mut a, mut inputs, mask)) = find(graph, uses, index) else { return false };
    if let Some(mask) = mask {
        let to = scores_shape(graph, index, &a);
        let (id, places) = expand(graph, mask, &to);
        a.mask = Some(places);
        inputs.push(id);
    }
    replace(graph, index, Op::Attention(Box::new(a)), inputs)
}

/// Shape of the scores: the result's batches, queries, keys.
fn scores_shape(graph: &Graph, index: usize, a: &Attention) -> Vec<usize> {
    let out = &graph.values[graph.nodes[index].output].shape;
    [&out[..out.len() - 2], &[a.queries, a.keys]].concat()
}

/// Operation, inputs, and the constant that is added to the scores.
type Found = (Attention, Vec<ValueId>, Option<ValueId>);

fn find(graph: &Graph, uses: &Uses, index: usize) -> Option<Found> {
    let node = &graph.nodes[index];
    let shape = |v: ValueId| graph.values[v].shape.as_slice();
    if node.op != Op::MatMul {
        return None;
    }
    let (shares, v) = (behind(graph, uses, node.inputs[0]), node.inputs[1]);
    let out = shape(node.output);
    let to = shape(shares);
    let (queries, keys) = (to[to.len() - 2], to[to.len() - 1]);
    let soft = uses.only(graph, shares).filter(|n| n.op == Op::Softmax { width: keys, log: false })?;
    if to[..to.len() - 2] != out[..out.len() - 2] {
        return None;
    }
    let sum = behind(graph, uses, soft.inputs[0]);
    let (at, mask) = match masked(graph, uses, sum) {
        Some((x, m)) => (x, Some(m)),
        None => (sum, None),
    };
    let (at, outer) = scaled(graph, uses, at);
    let scores = uses.only(graph, at).filter(|n| n.op == Op::MatMul)?;
    let (q, left) = scaled(graph, uses, scores.inputs[0]);
    let (k, right) = scaled(graph, uses, scores.inputs[1]);
    let (width, value_width) = (shape(q)[shape(q).len() - 1], out[out.len() - 1]);
    let size = queries * value_width;
    let starts = eval::starts(shape(q), to);
    let y = (0..starts.len()).map(|i| i * size).collect();
    let a = Attention {
        queries,
        keys,
        width,
        value_width,
        scale: (outer * left * right) as f32,
        q: Heads { starts: starts.into(), row: width, column: 1 },
        k: Heads { starts: eval::starts(shape(k), to).into(), row: 1, column: keys },
        v: Heads { starts: eval::starts(shape(v), to).into(), row: value_width, column: 1 },
        mask: None,
        y: Heads { starts: y, row: value_width, column: 1 },
    };
    Some((a, vec![q, k, v], mask))
}

/// What `value` is, if all that happened to it is nothing at all (Identity, Dropout).
fn behind(graph: &Graph, uses: &Uses, mut value: ValueId) -> ValueId {
    while let Some(view) = uses.only(graph, value).filter(|n| n.op == Op::View) {
        if graph.values[view.inputs[0]].shape != graph.values[value].shape {
            break;
        }
        value = view.inputs[0];
    }
    value
}

/// `value` as `x + constant`, read only here and of the same shape as `x`.
fn masked(graph: &Graph, uses: &Uses, value: ValueId) -> Option<(ValueId, ValueId)> {
    let sum = uses.only(graph, value).filter(|n| n.op == Op::Binary(Binary::Add))?;
    super::both(sum).into_iter().find(|&(x, m)| {
        graph.values[m].constant.is_some() && graph.values[x].shape == graph.values[value].shape
    })
}

/// `value` without the numbers that it is multiplied with or divided by, and what they make together.
fn scaled(graph: &Graph, uses: &Uses, mut value: ValueId) -> (ValueId, f64) {
    let mut scale = 1.0;
    loop {
        value = behind(graph, uses, value);
        let Some(i) = uses.producer[value].filter(|_| uses.count[value] == 1) else { break };
        let node = &graph.nodes[i];
        let found = if is_product(graph, i) {
            super::both(node).into_iter().find_map(|(x, c)| Some((x, number(graph, c)?)))
        } else if node.op == Op::Binary(Binary::Div) {
            number(graph, node.inputs[1]).map(|c| (node.inputs[0], 1.0 / c))
        } else {
            None
        };
        match found {
            Some((x, s)) if graph.values[x].shape == graph.values[value].shape => {
                value = x;
                scale *= s;
            }
            _ => break,
        }
    }
    (value, scale)
}

/// The mask with whole matrices, and where the one of each head lies.
fn expand(graph: &mut Graph, mask: ValueId, to: &[usize]) -> (ValueId, Heads) {
    let [.., queries, keys] = *to else { return (mask, Heads { starts: [].into(), row: 0, column: 1 }) };
    let own =
        [&vec![1; to.len() - graph.values[mask].shape.len()], graph.values[mask].shape.as_slice()].concat();
    let shape = [&own[..own.len() - 2], &[queries, keys]].concat();
    let places = Heads { starts: eval::starts(&shape, to).into(), row: keys, column: 1 };
    let id = match graph.values[mask].constant.clone() {
        Some(t) if shape != own => {
            let data = eval::sources(&own, &shape).into_iter().map(|i| t.data[i]).collect();
            constant(graph, Tensor { dtype: t.dtype, shape, data })
        }
        _ => mask,
    };
    (id, places)
}

/// Lets every attention read and write where its operands and its result lie before and after they are moved.
pub(super) fn absorb(graph: &mut Graph) {
    let mut budget = BUDGET;
    for index in 0..graph.nodes.len() {
        match &graph.nodes[index].op {
            Op::Attention(_) => operands(graph, index, &mut budget),
            Op::Rearrange(lists) if lists.len() == 1 => result(graph, index, &mut budget),
            _ => {}
        }
    }
    graph.drop_dead();
}

fn operands(graph: &mut Graph, index: usize, budget: &mut usize) {
    let uses = Uses::of(graph);
    let Op::Attention(a) = &graph.nodes[index].op else { return };
    let mut a = a.clone();
    for which in 0..3 {
        let (rows, columns) = match which {
            0 => (a.queries, a.width),
            1 => (a.keys, a.width),
            _ => (a.keys, a.value_width),
        };
        let Some((root, map)) = trace(graph, &uses, graph.nodes[index].inputs[which], budget) else {
            continue;
        };
        let places = [&mut a.q, &mut a.k, &mut a.v].into_iter().nth(which);
        let Some(places) = places else { continue };
        // Only the packing of keys knows another distance between columns.
        if let Some(moved) = moved(places, rows, columns, &map).filter(|m| which == 1 || m.column == 1) {
            *places = moved;
            graph.nodes[index].inputs[which] = root;
        }
    }
    graph.nodes[index].op = Op::Attention(a);
}

/// Turns the move of an attention's result into the attention.
fn result(graph: &mut Graph, index: usize, budget: &mut usize) {
    let uses = Uses::of(graph);
    let mut value = graph.nodes[index].inputs[0];
    let node = loop {
        match uses.only(graph, value) {
            Some(n) if n.op == Op::View => value = n.inputs[0],
            Some(n) => break n,
            None => return,
        }
    };
    let (Op::Attention(a), Op::Rearrange(lists)) = (&node.op, &graph.nodes[index].op) else { return };
    let len = graph.values[node.output].len();
    let Some(left) = budget.checked_sub(len) else { return };
    *budget = left;
    if graph.values[graph.nodes[index].output].len() != len {
        return;
    }
    let mut map = vec![usize::MAX; len];
    for r in &lists[0] {
        (0..r.len).for_each(|i| map[r.src + i] = r.dst + i);
    }
    // As many places as elements: each is written once, or one is missing.
    if map.contains(&usize::MAX) {
        return;
    }
    let Some(y) = moved(&a.y, a.queries, a.value_width, &map).filter(|y| y.column == 1) else { return };
    let (op, inputs) = (Op::Attention(Box::new(Attention { y, ..(**a).clone() })), node.inputs.clone());
    replace(graph, index, op, inputs);
}

/// The value that `value` is a rearrangement of, and where in it each element of `value` stands; `None` when nothing is
/// moved in between.
fn trace(
    graph: &Graph,
    uses: &Uses,
    mut value: ValueId,
    budget: &mut usize,
) -> Option<(ValueId, Vec<usize>)> {
    let mut map: Option<Vec<usize>> = None;
    while let Some(i) = uses.producer[value] {
        let node = &graph.nodes[i];
        match &node.op {
            Op::View => {}
            Op::Rearrange(lists) if lists.len() == 1 => {
                let len = graph.values[node.output].len();
                let count = map.as_ref().map_or(len, Vec::len);
                let Some(left) = budget.checked_sub(len + count) else { break };
                *budget = left;
                let from = sources(&lists[0], len)?;
                map = Some(map.map_or(from.clone(), |m| m.into_iter().map(|i| from[i]).collect()));
            }
            _ => break,
        }
        value = node.inputs[0];
    }
    Some((value, map?))
}

/// Where each element of a move comes from, if all are moved.
fn sources(runs: &[Run], len: usize) -> Option<Vec<usize>> {
    let mut from = vec![usize::MAX; len];
    for r in runs {
        (0..r.len).for_each(|i| from[r.dst + i] = r.src + i);
    }
    (!from.contains(&usize::MAX)).then_some(from)
}

/// The same heads after element `i` went to `map[i]`, if their rows and columns are still evenly spaced.
fn moved(h: &Heads, rows: usize, columns: usize, map: &[usize]) -> Option<Heads> {
    let at = |start: usize, r: usize, c: usize| map[start + r * h.row + c * h.column];
    let first = h.starts[0];
    let step = |r: usize, c: usize| at(first, r, c).checked_sub(at(first, 0, 0));
    let row = if rows > 1 { step(1, 0)? } else { 0 };
    let column = if columns > 1 { step(0, 1)? } else { 1 };
    let starts: Box<[usize]> = h.starts.iter().map(|&s| at(s, 0, 0)).collect();
    let even = h.starts.iter().zip(&starts).all(|(&old, &new)| {
        (0..rows).all(|r| (0..columns).all(|c| at(old, r, c) == new + r * row + c * column))
    });
    even.then_some(Heads { starts, row, column })
}
