//! Recording and reading of runs: ring → writer thread → MCAP, and back.

pub mod entry;
