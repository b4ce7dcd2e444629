//! Why monitors cannot be made.

use cadenza_stl::{Error, ParseError};

/// Why a set of monitors cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The text is not STL.
    #[error("property `{property}`: {source}")]
    Parse {
        /// Property.
        property: String,
        /// Where and why.
        source: ParseError,
    },
    /// The formula cannot be watched: an unbounded future, too much memory, a bad parameter.
    #[error("property `{property}`: {source}")]
    Stl {
        /// Property.
        property: String,
        /// Why.
        source: Error,
    },
    /// A monitor names a property that spec.stl does not define.
    #[error("monitor `{property}` has no property in spec.stl (it defines: {defined})")]
    NoProperty {
        /// Name.
        property: String,
        /// Names that are defined.
        defined: String,
    },
    /// A property that no monitor watches.
    #[error("property `{property}` of spec.stl has no entry in the manifest's monitors")]
    Unwatched {
        /// Name.
        property: String,
    },
    /// Two monitors of the same name.
    #[error("two monitors are called `{property}`")]
    Duplicate {
        /// Name.
        property: String,
    },
    /// The period is not a whole number of control periods.
    #[error("property `{property}`: dt {dt} s is not a whole multiple of the control period {control_dt} s")]
    Period {
        /// Property.
        property: String,
        /// Its period.
        dt: f64,
        /// Control period.
        control_dt: f64,
    },
    /// The margin is not a number.
    #[error("property `{property}`: margin {margin} is not finite")]
    Margin {
        /// Property.
        property: String,
        /// Margin.
        margin: f64,
    },
    /// The formula reads something that does not exist.
    #[error("property `{property}` reads `{signal}`, did you mean `{nearest}`? Known signals: {known}")]
    UnknownSignal {
        /// Property.
        property: String,
        /// Name in the formula.
        signal: String,
        /// The nearest known name.
        nearest: String,
        /// All known names.
        known: String,
    },
    /// The formula reads an object that the device does not report.
    #[error(
        "property `{property}` reads `{signal}`, but the device reports no such object (it reports: {reported})"
    )]
    ObjectNotReported {
        /// Property.
        property: String,
        /// Name in the formula.
        signal: String,
        /// Objects that it reports.
        reported: String,
    },
    /// A parameter of the formula has no value.
    #[error("property `{property}`: parameter `${param}` has no value in the monitor's params")]
    MissingParam {
        /// Property.
        property: String,
        /// Parameter.
        param: String,
    },
    /// Too many monitors.
    #[error("{count} monitors, at most {max}")]
    TooMany {
        /// Number.
        count: usize,
        /// Largest number.
        max: usize,
    },
    /// They take more time than they may, however rarely they are stepped.
    #[error(
        "the monitors take {need:.3} µs of a control tick on the average even where their formulas are stepped as rarely as \
         they allow, more than monitor_budget_us = {budget}"
    )]
    Budget {
        /// What they take, µs.
        need: f64,
        /// What they may take, µs.
        budget: f64,
    },
}
