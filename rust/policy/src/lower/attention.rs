//! The operator Attention (opset 23 and later), without a cache of earlier keys and values.

use super::{Cx, Outputs};
use crate::eval;
use crate::graph::{Builder, GraphError, ValueId};
use crate::kernels::attention::{Attention, Heads};
use crate::op::Op;
use crate::tensor::{DType, Tensor};

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    (cx.op() == "Attention").then(|| attention(b, cx).map(|id| vec![id]))
}

/// Sizes of an operand: `[batch, heads, rows, width]`, or `[batch, rows, heads·width]` when `split`.
struct Blocks {
    batch: usize,
    heads: usize,
    rows: usize,
    width: usize,
    split: bool,
}

impl Blocks {
    fn of(b: &Builder<'_>, cx: &Cx<'_>, index: usize, attribute: &str) -> Result<Self, GraphError> {
        let heads = usize::try_from(cx.int(attribute, 0)).unwrap_or(0);
        let bad = |shape: &[usize]| {
            let why = format!("{heads} for the operand {shape:?}");
            Err(cx.bad_attribute(attribute, why))
        };
        match *b.shape(cx.input(index)?) {
            [batch, own, rows, width] if heads == 0 || heads == own => {
                Ok(Self { batch, heads: own, rows, width, split: false })
            }
            [batch, rows, all] if heads > 0 && all.is_multiple_of(heads) => {
                Ok(Self { batch, heads, rows, width: all / heads, split: true })
            }
            ref shape => bad(shape),
        }
    }

    /// Where the rows of each of `heads` lie; neighbours share a block when there are fewer blocks.
    fn places(&self, heads: usize) -> Heads {
        let (row, step) = match self.split {
            true => (self.heads * self.width, self.width),
            false => (self.width, self.rows * self.width),
        };
        let batch = self.heads * self.rows * self.width;
        let start = |i: usize| i / heads * batch + i % heads / (heads / self.heads) * step;
        Heads { starts: (0..self.batch * heads).map(start).collect(), row, column: 1 }
    }
}

fn attention(b: &mut Builder<'_>, cx: &Cx<'_>) -> Result<ValueId, GraphError> {
    let q = Blocks::of(b, cx, 0, "q_num_heads")?;
    let k = Blocks::of(b, cx, 1, "kv_num_heads")?;
    let v = Blocks::of(b, cx, 2, "kv_num_heads")?;
    let some = [&q, &k, &v].iter().all(|o| o.batch * o.heads * o.rows * o.width > 0);
    let fits = some
        && [k.batch, v.batch] == [q.batch; 2]
        && k.heads == v.heads
        && k.rows == v.rows
        && k.width == q.width
        && q.heads.is_multiple_of(k.heads);
    if !fits {
        let shapes = [0, 1, 2].map(|i| cx.optional(i).map_or(vec![], |id| b.shape(id).to_vec()));
        return Err(cx.bad_shape(format!("queries, keys and values {shapes:?} do not fit")));
    }
    for index in 4..7 {
        if cx.optional(index).is_some() {
            return Err(cx.bad_input(index, "is a cache of earlier keys, which is not supported"));
        }
    }
    if cx.float("softcap", 0.0)? != 0.0 {
        return Err(cx.bad_attribute("softcap", "only 0 is supported"));
    }
    if !matches!(cx.int("softmax_precision", 1), 0 | 1) {
        return Err(cx.bad_attribute("softmax_precision", "only 1 (float) is supported"));
    }
    // It concerns an output that is not computed.
    cx.int("qk_matmul_output_mode", 0);
    // Every head has its places listed.
    b.spend(&cx.name, 8 * q.batch * q.heads)?;
    let scale = cx.float("scale", 1.0 / (q.width as f32).sqrt())?;
    let causal = cx.int("is_causal", 0) != 0;
    let mask = mask(b, cx, [q.batch, q.heads, q.rows, k.rows], causal)?;
    let y = Blocks { width: v.width, ..q };
    let shape = match q.split {
        true => vec![q.batch, q.rows, q.heads * v.width],
        false => vec![q.batch, q.heads, q.rows, v.width],
    };
    let a = Attention {
        queries: q.rows,
        keys: k.rows,
        width: q.width,
        value_width: v.width,
        scale,
        q: q.places(q.heads),
        k: k.places(q.heads),
        v: v.places(q.heads),
        mask: mask.as_ref().map(|(_, m)| m.clone()),
        y: y.places(q.heads),
    };
    let inputs: Vec<ValueId> =
        [cx.input(0)?, cx.input(1)?, cx.input(2)?].into_iter().chain(mask.map(|(id, _)| id)).collect();
    b.emit(&cx.name, Op::Attention(Box::new(a)), &inputs, DType::F32, shape)
}

/// The mask as numbers that are added, with what causality forbids, and where it lies for each head.
fn mask(
    b: &mut Builder<'_>,
    cx: &Cx<'_>,
    to: [usize; 4],
    causal: bool,
) -> Result<Option<(ValueId, Heads)>, GraphError> {
    let [_, _, queries, keys] = to;
    let given = match cx.optional(3) {
        Some(_) => (*cx.constant(b, 3)?).clone(),
        None if causal => Tensor::scalar(0.0),
        None => return Ok(None),
    };
    let given = match given.dtype {
        DType::Bool => {
            let data = given.data.iter().map(|&on| if on != 0.0 { 0.0 } else { f64::NEG_INFINITY });
            Tensor { dtype: DType::F32, data: data.collect(), shape: given.shape }
        }
        DType::F32 => given,
        DType::Int => return Err(cx.bad_input(3, "must be float or truth values")),
    };
    let own = [&[1, 1, 1, 1][given.shape.len().min(4)..], &given.shape].concat();
    if own.len() != 4 || own.iter().zip(to).any(|(&d, n)| d != 1 && d != n) {
        return Err(cx.bad_shape(format!("the mask {:?} does not broadcast to {to:?}", given.shape)));
    }
    let shape = vec![own[0], own[1], queries, keys];
    let count = crate::tensor::elements(&shape, &cx.name, b.limits)?;
    b.spend(&cx.name, count)?;
    let sources = eval::sources(&own, &shape);
    let allowed = |i: usize| !causal || i % keys <= i / keys % queries;
    let at = |(i, from): (usize, usize)| if allowed(i) { given.data[from] } else { f64::NEG_INFINITY };
    let data = sources.into_iter().enumerate().map(at).collect();
    let places = Heads { starts: eval::starts(&shape, &to).into(), row: keys, column: 1 };
    let id = b.constant(&cx.name, Tensor { dtype: DType::F32, shape, data });
    Ok(Some((id, places)))
}
