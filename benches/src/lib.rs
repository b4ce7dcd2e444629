//! Benchmarks of Cadenza against peers and physical floors.
