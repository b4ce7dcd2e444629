//! Tests of the engine from ONNX node to number.

mod operators;
mod properties;
mod recurrent;
mod refusals;
mod stateful;
