//! Operators that move elements without changing them. All become views or lists of copied runs.

use super::{Cx, Outputs};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Op, Run, runs};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "Identity" | "Dropout" => identity(b, cx),
        "Reshape" => reshape(b, cx),
        "Flatten" => flatten(b, cx),
        "Squeeze" => squeeze(b, cx),
        "Unsqueeze" => unsqueeze(b, cx),
        "Transpose" => transpose_node(b, cx),
        "Slice" => slice(b, cx),
        "Split" => return Some(split(b, cx)),
        "Concat" => concat(b, cx),
        "Expand" => expand(b, cx),
        "Tile" => tile(b, cx),
        "Gather" => gather(b, cx),
        _ => return None,
    };
    Some(result.map(|id| vec![id]))
}

fn identity(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    // Dropout's; it does nothing at inference.
    cx.int("seed", 0);
    cx.float("ratio", 0.5)?;
    if cx.optional(2).is_some() && cx.constant(b, 2)?.data.iter().any(|&x| x != 0.0) {
        return Err(cx.bad_input(2, "asks for training mode"));
    }
    view(b, cx, cx.input(0)?, b.shape(cx.input(0)?).to_vec())
}

/// The same elements under another shape.
fn view(b: &mut Builder<'_>, cx: &Cx<'_>, x: ValueId, shape: Vec<usize>) -> Result<ValueId, GraphError> {
    let count = crate::tensor::elements(&shape, &cx.name, b.limits)?;
    if count != b.shape(x).iter().product::<usize>() {
        return Err(cx.bad_shape(format!("{:?} does not reshape to {shape:?}", b.shape(x))));
    }
    b.emit(&cx.name, Op::View, &[x], b.dtype(x), shape)
}

/// A shape given as integers.
fn sizes(cx: &Cx<'_>, ints: &[i64]) -> Result<Vec<usize>, GraphError> {
    let size = |&d: &i64| usize::try_from(d).map_err(|_| cx.bad_shape(format!("dimension {d}")));
    ints.iter().map(size).collect()
}

fn reshape(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let own = b.shape(x).to_vec();
    let mut target = cx.ints_at(b, 1)?.ok_or_else(|| cx.bad_input(1, "is missing"))?;
    if cx.int("allowzero", 0) == 0 {
        for (axis, d) in target.iter_mut().enumerate().filter(|(_, d)| **d == 0) {
            *d = own.get(axis).map_or(0, |&n| n as i64);
        }
    }
    let open: Vec<usize> = (0..target.len()).filter(|&i| target[i] == -1).collect();
    if let [axis] = open[..] {
        target[axis] = 1;
        let rest = crate::tensor::elements(&sizes(cx, &target)?, &cx.name, b.limits)?;
        target[axis] = own.iter().product::<usize>().checked_div(rest).unwrap_or(0) as i64;
    }
    view(b, cx, x, sizes(cx, &target)?)
}

fn flatten(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let shape = b.shape(x);
    let axis = cx.int("axis", 1);
    let axis = if axis == shape.len() as i64 { shape.len() } else { cx.axis(axis, shape.len())? };
    let (rows, columns) = (shape[..axis].iter().product(), shape[axis..].iter().product());
    view(b, cx, x, vec![rows, columns])
}

fn squeeze(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let shape = b.shape(x).to_vec();
    let axes = match cx.axes(b, 1, 13)? {
        Some(axes) => axes.into_iter().map(|a| cx.axis(a, shape.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..shape.len()).filter(|&a| shape[a] == 1).collect(),
    };
    if let Some(a) = axes.iter().find(|&&a| shape[a] != 1) {
        return Err(cx.bad_shape(format!("axis {a} of {shape:?} is not 1")));
    }
    let kept = (0..shape.len()).filter(|a| !axes.contains(a)).map(|a| shape[a]).collect();
    view(b, cx, x, kept)
}

fn unsqueeze(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let axes = cx.axes(b, 1, 13)?.ok_or_else(|| cx.bad_input(1, "is missing"))?;
    let rank = b.shape(x).len() + axes.len();
    if rank > b.limits.rank {
        return Err(cx.bad_shape(format!("a rank of {rank} is beyond the limits")));
    }
    let axes = axes.into_iter().map(|a| cx.axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    if let Some(a) = axes.iter().find(|a| axes.iter().filter(|b| a == b).count() > 1) {
        return Err(cx.bad_shape(format!("axis {a} is inserted twice")));
    }
    let mut rest = b.shape(x).to_vec().into_iter();
    let shape: Vec<usize> =
        (0..rank).map(|a| if axes.contains(&a) { 1 } else { rest.next().unwrap_or(1) }).collect();
    view(b, cx, x, shape)
}

/// Checks the shape of a result and pays for listing where its elements come from, before anything is listed.
fn pay(b: &mut Builder<'_>, name: &str, shape: &[usize]) -> Result<(), GraphError> {
    let count = crate::tensor::elements(shape, name, b.limits)?;
    b.spend(name, count)
}

/// Copies elements of one input: output element `i` comes from `sources[i]`.
fn pick(
    b: &mut Builder<'_>,
    name: &str,
    x: ValueId,
    shape: Vec<usize>,
    sources: Vec<usize>,
) -> Result<ValueId, GraphError> {
    let runs = runs(sources, 0);
    let whole = matches!(runs[..], [run] if run.src == 0 && run.len == b.shape(x).iter().product::<usize>());
    let op = if whole { Op::View } else { Op::Rearrange(vec![runs]) };
    b.emit(name, op, &[x], b.dtype(x), shape)
}

/// Consecutive elements of `x`, from `start` on.
pub(super) fn part(
    b: &mut Builder<'_>,
    name: &str,
    x: ValueId,
    start: usize,
    shape: Vec<usize>,
) -> Result<ValueId, GraphError> {
    let run = Run { src: start, dst: 0, len: shape.iter().product() };
    b.emit(name, Op::Rearrange(vec![vec![run]]), &[x], b.dtype(x), shape)
}

/// Source elements of a strided walk over `shape`.
fn walk(
    b: &mut Builder<'_>,
    name: &str,
    shape: &[usize],
    start: usize,
    strides: &[isize],
) -> Result<Vec<usize>, GraphError> {
    pay(b, name, shape)?;
    let mut sources = vec![start];
    for (&d, &stride) in shape.iter().zip(strides) {
        let step = |i: usize| (0..d as isize).map(move |k| i.wrapping_add_signed(k * stride));
        sources = sources.into_iter().flat_map(step).collect();
    }
    Ok(sources)
}

/// Distance between neighbours along each axis.
fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis] as isize;
    }
    strides
}

/// Output axis `i` is input axis `order[i]`.
pub(super) fn transpose(
    b: &mut Builder<'_>,
    name: &str,
    x: ValueId,
    order: &[usize],
) -> Result<ValueId, GraphError> {
    if order.iter().enumerate().all(|(i, &a)| i == a) {
        return Ok(x);
    }
    let own = b.shape(x).to_vec();
    let all = strides(&own);
    let shape: Vec<usize> = order.iter().map(|&a| own[a]).collect();
    let sources = walk(b, name, &shape, 0, &order.iter().map(|&a| all[a]).collect::<Vec<_>>())?;
    pick(b, name, x, shape, sources)
}

fn transpose_node(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let rank = b.shape(x).len();
    let order = match cx.ints("perm") {
        None => (0..rank).rev().collect(),
        Some(perm) if perm.len() != rank => {
            return Err(cx.bad_attribute("perm", format!("{} axes for {rank} dimensions", perm.len())));
        }
        Some(perm) => perm.into_iter().map(|a| cx.axis(a, rank)).collect::<Result<Vec<_>, _>>()?,
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return Err(cx.bad_attribute("perm", format!("{order:?} is no permutation of {rank} axes")));
    }
    transpose(b, &cx.name, x, &order)
}

fn slice(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let own = b.shape(x).to_vec();
    let need = |i: usize, v: Option<Vec<i64>>| v.ok_or_else(|| cx.bad_input(i, "is missing"));
    let (starts, ends) = (need(1, cx.ints_at(b, 1)?)?, need(2, cx.ints_at(b, 2)?)?);
    let axes = cx.ints_at(b, 3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = cx.ints_at(b, 4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || starts.len() > own.len() {
        return Err(
            cx.bad_shape("starts, ends, axes and steps differ in length, or name more axes than there are")
        );
    }
    let (mut shape, mut stride) = (own.clone(), strides(&own));
    let mut start = 0usize;
    for i in 0..starts.len() {
        let axis = cx.axis(axes[i], own.len())?;
        if axes[..i].iter().any(|&a| cx.axis(a, own.len()) == Ok(axis)) {
            return Err(cx.bad_shape(format!("axis {axis} is sliced twice")));
        }
        let (d, step) = (own[axis] as i64, steps[i]);
        let wrap = |v: i64| if v < 0 { v.saturating_add(d) } else { v };
        // A step longer than the axis takes one element, whatever its length.
        let (low, high, step) = match step {
            1.. => (0, d, step.min(d.max(1))),
            0 => return Err(cx.bad_shape("a step of 0")),
            _ => (-1, d - 1, step.max(-d.max(1))),
        };
        let (from, to) = (wrap(starts[i]).clamp(low, high), wrap(ends[i]).clamp(low, high));
        let span = if step > 0 { to - from } else { from - to };
        let count = (span.max(0) as usize).div_ceil(step.unsigned_abs() as usize);
        shape[axis] = count;
        if count > 0 {
            start += from as usize * stride[axis] as usize;
        }
        stride[axis] *= step as isize;
    }
    let sources = walk(b, &cx.name, &shape, start, &stride)?;
    pick(b, &cx.name, x, shape, sources)
}

fn split(b: &mut Builder<'_>, cx: &Cx<'_>) -> Outputs {
    let x = cx.input(0)?;
    let own = b.shape(x).to_vec();
    let axis = cx.axis(cx.int("axis", 0), own.len())?;
    let parts = cx.proto.output.len().max(1);
    let given = if cx.opset < 13 { cx.ints("split") } else { cx.ints_at(b, 1)? };
    let lengths = match given {
        Some(given) => sizes(cx, &given)?,
        None => {
            let declared = cx.int("num_outputs", parts as i64);
            if declared != parts as i64 {
                return Err(
                    cx.bad_attribute("num_outputs", format!("{declared}, but the node has {parts} outputs"))
                );
            }
            let each = own[axis].div_ceil(parts);
            (0..parts).map(|i| each.min(own[axis].saturating_sub(i * each))).collect()
        }
    };
    if lengths.len() != parts {
        return Err(cx.bad_shape(format!("{} lengths for {parts} outputs", lengths.len())));
    }
    let total = lengths.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
    if total != Some(own[axis]) {
        return Err(cx.bad_shape(format!("axis {axis} of {own:?} does not split into {lengths:?}")));
    }
    let stride = strides(&own);
    let mut outputs = Vec::with_capacity(parts);
    let mut first = 0;
    for length in lengths {
        let mut shape = own.clone();
        shape[axis] = length;
        let sources = walk(b, &cx.name, &shape, first * stride[axis] as usize, &stride)?;
        outputs.push(pick(b, &cx.name, x, shape, sources)?);
        first += length;
    }
    Ok(outputs)
}

fn concat(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let inputs = (0..cx.inputs.len().max(1)).map(|i| cx.input(i)).collect::<Result<Vec<_>, _>>()?;
    let mut shape = b.shape(inputs[0]).to_vec();
    let axis = cx.axis(cx.int("axis", 0), shape.len())?;
    shape[axis] = 0;
    for &id in &inputs {
        let own = b.shape(id);
        let fits = own.len() == shape.len() && (0..own.len()).all(|a| a == axis || own[a] == shape[a]);
        if !fits {
            return Err(cx.bad_shape(format!("{own:?} does not concatenate to {shape:?} along axis {axis}")));
        }
        shape[axis] = shape[axis].saturating_add(own[axis]);
    }
    crate::tensor::elements(&shape, &cx.name, b.limits)?;
    let block: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    b.spend(&cx.name, outer * inputs.len())?;
    let (whole, mut before, mut lists) = (shape[axis] * block, 0, Vec::new());
    for &id in &inputs {
        let len = b.shape(id)[axis] * block;
        let list = (0..outer).map(|o| crate::op::Run { src: o * len, dst: o * whole + before, len });
        lists.push(list.collect());
        before += len;
    }
    b.emit(&cx.name, Op::Rearrange(lists), &inputs, b.dtype(inputs[0]), shape)
}

fn expand(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let asked = sizes(cx, &cx.ints_at(b, 1)?.ok_or_else(|| cx.bad_input(1, "is missing"))?)?;
    crate::tensor::elements(&asked, &cx.name, b.limits)?;
    let own = b.shape(x).to_vec();
    let rank = own.len().max(asked.len());
    let at = |s: &[usize], a: usize| (a + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    let mut shape = Vec::with_capacity(rank);
    for a in 0..rank {
        match (at(&own, a), at(&asked, a)) {
            (m, n) if m == n || n == 1 => shape.push(m),
            (1, n) => shape.push(n),
            _ => return Err(cx.bad_shape(format!("{own:?} does not expand to {asked:?}"))),
        }
    }
    pay(b, &cx.name, &shape)?;
    pick(b, &cx.name, x, shape.clone(), crate::eval::sources(&own, &shape))
}

fn tile(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let own = b.shape(x).to_vec();
    let repeats = sizes(cx, &cx.ints_at(b, 1)?.ok_or_else(|| cx.bad_input(1, "is missing"))?)?;
    if repeats.len() != own.len() {
        return Err(cx.bad_shape(format!("{} repeats for {own:?}", repeats.len())));
    }
    let shape: Vec<usize> = own.iter().zip(&repeats).map(|(&d, &r)| d.saturating_mul(r)).collect();
    pay(b, &cx.name, &shape)?;
    let mut sources = vec![0];
    for (&d, &total) in own.iter().zip(&shape) {
        sources = sources.into_iter().flat_map(|i| (0..total).map(move |k| i * d + k % d)).collect();
    }
    pick(b, &cx.name, x, shape, sources)
}

fn gather(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let own = b.shape(x).to_vec();
    let axis = cx.axis(cx.int("axis", 0), own.len())?;
    let index = cx.constant(b, 1)?;
    let mut chosen = Vec::with_capacity(index.data.len());
    for &v in &index.data {
        let wrapped = if v < 0.0 { v + own[axis] as f64 } else { v };
        if !(0.0..own[axis] as f64).contains(&wrapped) {
            return Err(cx.bad_shape(format!("index {v} is outside axis {axis} of {own:?}")));
        }
        chosen.push(wrapped as usize);
    }
    let shape: Vec<usize> = [&own[..axis], &index.shape, &own[axis + 1..]].concat();
    pay(b, &cx.name, &shape)?;
    let block: usize = own[axis + 1..].iter().product();
    let outer: usize = own[..axis].iter().product();
    let mut sources = Vec::new();
    for o in 0..outer {
        for &i in &chosen {
            sources.extend((0..block).map(|k| (o * own[axis] + i) * block + k));
        }
    }
    pick(b, &cx.name, x, shape, sources)
}
