//! Recording and reading of runs: ring → writer thread → MCAP, and back.
//!
//! [`Recorder`] takes entries on the control thread, [`Log`] gives them back. The file is an ordinary MCAP file with
//! protobuf messages and their descriptors, so Foxglove, rerun and the reference readers open it as it is; the names of
//! joints, commands and monitors stand in its metadata ([`LogHeader`]).

mod decode;
mod descriptor;
mod encode;
pub mod entry;
mod frame;
pub mod header;
pub mod read;
pub mod record;
pub mod schema;
mod watched;
mod writer;

pub use header::LogHeader;
pub use read::{Log, LogError};
pub use record::{RecordStatus, Recorder};
pub use schema::Topic;
pub use watched::Watched;
