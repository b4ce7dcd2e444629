//! Time for the monitors. Those that take too long together are stepped more rarely, each 2nd, 4th … of their own steps:
//! decided before the run, from what their steps take then, and told in the log, the report and an event for each.
//!
//! A monitor that is slowed watches the same times, its bounds are divided by what it was slowed by. What happens between
//! two of its steps it does not see. Slowed monitors begin at different ticks, so that they do not meet.

use std::time::Instant;

use super::monitors::{MonitorError, Monitors, Watch};
use super::signals::Signals;
use super::{Fault, Level, Reason};
use crate::log::header::MonitorHeader;

/// Most of its own steps to one that a slowed monitor takes.
const SLOWEST: u32 = 16;
/// Steps that are timed, and which part of them is not slower than what counts as a step's time: a machine that does
/// something else now and then must not slow a monitor.
const TIMED: usize = 200;
const COUNTED: f64 = 0.95;
/// Most steps before those: a window that is full takes longer than an empty one.
const FILLED: u32 = 10_000;

impl Monitors {
    /// Slows the monitors that take longest, until all together take at most `budget_us` of a control tick on the average.
    ///
    /// # Errors
    /// [`MonitorError::Budget`] when their formulas do not allow it.
    pub fn keep_within(&mut self, budget_us: f64) -> Result<(), MonitorError> {
        let costs: Vec<f64> = self.watches.iter_mut().map(cost).collect();
        self.share(&costs, budget_us)
    }

    /// The same for steps that take `costs`, µs.
    fn share(&mut self, costs: &[f64], budget_us: f64) -> Result<(), MonitorError> {
        let mut fixed = vec![false; costs.len()];
        loop {
            let shares: Vec<f64> =
                costs.iter().zip(&self.watches).map(|(cost, watch)| cost / watch.every as f64).collect();
            let need = shares.iter().sum();
            if need <= budget_us {
                self.stagger();
                return Ok(());
            }
            let open = (0..costs.len()).filter(|&i| !fixed[i]);
            let Some(most) = open.max_by(|&a, &b| shares[a].total_cmp(&shares[b]).then(b.cmp(&a))) else {
                return Err(MonitorError::Budget { need, budget: budget_us });
            };
            let watch = &mut self.watches[most];
            let slower = 2 * watch.slowed;
            fixed[most] = slower > SLOWEST || watch.slow_down(slower).is_err();
        }
    }

    /// Steps each monitor at the period that a log says, so that a replay decides as the run did. Monitors that the log does
    /// not know keep their own.
    ///
    /// # Errors
    /// A formula that cannot be stepped so rarely.
    pub fn follow(&mut self, recorded: &[MonitorHeader]) -> Result<(), MonitorError> {
        for watch in &mut self.watches {
            let Some(header) = recorded.iter().find(|header| header.name == watch.name) else { continue };
            let slowed = (header.dt / watch.own_dt()).round() as u32;
            if slowed > 1 {
                watch.slow_down(slowed)?;
            }
        }
        self.stagger();
        Ok(())
    }

    /// What an event says of each monitor that was slowed: its period, and its own one.
    pub fn slowed(&self, tick: u64) -> impl Iterator<Item = Fault> {
        let slowed = (0..).zip(&self.watches).filter(|(_, watch)| watch.slowed > 1);
        slowed.map(move |(joint, watch)| Fault {
            tick,
            reason: Reason::MonitorSlowed,
            joint,
            value: watch.dt(),
            limit: watch.own_dt(),
            level: Level::Run,
        })
    }

    /// The ticks at which slowed monitors begin follow from their number alone, as a replay must find them again.
    fn stagger(&mut self) {
        for (rank, watch) in (0..).zip(self.watches.iter_mut().filter(|watch| watch.slowed > 1)) {
            watch.offset = rank % watch.every;
        }
    }
}

/// What a step of this monitor takes, µs.
fn cost(watch: &mut Watch) -> f64 {
    let mut values = Signals(vec![0.0; watch.places().iter().max().map_or(0, |last| last + 1)]);
    let filled = u64::from(watch.reach.unwrap_or(FILLED).min(FILLED));
    let mut times: Vec<f64> = (0..filled + TIMED as u64)
        .map(|step| {
            // Rises and falls, so that windows keep more than their newest sample.
            values.0.fill((0.37 * step as f64).sin());
            let begin = Instant::now();
            std::hint::black_box(watch.step(step, 0, &values));
            1e6 * begin.elapsed().as_secs_f64()
        })
        .skip(filled as usize)
        .collect();
    watch.forget();
    times.sort_by(f64::total_cmp);
    times[(COUNTED * (TIMED - 1) as f64).round() as usize]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cadenza_policy::manifest::{MonitorAction, MonitorSpec, Trip};

    use super::*;
    use crate::robot::Robot;
    use crate::safety::SignalTable;

    const DT: f64 = 0.002;
    const ROBOT: &str = r#"schema = 1
name = "one"
[device]
kind = "null"
[rates]
control_hz = 500
[[joint]]
name = "j"
motor = { id = 1 }
limits = { position = [-1.0, 1.0], velocity = 3.0, acceleration = 30.0, effort = 10.0 }
gains = { kp_max = 100.0, kd_max = 5.0, kd_damp = 1.0 }
home = 0.0
"#;

    /// Monitors of these formulas, `m0`, `m1` …, each with its period in control ticks.
    fn watching(formulas: &[(&str, f64)]) -> Monitors {
        let robot = Robot::parse(ROBOT, "robot.toml".as_ref()).unwrap();
        let table = SignalTable::new(&robot, &[], &[], &[]).unwrap();
        let text: String = (0..).zip(formulas).map(|(i, (f, _))| format!("spec m{i}: {f};\n")).collect();
        let spec = |(i, (_, ticks)): (usize, &(&str, f64))| MonitorSpec {
            name: format!("m{i}"),
            dt: ticks * DT,
            trip: Trip::Violated,
            action: MonitorAction::SoftStop,
            margin: 0.0,
            params: BTreeMap::new(),
        };
        let specs: Vec<_> = formulas.iter().enumerate().map(spec).collect();
        Monitors::new(Some(&text), &specs, &[], &table, DT).unwrap()
    }

    fn slowed(monitors: &Monitors) -> Vec<u32> {
        monitors.watches.iter().map(|watch| watch.slowed).collect()
    }

    const FORMULAS: [(&str, f64); 4] = [
        ("G[0,320ms] q.j < 0.5", 1.0),
        ("F[0,64ms] q.j > 0", 1.0),
        ("G[0,60ms] q.j < 1", 2.0),
        ("X q.j > 0", 1.0),
    ];

    #[test]
    fn the_costliest_are_slowed_as_far_as_their_formulas_allow() {
        let mut monitors = watching(&FORMULAS);
        let costs = [8.0, 4.0, 4.0, 1.0];
        // 8 + 4 + 4/2 + 1 = 15 µs in a tick.
        monitors.share(&costs, 15.0).unwrap();
        assert_eq!(slowed(&monitors), [1, 1, 1, 1]);
        monitors.share(&costs, 11.0).unwrap();
        assert_eq!(slowed(&monitors), [2, 1, 1, 1]);
        // Of equals the first one goes first: 4/2 + 4/2 + 4/2 + 1 takes 9 → 8/4 + 4/2 + 4/2 + 1 = 7.
        monitors.share(&costs, 7.0).unwrap();
        assert_eq!(slowed(&monitors), [4, 2, 1, 1]);
        // 60 ms are 15 steps of 4 ms: no whole number of twice those. `X` looks one step ahead.
        let error = monitors.share(&costs, 3.5).unwrap_err();
        assert!(
            matches!(error, MonitorError::Budget { need, budget } if need == 3.75 && budget == 3.5),
            "{error}"
        );
        assert_eq!(slowed(&monitors), [16, 16, 1, 1]);
        let told: Vec<_> = monitors.slowed(7).map(|f| (f.tick, f.joint, f.value, f.limit, f.level)).collect();
        assert_eq!(told, [(7, 0, 16.0 * DT, DT, Level::Run), (7, 1, 16.0 * DT, DT, Level::Run)]);
    }

    #[test]
    fn slowed_monitors_watch_the_same_times_and_do_not_meet() {
        let mut monitors = watching(&FORMULAS[..2]);
        monitors.share(&[8.0, 8.0], 4.0).unwrap();
        assert_eq!(slowed(&monitors), [4, 4]);
        let texts: Vec<_> = monitors.headers().into_iter().map(|h| (h.dt, h.formula)).collect();
        let expected = [(0.008, "G[0,40] q.j < 0.5"), (0.008, "F[0,8] q.j > 0")];
        assert_eq!(texts, expected.map(|(dt, text)| (dt, text.to_owned())));
        let mut steps = Vec::new();
        let values = Signals(vec![0.0; 16]);
        for tick in 100..140 {
            monitors.step(tick, &values, |verdict, _| steps.push((verdict.monitor, tick)));
        }
        let ticks = |i| steps.iter().filter(|(m, _)| *m == i).map(|(_, tick)| *tick).collect::<Vec<_>>();
        assert_eq!(ticks(0), (100..140).step_by(4).collect::<Vec<_>>());
        assert_eq!(ticks(1), (101..140).step_by(4).collect::<Vec<_>>());
        // 64 ms and not a step more: the first instant closes with the ninth step.
        let closed = |m: &Monitors| m.reports().iter().map(|r| r.closed).collect::<Vec<_>>();
        assert_eq!(closed(&monitors), [0, 2]);

        // What a log says makes the same ones.
        let mut again = watching(&FORMULAS[..2]);
        again.follow(&monitors.headers()).unwrap();
        assert_eq!(slowed(&again), [4, 4]);
        assert_eq!(again.headers(), monitors.headers());
        let mut seen = Vec::new();
        for tick in 100..140 {
            again.step(tick, &values, |verdict, _| seen.push((verdict.monitor, tick)));
        }
        assert_eq!(seen, steps);
        // A log of other formulas, or of none.
        let mut other = watching(&[("G[0,60ms] q.j < 1", 2.0)]);
        other.follow(&[]).unwrap();
        assert_eq!(slowed(&other), [1]);
        let header = MonitorHeader { name: "m0".into(), dt: 0.008, formula: String::new() };
        assert!(matches!(other.follow(&[header]), Err(MonitorError::Stl { .. })));
    }

    #[test]
    fn measuring_leaves_nothing_behind() {
        let mut monitors = watching(&FORMULAS);
        monitors.keep_within(1e9).unwrap();
        assert_eq!(slowed(&monitors), [1, 1, 1, 1]);
        assert!(
            monitors.reports().iter().all(|r| (r.closed, r.violated, r.trips, r.least) == (0, 0, 0, None))
        );
        let error = monitors.keep_within(1e-6).unwrap_err().to_string();
        assert!(error.contains("monitor_budget_us = 0.000001"), "{error}");
    }
}
