//! Tests of the engine from ONNX node to number.

mod hostile;
mod operators;
mod properties;
mod refusals;
mod stateful;
