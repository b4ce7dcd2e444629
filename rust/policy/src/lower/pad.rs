//! Pad: a copy with a border, which is a constant or is copied too.

use super::{Cx, Outputs};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::{Op, Run};
use crate::tensor::{self, DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    (cx.op() == "Pad").then(|| pad(b, cx).map(|id| vec![id]))
}

#[derive(Clone, Copy)]
enum Mode {
    Constant,
    Edge,
    Reflect,
}

/// Where the elements along one axis come from; `None` is the constant.
fn axis(mode: Mode, length: usize, before: i64, total: usize) -> Vec<Option<usize>> {
    let last = length as i64 - 1;
    let from = |i: i64| match mode {
        Mode::Constant => usize::try_from(i).ok().filter(|&i| i < length),
        Mode::Edge => Some(i.clamp(0, last) as usize),
        Mode::Reflect => Some(last - (i.abs() - last).abs()).map(|i| i as usize),
    };
    (0..total as i64).map(|i| from(i - before)).collect()
}

fn pad(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let x = cx.input(0)?;
    let own = b.shape(x).to_vec();
    let mode = match cx.string("mode").as_deref() {
        None | Some("constant") => Mode::Constant,
        Some("edge") => Mode::Edge,
        Some("reflect") => Mode::Reflect,
        Some(other) => {
            return Err(cx.bad_attribute("mode", format!("{other:?}; constant, edge and reflect are known")));
        }
    };
    let pads = cx.ints_at(b, 1)?.ok_or_else(|| cx.bad_input(1, "is missing"))?;
    let axes = match cx.ints_at(b, 3)? {
        Some(axes) => axes.into_iter().map(|a| cx.axis(a, own.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..own.len()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(cx.bad_shape(format!("{} pads for {} axes", pads.len(), axes.len())));
    }
    let (mut before, mut shape) = (vec![0; own.len()], own.clone());
    for (i, &a) in axes.iter().enumerate() {
        let (head, tail) = (pads[i], pads[i + axes.len()]);
        let d = own[a] as i64;
        let total =
            d.checked_add(head).and_then(|n| n.checked_add(tail)).and_then(|n| usize::try_from(n).ok());
        let fits = match mode {
            Mode::Constant => true,
            Mode::Edge => d > 0,
            Mode::Reflect => d > 0 && head < d && tail < d,
        };
        let total = total.filter(|_| fits && head >= -d && tail >= -d);
        (before[a], shape[a]) = (
            head,
            total.ok_or_else(|| {
                cx.bad_shape(format!("axis {a} of {own:?} cannot be padded by {head} and {tail}"))
            })?,
        );
    }
    let count = tensor::elements(&shape, &cx.name, b.limits)?;
    b.spend(&cx.name, count)?;
    let mut sources = vec![Some(0)];
    for a in 0..own.len() {
        let length = own[a];
        let along = axis(mode, length, before[a], shape[a]);
        sources = sources
            .iter()
            .flat_map(|&s: &Option<usize>| along.iter().map(move |&i| Some(s? * length + i?)))
            .collect();
    }
    let (copied, border) = runs(&sources);
    let dtype = b.dtype(x);
    let Some(widest) = border.iter().map(|r| r.len).max() else {
        return b.emit(&cx.name, Op::Rearrange(vec![copied]), &[x], dtype, shape);
    };
    let value = match cx.optional(2) {
        None => 0.0,
        Some(_) => {
            let t = cx.constant(b, 2)?;
            let single = t.data.first().filter(|_| t.data.len() == 1);
            *single.ok_or_else(|| cx.bad_input(2, "must be one number"))?
        }
    };
    let data = if matches!(dtype, DType::F32) { f64::from(value as f32) } else { value };
    let fill = b.constant(&cx.name, Tensor { dtype, shape: vec![widest], data: vec![data; widest] });
    b.emit(&cx.name, Op::Rearrange(vec![copied, border]), &[x, fill], dtype, shape)
}

/// Runs of copied elements, and runs of the constant.
fn runs(sources: &[Option<usize>]) -> (Vec<Run>, Vec<Run>) {
    let (mut copied, mut border): (Vec<Run>, Vec<Run>) = (vec![], vec![]);
    for (dst, source) in sources.iter().enumerate() {
        let (list, src) = match source {
            Some(src) => (&mut copied, *src),
            None => (&mut border, 0),
        };
        match list.last_mut() {
            Some(run) if run.dst + run.len == dst && (source.is_none() || run.src + run.len == src) => {
                run.len += 1
            }
            _ => list.push(Run { src, dst, len: 1 }),
        }
    }
    (copied, border)
}
