//! GRU and LSTM: the input's part of the gates becomes a linear layer over all steps, the rest a cell.

use super::{Cx, Outputs, shape};
use crate::graph::{Builder, GraphError, ValueId};
use crate::op::Op;
use crate::recurrent::{Cell, CellKind};
use crate::tensor::{DType, Tensor};

/// Longest sequence of one call.
const LONGEST: usize = 256;

/// Lowers the node if it is of this class.
pub(super) fn lower(b: &mut Builder<'_>, cx: &Cx<'_>) -> Option<Outputs> {
    match cx.op() {
        "GRU" | "LSTM" => Some(layer(b, cx)),
        "RNN" => Some(Err(cx.unsupported("RNN", "; use GRU or LSTM"))),
        _ => None,
    }
}

/// The kind, and for each of our blocks its place among ONNX's (z, r, h, or i, o, f, c).
fn kind(cx: &Cx<'_>) -> Result<(CellKind, &'static [usize]), GraphError> {
    if cx.op() == "LSTM" {
        if cx.int("input_forget", 0) != 0 {
            return Err(cx.bad_attribute("input_forget", "only 0 is supported"));
        }
        return Ok((CellKind::Lstm, &[0, 2, 3, 1]));
    }
    let before = cx.int("linear_before_reset", 0) != 0;
    Ok((if before { CellKind::Gru } else { CellKind::GruResetFirst }, &[1, 0, 2]))
}

/// Refuses every variant that is not the plain one.
fn plain(cx: &Cx<'_>, kind: CellKind) -> Result<(), GraphError> {
    let direction = cx.string("direction").unwrap_or_else(|| "forward".into());
    if direction != "forward" {
        return Err(cx.bad_attribute("direction", format!("{direction}; a policy runs forward in time")));
    }
    if cx.int("layout", 0) != 0 {
        return Err(cx.bad_attribute("layout", "only 0 is supported; transpose outside"));
    }
    if cx.attribute("clip").is_some() {
        return Err(cx.bad_attribute("clip", "is not supported; clip the input"));
    }
    let given = cx.strings("activations");
    let usual: &[&str] =
        if kind == CellKind::Lstm { &["Sigmoid", "Tanh", "Tanh"] } else { &["Sigmoid", "Tanh"] };
    if !given.is_empty() && !given.iter().map(String::as_str).eq(usual.iter().copied()) {
        return Err(cx.bad_attribute("activations", format!("{given:?}; only {usual:?} are supported")));
    }
    if cx.optional(4).is_some() {
        return Err(cx.bad_input(4, "(sequence_lens) is not supported; export one length"));
    }
    if kind == CellKind::Lstm && cx.optional(7).is_some() {
        return Err(cx.bad_input(7, "(peepholes) is not supported"));
    }
    Ok(())
}

fn layer(b: &mut Builder<'_>, cx: &Cx<'_>) -> Outputs {
    let (kind, order) = kind(cx)?;
    plain(cx, kind)?;
    let x = cx.input(0)?;
    let (given, r) = (cx.constant(b, 1)?, cx.constant(b, 2)?);
    let [length, batch, inputs] = b.shape(x)[..] else {
        return Err(cx.bad_shape(format!("the input has the shape {:?}", b.shape(x))));
    };
    if length == 0 || length > LONGEST {
        return Err(cx.bad_shape(format!("{length} steps, more than {LONGEST} or none")));
    }
    let hidden = match r.shape[..] {
        [1, _, hidden] if hidden > 0 => hidden,
        _ => return Err(cx.bad_shape(format!("R has the shape {:?}", r.shape))),
    };
    let said = cx.int("hidden_size", hidden as i64);
    if said != hidden as i64 {
        return Err(cx.bad_attribute("hidden_size", format!("{said}, but R has {hidden}")));
    }
    let cell = Cell { kind, length, batch, hidden };
    let wide = order.len() * hidden;
    let fits = [(&given, inputs), (&r, hidden)];
    if let Some((t, _)) = fits.iter().find(|(t, k)| t.shape != [1, wide, *k]) {
        return Err(cx.bad_shape(format!("{:?} does not fit {inputs} inputs, {hidden} states", t.shape)));
    }
    b.spend(&cx.name, given.data.len() + r.data.len())?;
    // ONNX's rows in our order, as columns.
    let columns = |t: &Tensor, k: usize| {
        let row = |column: usize| order[column / hidden] * hidden + column % hidden;
        let data = (0..k).flat_map(|i| (0..wide).map(move |j| t.data[row(j) * k + i])).collect();
        Tensor { dtype: DType::F32, shape: vec![k, wide], data }
    };
    let (w, own) = (columns(&given, inputs), columns(&r, hidden));
    let (w, own) = (b.constant(&cx.name, w), b.constant(&cx.name, own));
    let [input_bias, own_bias] = biases(b, cx, order, hidden)?;
    let wide_shape = vec![length, batch, wide];
    let gates = b.emit(&cx.name, Op::Linear(None), &[x, w, input_bias], DType::F32, wide_shape)?;
    let mut ports = vec![gates, own, own_bias, start(b, cx, 5, cell)?];
    if kind == CellKind::Lstm {
        ports.push(start(b, cx, 6, cell)?);
    }
    let all = b.emit(&cx.name, Op::Recurrent(cell), &ports, DType::F32, vec![cell.output()])?;
    let last = vec![1, batch, hidden];
    let mut outputs = vec![
        shape::part(b, &cx.name, all, 0, vec![length, 1, batch, hidden])?,
        shape::part(b, &cx.name, all, cell.states() - cell.state(), last.clone())?,
    ];
    if kind == CellKind::Lstm {
        outputs.push(shape::part(b, &cx.name, all, cell.states(), last)?);
    }
    Ok(outputs)
}

/// Bias of the input's part and of the state's, zeros when absent.
fn biases(
    b: &mut Builder<'_>,
    cx: &Cx<'_>,
    order: &[usize],
    hidden: usize,
) -> Result<[ValueId; 2], GraphError> {
    let wide = order.len() * hidden;
    let given = match cx.optional(3) {
        Some(_) => cx.constant(b, 3)?.data.clone(),
        None => vec![0.0; 2 * wide],
    };
    if given.len() != 2 * wide {
        return Err(cx.bad_shape(format!("B has {} numbers, but {} are needed", given.len(), 2 * wide)));
    }
    Ok([0, wide].map(|from| {
        let data = order.iter().flat_map(|&k| given[from + k * hidden..][..hidden].to_vec()).collect();
        b.constant(&cx.name, Tensor { dtype: DType::F32, shape: vec![wide], data })
    }))
}

/// A first state: input `index`, zeros when absent.
fn start(b: &mut Builder<'_>, cx: &Cx<'_>, index: usize, cell: Cell) -> Result<ValueId, GraphError> {
    let Some(given) = cx.optional(index) else {
        let (shape, data) = (vec![1, cell.batch, cell.hidden], vec![0.0; cell.state()]);
        return Ok(b.constant(&cx.name, Tensor { dtype: DType::F32, shape, data }));
    };
    if b.shape(given) != [1, cell.batch, cell.hidden] {
        let (own, fit) = (b.shape(given), [1, cell.batch, cell.hidden]);
        return Err(cx.bad_shape(format!("a first state has the shape {own:?}, not {fit:?}")));
    }
    Ok(given)
}
