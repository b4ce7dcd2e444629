//! Benchmarks of Cadenza against peers and physical floors.
//!
//! The programs print one JSON value; the Python scripts beside this crate make the bundles, run the programs and
//! compare the figures with the bars.

pub mod ort;
pub mod rig;
pub mod samples;
