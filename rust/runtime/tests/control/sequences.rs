//! Action sequences in the loop: late, lost, overtaking and missing answers, and what the motors are sent meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cadenza_runtime::action::{Flow, Seam};
use cadenza_runtime::control::{Ask, Controller, Planner, PolicyError, PolicySource, Request, replay};
use cadenza_runtime::device::Device;
use cadenza_runtime::log::{Log, Recorder};
use cadenza_runtime::safety::{Level, Reason};
use cadenza_runtime::state::Command;
use serde_json::json;

use crate::rig::{ARMED, HOLD, HOME, Parts, REST, Rig, STEP, faulty, manifest};
use Level::{Damp, Off, Run, SoftStop};

const HORIZON: usize = 8;
const WRIST: usize = 2;

/// Sequences of eight steps, asked for each `execute` of them.
fn parts(execute: usize) -> Parts {
    let manifest = manifest(|m| {
        m["chunk"] = json!({ "mode": "open", "horizon": HORIZON, "execute": execute, "on_exhausted": "hold",
                             "seam": "replace" });
        m["functions"]["step"]["outputs"] = json!({ "actions": "actions" });
    });
    Parts { manifest, ..Parts::default() }
}

/// Plans a slow ramp of the wrist: each row says what its own step wants, whenever it was planned.
#[derive(Default)]
struct Ramp {
    prefix: usize,
    asked: Arc<Mutex<Vec<(u64, bool, usize)>>>,
    /// Whether it repeats what was committed, truly or not; it does not look at it when absent.
    repeats: Option<bool>,
}

fn wanted(step: u64) -> f32 {
    HOME[0] + 0.002 * step as f32
}

impl PolicySource for Ramp {
    fn reset(&mut self) {}

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        let first = (ask.tick - ARMED) / STEP;
        self.asked.lock().unwrap().push((first, ask.begin, ask.committed.len() / 3));
        for (i, row) in (0..).zip(out.chunks_exact_mut(3)) {
            row.copy_from_slice(&[wanted(first + i), HOME[1], HOME[2]]);
        }
        if let Some(truly) = self.repeats {
            self.prefix = ask.committed.len() / 3;
            out[..ask.committed.len()].copy_from_slice(ask.committed);
            out[0] += if truly || self.prefix == 0 { 0.0 } else { 0.1 };
        }
        Ok(())
    }

    fn prefix(&self) -> usize {
        self.prefix
    }
}

fn delayed(execute: usize, latency: &str) -> Parts {
    let mut parts = parts(execute);
    parts.config.inject = Some(latency.parse().unwrap());
    parts
}

/// For every delay up to twice the horizon: the plan lasts for ever if it can cover the delay, and otherwise the robot stops,
/// at the latest with the third answer.
#[test]
fn a_delay_is_covered_or_stops_the_robot_exactly_where_the_rule_says() {
    let every = 3;
    for latency in 0..=2 * HORIZON as u64 * STEP {
        let mut rig = Rig::new(&delayed(3, &format!("const:{latency}ticks")), &[], &[], Ramp::default());
        let delay = latency / STEP;
        let covered = delay <= every && every + delay <= HORIZON as u64;
        let mut levels = Vec::new();
        for _ in 0..400 {
            let entry = rig.tick();
            let level = rig.controller.command().level;
            if levels.last().is_none_or(|(_, last)| *last != level) {
                levels.push((entry.tick, level));
            }
            if covered && entry.tick >= ARMED + latency {
                assert_eq!(entry.flow, Flow::Run, "latency {latency}, tick {}", entry.tick);
            }
        }
        assert_eq!(levels[..2], [(0, Off), (ARMED, Run)], "latency {latency}");
        let first = rig.controller.gate().first_fault().map(|f| f.reason);
        let third = ARMED + 2 * every * STEP + latency;
        match first {
            None => assert!(covered && levels.len() == 2, "latency {latency}: {levels:?}"),
            Some(Reason::HorizonTooShort) => {
                assert!(!covered && levels[2] == (third, SoftStop), "latency {latency}: {levels:?}");
            }
            // Longer delays leave gaps between the sequences that are longer than a robot may hold.
            Some(reason) => {
                assert_eq!((reason, covered), (Reason::PolicyExhausted, false), "latency {latency}");
                assert!(delay > 5 && levels[2].1 == SoftStop && levels[2].0 <= third, "{levels:?}");
            }
        }
    }
}

/// Whatever delays, losses and overtaking do to the answers: no step is played again, backwards or in another's place.
#[test]
fn no_command_repeats_or_goes_back_under_any_latency() {
    for latency in ["uniform:0ms..70ms", "pareto:8ms,1.1", "drop:0.4", "const:0ticks", "uniform:20ms..78ms"] {
        let mut parts = delayed(1, latency);
        parts.config.trigger = Some("every:3".parse().unwrap());
        let mut rig = Rig::new(&parts, &[], &[], Ramp::default());
        let (mut before, mut played) = (f64::NEG_INFINITY, 0);
        for _ in 0..3000 {
            let entry = rig.tick();
            let Command { q, level, .. } = *rig.controller.command();
            if level > Level::Hold {
                // Too slow for its sequences: it has stopped as it must.
                assert!(entry.tick > ARMED || level == Off);
                if level != Off {
                    break;
                }
                continue;
            }
            // An action is 2e-3 rad further than the one before it. Where a plan ends, the joint brakes by a part of
            // that beyond its last action and comes back.
            assert!(q[WRIST] > before - 5e-4, "{latency}, tick {}: {} after {before}", entry.tick, q[WRIST]);
            before = before.max(q[WRIST]);
            if entry.flow == Flow::Run {
                played += 1;
                // Linear between two steps, then at most the limiter's own lag behind it: 20 ms of a slow ramp.
                let step = (entry.tick - ARMED) as f64 / STEP as f64;
                let due = f64::from(HOME[0]) + 0.002 * step;
                assert!(q[WRIST] <= due + 1e-9 + 0.002, "{latency}, tick {}: ahead of its step", entry.tick);
            }
        }
        assert!(played > 100, "{latency}: {played}");
    }
}

#[test]
fn a_delayed_run_replays_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for (name, latency) in [("a", "uniform:0ms..35ms"), ("b", "drop:0.3")] {
        let parts = delayed(2, latency);
        let path = dir.path().join(name);
        let now = Arc::default();
        let device = faulty(&parts.robot(), &now, &[]);
        let mut rig = Rig::around(&parts, device, now, &[(700, Request::Stop)], Ramp::default());
        rig.log = Recorder::start(&path, parts.header());
        rig.levels(1000);
        let log = std::mem::replace(&mut rig.log, Recorder::off());
        log.finish(&Default::default());
        let log = Log::open(&path).unwrap();
        let report = replay(&log, None).unwrap();
        assert_eq!((report.compared, report.difference), (1000, None), "{latency}");
        let again: Box<dyn PolicySource> = Box::new(Ramp::default());
        assert_eq!(replay(&log, Some(again)).unwrap().difference, None, "{latency}, asked again");
    }
}

#[test]
fn committed_actions_are_handed_back_and_kept() {
    for obedient in [true, false] {
        // An answer that comes later than the forecast has nothing left to repeat; one that comes earlier has.
        let mut parts = delayed(3, if obedient { "const:15ticks" } else { "uniform:0ms..25ms" });
        parts.config.seam = Some(Seam::Prefix);
        let asked = Arc::default();
        let mut rig = Rig::new(
            &parts,
            &[],
            &[],
            Ramp { repeats: Some(obedient), asked: Arc::clone(&asked), ..Ramp::default() },
        );
        let mut before = f64::NEG_INFINITY;
        for _ in 0..1200 {
            rig.tick();
            let q = rig.controller.command().q[WRIST];
            if obedient && rig.controller.command().level == Run {
                assert!(q >= before - 1e-12);
                before = q;
            }
        }
        // The first five delays are cold; from then on one step is committed.
        let prefixes: Vec<usize> = asked.lock().unwrap().iter().map(|(_, _, rows)| *rows).collect();
        assert!(prefixes[..5].iter().all(|&n| n == 0) && prefixes.contains(&1), "{prefixes:?}");
        let mismatches = rig.controller.gate().count(Reason::PrefixMismatch);
        assert_eq!(mismatches > 0, !obedient, "{mismatches}");
        assert_eq!(rig.controller.gate().level(), Run);
    }
}

#[test]
fn a_sequence_decoded_step_by_step_is_begun_and_continued() {
    let manifest = manifest(|m| {
        m["chunk"] =
            json!({ "mode": "lazy", "horizon": 16, "execute": 4, "on_exhausted": "hold", "seam": "replace" });
    });
    let parts = Parts { manifest, ..Parts::default() };
    let asked = Arc::default();
    let mut rig = Rig::new(&parts, &[], &[], Ramp { asked: Arc::clone(&asked), ..Ramp::default() });
    assert_eq!(rig.levels(ARMED + 10 * STEP), [(0, Off), (ARMED, Run)]);
    let begun: Vec<(u64, bool)> =
        asked.lock().unwrap().iter().map(|&(step, begin, _)| (step, begin)).collect();
    let expected: Vec<(u64, bool)> = (0..10).map(|step| (step, step % 4 == 0)).collect();
    assert_eq!(begun, expected);
}

#[test]
fn a_plan_can_be_renewed_when_little_of_it_remains() {
    let mut parts = parts(8);
    parts.config.trigger = Some("remaining:2".parse().unwrap());
    let asked = Arc::default();
    let mut rig = Rig::new(&parts, &[], &[], Ramp { asked: Arc::clone(&asked), ..Ramp::default() });
    rig.levels(ARMED + 40 * STEP);
    let steps: Vec<u64> = asked.lock().unwrap().iter().map(|&(step, _, _)| step).collect();
    assert_eq!(steps, [0, 6, 12, 18, 24, 30, 36]);
}

/// Answers its first question and then never comes back.
struct Hangs(bool);

impl PolicySource for Hangs {
    fn reset(&mut self) {}

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        if ask.tick >= ARMED && std::mem::replace(&mut self.0, true) {
            std::thread::sleep(Duration::from_secs(3600));
        }
        out.chunks_exact_mut(3).for_each(|row| row.copy_from_slice(&HOME));
        Ok(())
    }
}

/// On a thread of its own the policy's silence costs the loop nothing: it plays its plan, holds from the very tick at which
/// the plan ends, and stops when the hold time is over.
#[test]
fn a_policy_that_hangs_on_its_own_thread_is_held_and_then_stopped() {
    let parts = parts(4);
    let (robot, now) = (parts.robot(), Arc::default());
    let device = faulty(&robot, &now, &[]);
    let planner = Planner::threaded(Box::new(Hangs(false)), 0.08);
    let controller =
        Controller::new(&parts.manifest, None, &robot, device.info(), planner, &parts.config).unwrap();
    let mut rig = Rig::around(&parts, device, now, &[], Ramp::default());
    rig.controller = controller;
    let ends = ARMED + HORIZON as u64 * STEP;
    let mut seen = Vec::new();
    for _ in 0..ends + HOLD + REST + 60 {
        let entry = rig.tick();
        seen.push((entry.flow, rig.controller.command().level));
        // The policy's thread lives in real time: give it a chance to answer before the next tick.
        if entry.tick < ends {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let at = |tick: u64| seen[tick as usize];
    assert_eq!(at(ends - 1), (Flow::Run, Run), "the plan lasts");
    assert_eq!(at(ends), (Flow::Hold, Run));
    assert_eq!(at(ends + HOLD - 1), (Flow::Hold, Run));
    assert_eq!(at(ends + HOLD).1, SoftStop);
    assert_eq!(seen.last().unwrap().1, Damp);
    assert_eq!(rig.controller.gate().first_fault().unwrap().reason, Reason::PolicyExhausted);
}

/// Before anything is known of a policy that runs elsewhere, its first answer has a second.
#[test]
fn the_first_answer_may_take_a_second_and_no_longer() {
    let mut rig = Rig::new(&delayed(8, "drop:1"), &[], &[], Ramp::default());
    let stops = ARMED + 500 + HOLD;
    assert_eq!(rig.levels(stops + 10), [(0, Off), (ARMED, Run), (stops, SoftStop)]);
    assert_eq!(rig.controller.gate().first_fault().unwrap().reason, Reason::PolicyExhausted);
}
