//! Tests of the engine from ONNX node to number.

mod conv;
mod fusions;
mod hostile;
mod operators;
// Hundreds of random networks take hours under Miri; the other tests reach the same code.
#[cfg(not(miri))]
mod properties;
mod recurrent;
mod refusals;
mod stateful;
mod tokens;
