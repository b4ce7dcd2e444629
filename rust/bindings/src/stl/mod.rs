//! Signal Temporal Logic: formulas, offline evaluation and its gradient, streaming monitors, decomposition.

mod decompose;
mod evaluate;
mod formula;
mod monitor;
mod refuse;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    formula::register(module)?;
    evaluate::register(module)?;
    module.add_class::<monitor::PyMonitor>()?;
    module.add_class::<monitor::PyVerdict>()?;
    decompose::register(module)
}
