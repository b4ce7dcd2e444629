//! Tests of the engine from ONNX node to number.

mod operators;
mod properties;
mod refusals;
mod stateful;
mod tokens;
