//! MuJoCo in the hands of the loop.

use std::sync::Mutex;

use cadenza_runtime::device::TimeSource;
use cadenza_runtime::device::sim::{SimBase, SimDevice, SimHandles, SimImu, SimObject};
use cadenza_runtime::robot::Robot;
use pyo3::exceptions::{PyKeyError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error;

/// A MuJoCo model and its data, for one run.
#[pyclass(name = "SimDevice", module = "cadenza._native", frozen)]
pub(crate) struct PySimDevice {
    handles: SimHandles,
    /// The Python objects that own the memory; the run takes them.
    owner: Mutex<Option<Py<PyAny>>>,
}

fn get<'py, T: FromPyObjectOwned<'py>>(dict: &Bound<'py, PyDict>, key: &str) -> PyResult<T> {
    let value = dict.get_item(key)?.ok_or_else(|| PyKeyError::new_err(format!("sim handles lack {key}")))?;
    value.extract().map_err(Into::into)
}

#[pymethods]
impl PySimDevice {
    /// `handles` as `cadenza.sim.device.sim_handles` gives them, `owner` whatever keeps the addresses valid.
    #[new]
    fn new(handles: &Bound<'_, PyDict>, owner: Py<PyAny>) -> PyResult<Self> {
        let d = handles;
        let imu: Bound<'_, PyDict> = get::<Bound<'_, PyAny>>(d, "imu")?.cast_into().map_err(PyErr::from)?;
        let base: Option<(usize, usize)> = get(d, "base")?;
        let objects: Vec<(String, usize, usize)> = get(d, "objects")?;
        let handles = SimHandles {
            library: get(d, "library")?,
            version: get(d, "version")?,
            model: get(d, "model")?,
            data: get(d, "data")?,
            qpos: get(d, "qpos")?,
            nq: get(d, "nq")?,
            qvel: get(d, "qvel")?,
            qfrc_actuator: get(d, "qfrc_actuator")?,
            nv: get(d, "nv")?,
            ctrl: get(d, "ctrl")?,
            nu: get(d, "nu")?,
            sensordata: get(d, "sensordata")?,
            nsensordata: get(d, "nsensordata")?,
            gainprm: get(d, "gainprm")?,
            biasprm: get(d, "biasprm")?,
            nactuator: get(d, "nactuator")?,
            prm_row: get(d, "prm_row")?,
            joint_qpos: get(d, "joint_qpos")?,
            joint_qvel: get(d, "joint_qvel")?,
            actuator: get(d, "actuator")?,
            actuator_ctrl: get(d, "actuator_ctrl")?,
            effort: get(d, "effort")?,
            warnings: get(d, "warnings")?,
            imu: SimImu { quat: get(&imu, "quat")?, gyro: get(&imu, "gyro")?, acc: get(&imu, "acc")? },
            base: base.map(|(qpos, qvel)| SimBase { qpos, qvel }),
            objects: objects.into_iter().map(|(name, pos, quat)| SimObject { name, pos, quat }).collect(),
            timestep: get(d, "timestep")?,
        };
        Ok(Self { handles, owner: Mutex::new(Some(owner)) })
    }
}

impl PySimDevice {
    /// Gives the simulation to a loop.
    ///
    /// The addresses are the caller's word: they come from `sim_handles`, which Python code does not write by hand.
    pub(crate) fn lend(&self, robot: &Robot, time: TimeSource) -> PyResult<SimDevice> {
        let owner = self.owner.lock().ok().and_then(|mut owner| owner.take());
        let owner = owner.ok_or_else(|| {
            PyRuntimeError::new_err(
                "this SimDevice was given to a run already: make a new one of the same data",
            )
        })?;
        // SAFETY: `sim_handles` took the addresses from a live model and its data; `owner` keeps both alive, and Python
        // leaves them alone until the loop has ended (SimDevice's documentation).
        unsafe { SimDevice::new(self.handles.clone(), robot, Box::new(owner), time) }.map_err(error::run)
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PySimDevice>()
}
