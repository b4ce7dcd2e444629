//! Random graphs that are nearly right: shapes fit, so that most of them load and run, and what is wrong is wrong in
//! one place.

use arbitrary::{Result, Unstructured};

use crate::onnx::Attribute::{Float, Int, Ints, Text};
use crate::onnx::{Attribute, Graph};

mod layers;

/// A file, and the names of its inputs and outputs.
pub struct Net {
    pub file: Vec<u8>,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

const UNARY: [&str; 27] = [
    "Neg",
    "Abs",
    "Sqrt",
    "Reciprocal",
    "Exp",
    "Log",
    "Sin",
    "Cos",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Erf",
    "Relu",
    "LeakyRelu",
    "Elu",
    "Celu",
    "Selu",
    "Sigmoid",
    "Tanh",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Gelu",
    "Mish",
    "Identity",
];
const BINARY: [&str; 8] = ["Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "PRelu"];
const COMPARE: [&str; 5] = ["Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"];
const REDUCE: [&str; 7] =
    ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare"];
/// Whatever else ONNX has; inputs and attributes are drawn without knowing what they mean.
const WILD: [&str; 44] = [
    "GRU",
    "LSTM",
    "RNN",
    "Conv",
    "ConvTranspose",
    "Attention",
    "RMSNormalization",
    "GroupNormalization",
    "InstanceNormalization",
    "BatchNormalization",
    "Pad",
    "CumSum",
    "Trilu",
    "ScatterND",
    "Range",
    "Shape",
    "Size",
    "ConstantOfShape",
    "Constant",
    "Gather",
    "GatherElements",
    "Gemm",
    "MatMul",
    "Slice",
    "Split",
    "Concat",
    "Expand",
    "Tile",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Transpose",
    "Cast",
    "CastLike",
    "Clip",
    "Where",
    "Mod",
    "Dropout",
    "Softmax",
    "LayerNormalization",
    "If",
    "Loop",
    "Swish",
];
const ATTRIBUTES: [&str; 40] = [
    "axis",
    "axes",
    "perm",
    "alpha",
    "beta",
    "gamma",
    "epsilon",
    "transA",
    "transB",
    "keepdims",
    "to",
    "fmod",
    "start",
    "end",
    "hidden_size",
    "linear_before_reset",
    "layout",
    "group",
    "kernel_shape",
    "strides",
    "dilations",
    "pads",
    "output_padding",
    "output_shape",
    "mode",
    "is_causal",
    "scale",
    "q_num_heads",
    "kv_num_heads",
    "num_groups",
    "stash_type",
    "noop_with_empty_axes",
    "allowzero",
    "split",
    "num_outputs",
    "exclusive",
    "reverse",
    "upper",
    "value_int",
    "value_ints",
];

struct Maker<'a, 'b> {
    u: &'a mut Unstructured<'b>,
    graph: Graph,
    opset: i64,
    /// Values that are computed from an input, with the shapes that they should have.
    live: Vec<(String, Vec<i64>)>,
    count: usize,
    /// Whether layers of the larger kind are drawn as well.
    layers: bool,
}

/// Draws a graph.
pub fn net(u: &mut Unstructured<'_>) -> Result<Net> {
    let opset = *u.choose(&[18, 18, 18, 11, 13, 20, 23, 24])?;
    let layers = u.arbitrary()?;
    let mut m = Maker { graph: Graph::new(opset), opset, u, live: vec![], count: 0, layers };
    let mut inputs = vec![];
    for i in 0..m.u.int_in_range(1..=3)? {
        let rank = m.u.int_in_range(1..=4)?;
        let shape = (0..rank).map(|_| m.dimension()).collect::<Result<Vec<_>>>()?;
        let name = format!("x{i}");
        m.graph.input(&name, &shape);
        m.live.push((name.clone(), shape));
        inputs.push(name);
    }
    for _ in 0..m.u.int_in_range(1..=24)? {
        m.step()?;
    }
    let many = m.u.int_in_range(1..=4)?.min(m.live.len());
    let outputs: Vec<String> = m.live.iter().rev().take(many).map(|(name, _)| name.clone()).collect();
    outputs.iter().for_each(|o| m.graph.output(o));
    let mut file = m.graph.bytes();
    // One graph in eight is damaged as well.
    if m.u.ratio(1, 8)? {
        for _ in 0..m.u.int_in_range(1..=3)? {
            let at = m.u.choose_index(file.len())?;
            file[at] ^= m.u.arbitrary::<u8>()?;
        }
    }
    Ok(Net { file, inputs, outputs })
}

impl Maker<'_, '_> {
    fn dimension(&mut self) -> Result<i64> {
        Ok(*self.u.choose(&[1, 2, 3, 4, 5, 8, 1, 17, 33])?)
    }

    fn number(&mut self) -> Result<f32> {
        Ok(match self.u.int_in_range(0..=15)? {
            0 => 0.0,
            1 => 1e30,
            2 => -1e-30,
            3 => 1e-42,
            4 => 0.5,
            5 => 2.0,
            6 => 3.0,
            7 if self.u.ratio(1, 64)? => f32::NEG_INFINITY,
            n => (f32::from(self.u.arbitrary::<i8>()?)) / 64.0 + n as f32 * 0.01,
        })
    }

    fn integer(&mut self) -> Result<i64> {
        Ok(match self.u.int_in_range(0..=9)? {
            0 => i64::MAX,
            1 => i64::MIN,
            2 => 1 << 31,
            3 => 65_536,
            _ => self.u.int_in_range(-5..=9)?,
        })
    }

    fn fresh(&mut self) -> String {
        self.count += 1;
        format!("v{}", self.count)
    }

    fn constant(&mut self, shape: &[i64]) -> Result<String> {
        let count: i64 = shape.iter().product();
        let each = self.u.ratio(1, 3)?;
        let one = self.number()?;
        let data = (0..count)
            .map(|i| Ok(if each && i < 64 { self.number()? } else { one }))
            .collect::<Result<Vec<_>>>()?;
        let name = self.fresh();
        self.graph.floats(&name, shape, &data);
        Ok(name)
    }

    fn list(&mut self, v: &[i64]) -> String {
        let name = self.fresh();
        self.graph.ints(&name, v);
        name
    }

    fn pick(&mut self) -> Result<(String, Vec<i64>)> {
        // The newest half of the time, so that graphs are deep and not only wide.
        if self.u.ratio(1, 2)? {
            return Ok(self.live[self.live.len() - 1].clone());
        }
        Ok(self.u.choose(&self.live)?.clone())
    }

    fn axis(&mut self, shape: &[i64]) -> Result<usize> {
        self.u.choose_index(shape.len())
    }

    fn add(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute], shape: Vec<i64>) {
        let name = self.fresh();
        self.graph.node(op, inputs, &[&name], attributes);
        if shape.iter().product::<i64>() <= 4096 {
            self.live.push((name, shape));
        }
    }

    /// Axes as an input from opset `since` on, as an attribute before.
    fn with_axes(
        &mut self,
        op: &str,
        x: &str,
        axes: Vec<i64>,
        since: i64,
        keep: Option<i64>,
        shape: Vec<i64>,
    ) {
        let mut attributes: Vec<Attribute> = keep.map(|k| Int("keepdims", k)).into_iter().collect();
        if self.opset < since {
            attributes.push(Ints("axes", axes));
            self.add(op, &[x], &attributes, shape);
        } else {
            let axes = self.list(&axes);
            self.add(op, &[x, &axes], &attributes, shape);
        }
    }

    fn step(&mut self) -> Result<()> {
        let (x, shape) = self.pick()?;
        let rank = shape.len();
        match self.u.int_in_range(0..=21)? {
            0 | 1 => {
                let op = *self.u.choose(&UNARY)?;
                self.add(op, &[&x], &[], shape);
            }
            2 | 3 => {
                let op = *self.u.choose(&BINARY)?;
                let from = self.u.int_in_range(0..=rank)?;
                let mut other = shape[from..].to_vec();
                for d in &mut other {
                    if self.u.ratio(1, 3)? {
                        *d = 1;
                    }
                }
                let c = self.constant(&other)?;
                if op != "PRelu" && self.u.arbitrary()? {
                    self.add(op, &[&c, &x], &[], shape);
                } else {
                    self.add(op, &[&x, &c], &[], shape);
                }
            }
            4 | 5 => {
                let op = *self.u.choose(&BINARY)?;
                let same: Vec<String> =
                    self.live.iter().filter(|(_, s)| *s == shape).map(|(n, _)| n.clone()).collect();
                let other = self.u.choose(&same)?.clone();
                self.add(op, &[&x, &other], &[], shape);
            }
            6 | 7 if rank > 0 => {
                let n = self.dimension()?;
                let w = self.constant(&[shape[rank - 1], n])?;
                let mut out = shape.clone();
                out[rank - 1] = n;
                self.add("MatMul", &[&x, &w], &[], out.clone());
                if self.u.arbitrary()? {
                    let b = self.constant(&[n])?;
                    let y = self.live[self.live.len() - 1].0.clone();
                    self.add("Add", &[&y, &b], &[], out);
                }
            }
            8 if rank == 2 => {
                let n = self.dimension()?;
                let turned = self.u.arbitrary()?;
                let w = self.constant(&if turned { [n, shape[1]] } else { [shape[1], n] })?;
                let attributes = [
                    Int("transB", turned.into()),
                    Float("alpha", self.number()?),
                    Float("beta", self.number()?),
                ];
                let shapes = [vec![n], vec![1], vec![shape[0], n], vec![], vec![1, n]];
                let bias = self.u.choose(&shapes)?;
                let c = self.constant(bias)?;
                self.add("Gemm", &[&x, &w, &c], &attributes, vec![shape[0], n]);
            }
            8 | 9 if rank >= 2 => {
                let m = self.dimension()?;
                let a = self.constant(&[m, shape[rank - 2]])?;
                let mut out = shape.clone();
                out[rank - 2] = m;
                self.add("MatMul", &[&a, &x], &[], out);
            }
            10 if rank > 0 => {
                let axis = self.axis(&shape)? as i64;
                let op = *self.u.choose(&["Softmax", "LogSoftmax"])?;
                self.add(op, &[&x], &[Int("axis", axis)], shape);
            }
            11 if rank > 0 => {
                let axis = self.axis(&shape)?;
                let scale = self.constant(&shape[axis..])?;
                let bias = self.constant(&shape[axis..])?;
                let attributes = [Int("axis", axis as i64 - rank as i64), Float("epsilon", 1e-5)];
                self.add("LayerNormalization", &[&x, &scale, &bias], &attributes, shape);
            }
            12 if rank > 0 => {
                let op = *self.u.choose(&REDUCE)?;
                let axis = self.axis(&shape)?;
                let keep: bool = self.u.arbitrary()?;
                let mut out = shape.clone();
                if keep {
                    out[axis] = 1;
                } else {
                    out.remove(axis);
                }
                let since = if op == "ReduceSum" { 13 } else { 18 };
                self.with_axes(op, &x, vec![axis as i64], since, Some(keep.into()), out);
            }
            13 => {
                let count: i64 = shape.iter().product();
                let out = self
                    .u
                    .choose(&[vec![count], vec![1, count], vec![count, 1], vec![1, count, 1, 1]])?
                    .clone();
                let open = if self.u.arbitrary()? { vec![-1] } else { out.clone() };
                let target = self.list(&open);
                self.add("Reshape", &[&x, &target], &[], if open.len() == 1 { vec![count] } else { out });
            }
            14 if rank > 0 => {
                let mut order: Vec<i64> = (0..rank as i64).collect();
                for i in (1..rank).rev() {
                    let j = self.u.int_in_range(0..=i)?;
                    order.swap(i, j);
                }
                let out = order.iter().map(|&a| shape[a as usize]).collect();
                self.add("Transpose", &[&x], &[Ints("perm", order)], out);
            }
            15 if rank > 0 => {
                let axis = self.axis(&shape)?;
                let d = shape[axis];
                let (from, step) = (self.u.int_in_range(0..=d - 1)?, self.u.int_in_range(1..=2)?);
                let to = self.u.int_in_range(from + 1..=d)?;
                let back = self.u.arbitrary()?;
                let lists = if back { [to - 1, from - d - 1, -step] } else { [from, to, step] };
                let [s, e, t] = lists.map(|v| self.list(&[v]));
                let a = self.list(&[axis as i64]);
                let mut out = shape.clone();
                out[axis] = (to - from + step - 1) / step;
                self.add("Slice", &[&x, &s, &e, &a, &t], &[], out);
            }
            16 if rank > 0 => {
                let axis = self.axis(&shape)?;
                let c = self.constant(&shape)?;
                let mut out = shape.clone();
                out[axis] *= 3;
                self.add("Concat", &[&x, &c, &x], &[Int("axis", axis as i64)], out);
            }
            17 if shape.iter().any(|&d| d > 1) => {
                let axis = shape.iter().position(|&d| d > 1).unwrap_or(0);
                let first = self.u.int_in_range(1..=(shape[axis] - 1).max(1))?;
                let lengths = vec![first, shape[axis] - first];
                let names = [self.fresh(), self.fresh()];
                let outputs: Vec<&str> = names.iter().map(String::as_str).collect();
                if self.opset < 13 {
                    let attributes = [Int("axis", axis as i64), Ints("split", lengths.clone())];
                    self.graph.node("Split", &[&x], &outputs, &attributes);
                } else {
                    let list = self.list(&lengths);
                    self.graph.node("Split", &[&x, &list], &outputs, &[Int("axis", axis as i64)]);
                }
                for (name, n) in names.iter().zip(lengths) {
                    let mut out = shape.clone();
                    out[axis] = n;
                    self.live.push((name.clone(), out));
                }
            }
            18 if rank > 0 => {
                let axis = self.axis(&shape)?;
                let n = self.u.int_in_range(1..=4)?;
                let d = shape[axis];
                let index = (0..n).map(|_| self.u.int_in_range(-d..=d - 1)).collect::<Result<Vec<_>>>()?;
                let list = self.list(&index);
                let mut out = shape.clone();
                out[axis] = n;
                self.add("Gather", &[&x, &list], &[Int("axis", axis as i64)], out);
            }
            19 => {
                let at = self.u.int_in_range(0..=rank)?;
                let mut out = shape.clone();
                out.insert(at, 1);
                self.with_axes("Unsqueeze", &x, vec![at as i64], 13, None, out.clone());
                let times = self.u.int_in_range(1..=3)?;
                let op = *self.u.choose(&["Expand", "Tile"])?;
                let mut list: Vec<i64> = if op == "Tile" { vec![1; out.len()] } else { out.clone() };
                list[at] = times;
                let (y, list) = (self.live[self.live.len() - 1].clone(), self.list(&list));
                if y.1 == out {
                    out[at] = times;
                    self.add(op, &[&y.0, &list], &[], out);
                }
            }
            20 => {
                let op = *self.u.choose(&COMPARE)?;
                let (a, b) = (self.constant(&[])?, self.constant(&[])?);
                let truth = self.fresh();
                self.graph.node(op, &[&x, &a], &[&truth], &[]);
                self.add("Where", &[&truth, &x, &b], &[], shape);
            }
            _ if self.layers && rank > 0 && self.u.ratio(1, 2)? => self.layer(&x, &shape)?,
            _ if self.u.ratio(1, 3)? => self.wild(&x, shape)?,
            _ => self.add("Tanh", &[&x], &[], shape),
        }
        Ok(())
    }

    fn wild(&mut self, x: &str, shape: Vec<i64>) -> Result<()> {
        let op = *self.u.choose(&WILD)?;
        let mut inputs = vec![x.to_owned()];
        for _ in 0..self.u.int_in_range(0..=5)? {
            let next = match self.u.int_in_range(0..=4)? {
                0 => self.pick()?.0,
                1 => String::new(),
                2 => {
                    let v = (0..self.u.int_in_range(0..=4)?)
                        .map(|_| self.integer())
                        .collect::<Result<Vec<_>>>()?;
                    self.list(&v)
                }
                _ => {
                    let rank = self.u.int_in_range(0..=4)?;
                    let own = (0..rank).map(|_| self.dimension()).collect::<Result<Vec<_>>>()?;
                    let own = if own.iter().product::<i64>() <= 4096 { own } else { vec![1] };
                    self.constant(&own)?
                }
            };
            inputs.push(next);
        }
        let mut attributes = vec![];
        for _ in 0..self.u.int_in_range(0..=4)? {
            let name = *self.u.choose(&ATTRIBUTES)?;
            attributes.push(match self.u.int_in_range(0..=5)? {
                0 => Float(name, self.number()?),
                1 => Text(
                    name,
                    self.u.choose(&["constant", "edge", "reflect", "SAME_UPPER", "tanh", "forward"])?,
                ),
                2 => Ints(
                    name,
                    (0..self.u.int_in_range(0..=4)?).map(|_| self.integer()).collect::<Result<_>>()?,
                ),
                _ => Int(name, self.integer()?),
            });
        }
        // The first input may stand further back.
        if self.u.ratio(1, 4)? {
            inputs.rotate_left(1);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.add(op, &inputs, &attributes, shape);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arbitrary::Unstructured;

    /// Graphs that are all refused would test the first check and nothing behind it.
    #[test]
    fn many_drawn_graphs_load_and_run() {
        let (mut state, mut loaded, mut ran) = (1u64, 0, 0);
        for _ in 0..300 {
            let bytes: Vec<u8> = (0..2048)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            let net = super::net(&mut Unstructured::new(&bytes)).expect("enough bytes");
            let Ok(mut policy) = crate::model(net.file, &net.inputs, &net.outputs, None) else { continue };
            loaded += 1;
            ran += u32::from(crate::run(policy.function("model").expect("it has one"), 1).is_ok());
        }
        assert!(loaded >= 100 && ran >= 80, "{loaded} of 300 load, {ran} run");
    }
}
