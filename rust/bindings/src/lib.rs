//! The Python extension module cadenza._native
