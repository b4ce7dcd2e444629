//! robot.toml, as the runtime reads it.

use std::path::PathBuf;

use cadenza_runtime::robot::Robot;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::error;

/// A robot: what its robot.toml says, checked.
#[pyclass(name = "Robot", module = "cadenza._native", frozen)]
pub(crate) struct PyRobot(pub(crate) Robot);

#[pymethods]
impl PyRobot {
    /// Reads robot.toml, or the robot.toml of a folder.
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        Robot::load(&path).map(Self).map_err(error::robot)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn path(&self) -> PathBuf {
        self.0.path.clone()
    }

    #[getter]
    fn control_hz(&self) -> f64 {
        self.0.control_hz
    }

    /// Path of the MuJoCo model, if the robot has one.
    #[getter]
    fn model(&self) -> Option<PathBuf> {
        self.0.model.clone()
    }

    /// Kind of device that moves it.
    #[getter]
    fn device(&self) -> &str {
        &self.0.device.kind
    }

    /// Time in which the policy's authority grows from 0 to 1 after arming, s.
    #[getter]
    fn authority_ramp(&self) -> f64 {
        self.0.safety.authority_ramp
    }

    /// One dictionary for each joint, robot order, SI units.
    #[getter]
    fn joints<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let joints = self.0.joints.iter().map(|joint| {
            let d = PyDict::new(py);
            d.set_item("name", &joint.name)?;
            d.set_item("position", (joint.limits.position[0], joint.limits.position[1]))?;
            d.set_item("velocity", joint.limits.velocity)?;
            d.set_item("acceleration", joint.limits.acceleration)?;
            d.set_item("jerk", joint.limits.jerk)?;
            d.set_item("effort", joint.limits.effort)?;
            d.set_item("kp_max", joint.gains.kp_max)?;
            d.set_item("kd_max", joint.gains.kd_max)?;
            d.set_item("kd_damp", joint.gains.kd_damp)?;
            d.set_item("home", joint.home)?;
            d.set_item("motor_id", joint.motor.id)?;
            Ok(d)
        });
        PyList::new(py, joints.collect::<PyResult<Vec<_>>>()?)
    }

    /// Named frames and their sites.
    #[getter]
    fn frames(&self) -> Vec<(String, String)> {
        self.0.frames.iter().map(|f| (f.name.clone(), f.site.clone())).collect()
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyRobot>()
}
