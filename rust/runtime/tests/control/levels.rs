//! What goes wrong in a policy, in a device or in the mission, and the exact levels that follow.

use cadenza_runtime::control::{PolicyError, PolicySource};
use cadenza_runtime::device::DeviceFault;
use cadenza_runtime::device::fault::Trouble;
use cadenza_runtime::safety::{Level, Reason};
use serde_json::json;

use crate::rig::{ARMED, Act, HOLD, HOME, Parts, REST, Rig, STEP, injection, sway, toml};
use Level::{Damp, Hold, Off, Run, SoftStop};

/// A policy that stays at home, but for `[from, to)`, where it answers `bad`.
fn bad_between(
    from: u64,
    to: u64,
    bad: impl Fn(&mut [f32]) -> Result<(), PolicyError> + Send + 'static,
) -> impl PolicySource + 'static {
    Act(move |tick: u64, _: &[f32], out: &mut [f32]| {
        out.copy_from_slice(&HOME);
        if (from..to).contains(&tick) { bad(out) } else { Ok(()) }
    })
}

type Bad = fn(&mut [f32]) -> Result<(), PolicyError>;

/// Every way in which a policy can fail to answer, with its reason.
const BAD: [(Reason, Bad); 6] = [
    (Reason::PolicyNotFinite, |out| {
        out[1] = f32::NAN;
        Ok(())
    }),
    (Reason::PolicyNotFinite, |out| {
        out[2] = f32::NEG_INFINITY;
        Ok(())
    }),
    (Reason::PolicyNotFinite, |_| Err(PolicyError::NotFinite { what: "action", index: 0 })),
    (Reason::ObservationNotFinite, |_| Err(PolicyError::NotFinite { what: "observation", index: 3 })),
    (Reason::PolicyWrongLength, |_| Err(PolicyError::WrongLength { got: 7, want: 3 })),
    (Reason::PolicyLate, |_| Err(PolicyError::Late)),
];

#[test]
fn a_bad_answer_holds_within_its_tick_and_a_good_one_ends_it_within_its_own() {
    let bad_at = ARMED + 10 * STEP;
    for (reason, bad) in BAD {
        let mut rig = Rig::new(&Parts::default(), &[], &[], bad_between(bad_at, bad_at + STEP, bad));
        let levels = [(0, Off), (ARMED, Run), (bad_at, Hold), (bad_at + STEP, Run)];
        assert_eq!(rig.levels(500), levels, "{reason:?}");
        assert_eq!(rig.controller.gate().count(reason), 1);
        let fault = rig.controller.faults()[0];
        assert_eq!((fault.tick, fault.reason, rig.controller.faults().len()), (bad_at, reason, 1));
    }
}

#[test]
fn bad_answers_for_ever_hold_then_stop_then_damp() {
    let bad_at = ARMED + 10 * STEP;
    // The gate counts the ticks after the one that reported.
    let stop_at = bad_at + HOLD + 1;
    for (reason, bad) in BAD {
        let mut rig = Rig::new(&Parts::default(), &[], &[], bad_between(bad_at, u64::MAX, bad));
        let levels = [(0, Off), (ARMED, Run), (bad_at, Hold), (stop_at, SoftStop), (stop_at + REST, Damp)];
        assert_eq!(rig.levels(1000), levels, "{reason:?}");
        let first = rig.controller.gate().first_fault().unwrap();
        assert_eq!((first.tick, first.reason, first.level), (stop_at, reason, SoftStop));
        assert!((first.value, first.limit) == (HOLD as f64 + 1.0, HOLD as f64));
    }
}

#[test]
fn a_policy_that_is_bad_from_the_first_tick_never_moves_the_robot() {
    let mut rig = Rig::new(&Parts::default(), &[], &[], bad_between(0, u64::MAX, BAD[0].1));
    let home = [0.0, 0.1, -0.2];
    for tick in 0..400 {
        rig.tick();
        if tick >= ARMED {
            assert_eq!(rig.controller.command().q[..3], home, "{tick}");
        }
    }
    assert_eq!(rig.controller.gate().level(), Damp);
}

/// In motion, so that the soft stop must brake: it rests after braking, and damps a rest later.
#[test]
fn a_moving_robot_brakes_before_it_damps() {
    let bad_at = ARMED + 20 * STEP;
    let policy = Act(move |tick: u64, _: &[f32], out: &mut [f32]| {
        out[0] = if (tick / 50).is_multiple_of(2) { 0.9 } else { -0.9 };
        if tick < bad_at { Ok(()) } else { Err(PolicyError::Late) }
    });
    let mut rig = Rig::new(&Parts::default(), &[], &[], policy);
    let mut before = rig.controller.command().q[2];
    let (mut stopped, mut fastest) = (None, 0.0f64);
    for _ in 0..1000 {
        let entry = rig.tick();
        let (command, dt) = (*rig.controller.command(), 0.002);
        let speed = ((command.q[2] - before) / dt).abs();
        before = command.q[2];
        if entry.tick > ARMED && command.level == Run {
            fastest = fastest.max(speed);
        }
        if command.level == Damp && stopped.is_none() {
            stopped = Some(entry.tick);
            assert!(speed < 1e-9, "{speed}");
        }
    }
    assert!(fastest > 2.0, "the wrist was to move: {fastest}");
    let damped = stopped.expect("damped");
    // 6 rad/s are braked with 90 rad/s² in 34 ticks; the bound on the jerk costs 9 more.
    assert!((bad_at + HOLD + 1 + REST..=bad_at + HOLD + 1 + REST + 45).contains(&damped), "{damped}");
}

#[test]
fn a_device_that_stops_answering_holds_and_is_lost_at_the_exact_ticks() {
    let from = 300;
    for trouble in [Trouble::Frozen, Trouble::Silent { joint: 1 }] {
        let mut rig = Rig::new(&Parts::default(), &[injection(from, u64::MAX, trouble)], &[], Act(sway(0.2)));
        // The last good state was read at 299; 20 ms are 10 ticks and 60 ms are 30, both still allowed.
        let levels = [(0, Off), (ARMED, Run), (from + 10, Hold), (from + 30, Damp)];
        assert_eq!(rig.levels(500), levels, "{trouble:?}");
        let first = rig.controller.gate().first_fault().unwrap();
        assert_eq!((first.reason, first.tick), (Reason::StateLost, from + 30));
        // A whole frozen device has no joint to name.
        let joint = if trouble == Trouble::Frozen { u16::MAX } else { 1 };
        assert_eq!(first.joint, joint);
    }
}

#[test]
fn a_device_that_answers_again_in_time_goes_on() {
    let mut rig = Rig::new(&Parts::default(), &[injection(300, 25, Trouble::Frozen)], &[], Act(sway(0.2)));
    assert_eq!(rig.levels(500), [(0, Off), (ARMED, Run), (310, Hold), (325, Run)]);
}

#[test]
fn faults_that_a_device_reports_damp_at_once() {
    let fault = DeviceFault::JointSilent { joint: 2, lost: 5 };
    let mut rig =
        Rig::new(&Parts::default(), &[injection(300, 1, Trouble::Read(fault))], &[], Act(sway(0.2)));
    assert_eq!(rig.levels(500), [(0, Off), (ARMED, Run), (300, Damp)]);
    let first = rig.controller.gate().first_fault().unwrap();
    assert_eq!((first.reason, first.joint), (Reason::JointSilent, 2));

    // What a write reports is judged with the next state.
    let fault = DeviceFault::Refused { joint: 1 };
    let mut rig =
        Rig::new(&Parts::default(), &[injection(300, 1, Trouble::Write(fault))], &[], Act(sway(0.2)));
    assert_eq!(rig.levels(500), [(0, Off), (ARMED, Run), (301, Damp)]);
    let first = rig.controller.gate().first_fault().unwrap();
    assert_eq!((first.reason, first.joint), (Reason::WriteFailed, 1));
}

/// The tool stands at 0.1 − 0.3·sin(lift) m.
const FENCE: &str = "spec goal: F[0,10] (tool.x > 9.0);\nspec fence: G[0,50] (tool.z > 0.02);\n";

/// A policy that lowers the tool through the fence from tick 200 on.
fn dip(tick: u64, _: &[f32], out: &mut [f32]) -> Result<(), PolicyError> {
    out.copy_from_slice(&HOME);
    out[2] = if tick < 200 { 0.1 } else { 0.6 };
    Ok(())
}

fn fenced(action: &str) -> Parts {
    let goal = json!({ "name": "goal", "dt": 0.02, "trip": "violated", "action": "log" });
    let fence = json!({ "name": "fence", "dt": 0.02, "trip": "violated", "action": action });
    Parts::default().watched(FENCE, goal).watched(FENCE, fence)
}

#[test]
fn a_violated_fence_stops_softly_and_stays_latched() {
    let mut rig = Rig::new(&fenced("soft_stop"), &[], &[], Act(dip));
    let mut first_below = None;
    let mut levels = Vec::new();
    for _ in 0..1000 {
        let entry = rig.tick();
        let below = 0.1 - 0.3 * rig.controller.state().q[1].sin() <= 0.02;
        // The monitor steps at every tenth tick since arming.
        if below && (entry.tick - ARMED).is_multiple_of(STEP) && first_below.is_none() {
            first_below = Some(entry.tick);
        }
        levels.push(rig.controller.command().level);
    }
    let at = first_below.expect("the fence was crossed");
    assert_eq!(levels[at as usize - 1..=at as usize], [Run, SoftStop]);
    let first = rig.controller.gate().first_fault().unwrap();
    assert_eq!((first.reason, first.joint, first.tick), (Reason::Monitor, 1, at));
    assert!(first.value <= 0.0);
    assert!(levels[at as usize..].iter().all(|l| *l >= SoftStop) && levels.ends_with(&[Damp]));
}

#[test]
fn a_monitor_that_only_logs_changes_no_level() {
    let mut rig = Rig::new(&fenced("log"), &[], &[], Act(dip));
    assert_eq!(rig.levels(1000), [(0, Off), (ARMED, Run)]);
    let tripped: Vec<(u16, Level)> = rig.controller.faults().iter().map(|f| (f.joint, f.level)).collect();
    assert_eq!(tripped, [(0, Run), (1, Run)], "both are reported: {:?}", rig.controller.faults());
}

#[test]
fn missed_deadlines_in_a_row_stop_where_the_robot_says_so() {
    let strict = Parts {
        text: toml([0, 1, 2], "overrun = \"fault\"\nmax_consecutive_misses = 4\n"),
        ..Parts::default()
    };
    // Three misses in a row, now and then; from tick 300 on one more.
    let late = |tick: u64| tick % 50 < 3 || (300..304).contains(&tick);
    for (parts, expected) in [
        (strict, vec![(0, Off), (ARMED, Run), (303, SoftStop), (303 + REST, Damp)]),
        (Parts::default(), vec![(0, Off), (ARMED, Run)]),
    ] {
        let mut rig = Rig::new(&parts, &[], &[], bad_between(0, 0, |_| Ok(())));
        let mut levels: Vec<(u64, Level)> = Vec::new();
        for tick in 0..500 {
            rig.tick_skipping(u32::from(late(tick)));
            levels.push((tick, rig.controller.command().level));
        }
        levels.dedup_by_key(|(_, level)| *level);
        assert_eq!(levels, expected);
    }
}
