//! What runs inside a tick: plain loops over slices, one file for each class. Nothing here allocates.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod int8;
pub(crate) mod linear;
pub(crate) mod math;
pub(crate) mod norm;
pub(crate) mod recurrent;
pub(crate) mod shape;
