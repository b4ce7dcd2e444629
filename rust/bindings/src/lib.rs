//! The Python extension module `cadenza._native`: glue only, one file for each crate or room that it wraps.
//!
//! Arrays are taken as slices before the interpreter lock is released; nothing here computes.

mod batch;
mod bundle;
mod cli;
mod error;
mod frames;
mod kinematics;
mod log;
mod player;
mod robot;
mod run;
mod sim;
mod stl;

use cadenza_runtime::timing::usage::Counting;
use pyo3::prelude::*;

/// Counts what `bench latency` tells of the heap.
#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Rust side of Cadenza.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    error::register(module)?;
    stl::register(module)?;
    bundle::register(module)?;
    robot::register(module)?;
    batch::register(module)?;
    frames::register(module)?;
    sim::register(module)?;
    kinematics::register(module)?;
    run::register(module)?;
    log::register(module)?;
    player::register(module)?;
    cli::register(module)
}
