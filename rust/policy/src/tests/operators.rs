//! Operators one by one: golden values computed elsewhere (f64, onnxruntime), shapes, opset differences.

use crate::testing::{Model, float, int, ints, text};

const X: [f32; 5] = [-3.0, -1.0, -0.1, 0.5, 2.0];

#[test]
fn activations_have_their_golden_values() {
    let golden: [(&str, i64, Vec<_>, [f64; 5]); 6] = [
        ("Elu", 18, vec![], [-0.950212932, -0.632120559, -0.095162582, 0.5, 2.0]),
        ("Gelu", 20, vec![], [-0.004049694, -0.158655254, -0.046017216, 0.345731231, 1.954499736]),
        (
            "Gelu",
            20,
            vec![text("approximate", "tanh")],
            [-0.003637392, -0.158808009, -0.046017249, 0.345714010, 1.954597694],
        ),
        ("Softplus", 18, vec![], [0.048587352, 0.313261688, 0.644396660, 0.974076984, 2.126928011]),
        ("Mish", 18, vec![], [-0.145647461, -0.303401461, -0.056788575, 0.375245211, 1.943958960]),
        ("Selu", 18, vec![], [-1.670568734, -1.111330741, -0.167305273, 0.525350511, 2.101402044]),
    ];
    for (op, opset, attributes, expected) in golden {
        Model::new(opset, &[1, 5]).node(op, "x -> y", attributes).gives(&X, &expected, 3e-7);
    }
}

#[test]
fn silu_and_resine_have_their_golden_values() {
    let silu = [-0.142277620, -0.268941421, -0.047502081, 0.311229666, 1.761594156];
    Model::new(18, &[1, 5])
        .node("Sigmoid", "x -> s", vec![])
        .node("Mul", "x s -> y", vec![])
        .gives(&X, &silu, 3e-7);
    Model::new(24, &[1, 5]).node("Swish", "x -> y", vec![]).gives(&X, &silu, 3e-7);

    let resine = [0.084281973, -0.092566341, -0.042321087, 0.327923644, -0.092027958];
    Model::new(18, &[1, 5])
        .floats("sigma", &[], &[0.5])
        .floats("slope", &[], &[1.5])
        .node("Div", "x sigma -> d", vec![])
        .node("Sin", "d -> q", vec![])
        .node("Mul", "q slope -> a", vec![])
        .node("Sigmoid", "a -> g", vec![])
        .node("Mul", "sigma q -> b", vec![])
        .node("Mul", "b g -> y", vec![])
        .gives(&X, &resine, 3e-7);
}

#[test]
fn norms_use_two_passes() {
    let expected = [-1.34163542, -0.447211807, 0.447211807, 1.34163542];
    let layer = |shift: f32, tolerance: f64| {
        Model::new(18, &[1, 4])
            .floats("scale", &[4], &[1.0; 4])
            .node("LayerNormalization", "x scale -> y", vec![float("epsilon", 1e-5)])
            .gives(&[1.0 + shift, 2.0 + shift, 3.0 + shift, 4.0 + shift], &expected, tolerance);
    };
    layer(0.0, 5e-7);
    layer(1e4, 5e-7);
    Model::new(23, &[1, 4])
        .floats("scale", &[4], &[1.0; 4])
        .node("RMSNormalization", "x scale -> y", vec![float("epsilon", 1e-5)])
        .gives(&[1.0, 2.0, 3.0, 4.0], &[0.365148128, 0.730296256, 1.095444385, 1.460592513], 5e-7);
}

#[test]
fn softmax_before_opset_13_is_another_function() {
    let x: Vec<f32> = (0..12).map(|i| 0.25 * i as f32).collect();
    for (opset, first) in [(11, [0.0815769, 0.1047468, 0.1344976]), (13, [0.2542752, 0.3264958, 0.4192290])] {
        for y in Model::new(opset, &[2, 2, 3]).node("Softmax", "x -> y", vec![]).run(&x) {
            for (y, e) in y.iter().zip(first) {
                assert!((f64::from(*y) - e).abs() < 3e-7, "opset {opset}: {y} instead of {e}");
            }
        }
    }
    // Over the first axis, where onnxruntime gives columns that sum to 1.
    for y in Model::new(13, &[2, 2, 3]).node("Softmax", "x -> y", vec![int("axis", 0)]).run(&x) {
        assert!((0..6).all(|i| (y[i] + y[i + 6] - 1.0).abs() < 1e-6));
    }
}

#[test]
fn clip_and_where_treat_nan_as_onnx_does() {
    // NaN cannot come in, so it is made inside, in the branch that is not selected.
    Model::new(18, &[1, 3])
        .floats("zero", &[], &[0.0])
        .node("Sqrt", "x -> root", vec![])
        .node("Less", "x zero -> negative", vec![])
        .node("Where", "negative zero root -> y", vec![])
        .gives(&[4.0, -1.0, 0.25], &[2.0, 0.0, 0.5], 0.0);
    Model::new(18, &[1, 3]).floats("hi", &[], &[1.0]).node("Clip", "x _ hi -> y", vec![]).gives(
        &[4.0, -1.0, 0.25],
        &[1.0, -1.0, 0.25],
        0.0,
    );
}

#[test]
fn broadcasting_in_every_direction() {
    let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let add = |shape: &[i64], data: &[f32], expected: [f64; 6]| {
        let model = Model::new(18, &[2, 3]).floats("c", shape, data);
        model.node("Sub", "c x -> n", vec![]).node("Neg", "n -> y", vec![]).gives(&x, &expected, 0.0);
    };
    add(&[], &[1.0], [-1.0, 0.0, 1.0, 2.0, 3.0, 4.0]);
    add(&[3], &[1.0, 2.0, 3.0], [-1.0, -1.0, -1.0, 2.0, 2.0, 2.0]);
    add(&[2, 1], &[1.0, 2.0], [-1.0, 0.0, 1.0, 1.0, 2.0, 3.0]);
    // Both operands grow: [2,3] → [2,1,3] against [2,3] gives [2,2,3].
    Model::new(18, &[2, 3])
        .ints("axis", &[1])
        .node("Unsqueeze", "x axis -> u", vec![])
        .node("Mul", "u x -> y", vec![])
        .gives(&x, &[0.0, 1.0, 4.0, 0.0, 4.0, 10.0, 0.0, 4.0, 10.0, 9.0, 16.0, 25.0], 0.0);
}

#[test]
fn shapes_move_elements() {
    let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let m = || Model::new(18, &[2, 3]);
    m().node("Transpose", "x -> y", vec![]).gives(&x, &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], 0.0);
    m().ints("from", &[-1])
        .ints("to", &[i64::MIN])
        .ints("axis", &[1])
        .ints("step", &[-2])
        .node("Slice", "x from to axis step -> y", vec![])
        .gives(&x, &[2.0, 0.0, 5.0, 3.0], 0.0);
    m().ints("i", &[-1, 0]).node("Gather", "x i -> y", vec![int("axis", 1)]).gives(
        &x,
        &[2.0, 0.0, 5.0, 3.0],
        0.0,
    );
    m().ints("r", &[1, 2]).node("Tile", "x r -> y", vec![]).gives(
        &x,
        &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 4.0, 5.0],
        0.0,
    );
    m().ints("n", &[1, 2])
        .node("Split", "x n -> a b", vec![int("axis", 1)])
        .node("Concat", "b a x -> y", vec![int("axis", -1)])
        .gives(&x, &[1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 4.0, 5.0, 3.0, 3.0, 4.0, 5.0], 0.0);
    m().ints("s", &[0, -1, 1])
        .ints("axis", &[2])
        .node("Reshape", "x s -> r", vec![])
        .node("Squeeze", "r axis -> y", vec![])
        .gives(&x, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 0.0);
    m().node("Flatten", "x -> f", vec![int("axis", 0)]).node("Identity", "f -> y", vec![]).gives(
        &x,
        &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
        0.0,
    );
}

#[test]
fn shape_arithmetic_folds_away() {
    // Reshape to [Shape(x)[0] · 3, −1], as older exporters write it.
    let x: Vec<f32> = (0..6).map(|i| i as f32).collect();
    let model = Model::new(11, &[2, 3])
        .ints("zero", &[0])
        .ints("three", &[3])
        .ints("open", &[-1])
        .node("Shape", "x -> s", vec![])
        .node("Gather", "s zero -> n", vec![])
        .node("Mul", "n three -> m", vec![])
        .node("Concat", "m open -> t", vec![int("axis", 0)])
        .node("Reshape", "x t -> r", vec![])
        .node("ReduceSum", "r -> y", vec![ints("axes", &[1]), int("keepdims", 0)]);
    assert_eq!(model.build().unwrap().nodes.len(), 2);
    model.gives(&x, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 0.0);
}

#[test]
fn reductions_over_any_axis() {
    let x: Vec<f32> = vec![3.0, -1.0, 2.0, 0.5, 4.0, -2.0];
    let reduce = |op: &str, axis: i64, expected: &[f64]| {
        let model = Model::new(18, &[2, 3]).ints("axes", &[axis]);
        model.node(op, "x axes -> y", vec![int("keepdims", 0)]).gives(&x, expected, 1e-6);
    };
    reduce("ReduceMean", 1, &[4.0 / 3.0, 2.5 / 3.0]);
    reduce("ReduceMax", 0, &[3.0, 4.0, 2.0]);
    reduce("ReduceMin", -1, &[-1.0, -2.0]);
    reduce("ReduceProd", 1, &[-6.0, -4.0]);
    reduce("ReduceL2", 0, &[9.25f64.sqrt(), 17f64.sqrt(), 8f64.sqrt()]);
    reduce("ReduceSumSquare", 1, &[14.0, 20.25]);
}

#[test]
fn gemm_folds_its_factors() {
    // y = 2·x·Wᵀ + 0.5·c
    Model::new(18, &[2, 2])
        .floats("w", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .floats("c", &[1, 3], &[2.0, 4.0, 6.0])
        .node("Gemm", "x w c -> y", vec![float("alpha", 2.0), float("beta", 0.5), int("transB", 1)])
        .gives(&[1.0, 0.0, 0.0, 1.0], &[3.0, 8.0, 13.0, 5.0, 10.0, 15.0], 0.0);
    // C with a row for each row of x.
    Model::new(18, &[2, 2])
        .floats("w", &[2, 1], &[1.0, 2.0])
        .floats("c", &[2, 1], &[10.0, 20.0])
        .node("Gemm", "x w c -> y", vec![])
        .gives(&[1.0, 0.0, 0.0, 1.0], &[11.0, 22.0], 0.0);
    // A constant on the left.
    Model::new(18, &[2, 3]).floats("a", &[1, 2], &[1.0, 10.0]).node("MatMul", "a x -> y", vec![]).gives(
        &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        &[41.0, 52.0, 63.0],
        0.0,
    );
    // A vector on the right.
    Model::new(18, &[2, 2]).floats("v", &[2], &[1.0, 10.0]).node("MatMul", "x v -> y", vec![]).gives(
        &[1.0, 2.0, 3.0, 4.0],
        &[21.0, 43.0],
        0.0,
    );
}
