//! Bundles, policies and parity.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cadenza_policy::manifest::Weights;
use cadenza_policy::{
    self as policy, ActError, Bundle, Isa, Manifest, Options, ParityReport, Policy, Session,
};
use numpy::{
    PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArray1, PyReadonlyArrayDyn, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::error;

/// An opened bundle: immutable, every byte checked.
#[pyclass(name = "Bundle", module = "cadenza._native", frozen)]
pub(crate) struct PyBundle(pub(crate) Bundle);

#[pymethods]
impl PyBundle {
    #[new]
    fn new(path: PathBuf) -> PyResult<Self> {
        Bundle::open(&path).map(Self).map_err(error::bundle)
    }

    #[staticmethod]
    fn from_bytes(data: &[u8]) -> PyResult<Self> {
        Bundle::from_bytes(data.to_vec()).map(Self).map_err(error::bundle)
    }

    /// SHA-256 of the manifest, hexadecimal: it covers every byte of the bundle.
    #[getter]
    fn id(&self) -> String {
        self.0.id().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The manifest as JSON text.
    #[getter]
    fn manifest(&self) -> String {
        self.0.manifest().to_json()
    }

    /// The text of `spec.stl`.
    #[getter]
    fn specification(&self) -> Option<String> {
        self.0.specification().map(str::to_owned)
    }

    /// An entry's bytes.
    fn entry<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyBytes>> {
        self.0.entry(name).map(|data| PyBytes::new(py, data))
    }
}

/// Whether the engine reproduces the recorded vectors.
#[pyclass(name = "ParityReport", module = "cadenza._native", frozen)]
pub(crate) struct PyParity(ParityReport);

#[pymethods]
impl PyParity {
    #[getter]
    fn passed(&self) -> bool {
        self.0.passed
    }

    #[getter]
    fn vectors(&self) -> usize {
        self.0.vectors
    }

    #[getter]
    fn max_difference(&self) -> f64 {
        self.0.measured
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }
}

/// The networks of a bundle, ready to run without allocating.
#[pyclass(name = "Policy", module = "cadenza._native")]
pub(crate) struct PyPolicy(Policy);

impl PyPolicy {
    /// Runs `call` on slices of the arrays without the GIL; the action goes to `out`, or to a new array.
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        prev: Option<PyReadonlyArray1<'py, f32>>,
        out: Option<Bound<'py, PyArray1<f32>>>,
        call: impl FnOnce(&mut Policy, &[f32], &mut [f32]) -> Result<(), ActError> + Send,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let out = out.unwrap_or_else(|| PyArray1::zeros(py, self.0.action_len(), false));
        {
            let mut action = out.try_readwrite().map_err(|e| error::borrowed("out", e))?;
            let previous = prev.as_ref().map(|p| p.as_slice()).transpose()?.unwrap_or(&[]);
            let action = action.as_slice_mut()?;
            let policy = &mut self.0;
            py.detach(|| call(policy, previous, action)).map_err(error::bundle)?;
        }
        Ok(out)
    }
}

#[pymethods]
impl PyPolicy {
    #[new]
    #[pyo3(signature = (bundle, weights=None))]
    fn new(bundle: &PyBundle, weights: Option<&str>) -> PyResult<Self> {
        let mut options = Options::default();
        options.weights = match weights {
            None => None,
            Some("f32") => Some(Weights::F32),
            Some("int8") => Some(Weights::Int8),
            Some(other) => {
                return Err(PyValueError::new_err(format!("weights {other:?} are not known: f32, int8")));
            }
        };
        Policy::load(&bundle.0, &options).map(Self).map_err(error::bundle)
    }

    /// Forgets the episode before.
    fn reset(&mut self) {
        self.0.reset();
    }

    /// Kernels in the order of execution.
    #[getter]
    fn kernels(&self) -> Vec<String> {
        self.0.footprint().kernels
    }

    /// Bytes of packed weights.
    #[getter]
    fn weight_bytes(&self) -> usize {
        self.0.footprint().weight_bytes
    }

    /// One action, or a sequence row by row, in graph units; `out` makes the call free of allocation.
    #[pyo3(signature = (obs, prev=None, out=None))]
    fn act<'py>(
        &mut self,
        py: Python<'py>,
        obs: PyReadonlyArray1<'py, f32>,
        prev: Option<PyReadonlyArray1<'py, f32>>,
        out: Option<Bound<'py, PyArray1<f32>>>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let obs = obs.as_slice()?;
        self.run(py, prev, out, |policy, previous, action| policy.act(obs, previous, action))
    }

    /// Starts a sequence (chunk mode lazy).
    fn begin(&mut self, py: Python<'_>, obs: PyReadonlyArray1<'_, f32>) -> PyResult<()> {
        let obs = obs.as_slice()?;
        let policy = &mut self.0;
        py.detach(|| policy.begin(obs)).map_err(error::bundle)
    }

    /// The next action of a sequence, in graph units (chunk mode lazy).
    #[pyo3(signature = (prev=None, out=None))]
    fn next<'py>(
        &mut self,
        py: Python<'py>,
        prev: Option<PyReadonlyArray1<'py, f32>>,
        out: Option<Bound<'py, PyArray1<f32>>>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        self.run(py, prev, out, Policy::next)
    }

    /// Replays the recorded vectors; leaves a reset policy.
    fn verify(&mut self, bundle: &PyBundle) -> PyResult<PyParity> {
        self.0.verify(&bundle.0).map(PyParity).map_err(error::bundle)
    }
}

/// A bare ONNX network, without a bundle around it: float arrays in, float arrays out.
#[pyclass(name = "Network", module = "cadenza._native")]
pub(crate) struct PyNetwork(Session);

#[pymethods]
impl PyNetwork {
    /// `isa` (`scalar`, `avx2`, `neon`) forces an instruction set; the best of the machine is used when it is absent.
    #[new]
    #[pyo3(signature = (onnx, batch=1, isa=None))]
    fn new(onnx: &[u8], batch: usize, isa: Option<&str>) -> PyResult<Self> {
        let known = [Isa::Scalar, Isa::Avx2, Isa::Neon];
        let find = |name: &str| {
            let found = known.into_iter().find(|i| i.to_string() == name);
            found
                .ok_or_else(|| error::bundle(format!("instruction set {name:?} is not scalar, avx2 or neon")))
        };
        let mut options = Options::default();
        options.isa = isa.map(find).transpose()?;
        Session::from_onnx(onnx, batch, &options).map(Self).map_err(error::bundle)
    }

    /// Name and shape of every input.
    #[getter]
    fn inputs(&self) -> Vec<(String, Vec<usize>)> {
        self.0.inputs().iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
    }

    /// Name and shape of every output.
    #[getter]
    fn outputs(&self) -> Vec<(String, Vec<usize>)> {
        self.0.outputs().iter().map(|p| (p.name.clone(), p.shape.clone())).collect()
    }

    /// The kernels, in the order of execution.
    #[getter]
    fn kernels(&self) -> Vec<String> {
        self.0.kernels()
    }

    /// The outputs for `inputs`, in the order of the graph.
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        inputs: Vec<PyReadonlyArrayDyn<'py, f32>>,
    ) -> PyResult<Vec<Bound<'py, PyArrayDyn<f32>>>> {
        let ports = self.0.inputs();
        if inputs.len() != ports.len() {
            return Err(error::bundle(format!("{} inputs for {}", inputs.len(), ports.len())));
        }
        for (x, port) in inputs.iter().zip(ports) {
            if x.shape() != port.shape {
                let (name, expected) = (&port.name, &port.shape);
                return Err(error::bundle(format!("input {name:?} is {expected:?}, not {:?}", x.shape())));
            }
        }
        for (i, x) in inputs.iter().enumerate() {
            self.0.input_mut(i).copy_from_slice(x.as_slice()?);
        }
        py.detach(|| self.0.run()).map_err(error::bundle)?;
        let output =
            |i: usize| PyArray1::from_slice(py, self.0.output(i)).reshape(self.0.outputs()[i].shape.clone());
        (0..self.0.outputs().len()).map(output).collect()
    }
}

/// The operators that a network may use, each with the first ONNX operator set that has it.
#[pyfunction]
fn operators() -> BTreeMap<&'static str, i64> {
    policy::operators().collect()
}

/// The bytes of a bundle: `manifest` (JSON) without `files`, entries by name, and the parity tensors (float32).
#[pyfunction]
fn write_bundle<'py>(
    py: Python<'py>,
    manifest: &str,
    entries: BTreeMap<String, Vec<u8>>,
    parity: BTreeMap<String, PyReadonlyArrayDyn<'py, f32>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut value: serde_json::Value = serde_json::from_str(manifest).map_err(error::bundle)?;
    if let Some(object) = value.as_object_mut() {
        object.entry("files").or_insert_with(|| serde_json::json!({}));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(error::bundle)?;
    let mut entries: Vec<(String, Vec<u8>)> = entries.into_iter().collect();
    if let Some(spec) = &manifest.parity {
        let raw = parity
            .iter()
            .map(|(name, array)| {
                let bytes = array.as_slice()?.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
                Ok((name.clone(), array.shape().to_vec(), bytes))
            })
            .collect::<PyResult<Vec<_>>>()?;
        let views = raw
            .iter()
            .map(|(name, shape, bytes)| {
                TensorView::new(Dtype::F32, shape.clone(), bytes)
                    .map(|view| (name.clone(), view))
                    .map_err(error::bundle)
            })
            .collect::<PyResult<Vec<_>>>()?;
        let data = safetensors::serialize(views, None).map_err(error::bundle)?;
        entries.push((spec.file.clone(), data));
    } else if !parity.is_empty() {
        return Err(PyValueError::new_err("parity tensors are given but the manifest has no `parity`"));
    }
    let data = py.detach(|| policy::write_bundle(manifest, &entries)).map_err(error::bundle)?;
    Ok(PyBytes::new(py, &data))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyBundle>()?;
    module.add_class::<PyParity>()?;
    module.add_class::<PyPolicy>()?;
    module.add_class::<PyNetwork>()?;
    module.add_function(wrap_pyfunction!(operators, module)?)?;
    module.add_function(wrap_pyfunction!(write_bundle, module)?)
}
