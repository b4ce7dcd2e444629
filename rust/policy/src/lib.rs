//! Open a policy bundle and run its networks without allocating

mod archive;
pub mod bundle;
pub mod limits;
pub mod manifest;
mod strict;
mod terms;
mod validate;

pub use bundle::{Bundle, BundleError, write_bundle};
pub use limits::Limits;
pub use manifest::Manifest;
