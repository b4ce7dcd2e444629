//! The runtime's command line with Python behind it: names of robots, and a simulator.

use std::path::{Path, PathBuf};

use cadenza_runtime::cli::{self, Host};
use cadenza_runtime::device::{Device, TimeSource};
use cadenza_runtime::robot::Robot;
use pyo3::prelude::*;

use crate::sim::PySimDevice;

struct PythonHost(Py<PyAny>);

impl Host for PythonHost {
    fn program(&self) -> &str {
        "cadenza"
    }

    fn robot(&self, name_or_path: &str) -> Result<PathBuf, String> {
        Python::attach(|py| self.0.call_method1(py, "robot", (name_or_path,))?.extract(py)).map_err(text)
    }

    fn simulate(&self, robot: &Robot, bundle: &Path, time: TimeSource) -> Result<Box<dyn Device>, String> {
        Python::attach(|py| {
            let device = self.0.call_method1(py, "simulate", (&robot.path, bundle))?;
            let device = device.bind(py).getattr("native")?;
            let device = device.cast::<PySimDevice>()?.get().lend(robot, time)?;
            Ok(Box::new(device) as Box<dyn Device>)
        })
        .map_err(text)
    }
}

/// The text of a Python error, without its type: it is shown to the user.
fn text(error: PyErr) -> String {
    Python::attach(|py| error.value(py).to_string())
}

/// Runs one verb of the runtime; returns its exit code.
#[pyfunction(name = "cli")]
fn run(py: Python<'_>, args: Vec<String>, host: Py<PyAny>) -> u8 {
    py.detach(|| cli::main(&args, &PythonHost(host)))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(run, module)?)
}
