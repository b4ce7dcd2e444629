//! Monitors in the loop: names, trips, unknown verdicts, periods, and every refusal at load.

mod safety_support;

use std::collections::BTreeMap;

use cadenza_policy::manifest::{CommandSlot, MonitorAction, MonitorSpec, Trip};
use cadenza_runtime::log::entry::VerdictEntry;
use cadenza_runtime::robot::RobotMonitor;
use cadenza_runtime::safety::monitors::Change;
use cadenza_runtime::safety::signals::{Inputs, SignalError};
use cadenza_runtime::safety::{Fault, Level, MonitorError, Monitors, Reason, SignalTable, Signals};
use cadenza_runtime::state::{Command, State};
use proptest::prelude::*;
use safety_support::*;

fn table() -> SignalTable {
    let slot = |name: &str| CommandSlot { name: name.into(), range: [-1.0, 1.0], default: 0.0 };
    SignalTable::new(&robot(2), &[slot("goal_x"), slot("goal_z")], &["tool".into()], &["cube".into()])
        .unwrap()
}

fn spec(name: &str, trip: Trip, action: MonitorAction) -> MonitorSpec {
    MonitorSpec { name: name.into(), dt: DT, trip, action, margin: 0.05, params: BTreeMap::new() }
}

fn monitors(text: &str, specs: &[MonitorSpec]) -> Result<Monitors, MonitorError> {
    Monitors::new(Some(text), specs, &[], &table(), DT)
}

fn refusal(text: &str, specs: &[MonitorSpec]) -> String {
    monitors(text, specs).err().expect("a refusal").to_string()
}

/// Feeds the height of the tool, one value a tick, and gives what each step said.
fn feed(monitors: &mut Monitors, heights: impl IntoIterator<Item = f64>) -> Vec<(VerdictEntry, Change)> {
    let (table, mut seen) = (table(), Vec::new());
    let mut signals = table.signals();
    let (state, sent) = (State::new(2), Command::off(2));
    for (tick, z) in heights.into_iter().enumerate() {
        let frames = &[[0.0, 0.0, z]];
        let inputs =
            Inputs { state: &state, sent: &sent, frames, age_ns: 0, level: Level::Run, exhausted: false };
        table.fill(&inputs, &mut signals);
        monitors.step(tick as u64, &signals, |entry, change| seen.push((*entry, change)));
    }
    seen
}

fn changes(seen: &[(VerdictEntry, Change)]) -> Vec<(u64, Change)> {
    seen.iter().filter(|(_, c)| *c != Change::Same).map(|(e, c)| (e.tick, *c)).collect()
}

fn tripped(tick: u64, value: f64, limit: f64, level: Level) -> (u64, Change) {
    (tick, Change::Tripped(Fault { tick, reason: Reason::Monitor, joint: 0, value, limit, level }))
}

#[test]
fn every_name_reads_its_number() {
    let table = table();
    let mut state = State::new(2);
    (state.q, state.dq, state.tau) = ([0.0; 64], [0.0; 64], [0.0; 64]);
    (state.q[1], state.dq[1], state.tau[1]) = (0.25, -2.0, 3.0);
    state.imu.valid = true;
    // 0.1 rad of pitch, then 0.2 of roll about the turned x axis.
    let ((sp, cp), (sr, cr)) = (0.05f64.sin_cos(), 0.1f64.sin_cos());
    state.imu.quat = [cp * cr, cp * sr, sp * cr, -sp * sr];
    state.imu.quat = state.imu.quat.map(|x| 3.0 * x);
    (state.imu.gyro, state.imu.acc) = ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]);
    (state.user[0], state.user[1]) = (0.5, 0.75);
    state.objects[0].pos = [7.0, 8.0, 9.0];
    let mut sent = Command::off(2);
    sent.q[1] = 1.0;
    let mut signals = table.signals();
    let frames = &[[0.1, 0.2, 0.3]];
    let mut read = |state: &State, name: &str| {
        let (age_ns, level) = (3_000_000, Level::SoftStop);
        let inputs = Inputs { state, sent: &sent, frames, age_ns, level, exhausted: true };
        table.fill(&inputs, &mut signals);
        signals.values()[table.index(name).unwrap_or_else(|| panic!("{name}"))]
    };
    let exact = [
        ("q.j1", 0.25),
        ("dq.j1", -2.0),
        ("tau.j1", 3.0),
        ("cmd.j1", 1.0),
        ("err.j1", 0.75),
        ("user.goal_x", 0.5),
        ("user.goal_z", 0.75),
        ("tool.x", 0.1),
        ("tool.y", 0.2),
        ("tool.z", 0.3),
        ("gyro.y", 2.0),
        ("acc.z", 6.0),
        ("age", 0.003),
        ("level", 2.0),
        ("exhausted", 1.0),
    ];
    for (name, value) in exact {
        assert_eq!(read(&state, name), value, "{name}");
    }
    for (name, value) in [("pitch", 0.1), ("roll", 0.2), ("tilt", (0.1f64.cos() * 0.2f64.cos()).acos())] {
        assert!((read(&state, name) - value).abs() < 1e-12, "{name}: {}", read(&state, name));
    }
    // What the device does not report is not a number.
    assert!(read(&state, "base.z").is_nan() && read(&state, "object.cube.y").is_nan());
    (state.objects[0].valid, state.base.valid, state.base.pos[2]) = (true, true, 0.7);
    assert_eq!((read(&state, "base.z"), read(&state, "object.cube.y")), (0.7, 8.0));
    state.imu.valid = false;
    for name in ["tilt", "roll", "pitch", "gyro.x", "acc.x"] {
        assert!(read(&state, name).is_nan(), "{name}");
    }
}

#[test]
fn two_signals_of_one_name_are_refused() {
    let clash = SignalTable::new(&robot(1), &[], &["base".into()], &[]).unwrap_err();
    assert_eq!(clash, SignalError::Duplicate { name: "base.x".into() });
    let objects: Vec<String> = (0..17).map(|i| format!("o{i}")).collect();
    let many = SignalTable::new(&robot(1), &[], &[], &objects).unwrap_err();
    assert_eq!(many, SignalError::TooMany { what: "objects", count: 17, max: 16 });
    let mut blind = robot(1);
    blind.imu = None;
    assert_eq!(SignalTable::new(&blind, &[], &[], &[]).unwrap().index("tilt"), None);
}

#[test]
fn a_fence_trips_at_the_sample_that_breaks_it_and_clears_when_the_window_has_passed() {
    let fence = spec("fence", Trip::Violated, MonitorAction::SoftStop);
    let mut m = monitors("spec fence: G[0,5] (tool.z > 0.02);", &[fence]).unwrap();
    let mut heights = vec![0.5; 30];
    heights[10] = 0.01;
    let seen = feed(&mut m, heights);
    assert_eq!(
        changes(&seen),
        [tripped(10, 0.01 - 0.02, 0.0, Level::SoftStop), (16, Change::Cleared)],
        "in the window of the oldest pending instant from 10 to 15; instant 10 itself closes at 15"
    );
    // Delayed verdicts: instant 0 closes at step 5.
    assert_eq!(seen[4].0.closed, None);
    assert_eq!((seen[5].0.closed, seen[5].0.step), (Some(0.48), 5));
    assert_eq!(seen[0].0.lo, f64::NEG_INFINITY);
}

#[test]
fn at_risk_compares_with_the_margin() {
    let at_risk = |text: &str, heights: &[f64]| {
        let mut m = monitors(text, &[spec("s", Trip::AtRisk, MonitorAction::Hold)]).unwrap();
        changes(&feed(&mut m, heights.iter().copied()))
    };
    let heights = [0.5, 0.5, 0.06, 0.5, 0.5, 0.5, 0.5, 0.5];
    // A past window closes at once.
    let past = at_risk("spec s: H[0,2] (tool.z > 0.02);", &heights);
    assert_eq!(past, [tripped(2, 0.06 - 0.02, 0.05, Level::Hold), (5, Change::Cleared)]);
    // A future window is at risk from the sample on that puts its upper bound below the margin, and not before.
    let future = at_risk("spec s: G[0,2] (tool.z > 0.02);", &heights);
    assert_eq!(future, [tripped(2, 0.06 - 0.02, 0.05, Level::Hold), (5, Change::Cleared)]);
    assert_eq!(at_risk("spec s: G[0,2] (tool.z > 0.02);", &[0.5; 8]), []);
}

#[test]
fn a_goal_is_reported_when_it_is_reached() {
    let goal = spec("goal", Trip::Satisfied, MonitorAction::Log);
    let text = "spec goal: F[0,20] (abs(tool.z - user.goal_z) < 0.03);";
    let mut m = monitors(text, &[goal]).unwrap();
    let seen = feed(&mut m, (0..30).map(|i| 0.3 - 0.0625 * f64::from(i)));
    assert_eq!(changes(&seen)[0].0, 5);
    let Change::Tripped(fault) = changes(&seen)[0].1 else { panic!() };
    assert_eq!(fault.level, Level::Run);
    assert!((fault.value - (0.03 - 0.0125)).abs() < 1e-12);
    // A goal that cannot be judged is not reached, and nothing is held for it.
    m.reset();
    assert_eq!(changes(&feed(&mut m, [f64::NAN; 3])), []);
}

#[test]
fn what_cannot_be_judged_holds_until_it_can() {
    let fence = spec("fence", Trip::Violated, MonitorAction::SoftStop);
    let mut m = monitors("spec fence: G[0,3] (tool.z > 0.02);", &[fence]).unwrap();
    let mut heights = vec![0.5; 20];
    heights[6] = f64::NAN;
    let all = changes(&feed(&mut m, heights.clone()));
    assert_eq!(all.len(), 2);
    let (6, Change::Tripped(Fault { value, level: Level::Hold, .. })) = all[0] else { panic!("{all:?}") };
    assert!(value.is_nan());
    // Verdicts that read sample 6 close until 9; the first whose pending instant does not read it is that of step 10.
    assert_eq!(all[1], (10, Change::Cleared));
    // A violation beside it is seen as soon as a verdict that does not read the NaN shows it.
    m.reset();
    heights[8] = 0.0;
    let all = changes(&feed(&mut m, heights));
    assert_eq!(all[1], tripped(9, -0.02, 0.0, Level::SoftStop));
    // Only to be logged: nothing is held either.
    let log = spec("fence", Trip::Violated, MonitorAction::Log);
    let mut m = monitors("spec fence: G[0,3] (tool.z > 0.02);", &[log]).unwrap();
    let all = changes(&feed(&mut m, [f64::NAN]));
    assert!(matches!(all[0].1, Change::Tripped(Fault { level: Level::Run, .. })));
    // What calls the fallback holds while it cannot be judged, and calls when it trips.
    let call = spec("fence", Trip::Violated, MonitorAction::FallbackPolicy);
    let mut m = monitors("spec fence: tool.z > 0.02;", &[call]).unwrap();
    let all = changes(&feed(&mut m, [f64::NAN, 0.0]));
    assert!(matches!(all[0].1, Change::Tripped(Fault { level: Level::Hold, .. })));
    assert!(matches!(all[1].1, Change::FallBack(Fault { level: Level::SoftStop, .. })));
    // Below an unbounded past operator it stays unknown until the reset.
    let past = spec("p", Trip::Violated, MonitorAction::Hold);
    let mut m = monitors("spec p: H (tool.z > 0.02);", &[past]).unwrap();
    let mut heights = vec![0.5; 50];
    heights[1] = f64::NAN;
    assert_eq!(changes(&feed(&mut m, heights)).len(), 1);
    m.reset();
    assert_eq!(changes(&feed(&mut m, [0.5; 10])), []);
    // A predicate that is not a number for finite signals.
    let root = spec("r", Trip::Violated, MonitorAction::Damp);
    let mut m = monitors("spec r: sqrt(tool.z) < 1;", &[root]).unwrap();
    let all = changes(&feed(&mut m, [0.25, -0.25, 0.25]));
    assert!(matches!(
        all[..],
        [(1, Change::Tripped(Fault { level: Level::Hold, .. })), (2, Change::Cleared)]
    ));
}

#[test]
fn a_robustness_of_zero_protects() {
    let edge = spec("s", Trip::Violated, MonitorAction::Damp);
    let mut m = monitors("spec s: tool.z > 0.5;", &[edge]).unwrap();
    assert_eq!(changes(&feed(&mut m, [0.5])), [tripped(0, 0.0, 0.0, Level::Damp)]);
}

#[test]
fn each_property_has_its_own_period_and_names_keep_their_order() {
    // 6 ms is no whole number of 4 ms steps: each property is read with its own.
    let text = "let high = tool.z > 0.02;\nspec slow: G[0,8ms] high;\nspec fast: G[0,6ms] high;";
    let mut slow = spec("slow", Trip::Violated, MonitorAction::Log);
    slow.dt = 2.0 * DT;
    let fast = spec("fast", Trip::Violated, MonitorAction::Log);
    let own = RobotMonitor {
        spec: MonitorSpec { dt: 0.01, ..spec("own", Trip::Violated, MonitorAction::Log) },
        formula: "q.j0 < 1".into(),
    };
    let mut m = Monitors::new(Some(text), &[slow, fast], &[own], &table(), DT).unwrap();
    assert_eq!(m.names().collect::<Vec<_>>(), ["slow", "fast", "own"]);
    let seen = feed(&mut m, [0.5; 10]);
    let ticks = |i: u16| seen.iter().filter(|(e, _)| e.monitor == i).map(|(e, _)| e.tick).collect::<Vec<_>>();
    assert_eq!(ticks(0), [0, 2, 4, 6, 8]);
    assert_eq!(ticks(1), (0..10).collect::<Vec<_>>());
    assert_eq!(ticks(2), [0, 5]);
    let closed = |i: u16| seen.iter().find(|(e, _)| e.monitor == i && e.closed.is_some()).unwrap().0.tick;
    assert_eq!((closed(0), closed(1)), (4, 3));
    assert_eq!(m.missed(), 0);
}

#[test]
fn skipped_ticks_are_counted_and_the_grid_is_kept() {
    let mut slow = spec("s", Trip::Violated, MonitorAction::Log);
    slow.dt = 5.0 * DT;
    let mut m = monitors("spec s: tool.z > 0;", &[slow]).unwrap();
    let signals = table().signals();
    let mut at = Vec::new();
    for tick in [100, 104, 105, 117, 118, 120, 121] {
        m.step(tick, &signals, |entry, _| at.push(entry.tick));
    }
    // Due at 100, 105, 110, 115, 120: 110 was lost, 115 came late.
    assert_eq!((at, m.missed()), (vec![100, 105, 117, 120], 1));
}

#[test]
fn a_reset_leaves_nothing_behind() {
    let fence = spec("fence", Trip::Violated, MonitorAction::SoftStop);
    let build = || monitors("spec fence: G[0,5] (tool.z > 0.02);", std::slice::from_ref(&fence)).unwrap();
    let heights = [0.5, 0.01, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8];
    let fresh = feed(&mut build(), heights);
    let mut used = build();
    feed(&mut used, [0.0, f64::NAN, -1.0]);
    used.reset();
    assert_eq!(feed(&mut used, heights), fresh);
}

#[test]
fn parameters_take_their_values() {
    let mut s = spec("s", Trip::Violated, MonitorAction::Log);
    s.params.insert("floor".into(), 0.25);
    let mut m = monitors("spec s: tool.z > $floor;", &[s.clone()]).unwrap();
    assert_eq!(feed(&mut m, [0.75])[0].0.closed, Some(0.5));
    s.params.insert("roof".into(), 1.0);
    assert!(refusal("spec s: tool.z > $floor;", &[s.clone()]).contains("no parameter `roof`"));
    s.params.clear();
    let missing = refusal("spec s: tool.z > $floor;", &[s.clone()]);
    assert_eq!(missing, "property `s`: parameter `$floor` has no value in the monitor's params");
    s.params.insert("floor".into(), f64::NAN);
    assert!(refusal("spec s: tool.z > $floor;", &[s]).contains("finite"));
}

#[test]
fn everything_else_that_is_wrong_is_refused_with_its_name() {
    let s = || spec("s", Trip::Violated, MonitorAction::Log);
    let with = |change: &dyn Fn(&mut MonitorSpec)| {
        let mut s = s();
        change(&mut s);
        refusal("spec s: tool.z > 0;", &[s])
    };
    let unknown = refusal("spec s: tol.z > 0;", &[s()]);
    assert!(unknown.starts_with("property `s` reads `tol.z`, did you mean `tool.z`? Known signals: q.j0, "));
    let object = refusal("spec s: object.ball.z > 0;", &[s()]);
    assert!(
        object.ends_with("reads `object.ball.z`, but the device reports no such object (it reports: cube)")
    );
    assert!(refusal("spec s: object.cube.w > 0;", &[s()]).contains("did you mean `object.cube."));
    for dt in [0.003, 0.001, 0.0, -0.002, f64::NAN, f64::INFINITY] {
        let period = with(&|s| s.dt = dt);
        assert!(period.contains("is not a whole multiple of the control period 0.002 s"), "{period}");
        assert!(period.contains(&dt.to_string()), "{period}");
    }
    assert!(with(&|s| s.margin = f64::NAN).contains("margin NaN is not finite"));
    let other = with(&|s| s.name = "t".into());
    assert_eq!(other, "property `s` of spec.stl has no entry in the manifest's monitors");
    let none = monitors("", &[s()]).err().unwrap().to_string();
    assert_eq!(none, "monitor `s` has no property in spec.stl (it defines: nothing)");
    assert_eq!(refusal("tool.z > 0", &[s()]), none);
    let twice = refusal("spec s: tool.z > 0;", &[s(), s()]);
    assert_eq!(twice, "two monitors are called `s`");
    let unbounded = refusal("spec s: G (tool.z > 0);", &[s()]);
    assert!(unbounded.starts_with("property `s`: ") && unbounded.contains("bound"), "{unbounded}");
    let syntax =
        refusal("spec a: tool.z > 0;\nspec s: tool.z > > 0;", &[s(), spec("a", s().trip, s().action)]);
    assert!(syntax.contains('2') && syntax.contains('^'), "{syntax}");
    let step = refusal("spec s: G[0,3ms] (tool.z > 0);", &[s()]);
    assert!(step.contains("not a whole number of steps"), "{step}");
    let many = refusal("", &vec![s(); 65]);
    assert_eq!(many, "65 monitors, at most 64");
    let own = RobotMonitor { spec: s(), formula: "tool.z >".into() };
    assert!(matches!(Monitors::new(None, &[], &[own], &table(), DT), Err(MonitorError::Parse { .. })));
    assert_eq!(Monitors::new(None, &[], &[], &table(), DT).unwrap().names().len(), 0);
}

#[test]
fn a_broken_fence_stops_the_robot_and_a_hold_monitor_lets_it_go_on() {
    let text = "spec fence: G[0,5] (tool.z > 0.02);\nspec slow: G[0,3] (tool.z < 0.6);";
    let specs = [
        spec("fence", Trip::Violated, MonitorAction::SoftStop),
        spec("slow", Trip::Violated, MonitorAction::Hold),
    ];
    let (table, mut m) = (table(), monitors(text, &specs).unwrap());
    let mut signals: Signals = table.signals();
    let mut rig = Rig::running(&robot(2));
    let runs = rig.levels(100, |rig, i| {
        let z = match i {
            10..15 => 0.7,
            40 => 0.015,
            _ => 0.5,
        };
        let (state, sent, age_ns) = (&rig.state, rig.gate.sent(), rig.gate.age_ns());
        let level = rig.gate.level();
        let frames = &[[0.0, 0.0, z]];
        table.fill(&Inputs { state, sent, frames, age_ns, level, exhausted: false }, &mut signals);
        m.step(i as u64, &signals, |entry, change| match change {
            Change::Same => {}
            Change::Tripped(fault) | Change::FallBack(fault) => rig.gate.report(fault),
            Change::Cleared => rig.gate.monitor_cleared(entry.monitor),
        });
    });
    // Held from 10 until the last 0.7 (tick 14) has left the three steps of the window.
    let expected =
        [(Level::Run, 10), (Level::Hold, 8), (Level::Run, 22), (Level::SoftStop, 50), (Level::Damp, 10)];
    assert_eq!(runs, expected);
    let first = rig.gate.first_fault().unwrap();
    assert_eq!((first.reason, first.joint, first.value), (Reason::Monitor, 0, 0.015 - 0.02));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Closed values are the robustness by definition, and a trip is never earlier or later than the definition says.
    #[test]
    fn a_window_is_judged_by_its_definition(
        heights in prop::collection::vec(-1.0f64..1.0, 1..60),
        (a, k) in (0usize..4, 0usize..6),
    ) {
        let text = format!("spec s: G[{a},{}] (tool.z > -0.9);", a + k);
        let mut m = monitors(&text, &[spec("s", Trip::Violated, MonitorAction::Log)]).unwrap();
        let seen = feed(&mut m, heights.iter().copied());
        let h = a + k;
        let mut trips = false;
        for (n, (entry, change)) in seen.iter().enumerate() {
            let low = |t: usize| heights[(t + a).min(n + 1)..=(t + h).min(n)].iter().map(|z| z + 0.9).fold(f64::INFINITY, f64::min);
            let closed = n.checked_sub(h).map(low);
            prop_assert_eq!(entry.closed.is_some(), closed.is_some());
            if let (Some(seen), Some(expected)) = (entry.closed, closed) {
                prop_assert!((seen - expected).abs() < 1e-12);
            }
            let pending = if h > 0 { low((n + 1).saturating_sub(h)) } else { f64::INFINITY };
            let now = closed.is_some_and(|c| c <= 0.0) || pending < 0.0;
            prop_assert_eq!(matches!(change, Change::Tripped(_)), now && !trips);
            prop_assert_eq!(*change == Change::Cleared, !now && trips);
            trips = now;
        }
    }
}
