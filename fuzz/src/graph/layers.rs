//! Whole layers with weights of the right shapes.

use arbitrary::Result;

use super::Maker;
use crate::onnx::Attribute::{Int, Ints, Text};

impl Maker<'_, '_> {
    /// A recurrent layer, a convolution, a norm over channels or an attention on `x`, seen as `[rows, last]`.
    pub(super) fn layer(&mut self, x: &str, shape: &[i64]) -> Result<()> {
        let last = shape[shape.len() - 1];
        let rows = shape.iter().product::<i64>() / last;
        let see = |m: &mut Self, to: Vec<i64>| -> String {
            let target = m.list(&to);
            m.add("Reshape", &[x, &target], &[], to);
            m.live[m.live.len() - 1].0.clone()
        };
        match self.u.int_in_range(0..=5)? {
            0 => {
                let x = see(self, vec![rows, 1, last]);
                let (op, gates) = *self.u.choose(&[("GRU", 3), ("LSTM", 4)])?;
                let h = *self.u.choose(&[1, 2, 5, 8, 17])?;
                let w = self.constant(&[1, gates * h, last])?;
                let r = self.constant(&[1, gates * h, h])?;
                let b = self.constant(&[1, 2 * gates * h])?;
                let mut attributes = vec![Int("hidden_size", h)];
                if op == "GRU" && self.u.arbitrary()? {
                    attributes.push(Int("linear_before_reset", 1));
                }
                let inputs = [x.as_str(), &w, &r, if self.u.arbitrary()? { &b } else { "" }];
                let names = [self.fresh(), self.fresh()];
                self.graph.node(op, &inputs, &[&names[0], &names[1]], &attributes);
                let [all, end] = names;
                self.live.push((all, vec![rows, 1, 1, h]));
                self.live.push((end, vec![1, 1, h]));
            }
            1 => {
                let x = see(self, vec![1, rows, last]);
                let (m, k) = (self.u.int_in_range(1..=9)?, self.u.int_in_range(1..=last.min(5))?);
                let (stride, dilation) = (self.u.int_in_range(1..=2)?, 1);
                let (a, b) = (self.u.int_in_range(0..=2)?, self.u.int_in_range(0..=2)?);
                let group = if self.u.ratio(1, 4)? { rows } else { 1 };
                let attributes = [
                    Ints("kernel_shape", vec![k]),
                    Ints("strides", vec![stride]),
                    Ints("dilations", vec![dilation]),
                    Ints("pads", vec![a, b]),
                    Int("group", group),
                ];
                if self.u.arbitrary()? {
                    let w = self.constant(&[m * group, rows / group, k])?;
                    let out = (last + a + b - k) / stride + 1;
                    self.add("Conv", &[&x, &w], &attributes, vec![1, m * group, out]);
                } else {
                    let w = self.constant(&[rows, m, k])?;
                    let out = (last - 1) * stride + k - a - b;
                    self.add("ConvTranspose", &[&x, &w], &attributes, vec![1, m * group, out.max(1)]);
                }
            }
            2 => {
                let x = see(self, vec![1, rows, last]);
                let op =
                    *self.u.choose(&["InstanceNormalization", "GroupNormalization", "RMSNormalization"])?;
                let width = if op == "RMSNormalization" { last } else { rows };
                let (scale, bias) = (self.constant(&[width])?, self.constant(&[width])?);
                let (inputs, attributes) = match op {
                    "RMSNormalization" => (vec![x.as_str(), &scale], vec![]),
                    "GroupNormalization" => (vec![x.as_str(), &scale, &bias], vec![Int("num_groups", 1)]),
                    _ => (vec![x.as_str(), &scale, &bias], vec![]),
                };
                self.add(op, &inputs, &attributes, vec![1, rows, last]);
            }
            3 => {
                let x = see(self, vec![rows, last]);
                let (a, b) = (self.u.int_in_range(0..=3)?, self.u.int_in_range(0..=3)?);
                let pads = self.list(&[0, a.min(last - 1), 0, b.min(last - 1)]);
                let mode = *self.u.choose(&["constant", "edge", "reflect"])?;
                let out = vec![rows, last + a.min(last - 1) + b.min(last - 1)];
                self.add("Pad", &[&x, &pads], &[Text("mode", mode)], out);
            }
            4 => {
                // softmax(x·xᵀ·c + mask)·x, as exporters write it.
                let x = see(self, vec![1, rows, last]);
                self.add("Transpose", &[&x], &[Ints("perm", vec![0, 2, 1])], vec![1, last, rows]);
                let turned = self.live[self.live.len() - 1].0.clone();
                let (c, mask) = (self.constant(&[])?, self.constant(&[rows, rows])?);
                let names: Vec<String> = (0..4).map(|_| self.fresh()).collect();
                self.graph.node("MatMul", &[&x, &turned], &[&names[0]], &[]);
                self.graph.node("Mul", &[&names[0], &c], &[&names[1]], &[]);
                self.graph.node("Add", &[&names[1], &mask], &[&names[2]], &[]);
                self.graph.node("Softmax", &[&names[2]], &[&names[3]], &[Int("axis", -1)]);
                self.add("MatMul", &[&names[3], &x], &[], vec![1, rows, last]);
            }
            _ => {
                let x = see(self, vec![1, 1, rows, last]);
                let attributes = [Int("is_causal", self.u.arbitrary::<bool>()?.into())];
                self.add("Attention", &[&x, &x, &x], &attributes, vec![1, 1, rows, last]);
            }
        }
        Ok(())
    }
}
