//! Exceptions of the extension, and how Rust errors become them.

use std::fmt::Display;

use pyo3::create_exception;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

create_exception!(cadenza._native, StlError, PyValueError, "A formula, trace or parameter is refused.");
create_exception!(cadenza._native, ParseError, StlError, "A formula text is refused; shows the place.");
create_exception!(
    cadenza._native,
    HorizonError,
    StlError,
    "The trace ends before the horizon of the instant."
);
create_exception!(
    cadenza._native,
    UnboundedFutureError,
    StlError,
    "An unbounded future operator has no value here."
);
create_exception!(cadenza._native, BundleError, PyValueError, "A bundle, manifest or network is refused.");
create_exception!(cadenza._native, RobotError, PyValueError, "A robot.toml is refused, or does not fit.");
create_exception!(cadenza._native, RunError, PyValueError, "A run cannot start.");
create_exception!(cadenza._native, LogError, PyValueError, "A log cannot be read.");
create_exception!(cadenza._native, RuntimeFault, PyRuntimeError, "A fault stopped a run.");

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("StlError", py.get_type::<StlError>())?;
    module.add("ParseError", py.get_type::<ParseError>())?;
    module.add("HorizonError", py.get_type::<HorizonError>())?;
    module.add("UnboundedFutureError", py.get_type::<UnboundedFutureError>())?;
    module.add("BundleError", py.get_type::<BundleError>())?;
    module.add("RobotError", py.get_type::<RobotError>())?;
    module.add("RunError", py.get_type::<RunError>())?;
    module.add("LogError", py.get_type::<LogError>())?;
    module.add("RuntimeFault", py.get_type::<RuntimeFault>())
}

/// An output array that shares memory with an input, or is read-only.
pub(crate) fn borrowed(name: &str, error: impl Display) -> PyErr {
    PyValueError::new_err(format!("{name} cannot be written to: {error}"))
}

pub(crate) fn stl(error: impl Display) -> PyErr {
    StlError::new_err(error.to_string())
}

pub(crate) fn bundle(error: impl Display) -> PyErr {
    BundleError::new_err(error.to_string())
}

pub(crate) fn robot(error: impl Display) -> PyErr {
    RobotError::new_err(error.to_string())
}

pub(crate) fn run(error: impl Display) -> PyErr {
    RunError::new_err(error.to_string())
}

pub(crate) fn log(error: impl Display) -> PyErr {
    LogError::new_err(error.to_string())
}
