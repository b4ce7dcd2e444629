//! The bundle that takes over when the one before fails.

use std::path::PathBuf;

use cadenza_runtime::config::{Late, RunConfig};
use cadenza_runtime::control::{
    PolicyError, PolicySource, Request, Successor, SwitchRefusal, Switcher, replay, switcher,
};
use cadenza_runtime::device::fault::Faulty;
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::log::{Log, Recorder};
use cadenza_runtime::safety::{Level, Reason};
use serde_json::json;

use crate::rig::{ARMED, Act, HOME, Parts, Rig};
use Level::{Damp, Hold, Off, Run, SoftStop};

/// Lifts as far as `lift` from tick `from` on, else stays at home.
fn lifts(from: u64, lift: f32) -> impl PolicySource + 'static {
    Act(move |tick: u64, _: &[f32], out: &mut [f32]| {
        out.copy_from_slice(&HOME);
        out[2] = if tick >= from { lift } else { HOME[2] };
        Ok(())
    })
}

/// Answers at home until `until`, then never.
fn falls_silent(until: u64) -> impl PolicySource + 'static {
    Act(move |tick: u64, _: &[f32], out: &mut [f32]| {
        out.copy_from_slice(&HOME);
        if tick < until { Ok(()) } else { Err(PolicyError::Late) }
    })
}

fn parts() -> Parts {
    let fallback = Some(PathBuf::from("recover.cadenza"));
    Parts { config: RunConfig { fallback, ..Parts::default().config }, ..Parts::default() }
}

/// Whose monitor calls the fallback when the lift passes 0.5 rad.
fn guarded() -> Parts {
    let monitor = json!({ "name": "low", "dt": 0.02, "trip": "violated", "action": "fallback_policy" });
    parts().watched("spec low: always[0,0s](q.lift < 0.5);", monitor)
}

/// What stands by: goes to 0.2 rad and is not watched.
fn recover() -> Successor {
    parts().successor(lifts(0, 0.2))
}

/// With what stands by taken from `fallback`, and a switcher for others.
fn rig(
    parts: &Parts,
    requests: &[(u64, Request)],
    policy: impl PolicySource + 'static,
    fallback: Option<Successor>,
) -> (Rig<Faulty<NullDevice>>, Switcher) {
    let mut rig = Rig::new(parts, &[], requests, policy);
    let (switcher, port) = switcher();
    rig.controller.switch_by(port);
    if let Some(fallback) = fallback {
        rig.controller.fall_back_on(fallback);
    }
    (rig, switcher)
}

#[test]
fn a_monitor_calls_the_fallback_and_the_robot_never_stops() {
    let parts = guarded();
    let requests =
        [(100, Request::Command { slot: 0, value: 0.75 }), (700, Request::Command { slot: 0, value: 0.5 })];
    let (mut rig, _switcher) = rig(&parts, &requests, lifts(300, 1.0), Some(recover()));
    assert_eq!(rig.levels(1000), [(0, Off), (ARMED, Run)]);
    let gate = rig.controller.gate();
    assert_eq!((gate.count(Reason::Monitor), gate.count(Reason::BundleSwitched)), (1, 1));
    let [tripped, switched] = rig.controller.faults() else { panic!("{:?}", rig.controller.faults()) };
    assert!((300..400).contains(&tripped.tick) && tripped.level == Run, "{tripped:?}");
    assert!(switched.tick == tripped.tick + 1, "{switched:?}");
    assert!((rig.controller.command().q[1] - 0.2).abs() < 1e-6, "the fallback has the robot");
    assert_eq!(rig.controller.state().user[0], 0.25, "it hears no commands and has its own default");
}

#[test]
fn without_a_fallback_the_robot_stops_softly() {
    let alone = Parts { config: Parts::default().config, ..guarded() };
    let (mut rig, _switcher) = rig(&alone, &[], lifts(300, 1.0), None);
    let levels = rig.levels(600);
    assert_eq!(levels.iter().map(|(_, level)| *level).collect::<Vec<_>>(), [Off, Run, SoftStop, Damp]);
    assert_eq!(rig.controller.gate().first_fault().map(|f| f.reason), Some(Reason::Monitor));
}

#[test]
fn while_the_fallback_has_the_robot_what_called_it_is_recorded() {
    let parts = guarded();
    let fallback = parts.successor(lifts(0, 0.9));
    let (mut rig, _switcher) = rig(&parts, &[], lifts(300, 1.0), Some(fallback));
    assert_eq!(rig.levels(1000), [(0, Off), (ARMED, Run)]);
    let gate = rig.controller.gate();
    assert_eq!((gate.count(Reason::Monitor), gate.count(Reason::BundleSwitched)), (2, 1));
}

#[test]
fn a_fallback_that_falls_silent_itself_stops_the_robot() {
    let parts = Parts { config: RunConfig { late: Late::Fallback, ..guarded().config }, ..guarded() };
    let (mut rig, _switcher) = rig(&parts, &[], lifts(300, 1.0), Some(parts.successor(falls_silent(600))));
    let levels = rig.levels(1000);
    assert_eq!(levels.iter().map(|(_, level)| *level).collect::<Vec<_>>(), [Off, Run, Hold, SoftStop, Damp]);
}

#[test]
fn a_fallback_of_a_policy_that_falls_silent_takes_over_instead_of_a_stop() {
    let silent = |late| Parts { config: RunConfig { late, ..parts().config }, ..parts() };
    let parts = silent(Late::Fallback);
    let (mut saved, _switcher) = rig(&parts, &[], falls_silent(300), Some(recover()));
    let levels = saved.levels(1000);
    assert_eq!(
        levels.iter().map(|(_, level)| *level).collect::<Vec<_>>(),
        [Off, Run, Hold, Run],
        "{levels:?}"
    );
    assert!((saved.controller.command().q[1] - 0.2).abs() < 1e-6);
    assert_eq!(saved.controller.gate().count(Reason::BundleSwitched), 1);

    let parts = silent(Late::Drop);
    let (mut stopped, _switcher) = rig(&parts, &[], falls_silent(300), Some(recover()));
    let levels = stopped.levels(1000);
    assert_eq!(levels.iter().map(|(_, level)| *level).collect::<Vec<_>>(), [Off, Run, Hold, SoftStop, Damp]);
}

#[test]
fn answers_that_are_wholly_too_late_call_the_fallback() {
    let (inject, late) = (Some("const:100ms".parse().unwrap()), Late::Fallback);
    let parts = Parts { config: RunConfig { inject, late, ..parts().config }, ..parts() };
    let (mut rig, _switcher) = rig(&parts, &[], lifts(0, 0.5), Some(recover()));
    let levels = rig.levels(600);
    assert!(levels.iter().all(|(_, level)| *level <= Hold || *level == Off), "{levels:?}");
    assert!((rig.controller.command().q[1] - 0.2).abs() < 1e-6);
    assert!(rig.controller.gate().count(Reason::ChunkRefused) >= 1);
}

#[test]
fn it_stands_by_again_once_another_bundle_has_the_robot() {
    let parts = guarded();
    let requests = [(600, Request::Switch)];
    let (mut rig, mut switcher) = rig(&parts, &requests, lifts(300, 1.0), Some(recover()));
    assert!(switcher.offer(parts.successor(lifts(900, 1.0))).is_ok());
    assert_eq!(rig.levels(1300), [(0, Off), (ARMED, Run)]);
    assert!(matches!(switcher.outcome(), Some(Ok(600..610))));
    assert_eq!(rig.controller.gate().count(Reason::BundleSwitched), 3);
    assert!((rig.controller.command().q[1] - 0.2).abs() < 1e-6, "the fallback has the robot again");
}

#[test]
fn a_bundle_that_is_offered_while_the_fallback_comes_is_refused() {
    let parts = guarded();
    let (mut rig, mut switcher) = rig(&parts, &[], lifts(300, 1.0), Some(recover()));
    assert!(switcher.offer(parts.successor(lifts(0, 0.4))).is_ok());
    while rig.controller.gate().count(Reason::Monitor) == 0 {
        rig.tick();
    }
    rig.inbox = cadenza_runtime::control::Inbox::script(vec![(0, Request::Switch)]);
    rig.levels(300);
    assert_eq!(switcher.outcome(), Some(Err(SwitchRefusal::FallingBack)));
    assert!((rig.controller.command().q[1] - 0.2).abs() < 1e-6);
}

#[test]
fn a_fallback_that_cannot_take_over_in_motion_stops_the_robot() {
    let parts = guarded();
    let mut narrow = guarded();
    narrow.manifest.joints[1].velocity_max = Some(0.5);
    let moving = Act(|tick: u64, _: &[f32], out: &mut [f32]| {
        out.copy_from_slice(&HOME);
        out[1] = (tick as f32 * 0.01).sin();
        out[2] = if tick >= 300 { 1.0 } else { HOME[2] };
        Ok(())
    });
    let (mut rig, _switcher) = rig(&parts, &[], moving, Some(narrow.successor(lifts(0, 0.2))));
    let levels = rig.levels(800);
    assert_eq!(levels.iter().map(|(_, level)| *level).collect::<Vec<_>>(), [Off, Run, SoftStop, Damp]);
    assert_eq!(rig.controller.gate().first_fault().map(|f| f.reason), Some(Reason::BundleRefused));
}

#[test]
fn a_run_that_fell_back_twice_replays_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let parts = guarded();
    let requests = [(600, Request::Switch), (1250, Request::Stop)];
    let (mut rig, mut switcher) = rig(&parts, &requests, lifts(300, 1.0), Some(recover()));
    assert!(switcher.offer(parts.successor(lifts(900, 1.0))).is_ok());
    rig.log = Recorder::start(&path, parts.header());
    rig.levels(1400);
    let log = std::mem::replace(&mut rig.log, Recorder::off());
    assert!(log.finish(&Default::default()).complete());
    let log = Log::open(&path).unwrap();
    let fallbacks: Vec<bool> = log.bundles().map(|b| b.unwrap().value.bundle.fallback).collect();
    assert_eq!(fallbacks, [true, false, true]);
    let report = replay(&log, None).unwrap();
    assert_eq!((report.compared, report.difference), (1400, None));
}

#[test]
fn late_answers_cannot_fall_back_on_nothing() {
    let config = RunConfig { late: Late::Fallback, seconds: Some(1.0), ..RunConfig::default() };
    let error = config.check().unwrap_err().to_string();
    assert_eq!(error, "late = fallback: a fallback bundle beside it");
}
