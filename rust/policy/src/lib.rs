//! Open a policy bundle and run its networks without allocating

pub mod manifest;
