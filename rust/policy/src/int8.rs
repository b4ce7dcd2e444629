//! 8-bit weights: what is quantised, and how.
//!
//! `s = max|W_oi|/127` for each output o (1 for a row of zeros), `q = rint(W/s)`, half to even, within ±127. Every
//! matrix of a linear or recurrent layer is quantised but the last ones: those after which no other product comes.
//! Quantising the values `s·q` again gives the same `s` and `q`, so the graph is rounded once, when it has been read,
//! and packed later, whatever was fused in between.

use std::sync::Arc;

use crate::graph::{Graph, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;

/// A matrix `[k, n]` as integers, with one scale for each of its `n` columns.
#[derive(Debug, PartialEq)]
pub(crate) struct Quantized {
    pub(crate) q: Vec<i8>,
    pub(crate) scale: Vec<f32>,
}

impl Quantized {
    /// Quantises `w` `[k, n]`.
    pub(crate) fn new(w: &[f64], n: usize) -> Self {
        let mut top = vec![0.0f64; n];
        for row in w.chunks_exact(n) {
            top.iter_mut().zip(row).for_each(|(top, w)| *top = top.max(w.abs()));
        }
        let scale: Vec<f32> = top.iter().map(|top| scale(*top)).collect();
        let level = |(i, w): (usize, &f64)| {
            (w / f64::from(scale[i % n])).round_ties_even().clamp(-127.0, 127.0) as i8
        };
        Self { q: w.iter().enumerate().map(level).collect(), scale }
    }

    /// The values that the integers stand for, rounded to 32-bit floats.
    pub(crate) fn values(&self) -> Vec<f64> {
        let n = self.scale.len();
        self.q.iter().enumerate().map(|(i, &q)| f64::from(f32::from(q) * self.scale[i % n])).collect()
    }
}

/// Scale of an output whose largest weight is `top`. One too small for a normal number is as good as zero.
fn scale(top: f64) -> f32 {
    let s = (top / 127.0) as f32;
    if s < f32::MIN_POSITIVE { 1.0 } else { s }
}

/// For each node, whether it multiplies by a matrix that is quantised.
pub(crate) fn chosen(graph: &Graph) -> Vec<bool> {
    // Values from which another product is reached.
    let mut followed = vec![false; graph.values.len()];
    let mut chosen = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        chosen[i] = followed[node.output] && matrix(graph, i).is_some();
        if followed[node.output] || node.op.is_product() {
            node.inputs.iter().for_each(|&v| followed[v] = true);
        }
    }
    chosen
}

/// The constant matrix that node `index` multiplies by.
fn matrix(graph: &Graph, index: usize) -> Option<ValueId> {
    let node = &graph.nodes[index];
    let multiplies = matches!(node.op, Op::Linear(_) | Op::Recurrent(_));
    node.inputs.get(1).copied().filter(|&w| multiplies && graph.values[w].constant.is_some())
}

/// Rounds every chosen matrix to what its integers stand for.
pub(crate) fn round(graph: &mut Graph) {
    let chosen = chosen(graph);
    for index in (0..graph.nodes.len()).filter(|&i| chosen[i]) {
        let Some(w) = matrix(graph, index) else { continue };
        let mut value = graph.values[w].clone();
        if let Some(t) = &value.constant {
            let data = Quantized::new(&t.data, t.shape[1]).values();
            value.constant = Some(Arc::new(Tensor { data, ..(**t).clone() }));
        }
        graph.values.push(value);
        graph.nodes[index].inputs[1] = graph.values.len() - 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::isa::{Isa, Level};
    use crate::kernels::int8;
    use crate::testing::Model;

    fn matrix() -> impl Strategy<Value = (usize, usize, Vec<f32>, Vec<f32>)> {
        (1usize..70, 1usize..80).prop_flat_map(|(k, n)| {
            let weight = prop_oneof![
                8 => -2.0f32..2.0, 1 => Just(0.0f32), 1 => prop::num::f32::NORMAL.prop_map(|x| x % 1e3)
            ];
            (Just(k), Just(n), prop::collection::vec(weight, k * n), prop::collection::vec(-3.0f32..3.0, k))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        #[cfg_attr(miri, ignore = "random matrices take hours under Miri")]
        fn the_error_of_a_product_is_bounded((k, n, w, x) in matrix()) {
            let exact: Vec<f64> = w.iter().map(|&w| w.into()).collect();
            let q = Quantized::new(&exact, n);
            let mut packed = vec![];
            int8::pack(&q.q, k, n, &mut packed);
            for level in [Isa::Scalar, Isa::Avx2, Isa::Neon].into_iter().filter_map(Level::of) {
                let mut y = vec![f32::NAN; n];
                int8::matvec(level, &packed, &q.scale, &[], &x, &mut y);
                for o in 0..n {
                    let column = || (0..k).map(|i| (exact[i * n + o], f64::from(x[i])));
                    let (sum, input, terms) = column().fold((0.0, 0.0, 0.0), |(s, a, t), (w, x)| {
                        (s + w * x, a + x.abs(), t + (w * x).abs())
                    });
                    let half = f64::from(q.scale[o]) / 2.0 * (1.0 + 1e-6);
                    // Beside the quantum: rounding of k products and sums, and of the scale.
                    let rounding = (k + 3) as f64 * 2f64.powi(-23) * (terms + half * input);
                    let error = (f64::from(y[o]) - sum).abs();
                    prop_assert!(error <= half * input + rounding, "{error:e} at {o}, {k}x{n}");
                }
            }
        }

        #[test]
        #[cfg_attr(miri, ignore = "random matrices take hours under Miri")]
        fn quantising_again_changes_nothing((_, n, w, _) in matrix()) {
            let once = Quantized::new(&w.iter().map(|&w| w.into()).collect::<Vec<_>>(), n);
            let twice = Quantized::new(&once.values(), n);
            prop_assert_eq!(&once.q, &twice.q);
            for (a, b) in once.scale.iter().zip(&twice.scale) {
                prop_assert!((a - b).abs() <= 2e-7 * a);
            }
        }
    }

    #[test]
    fn halves_go_to_even_and_zeros_have_the_scale_one() {
        // The first column's scale is 1: 2.5 → 2, 3.5 → 4, −0.5 → 0. The second is all zeros.
        let q = Quantized::new(&[127.0, 0.0, 2.5, 0.0, 3.5, 0.0, -0.5, 0.0], 2);
        assert_eq!((q.q, q.scale), (vec![127, 0, 2, 0, 4, 0, 0, 0], vec![1.0, 1.0]));
        let tiny = Quantized::new(&[1e-40, f64::from(f32::MIN_POSITIVE)], 1);
        assert_eq!((tiny.q, tiny.scale), (vec![0, 0], vec![1.0]));
    }

    #[test]
    fn the_last_layers_stay_floats() {
        // Two heads on one trunk: only the trunk is quantised.
        let w: Vec<f32> = (0..4).map(|i| (i as f32).sin()).collect();
        let mut m = Model::new(18, &[1, 2])
            .floats("a", &[2, 2], &w)
            .floats("b", &[2, 2], &w)
            .floats("c", &[2, 2], &w)
            .node("MatMul", "x a -> t", vec![])
            .node("Tanh", "t -> h", vec![])
            .node("MatMul", "h b -> y", vec![])
            .node("MatMul", "h c -> v", vec![]);
        m.graph().output.push(crate::testing::info("v", &[]));
        let mut graph = m.build().unwrap();
        assert_eq!(chosen(&graph), [true, false, false, false]);
        round(&mut graph);
        let matrix = |i: usize| graph.values[graph.nodes[i].inputs[1]].constant.clone().unwrap().to_f32();
        assert_eq!((matrix(2), matrix(3)), (w.clone(), w.clone()));
        let near: f32 = matrix(0).iter().zip(&w).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(near > 0.0 && near < 0.9 / 127.0, "{near}");
    }
}
