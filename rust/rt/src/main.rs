//! The robot-side command line of Cadenza, without Python.
fn main() {}
