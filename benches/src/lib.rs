//! Benchmarks of Cadenza against peers and physical floors.
//!
//! The programs print one JSON value; the Python scripts beside this crate make the bundles, run the programs and
//! compare the figures with the bars.

use std::fmt::Display;
use std::process::ExitCode;

use serde::Serialize;

pub mod ort;
pub mod rig;
pub mod samples;

/// Ends a program: prints its output as JSON, or the error.
pub fn finish(result: Result<impl Serialize, impl Display>) -> ExitCode {
    match result {
        Ok(output) => {
            println!("{}", serde_json::to_string(&output).expect("plain data always prints"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
