//! Matrix products and attention: every shape of edge, every instruction set, fused and unfused, against f64.

use proptest::prelude::*;

use super::properties::{numbers, reference};
use crate::graph::Graph;
use crate::op::Op;
use crate::testing::{Model, float, int, ints};

/// The model's answers against its graph in f64; the largest sums have `terms` terms.
fn agrees(model: &Model, x: &[f32], terms: usize) {
    let expected = reference(&model.build().unwrap(), x);
    let largest = expected.iter().fold(1.0f64, |a, v| a.max(v.abs()));
    model.gives(x, &expected, 4e-7 * (terms as f64).sqrt().max(4.0) * largest);
}

/// Adds a part of the input, `x[from..]`, as `name` of `shape`; gives where the next part starts.
fn part(m: Model, name: &str, from: usize, shape: &[i64]) -> (Model, usize) {
    let to = from + shape.iter().product::<i64>() as usize;
    let named = |what: &str| format!("{name}_{what}");
    let m = m
        .ints(&named("from"), &[from as i64])
        .ints(&named("to"), &[to as i64])
        .ints(&named("shape"), shape)
        .node("Slice", &format!("x {} {} -> {}", named("from"), named("to"), named("flat")), vec![])
        .node("Reshape", &format!("{} {} -> {name}", named("flat"), named("shape")), vec![]);
    (m, to)
}

fn fused(model: &Model) -> Graph {
    let mut graph = model.build().unwrap();
    crate::fuse::fuse(&mut graph);
    graph
}

/// Whether fusion leaves nothing but one attention, and moves that cost nothing.
fn is_one_attention(model: &Model) -> bool {
    let graph = fused(model);
    let count = |f: fn(&Op) -> bool| graph.nodes.iter().filter(|n| f(&n.op)).count();
    count(|op| matches!(op, Op::Attention(_))) == 1
        && count(|op| !matches!(op, Op::Attention(_) | Op::View | Op::Rearrange(_))) == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn linear_layers_over_rows(
        rows in 1usize..20,
        k in 1usize..70,
        n in 1usize..70,
        act in 0usize..4,
        bias in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut m = Model::new(20, &[rows as i64, k as i64])
            .floats("w", &[k as i64, n as i64], &numbers(seed, k * n, 1.0))
            .floats("b", &[n as i64], &numbers(seed ^ 1, n, 1.0));
        m = m.node("Gemm", if bias { "x w b -> p" } else { "x w -> p" }, vec![]);
        m = m.node(["Identity", "Relu", "Gelu", "Tanh"][act], "p -> y", vec![]);
        agrees(&m, &numbers(seed ^ 2, rows * k, 1.0), k);
    }

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn products_of_two_computed_tensors_broadcast(
        batch in 0usize..5,
        rows in 1i64..15,
        k in 1i64..20,
        n in 1i64..36,
        seed in any::<u64>(),
    ) {
        let (left, right): (&[i64], &[i64]) =
            [(&[][..], &[][..]), (&[3], &[]), (&[2, 1], &[3]), (&[1], &[4, 2]), (&[2, 3], &[2, 3])][batch];
        let (a, b) = ([left, &[rows, k]].concat(), [right, &[k, n]].concat());
        let size = |s: &[i64]| s.iter().product::<i64>();
        let (m, at) = part(Model::new(20, &[size(&a) + size(&b)]), "a", 0, &a);
        let (m, end) = part(m, "b", at, &b);
        agrees(&m.node("MatMul", "a b -> y", vec![]), &numbers(seed, end, 1.0), k as usize);
    }

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn attention_as_written_is_fused(
        batch in 1i64..3,
        heads in 1i64..4,
        queries in 1i64..16,
        keys in 1i64..24,
        width in 1i64..20,
        values in 1i64..20,
        masked in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let q = [batch, heads, queries, width];
        let (k, v) = ([batch, keys, heads, width], [batch, heads, keys, values]);
        let size = |s: &[i64; 4]| s.iter().product::<i64>();
        let (m, at) = part(Model::new(20, &[size(&q) + size(&k) + size(&v)]), "q", 0, &q);
        let (m, at) = part(m, "k", at, &k);
        let (m, end) = part(m, "v", at, &v);
        let mut mask = numbers(seed ^ 1, (heads * queries * keys) as usize, 1.0);
        // Where nothing is allowed, the result is zero.
        mask[..keys as usize].fill(f32::NEG_INFINITY);
        let mut m = m
            .floats("root", &[], &[0.7])
            .floats("half", &[1], &[2.0])
            .floats("mask", &[heads, queries, keys], &mask)
            .node("Transpose", "k -> kt", vec![ints("perm", &[0, 2, 3, 1])])
            .node("Mul", "q root -> qs", vec![])
            .node("Mul", "root kt -> ks", vec![])
            .node("MatMul", "qs ks -> s", vec![])
            .node("Div", "s half -> d", vec![]);
        m = if masked { m.node("Add", "mask d -> e", vec![]) } else { m.node("Identity", "d -> e", vec![]) };
        m = m
            .node("Softmax", "e -> p", vec![])
            .node("MatMul", "p v -> o", vec![])
            .node("Transpose", "o -> y", vec![ints("perm", &[0, 2, 1, 3])]);
        agrees(&m, &numbers(seed, end, 1.0), keys as usize);
        prop_assert!(is_one_attention(&m));
        prop_assert!(fused(&m).nodes.iter().all(|n| !matches!(&n.op, Op::Rearrange(r) if r[0].len() > 1)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "random networks take hours under Miri")]
    fn the_operator_attention_equals_its_definition(
        batch in 1i64..3,
        groups in 1i64..4,
        shared in 1i64..4,
        tokens in (1i64..12, 1i64..12),
        width in 1i64..12,
        flat in any::<bool>(),
        causal in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (queries, keys) = tokens;
        let heads = groups * shared;
        let shape = |heads: i64, rows: i64| match flat {
            true => vec![batch, rows, heads * width],
            false => vec![batch, heads, rows, width],
        };
        let (q, kv) = (shape(heads, queries), shape(groups, keys));
        let size = |s: &[i64]| s.iter().product::<i64>();
        let input = || {
            let (m, at) = part(Model::new(23, &[size(&q) + 2 * size(&kv)]), "q", 0, &q);
            let (m, at) = part(m, "k", at, &kv);
            let (m, end) = part(m, "v", at, &kv);
            let mask = numbers(seed ^ 3, (queries * keys) as usize, 1.0);
            (m.floats("mask", &[queries, keys], &mask), mask, end)
        };
        let (m, mask, end) = input();
        let mut attributes = vec![float("scale", 0.4), int("is_causal", causal.into())];
        if flat {
            attributes.extend([int("q_num_heads", heads), int("kv_num_heads", groups)]);
        }
        let m = m.node("Attention", "q k v mask -> y", attributes);
        let x = numbers(seed, end, 1.0);
        agrees(&m, &x, keys as usize);

        // The same in plain operators: heads apart, groups repeated, and together again.
        let (mut long, _, _) = input();
        let causal_mask: Vec<f32> = (0..queries * keys)
            .map(|i| if causal && i % keys > i / keys { f32::NEG_INFINITY } else { mask[i as usize] })
            .collect();
        for (name, heads, rows) in [("q", heads, queries), ("k", groups, keys), ("v", groups, keys)] {
            let to = format!("{name}4");
            long = if flat {
                let split = format!("{name}split");
                long.ints(&split, &[batch, rows, heads, width])
                    .node("Reshape", &format!("{name} {split} -> {name}h"), vec![])
                    .node("Transpose", &format!("{name}h -> {to}"), vec![ints("perm", &[0, 2, 1, 3])])
            } else {
                long.node("Identity", &format!("{name} -> {to}"), vec![])
            };
        }
        let order: Vec<i64> = (0..heads).map(|h| h / shared).collect();
        let long = long
            .ints("order", &order)
            .floats("causal", &[queries, keys], &causal_mask)
            .floats("scale", &[], &[0.4])
            .node("Gather", "k4 order -> kr", vec![int("axis", 1)])
            .node("Gather", "v4 order -> vr", vec![int("axis", 1)])
            .node("Transpose", "kr -> kt", vec![ints("perm", &[0, 1, 3, 2])])
            .node("MatMul", "q4 kt -> s", vec![])
            .node("Mul", "s scale -> d", vec![])
            .node("Add", "d causal -> e", vec![])
            .node("Softmax", "e -> p", vec![])
            .node("MatMul", "p vr -> o", vec![]);
        let long = if flat {
            long.ints("join", &[batch, queries, heads * width])
                .node("Transpose", "o -> t", vec![ints("perm", &[0, 2, 1, 3])])
                .node("Reshape", "t join -> y", vec![])
        } else {
            long.node("Identity", "o -> y", vec![])
        };
        let expected = reference(&long.build().unwrap(), &x);
        m.gives(&x, &expected, 1e-5);
        long.gives(&x, &expected, 1e-5);
    }
}

#[test]
fn a_gemm_may_turn_both_sides_and_compute_both() {
    let x: Vec<f32> = (0..12).map(|i| i as f32 * 0.5 - 2.0).collect();
    let (m, at) = part(Model::new(18, &[12]), "a", 0, &[3, 2]);
    let (m, _) = part(m, "b", at, &[2, 3]);
    let turned = vec![int("transA", 1), int("transB", 1), float("alpha", 0.5), float("beta", 2.0)];
    let m = m.floats("c", &[2, 1], &[1.0, -1.0]).node("Gemm", "a b c -> y", turned);
    // aᵀ = [[-2,-1,0],[-1.5,-.5,.5]], bᵀ = [[1,2.5],[1.5,3],[2,3.5]]
    m.gives(&x, &[0.25, -2.0, -2.625, -3.75], 1e-6);
    let constant = Model::new(18, &[3, 2]).floats("b", &[3, 2], &[1.0, 2.5, 1.5, 3.0, 2.0, 3.5]);
    constant.node("Gemm", "x b -> y", vec![int("transA", 1)]).gives(
        &x[..6],
        &[-3.5, -8.0, -1.25, -3.5],
        1e-6,
    );
}

#[test]
fn a_constant_left_side_multiplies_rows() {
    let m = Model::new(18, &[3, 2]).floats("a", &[2, 3], &[1.0, 0.0, 2.0, 0.0, -1.0, 1.0]);
    m.node("MatMul", "a x -> y", vec![]).gives(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[11.0, 14.0, 2.0, 2.0], 0.0);
    let vector = Model::new(18, &[3]).floats("a", &[2, 3], &[1.0, 0.0, 2.0, 0.0, -1.0, 1.0]);
    vector.node("MatMul", "a x -> y", vec![]).gives(&[1.0, 2.0, 3.0], &[7.0, 1.0], 0.0);
    let dot = Model::new(18, &[3]).node("MatMul", "x x -> y", vec![]);
    dot.gives(&[1.0, 2.0, 3.0], &[14.0], 0.0);
}

#[test]
fn what_attention_does_not_do_is_refused() {
    let m = || Model::new(23, &[1, 2, 3, 4]);
    let error = |attributes| m().node("Attention", "x x x -> y", attributes).error();
    assert_eq!(error(vec![float("softcap", 5.0)]), "node \"y\": attribute softcap: only 0 is supported");
    let cache = m().node("Attention", "x x x _ x x -> y", vec![]);
    assert_eq!(cache.error(), "node \"y\": input 4 is a cache of earlier keys, which is not supported");
    let computed = m().node("Attention", "x x x x -> y", vec![]);
    assert_eq!(computed.error(), "node \"y\": input 3 must be constant");
    let short = m().floats("m", &[3, 2], &[0.0; 6]).node("Attention", "x x x m -> y", vec![]);
    assert!(
        short.error().contains("the mask [3, 2] does not broadcast to [1, 2, 3, 3]"),
        "{}",
        short.error()
    );
    let none = m().floats("k", &[1, 0, 3, 4], &[]).node("Attention", "x k k -> y", vec![]);
    assert!(none.error().contains("do not fit"), "{}", none.error());
    let many = Model::new(23, &[65_536, 64, 1, 1]).node("Attention", "x x x -> y", vec![]);
    assert!(many.error().contains("loading the graph takes more than"), "{}", many.error());
    let many = Model::new(18, &[65_536, 64, 1, 1]).node("MatMul", "x x -> y", vec![]);
    assert!(many.error().contains("loading the graph takes more than"), "{}", many.error());
    let heads = Model::new(23, &[1, 3, 4]).node("Attention", "x x x -> y", vec![int("q_num_heads", 3)]);
    assert!(heads.error().contains("q_num_heads: 3 for the operand [1, 3, 4]"), "{}", heads.error());
    let product = Model::new(18, &[2, 3]).node("MatMul", "x x -> y", vec![]);
    assert_eq!(product.error(), "tensor \"y\": [2, 3] times [2, 3]");
    let batches = Model::new(18, &[2, 2, 2]).floats("b", &[3, 2, 2], &[1.0; 12]);
    let batches = batches.node("MatMul", "x b -> y", vec![]).error();
    assert_eq!(batches, "tensor \"y\": the batches [2] and [3] do not broadcast");
}

/// Whatever differs from the pattern is computed as it is written.
#[test]
fn near_misses_of_attention_stay() {
    let base = || Model::new(20, &[2, 5, 5]).floats("c", &[], &[0.5]).floats("m", &[5, 5], &[0.25; 25]);
    let x = numbers(3, 50, 1.0);
    // A mask before the scale; scores that something else reads; a logarithm.
    let early = base()
        .node("MatMul", "x x -> s", vec![])
        .node("Add", "s m -> a", vec![])
        .node("Mul", "a c -> d", vec![])
        .node("Softmax", "d -> p", vec![])
        .node("MatMul", "p x -> y", vec![]);
    let read = base()
        .node("MatMul", "x x -> s", vec![])
        .node("Softmax", "s -> p", vec![])
        .node("MatMul", "p x -> o", vec![])
        .node("Add", "o s -> y", vec![]);
    let log = base().node("MatMul", "x x -> s", vec![]).node("LogSoftmax", "s -> p", vec![]).node(
        "MatMul",
        "p x -> y",
        vec![],
    );
    for model in [early, read, log] {
        agrees(&model, &x, 5);
        assert!(fused(&model).nodes.iter().all(|n| !matches!(n.op, Op::Attention(_))));
    }
}
