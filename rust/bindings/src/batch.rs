//! The runtime's observation builder and action path over many simulations at once: what a policy is trained on is what
//! it meets on the robot, computed by the same code.

use cadenza_policy::manifest::Manifest;
use cadenza_runtime::action::{ActionPath, PathSnapshot};
use cadenza_runtime::config::RunConfig;
use cadenza_runtime::observe::{Feedback, Observer};
use cadenza_runtime::robot::ticks_per_step;
use cadenza_runtime::state::{MAX_JOINTS, MAX_OBJECTS, MAX_USER, State};
use numpy::ndarray::ArrayView2;
use numpy::{
    PyArray2, PyArray3, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error;
use crate::robot::PyRobot;

fn manifest(text: &str) -> PyResult<Manifest> {
    serde_json::from_str(text).map_err(error::bundle)
}

/// Refuses an array of another shape, naming both.
fn expect(name: &str, got: &[usize], want: &[usize]) -> PyResult<()> {
    if got == want {
        Ok(())
    } else {
        Err(PyValueError::new_err(format!("{name} has shape {got:?}, expected {want:?}")))
    }
}

/// The simulations that a call is about: those of `ids`, or all.
fn chosen(ids: Option<&PyReadonlyArray1<'_, i64>>, n: usize) -> PyResult<Vec<usize>> {
    let Some(ids) = ids else { return Ok((0..n).collect()) };
    ids.as_array()
        .iter()
        .map(|&i| {
            usize::try_from(i)
                .ok()
                .filter(|&i| i < n)
                .ok_or_else(|| PyValueError::new_err(format!("simulation {i} of {n}")))
        })
        .collect()
}

/// Copies a row of joint numbers.
fn joints(row: &ArrayView2<'_, f64>, i: usize, out: &mut [f64; MAX_JOINTS]) {
    for (x, &value) in out.iter_mut().zip(row.row(i)) {
        *x = value;
    }
}

/// Observation vectors of n simulations.
#[pyclass(name = "ObservationBatch", module = "cadenza._native")]
pub(crate) struct ObservationBatch {
    observers: Vec<Observer>,
    state: State,
    feedback: Feedback,
    joints: usize,
    commands: usize,
    actions: usize,
    objects: usize,
}

#[pymethods]
impl ObservationBatch {
    /// `objects`: names of the objects that `step` reports, in its order.
    #[new]
    #[pyo3(signature = (manifest_json, robot, n, objects=None))]
    fn new(manifest_json: &str, robot: &PyRobot, n: usize, objects: Option<Vec<String>>) -> PyResult<Self> {
        let objects = objects.unwrap_or_default();
        let manifest = manifest(manifest_json)?;
        let mut observer = Observer::new(&manifest, &robot.0).map_err(error::bundle)?;
        if objects.len() > MAX_OBJECTS {
            let text = format!("{} objects, at most {MAX_OBJECTS}", objects.len());
            return Err(PyValueError::new_err(text));
        }
        observer.bind_objects(&objects).map_err(error::bundle)?;
        let joints = robot.0.joints.len();
        Ok(Self {
            objects: objects.len(),
            observers: vec![observer; n],
            state: State::new(joints),
            feedback: Feedback::reset(&manifest, &[0.0; MAX_JOINTS]),
            joints,
            commands: manifest.commands.len().min(MAX_USER),
            actions: manifest.action.joints.len(),
        })
    }

    /// Length of one observation.
    #[getter]
    fn size(&self) -> usize {
        self.observers.first().map_or(0, Observer::size)
    }

    /// Forgets the histories of these simulations.
    fn reset(&mut self, ids: PyReadonlyArray1<'_, i64>) -> PyResult<()> {
        for i in chosen(Some(&ids), self.observers.len())? {
            self.observers[i].reset();
        }
        Ok(())
    }

    /// Observes the simulations `ids` (all of them when absent) into the rows of `out`. Joint numbers `[n, J]` in robot
    /// order and SI units, `user` `[n, commands]`, `action` `[n, A]` in graph units, `time` `[n]` in seconds. What only
    /// some robots have: `imu` `[n, 10]` (quaternion, gyro, accelerometer), `base` `[n, 6]` (position, velocity in the
    /// world), `objects` `[n, O, 7]` (position, quaternion).
    #[pyo3(signature = (q, dq, tau, user, action, target, time, out, ids=None, *, imu=None, base=None, objects=None))]
    #[expect(clippy::too_many_arguments, reason = "one array for each source")]
    fn step(
        &mut self,
        q: PyReadonlyArray2<'_, f64>,
        dq: PyReadonlyArray2<'_, f64>,
        tau: PyReadonlyArray2<'_, f64>,
        user: PyReadonlyArray2<'_, f64>,
        action: PyReadonlyArray2<'_, f32>,
        target: PyReadonlyArray2<'_, f64>,
        time: PyReadonlyArray1<'_, f64>,
        out: &Bound<'_, PyArray2<f32>>,
        ids: Option<PyReadonlyArray1<'_, i64>>,
        imu: Option<PyReadonlyArray2<'_, f64>>,
        base: Option<PyReadonlyArray2<'_, f64>>,
        objects: Option<PyReadonlyArray3<'_, f64>>,
    ) -> PyResult<()> {
        let mut out = out.try_readwrite().map_err(|e| error::borrowed("out", e))?;
        let n = self.observers.len();
        for (name, array) in [("q", &q), ("dq", &dq), ("tau", &tau), ("target", &target)] {
            expect(name, array.shape(), &[n, self.joints])?;
        }
        expect("user", user.shape(), &[n, self.commands])?;
        expect("action", action.shape(), &[n, self.actions])?;
        expect("time", time.shape(), &[n])?;
        expect("out", out.shape(), &[n, self.size()])?;
        for (name, array, width) in [("imu", &imu, 10), ("base", &base, 6)] {
            array.as_ref().map_or(Ok(()), |array| expect(name, array.shape(), &[n, width]))?;
        }
        objects.as_ref().map_or(Ok(()), |array| expect("objects", array.shape(), &[n, self.objects, 7]))?;
        let (q, dq, tau, user) = (q.as_array(), dq.as_array(), tau.as_array(), user.as_array());
        let (action, target, time) = (action.as_array(), target.as_array(), time.as_array());
        let mut out = out.as_array_mut();
        for i in chosen(ids.as_ref(), n)? {
            joints(&q, i, &mut self.state.q);
            joints(&dq, i, &mut self.state.dq);
            joints(&tau, i, &mut self.state.tau);
            joints(&target, i, &mut self.feedback.target);
            for (x, &value) in self.state.user.iter_mut().zip(user.row(i)) {
                *x = value;
            }
            for (x, &value) in self.feedback.action.iter_mut().zip(action.row(i)) {
                *x = value;
            }
            self.feedback.time = time[i];
            self.surroundings(i, imu.as_ref(), base.as_ref(), objects.as_ref());
            let mut row = out.row_mut(i);
            let row = row.as_slice_mut().ok_or_else(|| PyValueError::new_err("out is not contiguous"))?;
            let observer = &mut self.observers[i];
            if let Err(bad) = observer.step(&self.state, &self.feedback, row) {
                let term = observer.term(bad.term).unwrap_or("?");
                let text = format!("term {term}, element {} of simulation {i} is not finite", bad.index);
                return Err(PyValueError::new_err(text));
            }
        }
        Ok(())
    }

    /// The histories of all simulations, for an exact resume.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let all: Vec<_> = self.observers.iter().map(Observer::histories).collect();
        Ok(PyBytes::new(py, &serde_json::to_vec(&all).map_err(error::bundle)?))
    }

    /// Goes on from `state()`.
    fn set_state(&mut self, state: &[u8]) -> PyResult<()> {
        let all: Vec<(Vec<f32>, bool)> = serde_json::from_slice(state).map_err(error::bundle)?;
        let fits = all.len() == self.observers.len();
        if !fits
            || !self
                .observers
                .iter_mut()
                .zip(&all)
                .all(|(o, (history, fresh))| o.set_histories(history, *fresh))
        {
            return Err(PyValueError::new_err(
                "the observation histories belong to another task or number of simulations",
            ));
        }
        Ok(())
    }
}

impl ObservationBatch {
    /// Copies what simulation `i` reports beside its joints; what is absent is not valid.
    fn surroundings(
        &mut self,
        i: usize,
        imu: Option<&PyReadonlyArray2<'_, f64>>,
        base: Option<&PyReadonlyArray2<'_, f64>>,
        objects: Option<&PyReadonlyArray3<'_, f64>>,
    ) {
        let State { imu: to_imu, base: to_base, objects: to_objects, .. } = &mut self.state;
        to_imu.valid = imu.is_some();
        if let Some(imu) = imu {
            let row = imu.as_array();
            let to = to_imu.quat.iter_mut().chain(&mut to_imu.gyro).chain(&mut to_imu.acc);
            to.zip(row.row(i)).for_each(|(x, &value)| *x = value);
        }
        to_base.valid = base.is_some();
        if let Some(base) = base {
            let row = base.as_array();
            to_base.pos.iter_mut().chain(&mut to_base.vel).zip(row.row(i)).for_each(|(x, &v)| *x = v);
        }
        for (k, object) in to_objects[..self.objects].iter_mut().enumerate() {
            object.valid = objects.is_some();
            if let Some(objects) = objects {
                let all = objects.as_array();
                let to = object.pos.iter_mut().chain(&mut object.quat);
                to.enumerate().for_each(|(j, x)| *x = all[[i, k, j]]);
            }
        }
    }
}

/// Actions of n simulations on their way to the motors: units, sequence, limiter.
#[pyclass(name = "ActionBatch", module = "cadenza._native")]
pub(crate) struct ActionBatch {
    paths: Vec<ActionPath>,
    /// Control tick of each simulation since its episode began.
    ticks: Vec<u64>,
    state: State,
    joints: usize,
    actions: usize,
    /// Control ticks of one policy step.
    steps: usize,
}

#[pymethods]
impl ActionBatch {
    #[new]
    fn new(manifest_json: &str, robot: &PyRobot, n: usize) -> PyResult<Self> {
        let manifest = manifest(manifest_json)?;
        let path = ActionPath::new(&manifest, &robot.0, &RunConfig::default()).map_err(error::bundle)?;
        let joints = robot.0.joints.len();
        Ok(Self {
            actions: path.decoder.input_len(),
            paths: vec![path; n],
            ticks: vec![0; n],
            state: State::new(joints),
            joints,
            steps: ticks_per_step(&manifest).map_err(error::robot)? as usize,
        })
    }

    /// Starts these simulations at rest at `q` `[len(ids), J]`.
    fn reset(&mut self, ids: PyReadonlyArray1<'_, i64>, q: PyReadonlyArray2<'_, f64>) -> PyResult<()> {
        let ids = chosen(Some(&ids), self.paths.len())?;
        expect("q", q.shape(), &[ids.len(), self.joints])?;
        let q = q.as_array();
        for (row, i) in ids.into_iter().enumerate() {
            joints(&q, row, &mut self.state.q);
            self.paths[i].reset(&self.state).map_err(error::robot)?;
            self.ticks[i] = 0;
        }
        Ok(())
    }

    /// One policy step: takes `action` `[n, A]` (graph units) at the measured `q` `[n, J]`, and writes the positions and
    /// velocities of the next K control ticks to `out_q` and `out_dq` `[n, K, J]`.
    fn step(
        &mut self,
        py: Python<'_>,
        action: PyReadonlyArray2<'_, f32>,
        q: PyReadonlyArray2<'_, f64>,
        out_q: &Bound<'_, PyArray3<f64>>,
        out_dq: &Bound<'_, PyArray3<f64>>,
    ) -> PyResult<()> {
        let mut out_q = out_q.try_readwrite().map_err(|e| error::borrowed("out_q", e))?;
        let mut out_dq = out_dq.try_readwrite().map_err(|e| error::borrowed("out_dq", e))?;
        let n = self.paths.len();
        expect("action", action.shape(), &[n, self.actions])?;
        expect("q", q.shape(), &[n, self.joints])?;
        expect("out_q", out_q.shape(), &[n, self.steps, self.joints])?;
        expect("out_dq", out_dq.shape(), &[n, self.steps, self.joints])?;
        let (action, q, row) = (action.as_slice()?, q.as_array(), self.steps * self.joints);
        let (out_q, out_dq) = (out_q.as_slice_mut()?, out_dq.as_slice_mut()?);
        py.detach(|| {
            for (i, path) in self.paths.iter_mut().enumerate() {
                joints(&q, i, &mut self.state.q);
                let raw = &action[i * self.actions..(i + 1) * self.actions];
                let rows = i * row..(i + 1) * row;
                path.rollout(
                    raw,
                    &self.state,
                    self.ticks[i],
                    self.steps,
                    &mut out_q[rows.clone()],
                    &mut out_dq[rows],
                )
                .map_err(|fault| (i, fault))?;
                self.ticks[i] += self.steps as u64;
            }
            Ok(())
        })
        .map_err(|(i, fault): (usize, cadenza_runtime::action::ActionFault)| {
            PyValueError::new_err(format!("simulation {i}: {fault}"))
        })
    }

    /// Decoded policy target of each joint `[n, J]`.
    #[getter]
    fn target<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        let rows = self.paths.iter().flat_map(|path| path.decoder.target()[..self.joints].iter().copied());
        let array = numpy::ndarray::Array2::from_shape_vec((self.paths.len(), self.joints), rows.collect());
        PyArray2::from_owned_array(py, array.unwrap_or_default())
    }

    /// The state of all paths, for an exact resume.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let all: Vec<_> =
            self.paths.iter().map(ActionPath::snapshot).zip(self.ticks.iter().copied()).collect();
        Ok(PyBytes::new(py, &serde_json::to_vec(&all).map_err(error::bundle)?))
    }

    /// Goes on from `state()`.
    fn set_state(&mut self, state: &[u8]) -> PyResult<()> {
        let all: Vec<(PathSnapshot, u64)> = serde_json::from_slice(state).map_err(error::bundle)?;
        if all.len() != self.paths.len() {
            let text = format!("the state holds {} simulations, this batch {}", all.len(), self.paths.len());
            return Err(PyValueError::new_err(text));
        }
        for ((path, tick), (snapshot, t)) in self.paths.iter_mut().zip(&mut self.ticks).zip(&all) {
            path.restore(snapshot).map_err(error::robot)?;
            *tick = *t;
        }
        Ok(())
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<ObservationBatch>()?;
    module.add_class::<ActionBatch>()
}
