//! The operators that are read: the whole allow-list, and the version that brought each.

/// Name, and the first version of the default domain that has it (11 stands for everything older).
const OPERATORS: [(&str, i64); 92] = [
    // Linear.
    ("Gemm", 11),
    ("MatMul", 11),
    // Element by element.
    ("Add", 11),
    ("Sub", 11),
    ("Mul", 11),
    ("Div", 11),
    ("Pow", 11),
    ("Neg", 11),
    ("Abs", 11),
    ("Sqrt", 11),
    ("Reciprocal", 11),
    ("Exp", 11),
    ("Log", 11),
    ("Sin", 11),
    ("Cos", 11),
    ("Min", 11),
    ("Max", 11),
    ("Clip", 11),
    ("Floor", 11),
    ("Ceil", 11),
    ("Round", 11),
    ("Sign", 11),
    ("Mod", 11),
    ("Erf", 11),
    // Comparison.
    ("Greater", 11),
    ("Less", 11),
    ("GreaterOrEqual", 12),
    ("LessOrEqual", 12),
    ("Equal", 11),
    ("And", 11),
    ("Or", 11),
    ("Not", 11),
    ("IsNaN", 11),
    ("Where", 11),
    // Activation.
    ("Relu", 11),
    ("LeakyRelu", 11),
    ("PRelu", 11),
    ("Elu", 11),
    ("Celu", 12),
    ("Selu", 11),
    ("Sigmoid", 11),
    ("Tanh", 11),
    ("HardSigmoid", 11),
    ("HardSwish", 14),
    ("Softplus", 11),
    ("Softsign", 11),
    ("Gelu", 20),
    ("Mish", 18),
    ("Swish", 24),
    // Normalisation.
    ("LayerNormalization", 17),
    ("RMSNormalization", 23),
    ("GroupNormalization", 18),
    ("InstanceNormalization", 11),
    ("BatchNormalization", 11),
    // Recurrent.
    ("GRU", 11),
    ("LSTM", 11),
    // Attention.
    ("Attention", 23),
    ("Softmax", 11),
    ("LogSoftmax", 11),
    // Convolution.
    ("Conv", 11),
    ("ConvTranspose", 11),
    ("Pad", 11),
    // Reduction.
    ("ReduceSum", 11),
    ("ReduceMean", 11),
    ("ReduceMax", 11),
    ("ReduceMin", 11),
    ("ReduceProd", 11),
    ("ReduceL2", 11),
    ("ReduceSumSquare", 11),
    // Shape.
    ("Reshape", 11),
    ("Flatten", 11),
    ("Transpose", 11),
    ("Slice", 11),
    ("Split", 11),
    ("Concat", 11),
    ("Squeeze", 11),
    ("Unsqueeze", 11),
    ("Expand", 11),
    ("Tile", 11),
    ("Identity", 11),
    ("Gather", 11),
    ("Cast", 11),
    ("CastLike", 15),
    ("Dropout", 11),
    // Constants only: folded at load.
    ("Constant", 11),
    ("ConstantOfShape", 11),
    ("Shape", 11),
    ("Size", 11),
    ("Range", 11),
    ("Trilu", 14),
    ("CumSum", 11),
    ("ScatterND", 11),
];

/// Names of the operators that graphs may use, each with the first operator set that has it (11, the oldest that is
/// read, stands for everything older).
pub fn operators() -> impl Iterator<Item = (&'static str, i64)> {
    OPERATORS.into_iter()
}

/// Why an operator is refused in a graph of version `opset`: what to do instead, perhaps nothing. `None` when it is not.
pub(super) fn refusal(op: &str, opset: i64) -> Option<String> {
    match OPERATORS.iter().find(|(name, _)| *name == op) {
        Some(&(_, since)) if since > opset => Some(format!(" in opset {opset}; it came with {since}")),
        Some(_) => None,
        None => Some(hint(op).to_owned()),
    }
}

/// What to do instead of using an operator that is not on the list.
fn hint(op: &str) -> &'static str {
    match op {
        "If" | "Loop" | "Scan" => "; a tick has no control flow: export a straight graph",
        "RNN" => "; use GRU or LSTM",
        "Einsum" => "; write matmul",
        "RandomNormal" | "RandomUniform" | "RandomNormalLike" | "RandomUniformLike" | "Multinomial"
        | "Bernoulli" => "; give the noise as an input (binding noise)",
        "SplitToSequence" | "ConcatFromSequence" => "; a network has no sequences: use Split and Concat",
        _ if op.starts_with("Sequence") || op.starts_with("Optional") => {
            "; a network has no sequences: stack tensors along an axis"
        }
        _ if op.starts_with("String") || op == "RegexFullMatch" || op == "TfIdfVectorizer" => {
            "; a network has no strings"
        }
        _ if op.starts_with("QLinear") || op.ends_with("QuantizeLinear") || op == "DequantizeLinear" => {
            "; export f32 and set weights=int8"
        }
        "ConvInteger" | "MatMulInteger" => "; export f32 and set weights=int8",
        _ => "",
    }
}
