//! Decomposition: branches and allocations, with regions as formulas.

use std::collections::BTreeMap;
use std::sync::Arc;

use cadenza_stl::{Allocation, Branch, Chain, DecomposeOptions, Goal, Region, Time, decompose};
use numpy::{PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::formula::PyFormula;
use super::refuse;

/// `(variable, offset)`: steps after a variable, or after the start of the trace.
type Instant = (Option<usize>, i64);

fn instant(t: Time) -> Instant {
    (t.variable, t.offset)
}

/// One way to satisfy a formula.
#[pyclass(name = "Branch", module = "cadenza._native", frozen)]
pub(crate) struct PyBranch {
    branch: Branch,
    formula: Arc<Py<PyFormula>>,
}

/// A branch with all instants fixed.
#[pyclass(name = "Allocation", module = "cadenza._native", frozen)]
pub(crate) struct PyAllocation {
    allocation: Allocation,
    formula: Arc<Py<PyFormula>>,
}

/// The region as a formula of the same signals.
fn region(formula: &Py<PyFormula>, region: &Region) -> PyResult<PyFormula> {
    let f = formula.get();
    let texts: Vec<String> = region
        .any
        .iter()
        .map(|(id, negated)| format!("{}({})", if *negated { "not " } else { "" }, f.formula.node_text(*id)))
        .collect();
    f.part(&texts.join(" or "))
}

impl PyBranch {
    fn fixed(&self, allocation: Allocation) -> PyAllocation {
        PyAllocation { allocation, formula: Arc::clone(&self.formula) }
    }
}

#[pymethods]
impl PyBranch {
    /// `(parent, min, max)`: each free instant is its parent plus a number of steps.
    #[getter]
    fn variables(&self) -> Vec<(Instant, i64, i64)> {
        self.branch.variables.iter().map(|v| (instant(v.parent), v.min, v.max)).collect()
    }

    /// `(region, at)`.
    #[getter]
    fn reach(&self) -> PyResult<Vec<(PyFormula, Instant)>> {
        self.branch.reach.iter().map(|r| Ok((region(&self.formula, &r.region)?, instant(r.at)))).collect()
    }

    /// `(region, first, last)`.
    #[getter]
    fn hold(&self) -> PyResult<Vec<(PyFormula, Instant, Instant)>> {
        let all = self.branch.hold.iter();
        all.map(|h| Ok((region(&self.formula, &h.region)?, instant(h.from), instant(h.to)))).collect()
    }

    /// False if a choice that could change over time was made once for a whole window.
    #[getter]
    fn complete(&self) -> bool {
        self.branch.complete
    }

    /// Number of allocations; with chains an upper bound.
    fn count(&self) -> u128 {
        self.branch.count()
    }

    /// Fixes all instants: `deltas[i]` steps after the parent of variable i.
    fn allocate(&self, deltas: Vec<i64>) -> PyResult<PyAllocation> {
        self.branch.allocate(&deltas).map(|a| self.fixed(a)).map_err(refuse::call)
    }

    /// A random allocation; `rng` is a `numpy.random.Generator`.
    fn sample(&self, rng: &Bound<'_, PyAny>) -> PyResult<PyAllocation> {
        let integers = rng.getattr("integers")?;
        let mut failed = None;
        let allocation = self.branch.sample(|n| {
            let drawn = integers.call1((n,)).and_then(|value| value.extract());
            drawn.unwrap_or_else(|e| {
                failed = Some(e);
                0
            })
        });
        failed.map_or(Ok(self.fixed(allocation)), Err)
    }
}

impl PyAllocation {
    fn parts(&self, goals: &[Goal]) -> PyResult<Vec<(PyFormula, u32, u32)>> {
        goals.iter().map(|g| Ok((region(&self.formula, &g.region)?, g.from, g.to))).collect()
    }
}

#[pymethods]
impl PyAllocation {
    /// `(region, first, last)` by time: what to reach, and after reaching to hold.
    #[getter]
    fn goals(&self) -> PyResult<Vec<(PyFormula, u32, u32)>> {
        self.parts(&self.allocation.goals)
    }

    /// `(region, first, last)` by time: what to hold over windows that no choice moves.
    #[getter]
    fn invariants(&self) -> PyResult<Vec<(PyFormula, u32, u32)>> {
        self.parts(&self.allocation.invariants)
    }

    /// The least robustness of all goals and invariants on a trace `[T, D]`.
    fn robustness(
        &self,
        py: Python<'_>,
        trace: PyReadonlyArray2<'_, f64>,
        params: BTreeMap<String, f64>,
    ) -> PyResult<f64> {
        let f = self.formula.get();
        let d = f.formula.signals().len();
        if trace.shape()[1] != d {
            let message = format!("the trace has shape {:?}, expected [T, {d}]", trace.shape());
            return Err(PyValueError::new_err(message));
        }
        let (params, trace) = (f.ordered(params)?, trace.as_slice()?);
        py.detach(|| self.allocation.robustness(&f.formula, trace, &params)).map_err(refuse::call)
    }
}

/// Branches of a formula; `chain` is None, `minimal` or `complete`.
#[pyfunction]
#[pyo3(signature = (formula, chain=None))]
fn decompose_formula(
    py: Python<'_>,
    formula: Bound<'_, PyFormula>,
    chain: Option<&str>,
) -> PyResult<Vec<PyBranch>> {
    let chain = match chain {
        None => None,
        Some("minimal") => Some(Chain::Minimal),
        Some("complete") => Some(Chain::Complete),
        Some(other) => {
            let message = format!("chain = '{other}': None, 'minimal' or 'complete' wanted");
            return Err(PyValueError::new_err(message));
        }
    };
    let own = &formula.get().formula;
    let branches = py.detach(|| decompose(own, &DecomposeOptions { chain })).map_err(refuse::call)?;
    let formula = Arc::new(formula.unbind());
    Ok(branches.into_iter().map(|branch| PyBranch { branch, formula: Arc::clone(&formula) }).collect())
}

pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyBranch>()?;
    module.add_class::<PyAllocation>()?;
    module.add_function(wrap_pyfunction!(decompose_formula, module)?)
}
