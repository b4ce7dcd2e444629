//! How errors of the STL crate become exceptions.

use cadenza_stl::{Error, ParseError, ParseErrorKind};
use pyo3::prelude::*;

use crate::error;

/// The exception of a refused call; `HorizonError` carries `horizon` and `length`.
pub(super) fn call(e: Error) -> PyErr {
    match e {
        Error::Formula(e) => text(&e),
        Error::Horizon { horizon, length, .. } => {
            let refused = error::HorizonError::new_err(e.to_string());
            with(refused, |value| {
                value.setattr("horizon", horizon)?;
                value.setattr("length", length)
            })
        }
        other => error::stl(other),
    }
}

/// The exception of a refused text, with `message, text, start, end, line, column, kind`. Places are characters, as
/// Python counts them.
pub(super) fn text(e: &ParseError) -> PyErr {
    let shown = e.to_string();
    let refused = match e.kind {
        ParseErrorKind::UnboundedFuture => error::UnboundedFutureError::new_err(shown),
        _ => error::ParseError::new_err(shown),
    };
    with(refused, |value| {
        value.setattr("message", &e.message)?;
        value.setattr("text", &e.text)?;
        value.setattr("start", characters(&e.text, e.start))?;
        value.setattr("end", characters(&e.text, e.end))?;
        value.setattr("line", e.line)?;
        value.setattr("column", e.column)?;
        value.setattr("kind", format!("{:?}", e.kind))
    })
}

/// Characters before byte `at`.
pub(super) fn characters(text: &str, at: usize) -> usize {
    text.char_indices().take_while(|(i, _)| *i < at).count()
}

fn with(refused: PyErr, set: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<()>) -> PyErr {
    Python::attach(|py| match set(refused.value(py).as_any()) {
        Ok(()) => refused,
        Err(other) => other,
    })
}
