//! Evaluation of recorded traces, in the number type of the samples, without the interpreter lock.

use std::collections::BTreeMap;

use cadenza_stl::{
    End, Error, Explanation, Instants, Nan, Options, Param, Scalar, Semantics, Traces, Workspace, breakdown,
    explain, gradient, node_values, robustness, robustness_trace,
};
use numpy::ndarray::Dimension;
use numpy::{
    Element, IntoPyArray, PyArray, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray3, PyReadonlyArrayDyn,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::formula::PyFormula;
use super::refuse;
use crate::error;

/// A number that both STL and NumPy know.
pub(super) trait Real: Scalar + Element + Send + Sync {}
impl Real for f64 {}
impl Real for f32 {}

/// Samples `[N, T, D]` in their own type.
#[derive(FromPyObject)]
enum Samples<'py> {
    Double(PyReadonlyArray3<'py, f64>),
    Single(PyReadonlyArray3<'py, f32>),
}

/// `(end, semantics, beta, nan, threads)` as Python names them.
type Settings = (String, String, Option<f64>, String, usize);

/// Values of the parameters by name: one for all traces, or one each.
type Given<'py> = BTreeMap<String, Bound<'py, PyAny>>;

/// One call's arguments that do not depend on the number type.
struct Call<'a> {
    formula: &'a PyFormula,
    lengths: Option<PyReadonlyArray1<'a, u32>>,
    options: Options,
}

fn options((end, semantics, beta, nan, threads): Settings) -> PyResult<Options> {
    let choose = |name: &str, value: &str, known: &str| {
        PyValueError::new_err(format!("{name} = '{value}': {known} wanted"))
    };
    let end = match end.as_str() {
        "truncate" => End::Truncate,
        "strict" => End::Strict,
        other => return Err(choose("end", other, "'truncate' or 'strict'")),
    };
    let nan = match nan.as_str() {
        "propagate" => Nan::Propagate,
        "raise" => Nan::Raise,
        other => return Err(choose("nan", other, "'propagate' or 'raise'")),
    };
    let semantics = match (semantics.as_str(), beta) {
        ("true", None) => Semantics::True,
        ("true", Some(beta)) => {
            let message = format!("beta = {beta}: semantics 'true' has none; 'lse' and 'softmax' have");
            return Err(PyValueError::new_err(message));
        }
        ("lse", Some(beta)) => Semantics::LogSumExp { beta },
        ("softmax", Some(beta)) => Semantics::Softmax { beta },
        ("lse" | "softmax", None) => {
            return Err(PyValueError::new_err(format!("semantics '{semantics}' needs beta")));
        }
        (other, _) => return Err(choose("semantics", other, "'true', 'lse' or 'softmax'")),
    };
    if threads == 0 {
        return Err(PyValueError::new_err("threads = 0: at least 1 wanted"));
    }
    Ok(Options { end, nan, semantics, threads })
}

impl PyFormula {
    /// Values in the order of the formula's parameters; missing and extra names are errors.
    pub(super) fn ordered<V>(&self, mut given: BTreeMap<String, V>) -> PyResult<Vec<V>> {
        for name in given.keys() {
            self.formula.param(name).map_err(refuse::call)?;
        }
        let names = self.formula.params().iter();
        names
            .map(|name| {
                given.remove(name).ok_or_else(|| error::stl(format!("parameter ${name} has no value")))
            })
            .collect()
    }
}

impl Call<'_> {
    /// Runs `work` on the samples and parameters without the interpreter lock.
    fn run<S: Real, T: Send>(
        &self,
        py: Python<'_>,
        x: &PyReadonlyArray3<'_, S>,
        params: Given<'_>,
        work: impl FnOnce(Traces<'_, S>, &[Param<'_, S>], &Options) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        let mut arrays: Vec<PyReadonlyArrayDyn<'_, S>> = Vec::new();
        for value in self.formula.ordered(params)? {
            arrays.push(value.extract()?);
        }
        let mut values = Vec::with_capacity(arrays.len());
        for array in &arrays {
            let all = array.as_slice()?;
            values.push(match (array.ndim(), all) {
                (0, [value]) => Param::All(*value),
                _ => Param::PerTrace(all),
            });
        }
        let &[n, t, d] = x.shape() else { return Err(PyValueError::new_err("traces must be [N, T, D]")) };
        let lengths = self.lengths.as_ref().map(|lengths| lengths.as_slice()).transpose()?;
        let traces = Traces { data: x.as_slice()?, n, t, d, lengths };
        let options = &self.options;
        py.detach(|| work(traces, &values, options)).map_err(refuse::call)
    }

    /// As `run`, for work that fills an array of this shape.
    fn fill<'py, S: Real, D: Dimension>(
        &self,
        py: Python<'py>,
        x: &PyReadonlyArray3<'py, S>,
        params: Given<'py>,
        shape: impl numpy::ndarray::IntoDimension<Dim = D>,
        work: impl FnOnce(Traces<'_, S>, &[Param<'_, S>], &Options, &mut [S]) -> Result<(), Error> + Send,
    ) -> PyResult<Bound<'py, PyAny>> {
        let out = PyArray::<S, D>::zeros(py, shape, false);
        {
            let mut writable = out.readwrite();
            let slice = writable.as_slice_mut()?;
            self.run(py, x, params, |traces, values, options| work(traces, values, options, slice))?;
        }
        Ok(out.into_any())
    }
}

/// Number of traces and steps.
fn size<S: Real>(x: &PyReadonlyArray3<'_, S>) -> (usize, usize) {
    (x.shape()[0], x.shape()[1])
}

/// Matches the number type of the samples.
macro_rules! typed {
    ($x:expr, $name:ident => $body:expr) => {
        match $x {
            Samples::Double($name) => $body,
            Samples::Single($name) => $body,
        }
    };
}

type Explained = (f64, Option<usize>, Option<usize>, usize, Vec<(String, f64)>, Vec<(usize, usize)>, String);

fn explained<S: Scalar>(e: Explanation<S>) -> Explained {
    let summary = e.to_string();
    let values = e.values.into_iter().map(|(name, value)| (name, value.to_f64())).collect();
    let path = e.path.into_iter().map(|(node, t)| (node.index(), t)).collect();
    let predicate = e.predicate.map(cadenza_stl::NodeId::index);
    (e.robustness.to_f64(), e.conjunct, predicate, e.step, values, path, summary)
}

/// Robustness `[N]` at instant `at` of traces `[N, T, D]`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn stl_robustness<'py>(
    py: Python<'py>,
    formula: &PyFormula,
    x: Samples<'py>,
    params: Given<'py>,
    lengths: Option<PyReadonlyArray1<'py, u32>>,
    at: u32,
    settings: Settings,
) -> PyResult<Bound<'py, PyAny>> {
    let call = Call { formula, lengths, options: options(settings)? };
    typed!(x, x => call.fill(py, &x, params, [size(&x).0], |x, params, o, out| {
        robustness(&formula.formula, x, params, at, o, &mut Workspace::new(), out)
    }))
}

/// Robustness `[N, T]` at every instant; under `strict` `[N, max(0, T − horizon)]`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn stl_robustness_trace<'py>(
    py: Python<'py>,
    formula: &PyFormula,
    x: Samples<'py>,
    params: Given<'py>,
    lengths: Option<PyReadonlyArray1<'py, u32>>,
    settings: Settings,
) -> PyResult<Bound<'py, PyAny>> {
    let call = Call { formula, lengths, options: options(settings)? };
    typed!(x, x => {
        let (n, t) = size(&x);
        // An unbounded horizon is refused below.
        let cut = if call.options.end == End::Strict { formula.formula.horizon().unwrap_or(0) } else { 0 };
        call.fill(py, &x, params, [n, t.saturating_sub(cut as usize)], |x, params, o, out| {
            robustness_trace(&formula.formula, x, params, o, &mut Workspace::new(), out)
        })
    })
}

/// Robustness `[N, K]` of each conjunct at instant `at`.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn stl_breakdown<'py>(
    py: Python<'py>,
    formula: &PyFormula,
    x: Samples<'py>,
    params: Given<'py>,
    lengths: Option<PyReadonlyArray1<'py, u32>>,
    at: u32,
    settings: Settings,
) -> PyResult<Bound<'py, PyAny>> {
    let call = Call { formula, lengths, options: options(settings)? };
    let k = formula.formula.conjuncts().len();
    typed!(x, x => call.fill(py, &x, params, [size(&x).0, k], |x, params, o, out| {
        breakdown(&formula.formula, x, params, at, o, &mut Workspace::new(), out)
    }))
}

/// Robustness `[N, M, T]` of each node at every instant.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn stl_node_values<'py>(
    py: Python<'py>,
    formula: &PyFormula,
    x: Samples<'py>,
    params: Given<'py>,
    lengths: Option<PyReadonlyArray1<'py, u32>>,
) -> PyResult<Bound<'py, PyAny>> {
    let call = Call { formula, lengths, options: Options::default() };
    let m = formula.formula.nodes().len();
    typed!(x, x => {
        let (n, t) = size(&x);
        call.fill(py, &x, params, [n, m, t], |x, params, _, out| {
            node_values(&formula.formula, x, params, &mut Workspace::new(), out)
        })
    })
}

/// For each trace `(robustness, conjunct, predicate, step, values, path, summary)`; nodes by index.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn stl_explain<'py>(
    py: Python<'py>,
    formula: &PyFormula,
    x: Samples<'py>,
    params: Given<'py>,
    lengths: Option<PyReadonlyArray1<'py, u32>>,
    at: u32,
    settings: Settings,
) -> PyResult<Vec<Explained>> {
    let call = Call { formula, lengths, options: options(settings)? };
    typed!(x, x => call.run(py, &x, params, |x, params, o| {
        let found = explain(&formula.formula, x, params, at, o, &mut Workspace::new())?;
        Ok(found.into_iter().map(explained).collect())
    }))
}

/// Vector-Jacobian product: `(dx [N, T, D], dparams [N, P])` for `upstream` `[N]` at instant `at`, or `[N, T]` of
/// the whole trace when `at` is None.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn stl_gradient<'py>(
    py: Python<'py>,
    formula: &PyFormula,
    x: Samples<'py>,
    params: Given<'py>,
    lengths: Option<PyReadonlyArray1<'py, u32>>,
    at: Option<u32>,
    upstream: Bound<'py, PyAny>,
    settings: Settings,
) -> PyResult<Bound<'py, PyTuple>> {
    let call = Call { formula, lengths, options: options(settings)? };
    typed!(x, x => vjp(py, &call, &x, params, at, &upstream))
}

fn vjp<'py, S: Real>(
    py: Python<'py>,
    call: &Call<'_>,
    x: &PyReadonlyArray3<'py, S>,
    params: Given<'py>,
    at: Option<u32>,
    upstream: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    let formula = &call.formula.formula;
    let upstream: PyReadonlyArrayDyn<'py, S> = upstream.extract()?;
    let upstream = upstream.as_slice()?;
    let &[n, t, d] = x.shape() else { return Err(PyValueError::new_err("traces must be [N, T, D]")) };
    let p = formula.params().len();
    let (dx, dparams) = call.run(py, x, params, |x, params, o| {
        let (mut dx, mut dparams) = (vec![S::ZERO; n * t * d], vec![S::ZERO; n * p]);
        let when = at.map_or(Instants::Every, Instants::At);
        gradient(formula, x, params, when, upstream, o, &mut Workspace::new(), &mut dx, &mut dparams)?;
        Ok((dx, dparams))
    })?;
    let (dx, dparams) = (dx.into_pyarray(py), dparams.into_pyarray(py));
    PyTuple::new(py, [dx.reshape([n, t, d])?.into_any(), dparams.reshape([n, p])?.into_any()])
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(stl_robustness, module)?)?;
    module.add_function(wrap_pyfunction!(stl_robustness_trace, module)?)?;
    module.add_function(wrap_pyfunction!(stl_breakdown, module)?)?;
    module.add_function(wrap_pyfunction!(stl_node_values, module)?)?;
    module.add_function(wrap_pyfunction!(stl_explain, module)?)?;
    module.add_function(wrap_pyfunction!(stl_gradient, module)?)
}
