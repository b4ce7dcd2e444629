//! Tests of the engine from ONNX node to number.

mod conv;
mod fusions;
mod operators;
mod properties;
mod refusals;
mod stateful;
