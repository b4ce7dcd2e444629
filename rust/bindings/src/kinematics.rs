//! Forward kinematics, so that tests can hold it against MuJoCo's.

use cadenza_policy::Manifest;
use cadenza_runtime::kinematics::Kinematics;
use cadenza_runtime::state::{MAX_JOINTS, State};
use numpy::{PyArray1, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error;
use crate::robot::PyRobot;

/// Position and quaternion.
type Pose<'py> = (Bound<'py, PyArray1<f64>>, Bound<'py, PyArray1<f64>>);

/// Poses of a manifest's frames for a robot with a fixed base.
#[pyclass(name = "Kinematics", module = "cadenza._native")]
pub(crate) struct PyKinematics {
    kinematics: Kinematics,
    joints: usize,
}

#[pymethods]
impl PyKinematics {
    #[new]
    fn new(manifest_json: &str, robot: &PyRobot) -> PyResult<Self> {
        let manifest: Manifest = serde_json::from_str(manifest_json).map_err(error::bundle)?;
        let kinematics = Kinematics::new(&manifest.frames, &robot.0).map_err(error::robot)?;
        Ok(Self { kinematics, joints: robot.0.joints.len() })
    }

    /// Names of the frames.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.kinematics.names().to_vec()
    }

    /// Position and quaternion (wxyz) of frame `name` in the world at joint positions `q` `[J]`.
    fn pose<'py>(
        &mut self,
        py: Python<'py>,
        name: &str,
        q: PyReadonlyArray1<'py, f64>,
    ) -> PyResult<Pose<'py>> {
        if q.len() != self.joints {
            return Err(PyValueError::new_err(format!("q has {} joints, expected {}", q.len(), self.joints)));
        }
        let index = self.kinematics.index(name);
        let index = index.ok_or_else(|| PyValueError::new_err(format!("no frame '{name}'")))?;
        let mut all = [0.0; MAX_JOINTS];
        all[..self.joints].copy_from_slice(q.as_slice()?);
        let state = State::new(self.joints);
        self.kinematics.update(&all, &state.base, &state.imu.quat);
        let (position, quaternion) = self.kinematics.pose(index);
        Ok((PyArray1::from_slice(py, &position), PyArray1::from_slice(py, &quaternion)))
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyKinematics>()
}
