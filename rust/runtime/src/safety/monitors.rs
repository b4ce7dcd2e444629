//! STL in the loop: properties of the bundle and of the robot, judged while the robot moves.
//!
//! Each property is stepped at its own period, a whole multiple of the control period. A verdict is *tripped*,
//! *quiet*, or *unknown* when it rests on a number that is not one (an object that was never seen, an IMU that is
//! gone). A protecting property that cannot be judged holds the robot until it can be judged again; it is never
//! skipped silently. Only changes are handed on:
//!
//! | trip | trips when |
//! |---|---|
//! | `violated` | the oldest pending instant cannot be saved (upper bound < 0), or an instant closed at or below 0 |
//! | `at_risk` | an instant closed below the margin, or the oldest pending one is known to come or to be able to come below it: upper bound, or a finite lower bound, below the margin |
//! | `satisfied` | the oldest pending instant is safe (lower bound > 0), or an instant closed above 0 |
//!
//! An infinite lower bound says nothing yet (a `G` over the future has one until it closes) and trips nothing.

use cadenza_policy::manifest::{MonitorAction, MonitorSpec, Trip};
use cadenza_stl::{At, Error, Formula, Monitor, MonitorOptions, ParseOptions, Verdict, parse_file};

use serde::Serialize;

pub use super::monitor_error::MonitorError;
use super::signals::{SignalTable, Signals};
use super::spec_text;
use super::{Fault, Level, Reason};
use crate::log::entry::VerdictEntry;
use crate::log::header::MonitorHeader;
use crate::robot::RobotMonitor;

/// Most properties watched at once: the gate keeps one bit for each.
pub const MAX_MONITORS: usize = 64;

/// What a monitor has seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MonitorReport {
    /// Property.
    pub name: String,
    /// Time between two of its steps, s.
    pub dt: f64,
    /// Instants that were decided.
    pub closed: u64,
    /// Of them violated.
    pub violated: u64,
    /// Smallest robustness of a decided instant.
    pub least: Option<f64>,
    /// How often it tripped.
    pub trips: u64,
}

/// What a step did to a monitor's standing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Nothing.
    Same,
    /// It tripped or can no longer be judged: for [`Gate::report`](super::Gate::report).
    Tripped(Fault),
    /// It tripped, and the run's fallback is to take over; without one the fault stands.
    FallBack(Fault),
    /// It no longer trips: for [`Gate::monitor_cleared`](super::Gate::monitor_cleared).
    Cleared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Quiet,
    Unknown,
    Tripped,
}

pub(super) struct Watch {
    pub(super) name: String,
    /// What it was made of: at a period of its own, without the budget.
    spec: MonitorSpec,
    formula: Formula,
    /// Steps of its own to one that is taken, and after how many control ticks it takes the first.
    pub(super) slowed: u32,
    pub(super) offset: u64,
    text: String,
    closed: u64,
    violated: u64,
    least: Option<f64>,
    trips: u64,
    monitor: Monitor<f64>,
    level: Level,
    falls_back: bool,
    /// Control ticks of one step.
    pub(super) every: u64,
    /// Tick of the next step; the first tick after a reset when absent.
    next: Option<u64>,
    /// Where its signals stand in [`Signals`].
    places: Vec<usize>,
    sample: Vec<f64>,
    /// Steps after a NaN sample until the last instant that reads it closes; `None` for ever.
    pub(super) reach: Option<u32>,
    blind: u32,
    standing: Standing,
}

/// All monitors of a run; see the [module](self).
pub struct Monitors {
    pub(super) watches: Vec<Watch>,
    missed: u64,
}

impl Monitors {
    /// One monitor for each entry of `specs`, whose properties stand in `specification` (the text of spec.stl), then
    /// one for each of the robot's own. The only place that allocates.
    pub fn new(
        specification: Option<&str>,
        specs: &[MonitorSpec],
        robot_monitors: &[RobotMonitor],
        signals: &SignalTable,
        control_dt: f64,
    ) -> Result<Self, MonitorError> {
        let count = specs.len() + robot_monitors.len();
        if count > MAX_MONITORS {
            return Err(MonitorError::TooMany { count, max: MAX_MONITORS });
        }
        let text = specification.unwrap_or("");
        let defined = spec_text::properties(text);
        if let Some(name) = defined.iter().find(|name| specs.iter().all(|s| s.name != **name)) {
            return Err(MonitorError::Unwatched { property: (*name).to_owned() });
        }
        let mut watches: Vec<Watch> = Vec::with_capacity(count);
        for spec in specs {
            let formula = property(text, &defined, spec)?;
            watches.push(Watch::new(&formula, spec, signals, control_dt)?);
        }
        for RobotMonitor { spec, formula } in robot_monitors {
            let options = ParseOptions { dt: Some(spec.dt), ..ParseOptions::default() };
            let formula = Formula::parse(formula, &options)
                .map_err(|source| MonitorError::Parse { property: spec.name.clone(), source })?;
            watches.push(Watch::new(&formula, spec, signals, control_dt)?);
        }
        for (i, watch) in watches.iter().enumerate() {
            if watches[..i].iter().any(|other| other.name == watch.name) {
                return Err(MonitorError::Duplicate { property: watch.name.clone() });
            }
        }
        Ok(Self { watches, missed: 0 })
    }

    /// Names, in the order of their indices.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.watches.iter().map(|w| w.name.as_str())
    }

    /// What a log says of each, in the order of their indices.
    pub fn headers(&self) -> Vec<MonitorHeader> {
        let header = |w: &Watch| MonitorHeader { name: w.name.clone(), dt: w.dt(), formula: w.text.clone() };
        self.watches.iter().map(header).collect()
    }

    /// What each has seen since it was made.
    pub fn reports(&self) -> Vec<MonitorReport> {
        let report = |w: &Watch| MonitorReport {
            name: w.name.clone(),
            dt: w.dt(),
            closed: w.closed,
            violated: w.violated,
            least: w.least,
            trips: w.trips,
        };
        self.watches.iter().map(report).collect()
    }

    /// Steps that were lost because control ticks were skipped: their samples were never taken.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Steps every monitor that is due at control tick `tick` and hands out its verdict and what changed. Allocates
    /// nothing.
    pub fn step(&mut self, tick: u64, values: &Signals, mut out: impl FnMut(&VerdictEntry, Change)) {
        for (index, watch) in self.watches.iter_mut().enumerate() {
            let due = *watch.next.get_or_insert(tick.saturating_add(watch.offset));
            if tick < due {
                continue;
            }
            let late = (tick - due) / watch.every;
            self.missed += late;
            watch.next = Some(due.saturating_add((late + 1).saturating_mul(watch.every)));
            let (entry, change) = watch.step(tick, index as u16, values);
            out(&entry, change);
        }
    }

    /// Forgets everything seen; at every reset of the robot. Nothing leaks into the next run.
    pub fn reset(&mut self) {
        self.watches.iter_mut().for_each(Watch::reset);
    }
}

/// The property of `spec` in the text of spec.stl, read with the period of `spec`.
fn property(text: &str, defined: &[&str], spec: &MonitorSpec) -> Result<Formula, MonitorError> {
    let missing = || {
        let defined = if defined.is_empty() { "nothing".to_owned() } else { defined.join(", ") };
        MonitorError::NoProperty { property: spec.name.clone(), defined }
    };
    let alone = spec_text::only(text, &spec.name);
    let options = ParseOptions { dt: Some(spec.dt), ..ParseOptions::default() };
    if !defined.contains(&spec.name.as_str()) {
        return Err(missing());
    }
    let parsed = parse_file(&alone, &options)
        .map_err(|source| MonitorError::Parse { property: spec.name.clone(), source })?;
    parsed.into_iter().find(|(name, _)| *name == spec.name).map(|(_, formula)| formula).ok_or_else(missing)
}

impl Watch {
    fn new(
        formula: &Formula,
        spec: &MonitorSpec,
        signals: &SignalTable,
        control_dt: f64,
    ) -> Result<Self, MonitorError> {
        let property = || spec.name.clone();
        let ratio = spec.dt / control_dt;
        let every = ratio.round();
        if !(every >= 1.0 && (ratio - every).abs() <= 1e-9 * every && every <= f64::from(u32::MAX)) {
            return Err(MonitorError::Period { property: property(), dt: spec.dt, control_dt });
        }
        if !spec.margin.is_finite() {
            return Err(MonitorError::Margin { property: property(), margin: spec.margin });
        }
        let places: Vec<usize> =
            formula.signals().iter().map(|name| place(name, spec, signals)).collect::<Result<_, _>>()?;
        if let Some(param) = formula.params().iter().find(|p| !spec.params.contains_key(*p)) {
            return Err(MonitorError::MissingParam { property: property(), param: param.clone() });
        }
        let stl = |source| MonitorError::Stl { property: property(), source };
        Ok(Self {
            name: property(),
            text: formula.to_string(),
            slowed: 1,
            offset: 0,
            closed: 0,
            violated: 0,
            least: None,
            trips: 0,
            monitor: watching(formula, spec).map_err(stl)?,
            level: match spec.action {
                MonitorAction::Log => Level::Run,
                MonitorAction::Hold => Level::Hold,
                MonitorAction::SoftStop | MonitorAction::FallbackPolicy => Level::SoftStop,
                MonitorAction::Damp => Level::Damp,
                MonitorAction::Off => Level::Off,
            },
            falls_back: spec.action == MonitorAction::FallbackPolicy,
            every: every as u64,
            next: None,
            sample: vec![0.0; places.len()],
            places,
            reach: reach(formula),
            blind: 0,
            standing: Standing::Quiet,
            spec: spec.clone(),
            formula: formula.clone(),
        })
    }

    /// Time between two steps, s.
    pub(super) fn dt(&self) -> f64 {
        self.spec.dt * f64::from(self.slowed)
    }

    /// The same without the budget.
    pub(super) fn own_dt(&self) -> f64 {
        self.spec.dt
    }

    /// Takes one of `slowed` of its own steps from now on, with the bounds of the formula at the same times.
    ///
    /// # Errors
    /// Bounds that are not whole numbers of such steps, operators of one step; nothing has changed then.
    pub(super) fn slow_down(&mut self, slowed: u32) -> Result<(), MonitorError> {
        let stl = |source| MonitorError::Stl { property: self.name.clone(), source };
        let formula = self.formula.decimated(slowed).map_err(stl)?;
        self.monitor = watching(&formula, &self.spec).map_err(stl)?;
        self.every = self.every / u64::from(self.slowed) * u64::from(slowed);
        (self.text, self.reach, self.slowed) = (formula.to_string(), reach(&formula), slowed);
        self.reset();
        Ok(())
    }

    /// Places of its signals.
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// As new.
    pub(super) fn forget(&mut self) {
        self.reset();
        (self.closed, self.violated, self.least, self.trips) = (0, 0, None, 0);
    }

    fn reset(&mut self) {
        self.monitor.reset();
        self.next = None;
        self.blind = 0;
        self.standing = Standing::Quiet;
    }

    pub(super) fn step(&mut self, tick: u64, index: u16, values: &Signals) -> (VerdictEntry, Change) {
        for (value, &place) in self.sample.iter_mut().zip(&self.places) {
            *value = values.0.get(place).copied().unwrap_or(f64::NAN);
        }
        if self.blind != u32::MAX {
            self.blind = self.blind.saturating_sub(1);
        }
        if self.sample.iter().any(|x| x.is_nan()) {
            self.blind = self.reach.unwrap_or(u32::MAX);
        }
        // An update fails only for a sample of the wrong length; then nothing is known.
        let verdict = self.monitor.update(&self.sample).ok();
        let closed = verdict.and_then(|v| v.closed).map(|c| c.robustness);
        let pending = verdict.and_then(|v| v.pending).map(|p| (p.lo, p.hi));
        let (lo, hi) = pending.or(closed.map(|c| (c, c))).unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
        if let Some(closed) = closed.filter(|c| !c.is_nan()) {
            self.closed += 1;
            self.violated += u64::from(closed < 0.0);
            self.least = Some(self.least.map_or(closed, |least| least.min(closed)));
        }
        let entry =
            VerdictEntry { tick, monitor: index, step: verdict.map_or(0, |v| v.step), closed, lo, hi };
        (entry, self.judge(&entry, verdict.as_ref()))
    }

    fn judge(&mut self, entry: &VerdictEntry, verdict: Option<&Verdict<f64>>) -> Change {
        let tripped = self.tripped(entry);
        let unknown = verdict.is_none() || self.blind > 0 || entry.closed.is_some_and(f64::is_nan);
        let standing = match tripped {
            Some(_) => Standing::Tripped,
            None if unknown && self.spec.trip != Trip::Satisfied => Standing::Unknown,
            None => Standing::Quiet,
        };
        if standing == std::mem::replace(&mut self.standing, standing) {
            return Change::Same;
        }
        let level = match standing {
            Standing::Quiet => return Change::Cleared,
            Standing::Unknown => self.level.min(Level::Hold),
            Standing::Tripped => self.level,
        };
        self.trips += u64::from(standing == Standing::Tripped);
        let limit = if self.spec.trip == Trip::AtRisk { self.spec.margin } else { 0.0 };
        let (tick, reason, joint) = (entry.tick, Reason::Monitor, entry.monitor);
        let fault = Fault { tick, reason, joint, value: tripped.unwrap_or(f64::NAN), limit, level };
        if self.falls_back && tripped.is_some() { Change::FallBack(fault) } else { Change::Tripped(fault) }
    }

    /// The robustness, or bound of it, that trips this monitor.
    fn tripped(&self, &VerdictEntry { closed, lo, hi, .. }: &VerdictEntry) -> Option<f64> {
        let bounds = [closed, Some(hi), lo.is_finite().then_some(lo)].into_iter().flatten();
        match self.spec.trip {
            Trip::Violated => closed.filter(|c| *c <= 0.0).or((hi < 0.0).then_some(hi)),
            Trip::AtRisk => bounds.filter(|b| *b < self.spec.margin).reduce(f64::min),
            Trip::Satisfied => closed.filter(|c| *c > 0.0).or((lo > 0.0).then_some(lo)),
        }
    }
}

/// A monitor of `formula` with the parameters of `spec`.
fn watching(formula: &Formula, spec: &MonitorSpec) -> Result<Monitor<f64>, Error> {
    let options = MonitorOptions { at: At::Every, interval: true, ..MonitorOptions::default() };
    let mut monitor = Monitor::new(formula, &options)?;
    for (name, value) in &spec.params {
        monitor.set_param(formula.param(name)?, *value)?;
    }
    Ok(monitor)
}

/// Steps after a sample until the last instant that reads it closes; `None` for ever.
fn reach(formula: &Formula) -> Option<u32> {
    formula.horizon().zip(formula.history()).map(|(h, p)| h.saturating_add(p))
}

/// Where `name` stands among the signals.
fn place(name: &str, spec: &MonitorSpec, signals: &SignalTable) -> Result<usize, MonitorError> {
    if let Some(place) = signals.index(name) {
        return Ok(place);
    }
    let (property, signal) = (spec.name.clone(), name.to_owned());
    let object = name.strip_prefix("object.").and_then(|rest| rest.rsplit_once('.'));
    if let Some((object, _)) = object
        && !signals.objects().iter().any(|o| o == object)
    {
        let reported =
            if signals.objects().is_empty() { "none".to_owned() } else { signals.objects().join(", ") };
        return Err(MonitorError::ObjectNotReported { property, signal, reported });
    }
    let nearest =
        signals.names().iter().min_by_key(|known| distance(name, known)).cloned().unwrap_or_default();
    Err(MonitorError::UnknownSignal { property, signal, nearest, known: signals.names().join(", ") })
}

/// Edit distance: insertions, deletions and replacements that make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn edit_distances() {
        assert_eq!(["", "tilt", "tlit", "tool.z", "tilted"].map(|b| distance("tilt", b)), [4, 0, 2, 4, 2]);
    }
}
