//! Curves of a run, thinned while they are read.

use crate::action::Flow;
use crate::log::entry::VerdictEntry;
use crate::log::header::MonitorHeader;
use crate::log::read::Logged;
use crate::log::{Log, LogError};
use crate::safety::{Fault, Level};
use crate::timing::clock::period_ns;
use crate::timing::stats::Stats;
use crate::timing::summary::{Environment, StatsSummary};

/// A curve: seconds, value.
pub(super) type Curve = Vec<(f64, f64)>;

/// Largest value that is drawn.
const LARGEST: f64 = 1e12;

/// Keeps the smallest and the largest value of each of a fixed number of columns.
#[derive(Clone, Debug)]
pub(super) struct Thin {
    end: f64,
    columns: Vec<Option<Column>>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    min: (f64, f64),
    max: (f64, f64),
}

impl Thin {
    pub(super) fn new(end: f64, columns: usize) -> Self {
        Self { end: end.max(f64::MIN_POSITIVE), columns: vec![None; columns.max(1)] }
    }

    /// Takes a point; what is not finite, or too large for any axis, is left out.
    pub(super) fn add(&mut self, t: f64, value: f64) {
        if !value.is_finite() || value.abs() > LARGEST {
            return;
        }
        let last = self.columns.len() - 1;
        let column = &mut self.columns[((t / self.end * last as f64) as usize).min(last)];
        let old = column.unwrap_or(Column { min: (t, value), max: (t, value) });
        *column = Some(Column {
            min: if value < old.min.1 { (t, value) } else { old.min },
            max: if value > old.max.1 { (t, value) } else { old.max },
        });
    }

    pub(super) fn curve(&self) -> Curve {
        let mut curve = Curve::new();
        for column in self.columns.iter().flatten() {
            let (first, second) = if column.min.0 <= column.max.0 {
                (column.min, column.max)
            } else {
                (column.max, column.min)
            };
            curve.push(first);
            if second != first {
                curve.push(second);
            }
        }
        curve
    }
}

/// Curves of one joint.
#[derive(Clone, Debug)]
pub(super) struct JointCurves {
    pub(super) q: Curve,
    pub(super) q_command: Curve,
    pub(super) dq: Curve,
    pub(super) dq_command: Curve,
}

/// Curves of one monitor, for as long as its bundle had the robot.
#[derive(Clone, Debug)]
pub(super) struct MonitorCurves {
    pub(super) header: MonitorHeader,
    /// Name of the bundle and when it took over, s, where there was more than one.
    pub(super) bundle: Option<(String, f64)>,
    pub(super) closed: Curve,
    pub(super) lo: Curve,
    pub(super) hi: Curve,
    /// Smallest robustness that was final.
    pub(super) worst: Option<f64>,
}

/// A stretch of time at one level, or with one flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch<T> {
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) what: T,
}

/// Everything that the page shows.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Length in s.
    pub(super) seconds: f64,
    pub(super) joints: Vec<JointCurves>,
    pub(super) monitors: Vec<MonitorCurves>,
    pub(super) levels: Vec<Stretch<Level>>,
    pub(super) flows: Vec<Stretch<Flow>>,
    pub(super) events: Vec<(f64, Fault)>,
    /// From the log, or counted again from its ticks when the run was killed.
    pub(super) stats: StatsSummary,
}

impl Run {
    /// Reads a log; curves get `columns` columns.
    pub(super) fn read(log: &Log, columns: usize) -> Result<Self, LogError> {
        let (start, end) = log.span().unwrap_or((0, 0));
        let seconds = (end - start) as f64 / 1e9;
        let at = |log_ns: u64| (log_ns - start) as f64 / 1e9;
        let thin = || Thin::new(seconds, columns);

        let n = log.header().joints.len();
        let mut measured = vec![[thin(), thin()]; n];
        for state in log.states() {
            let state = state?;
            for (joint, [q, dq]) in measured.iter_mut().enumerate().take(state.value.joints()) {
                q.add(at(state.log_ns), state.value.q[joint]);
                dq.add(at(state.log_ns), state.value.dq[joint]);
            }
        }
        let mut commanded = vec![[thin(), thin()]; n];
        for command in log.commands() {
            let command = command?;
            for (joint, [q, dq]) in commanded.iter_mut().enumerate().take(command.value.joints()) {
                // Without stiffness the target position means nothing.
                if command.value.kp[joint] > 0.0 {
                    q.add(at(command.log_ns), command.value.q[joint]);
                    dq.add(at(command.log_ns), command.value.dq[joint]);
                }
            }
        }
        let joints = measured.iter().zip(&commanded).map(|([q, dq], [q_command, dq_command])| JointCurves {
            q: q.curve(),
            q_command: q_command.curve(),
            dq: dq.curve(),
            dq_command: dq_command.curve(),
        });

        let mut levels = Vec::new();
        let mut flows = Vec::new();
        let mut counted = Stats::new(period_ns(log.header().control_hz).max(1));
        for tick in log.ticks() {
            let tick = tick?;
            extend(&mut levels, at(tick.log_ns), tick.value.level);
            extend(&mut flows, at(tick.log_ns), tick.value.flow);
            counted.add(&tick.value);
        }
        let counted = || counted.summary(Environment::without_load(log.header().rt.clone()));
        let events: Result<Vec<_>, _> = log.events().map(|e| e.map(|e| (at(e.log_ns), e.value))).collect();
        Ok(Self {
            seconds,
            joints: joints.collect(),
            monitors: monitors(log, at, thin)?,
            levels,
            flows,
            events: events?,
            stats: log.stats().cloned().unwrap_or_else(counted),
        })
    }
}

/// The curves of each bundle's monitors, in the order in which the bundles had the robot.
fn monitors(
    log: &Log,
    at: impl Fn(u64) -> f64,
    thin: impl Fn() -> Thin,
) -> Result<Vec<MonitorCurves>, LogError> {
    let all = log.watched()?;
    let mut curves = Vec::new();
    let mut verdicts = log.verdicts().peekable();
    for watched in &all {
        // Room for curves only where there is something to draw.
        let mut thins: Vec<Option<[Thin; 3]>> = vec![None; watched.monitors.len()];
        let mut worst = vec![None::<f64>; watched.monitors.len()];
        let mut begin = None;
        let its =
            |v: &Result<Logged<VerdictEntry>, _>| v.as_ref().map_or(true, |v| watched.holds(v.value.tick));
        while let Some(verdict) = verdicts.next_if(its) {
            let verdict = verdict?;
            let (t, v) = (at(verdict.log_ns), verdict.value);
            begin = begin.or(Some(t));
            let place = usize::from(v.monitor);
            // A monitor that the log does not name has no chart.
            let (Some(room), Some(worst)) = (thins.get_mut(place), worst.get_mut(place)) else { continue };
            let [closed, lo, hi] = room.get_or_insert_with(|| [thin(), thin(), thin()]);
            lo.add(t, v.lo);
            hi.add(t, v.hi);
            if let Some(rho) = v.closed {
                closed.add(t, rho);
                *worst = Some(worst.map_or(rho, |w| w.min(rho)));
            }
        }
        let bundle = (all.len() > 1).then(|| (watched.bundle.clone(), begin.unwrap_or(0.0)));
        for ((thins, worst), header) in thins.iter().zip(worst).zip(&watched.monitors) {
            let curve = |i: usize| thins.as_ref().map_or_else(Curve::new, |thins| thins[i].curve());
            let (header, bundle) = (header.clone(), bundle.clone());
            curves.push(MonitorCurves {
                header,
                bundle,
                closed: curve(0),
                lo: curve(1),
                hi: curve(2),
                worst,
            });
        }
    }
    Ok(curves)
}

/// Lengthens the last stretch, or starts a new one.
fn extend<T: Copy + PartialEq>(stretches: &mut Vec<Stretch<T>>, t: f64, what: T) {
    if let Some(last) = stretches.last_mut() {
        last.to = t;
        if last.what == what {
            return;
        }
    }
    stretches.push(Stretch { from: t, to: t, what });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn thinning_keeps_the_extremes(values in prop::collection::vec(-1e6f64..1e6, 1..2000), columns in 1usize..50) {
            let mut thin = Thin::new(values.len() as f64 - 1.0, columns);
            for (t, &value) in values.iter().enumerate() {
                thin.add(t as f64, value);
            }
            let curve = thin.curve();
            prop_assert!(curve.len() <= 2 * columns);
            prop_assert!(curve.windows(2).all(|w| w[0].0 < w[1].0));
            prop_assert!(curve.iter().all(|&(t, value)| values[t as usize] == value));
            let max = |v: &mut dyn Iterator<Item = f64>| v.fold(f64::MIN, f64::max);
            prop_assert_eq!(max(&mut curve.iter().map(|p| p.1)), max(&mut values.iter().copied()));
            prop_assert_eq!(max(&mut curve.iter().map(|p| -p.1)), max(&mut values.iter().map(|v| -v)));
        }
    }

    #[test]
    fn stretches() {
        let mut levels = Vec::new();
        for (t, level) in [(0.0, Level::Run), (1.0, Level::Run), (2.0, Level::Damp), (3.0, Level::Damp)] {
            extend(&mut levels, t, level);
        }
        let expected = [(0.0, 2.0, Level::Run), (2.0, 3.0, Level::Damp)].map(|(from, to, what)| Stretch {
            from,
            to,
            what,
        });
        assert_eq!(levels, expected);
    }

    #[test]
    fn points_that_are_not_finite_are_left_out() {
        let mut thin = Thin::new(1.0, 4);
        thin.add(0.0, f64::NAN);
        thin.add(0.5, f64::INFINITY);
        thin.add(0.5, f64::MIN);
        assert!(thin.curve().is_empty());
    }
}
