//! Another bundle takes over in the middle of a run.

use std::sync::Arc;

use cadenza_runtime::control::{
    PolicySource, Request, RunError, Successor, SwitchRefusal, Switcher, replay, switcher,
};
use cadenza_runtime::device::fault::Faulty;
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::log::{Log, Recorder, Watched};
use cadenza_runtime::safety::{Level, Reason};
use proptest::prelude::*;
use serde_json::json;

use crate::rig::{ARMED, Act, HOME, Parts, Rig, STEP, faulty, manifest, sway};
use Level::{Damp, Off, Run, SoftStop};

/// Holds the lift at `lift`.
fn stand(lift: f32) -> impl PolicySource + 'static {
    Act(move |_: u64, _: &[f32], out: &mut [f32]| {
        out.copy_from_slice(&HOME);
        out[2] = lift;
        Ok(())
    })
}

fn rig(
    parts: &Parts,
    requests: &[(u64, Request)],
    policy: impl PolicySource + 'static,
) -> (Rig<Faulty<NullDevice>>, Switcher) {
    let now = Arc::default();
    let device = faulty(&parts.robot(), &now, &[]);
    let mut rig = Rig::around(parts, device, now, requests, policy);
    let (switcher, port) = switcher();
    rig.controller.switch_by(port);
    (rig, switcher)
}

fn offer(switcher: &mut Switcher, successor: Successor) {
    assert!(switcher.offer(successor).is_ok());
}

/// With a bundle that knows one more command and another range of the one that both know, and watches something else.
fn walk() -> Parts {
    let manifest = manifest(|m| {
        m["name"] = "walk".into();
        m["commands"] = json!([{ "name": "turn", "range": [-1.0, 1.0], "default": 0.125 },
                               { "name": "speed", "range": [-0.25, 0.25], "default": 0.0 }]);
        m["observation"]["size"] = 11.into();
        m["observation"]["terms"][3]["size"] = 2.into();
    });
    Parts { manifest, ..Parts::default() }
}

#[test]
fn a_bundle_takes_over_at_a_policy_step_with_growing_authority_and_its_own_commands() {
    let parts = Parts::default();
    let requests = [(40, Request::Command { slot: 0, value: 0.75 }), (302, Request::Switch)];
    let (mut rig, mut switcher) = rig(&parts, &requests, stand(0.1));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = seen.clone();
    offer(
        &mut switcher,
        walk().successor(Act(move |tick: u64, obs: &[f32], out: &mut [f32]| {
            told.lock().unwrap().push((tick, obs[9], obs[10]));
            out.copy_from_slice(&HOME);
            out[2] = 0.5;
            Ok(())
        })),
    );
    assert!(switcher.outcome().is_none());
    let levels = rig.levels(309);
    assert_eq!((levels, switcher.outcome()), (vec![(0, Off), (ARMED, Run)], None));
    let before = rig.controller.command().q;
    rig.tick();
    // 302 is in the step that began at 299; the next one begins at 309, and the newcomer is asked at once.
    assert_eq!(switcher.outcome(), Some(Ok(309)));
    assert!(rig.controller.authority() < 0.01);
    assert!((rig.controller.command().q[1] - before[1]).abs() < 1e-4, "nothing jumps");
    for _ in 0..300 {
        rig.tick();
    }
    assert!((rig.controller.command().q[1] - 0.5).abs() < 1e-6);
    let seen = seen.lock().unwrap();
    assert_eq!(seen[0], (309, 0.125, 0.25), "its own default, and the old value inside its range");
    assert!(seen.windows(2).all(|w| w[1].0 == w[0].0 + STEP));
    assert_eq!(rig.controller.gate().count(Reason::BundleSwitched), 1);
}

#[test]
fn what_does_not_fit_is_refused_and_the_old_policy_goes_on() {
    let parts = Parts::default();
    let mut narrow = Parts::default();
    narrow.manifest.joints[1].velocity_max = Some(2.0);
    let requests = [
        (300, Request::Switch),
        (400, Request::Switch),
        (401, Request::Switch),
        (500, Request::Stop),
        (505, Request::Switch),
    ];
    let (mut rig, mut switcher) = rig(&parts, &requests, Act(sway(0.3)));
    for successor in [
        narrow.successor(stand(0.5)),
        parts.successor(stand(0.3)),
        parts.successor(stand(0.2)),
        parts.successor(stand(0.4)),
    ] {
        offer(&mut switcher, successor);
    }
    assert!(switcher.offer(parts.successor(stand(0.0))).is_err(), "four are under way");
    rig.levels(600);
    // Other limits in motion; replaced before its step came; taken; stopping.
    assert!(matches!(switcher.outcome(), Some(Err(SwitchRefusal::Limits { .. }))));
    assert_eq!(switcher.outcome(), Some(Err(SwitchRefusal::Replaced)));
    assert_eq!(switcher.outcome(), Some(Ok(409)));
    assert_eq!(switcher.outcome(), Some(Err(SwitchRefusal::Stopping { level: SoftStop })));
    assert_eq!(switcher.outcome(), None);
    assert_eq!(rig.controller.gate().count(Reason::BundleRefused), 3);
}

#[test]
fn limits_change_at_rest_and_while_the_motors_are_off() {
    let parts = Parts::default();
    let mut narrow = Parts::default();
    narrow.manifest.joints[1].velocity_max = Some(0.5);
    let requests =
        [(300, Request::Switch), (500, Request::Disarm), (505, Request::Switch), (520, Request::Arm)];
    let (mut rig, mut switcher) = rig(&parts, &requests, stand(0.1));
    offer(&mut switcher, narrow.successor(Act(sway(0.9))));
    offer(&mut switcher, parts.successor(Act(sway(0.9))));
    let mut fastest = [0.0f64; 2];
    let mut before = rig.controller.command().q[0];
    for tick in 0..1500 {
        rig.tick();
        let q = rig.controller.command().q[0];
        if rig.controller.command().level == Run && tick > 320 {
            let fast = &mut fastest[usize::from(tick > 510)];
            *fast = fast.max((q - before).abs() / 0.002);
        }
        before = q;
    }
    assert_eq!((switcher.outcome(), switcher.outcome()), (Some(Ok(309)), Some(Ok(505))));
    assert!(fastest[0] > 0.4 && fastest[0] <= 0.5 * (1.0 + 1e-6), "{fastest:?}");
    assert!(fastest[1] > 0.6, "{fastest:?}");
    assert_eq!(rig.controller.gate().count(Reason::GateMismatch), 0);
}

#[test]
fn a_fallen_robot_gets_its_recovery_after_a_reset() {
    let parts = Parts::default();
    let requests =
        [(300, Request::Estop), (350, Request::Reset), (360, Request::Switch), (360, Request::Arm)];
    let (mut rig, mut switcher) = rig(&parts, &requests, stand(0.1));
    offer(&mut switcher, walk().successor(stand(0.4)));
    let levels = rig.levels(700);
    assert_eq!(levels, [(0, Off), (ARMED, Run), (300, Damp), (350, Off), (369, Run)]);
    assert_eq!(switcher.outcome(), Some(Ok(360)));
    assert!((rig.controller.command().q[1] - 0.4).abs() < 1e-6);
}

#[test]
fn a_run_with_several_bundles_replays_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let parts = Parts::default();
    let speed = |value| Request::Command { slot: 1, value };
    let requests = [
        (302, Request::Switch),
        (450, speed(-0.125)),
        (611, Request::Stop),
        (611, Request::Switch),
        (900, Request::Reset),
        (901, Request::Switch),
        (910, Request::Arm),
    ];
    let (mut rig, mut switcher) = rig(&parts, &requests, Act(sway(0.3)));
    for successor in
        [walk().successor(Act(sway(0.5))), parts.successor(stand(0.0)), parts.successor(Act(sway(0.2)))]
    {
        offer(&mut switcher, successor);
    }
    rig.log = Recorder::start(&path, parts.header());
    rig.levels(1300);
    assert_eq!(
        (switcher.outcome(), switcher.outcome(), switcher.outcome()),
        (Some(Ok(309)), Some(Err(SwitchRefusal::Stopping { level: SoftStop })), Some(Ok(901)))
    );
    let log = std::mem::replace(&mut rig.log, Recorder::off());
    assert!(log.finish(&Default::default()).complete());
    let log = Log::open(&path).unwrap();
    let bundles: Vec<(u64, String)> =
        log.bundles().map(|b| b.unwrap().value).map(|b| (b.tick, b.bundle.name)).collect();
    assert_eq!(bundles, [(302, "walk".into()), (611, "rig".into()), (901, "rig".into())]);
    let report = replay(&log, None).unwrap();
    assert_eq!((report.compared, report.difference), (1300, None));
    let again: Box<dyn PolicySource> = Box::new(Act(sway(0.3)));
    assert!(matches!(replay(&log, Some(again)), Err(RunError::Switched { tick: 309 })));
}

#[test]
fn verdicts_belong_to_the_bundle_of_their_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let watching = |name: &str| json!({ "name": name, "dt": 0.02, "trip": "violated", "action": "log" });
    let parts = Parts::default().watched("spec in_reach: q.pan < 3;", watching("in_reach"));
    let both = "spec calm: dq.pan < 9;\nspec low: q.lift < 0.2;";
    let walk = walk().watched(both, watching("calm")).watched(both, watching("low"));
    let (mut rig, mut switcher) = rig(&parts, &[(302, Request::Switch), (611, Request::Switch)], stand(0.1));
    offer(&mut switcher, walk.successor(stand(0.5)));
    offer(&mut switcher, parts.successor(stand(0.1)));
    rig.log = Recorder::start(&path, parts.header());
    rig.levels(800);
    let log = std::mem::replace(&mut rig.log, Recorder::off());
    assert!(log.finish(&Default::default()).complete());
    let log = Log::open(&path).unwrap();
    let watched = log.watched().unwrap();
    let spans: Vec<_> = watched.iter().map(|w| (w.bundle.as_str(), w.from, w.until)).collect();
    assert_eq!(spans[1..], [("walk", 309, Some(619)), ("rig", 619, None)]);
    assert_eq!((spans[0].1, spans[0].2), (0, Some(309)));
    let names: Vec<_> = [308, 309, 618, 619].map(|tick| Watched::names_at(&watched, tick)).into();
    assert_eq!(names, [vec!["in_reach"], vec!["calm", "low"], vec!["calm", "low"], vec!["in_reach"]]);
    assert_eq!(watched[1].monitors[1].formula, "q.lift < 0.2");
    let verdicts: Vec<_> = log.verdicts().map(|v| v.unwrap().value).collect();
    assert!(verdicts.iter().any(|v| v.tick > 309 && v.monitor == 1));
    let page = cadenza_runtime::report::html(&log).unwrap();
    for (name, count) in [("in_reach", 2), ("calm", 1), ("low", 1)] {
        assert_eq!(page.matches(&format!("<h3>{name}</h3>")).count(), count, "{name}");
    }
    assert!(page.contains("walk from 0.6") && page.contains(">low</td>"), "the event names its property");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whenever bundles change, at whatever the robot does: no limit is broken, position, speed, acceleration and jerk.
    #[test]
    fn limits_hold_over_random_switches(
        times in prop::collection::vec(20u64..900, 1..4),
        sizes in prop::collection::vec(-3.0..3.0f32, 4),
        fast in 1.0..8.0f32,
    ) {
        let parts = Parts::default();
        let requests: Vec<_> = times.iter().map(|&t| (t, Request::Switch)).collect();
        let jumpy = |size: f32| Act(move |tick: u64, _: &[f32], out: &mut [f32]| {
            let up = (tick as f32 * 0.01 * fast).sin() > 0.0;
            out.fill(if up { size } else { -size });
            Ok(())
        });
        let (mut rig, mut switcher) = rig(&parts, &requests, jumpy(sizes[0]));
        for i in 0..times.len() {
            offer(&mut switcher, parts.successor(jumpy(sizes[i + 1])));
        }
        let limits = [([-2.0, 2.0], 2.5, 60.0), ([-1.0, 1.2], 3.0, 40.0), ([-1.0, 1.5], 6.0, 90.0)];
        let (mut q, mut v, mut a) = ([0.0, 0.1, -0.2], [0.0; 3], [0.0; 3]);
        for tick in 0..1000 {
            rig.tick();
            prop_assert!(rig.controller.faults().iter().all(|f| f.level == Run), "{:?}", rig.controller.faults());
            if tick < ARMED {
                continue;
            }
            for (i, ([lo, hi], velocity, acceleration)) in limits.into_iter().enumerate() {
                let p = rig.controller.command().q[i];
                let (speed, dt) = ((p - q[i]) / 0.002, 0.002);
                let acc = (speed - v[i]) / dt;
                prop_assert!((lo..=hi).contains(&p));
                prop_assert!(speed.abs() <= velocity * (1.0 + 1e-6));
                prop_assert!(acc.abs() <= acceleration * (1.0 + 1e-6) + 1e-6);
                prop_assert!(((acc - a[i]) / dt).abs() <= 100.0 * acceleration * (1.0 + 1e-6) + 1e-3);
                (q[i], v[i], a[i]) = (p, speed, acc);
            }
        }
    }
}
