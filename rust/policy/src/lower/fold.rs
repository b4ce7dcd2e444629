//! Operators that compute on constants only, mostly for masks and indices: they must vanish at load.

use super::{Cx, Outputs};
use crate::eval;
use crate::graph::{Builder, GraphError};
use crate::op::Binary;
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    let result = match cx.op() {
        "Trilu" => trilu(b, cx),
        "CumSum" => cumulative(b, cx),
        "ScatterND" => scatter(b, cx),
        _ => return None,
    };
    Some(result.map(|t| vec![b.constant(&cx.name, t.rounded())]))
}

/// Constant input `index` with one element.
fn number(b: &Builder<'_>, cx: &Cx<'_>, index: usize) -> Result<i64, GraphError> {
    match cx.constant(b, index)?.data[..] {
        [x] => Ok(x as i64),
        _ => Err(cx.bad_input(index, "must be one number")),
    }
}

fn trilu(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    let mut t = (*cx.constant(b, 0)?).clone();
    b.spend(&cx.name, t.data.len())?;
    let upper = cx.int("upper", 1) != 0;
    let k = if cx.optional(1).is_some() { number(b, cx, 1)? } else { 0 };
    let [.., rows, columns] = t.shape[..] else {
        return Err(cx.bad_shape(format!("{:?} has no triangle", t.shape)));
    };
    for (i, x) in t.data.iter_mut().enumerate() {
        let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
        let above = column.saturating_sub(row) >= k;
        let below = column.saturating_sub(row) <= k;
        if !(if upper { above } else { below }) {
            *x = 0.0;
        }
    }
    Ok(t)
}

fn cumulative(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    let mut t = (*cx.constant(b, 0)?).clone();
    b.spend(&cx.name, t.data.len())?;
    let axis = cx.axis(number(b, cx, 1)?, t.shape.len())?;
    let (exclusive, reverse) = (cx.int("exclusive", 0) != 0, cx.int("reverse", 0) != 0);
    let (length, inner): (usize, usize) = (t.shape[axis], t.shape[axis + 1..].iter().product());
    for block in t.data.chunks_exact_mut((length * inner).max(1)) {
        for i in 0..inner {
            let mut sum = 0.0;
            for step in 0..length {
                let at = if reverse { length - 1 - step } else { step } * inner + i;
                let own = block[at];
                block[at] = if exclusive { sum } else { sum + own };
                sum += own;
            }
        }
    }
    Ok(t)
}

fn scatter(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<Tensor, GraphError> {
    let mut t = (*cx.constant(b, 0)?).clone();
    let (indices, updates) = (cx.constant(b, 1)?, cx.constant(b, 2)?);
    b.spend(&cx.name, t.data.len() + updates.data.len())?;
    let reduce = match cx.string("reduction").as_deref() {
        None | Some("none") => None,
        Some("add") => Some(Binary::Add),
        Some("mul") => Some(Binary::Mul),
        Some("min") => Some(Binary::Min),
        Some("max") => Some(Binary::Max),
        Some(other) => return Err(cx.bad_attribute("reduction", format!("{other:?} is not known"))),
    };
    let (depth, lead) = match indices.shape.split_last() {
        Some((&depth, lead)) if (1..=t.shape.len()).contains(&depth) => (depth, lead),
        _ => return Err(cx.bad_shape(format!("indices of {:?} into {:?}", indices.shape, t.shape))),
    };
    let expected = [lead, &t.shape[depth..]].concat();
    if updates.shape != expected {
        return Err(cx.bad_shape(format!("updates of {:?} instead of {expected:?}", updates.shape)));
    }
    let block: usize = t.shape[depth..].iter().product();
    let integer = t.dtype == DType::Int;
    for (index, update) in indices.data.chunks_exact(depth).zip(updates.data.chunks_exact(block.max(1))) {
        let mut at = 0;
        for (&i, &d) in index.iter().zip(&t.shape) {
            let wrapped = if i < 0.0 { i + d as f64 } else { i };
            if !(0.0..d as f64).contains(&wrapped) {
                return Err(cx.bad_shape(format!("index {i} is outside {:?}", t.shape)));
            }
            at = at * d + wrapped as usize;
        }
        for (own, &new) in t.data[at * block..].iter_mut().zip(update) {
            *own = reduce.map_or(new, |f| eval::binary(f, *own, new, integer));
        }
    }
    Ok(t)
}
