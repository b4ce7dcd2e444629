//! Tests of the engine from ONNX node to number.

mod conv;
mod fusions;
mod hostile;
mod operators;
mod properties;
mod recurrent;
mod refusals;
mod stateful;
mod tokens;
