//! Open a policy bundle and run its networks without allocating

mod archive;
mod binding;
pub mod bundle;
mod eval;
mod fuse;
mod graph;
mod isa;
mod kernels;
mod layout;
pub mod limits;
mod lower;
pub mod manifest;
mod memory;
mod onnx;
mod op;
pub mod parity;
mod plan;
mod policy;
mod session;
mod strict;
mod tensor;
mod terms;
mod validate;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use bundle::{Bundle, BundleError, write_bundle};
pub use graph::GraphError;
pub use isa::Isa;
pub use limits::Limits;
pub use manifest::{Manifest, ManifestError};
pub use onnx::OnnxError;
pub use parity::{ParityError, ParityReport};
pub use policy::{LoadError, Options, Policy};
pub use session::{ActError, Footprint, Port, PortInfo, Session};
