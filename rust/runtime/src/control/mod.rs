//! The loop itself.

pub mod latest;
