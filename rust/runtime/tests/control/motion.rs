//! How the robot gets going, and how it goes on after a hold: never with a jerk, never to a target wound up meanwhile.

use std::sync::{Arc, Mutex};

use cadenza_runtime::control::{PolicyError, PolicySource};
use cadenza_runtime::device::fault::Trouble;
use cadenza_runtime::safety::Level;
use serde_json::json;

use crate::rig::{ARMED, Act, HOME, Parts, Rig, STEP, injection, manifest, toml};

const LEASH: f64 = 0.3;
/// Joints: wrist first in actions, last in the robot.
const WRIST: usize = 2;

/// Increments of the joint targets; the policy also sees how far its target is ahead of the joint.
fn increments(safety: &str) -> Parts {
    let manifest = manifest(|m| {
        m["action"]["kind"] = json!("position_increment");
        // 2 rad/s.
        m["action"]["scale"] = json!({ "*": 0.04 });
        m["action"]["leash"] = json!(LEASH);
        m["observation"]["size"] = json!(13);
        let term = json!({ "name": "ahead", "source": "joint_target_error", "size": 3 });
        m["observation"]["terms"].as_array_mut().unwrap().push(term);
    });
    Parts { text: toml([0, 1, 2], safety), manifest, ..Parts::default() }
}

/// Ticks, and how far the target of the wrist was ahead of it.
type Seen = Arc<Mutex<Vec<(u64, f64)>>>;

/// A policy that pushes the wrist as hard as it can, and what it saw of its own target.
fn push(bad: std::ops::Range<u64>) -> (impl PolicySource + 'static, Seen) {
    let seen = Seen::default();
    let ahead = seen.clone();
    let policy = Act(move |tick: u64, obs: &[f32], out: &mut [f32]| {
        ahead.lock().unwrap().push((tick, f64::from(obs[10])));
        out.copy_from_slice(&[1.0, 0.0, 0.0]);
        if bad.contains(&tick) { Err(PolicyError::Late) } else { Ok(()) }
    });
    (policy, seen)
}

#[test]
fn authority_grows_smoothly_and_a_leash_keeps_increments_near_the_joint() {
    // The default ramp of 0.04 s, and one so long that the policy pushes against it for a second.
    for (safety, ramp) in [("", 0.04), ("authority_ramp = \"1s\"\n", 1.0)] {
        let (policy, seen) = push(0..0);
        let mut rig = Rig::new(&increments(safety), &[], &[], policy);
        let ticks = ARMED + (ramp / 0.002) as u64 + 300;
        let (mut last, mut authority) = (f64::from(HOME[0]), 0.0);
        for tick in 0..ticks {
            let entry = rig.tick();
            let q = rig.controller.command().q[WRIST];
            if tick < ARMED {
                continue;
            }
            assert_eq!(rig.controller.command().level, Level::Run);
            assert!(entry.authority >= authority && q >= last - 1e-12, "tick {tick}: {q} after {last}");
            // With authority a, the joint has gone at most a of the way to a target that is one leash and one step of
            // the joint's own motion ahead of it.
            let (done, a) = (q - f64::from(HOME[0]), entry.authority);
            assert!(done * (1.0 - a) <= a * (LEASH + 1e-9) + 1e-9, "tick {tick}: {done} at authority {a}");
            (last, authority) = (q, entry.authority);
        }
        assert_eq!(authority, 1.0);
        assert!(last > 0.4, "it gets there in the end: {last}");
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|(_, ahead)| *ahead <= LEASH + 1e-6), "{seen:?}");
        // A joint that may follow has its target a step or two ahead; one that may not stretches the leash.
        let taut = seen.iter().any(|(_, ahead)| *ahead > 0.95 * LEASH);
        assert_eq!(taut, ramp == 1.0, "{seen:?}");
    }
}

#[test]
fn a_hold_is_left_from_where_the_robot_was_held() {
    let bad_at = ARMED + 10 * STEP;
    let (policy, _) = push(bad_at..bad_at + 2 * STEP);
    let mut rig = Rig::new(&increments(""), &[], &[], policy);
    let mut before = (f64::from(HOME[0]), 0.0);
    for _ in 0..bad_at + 20 * STEP {
        let entry = rig.tick();
        let q = rig.controller.command().q[WRIST];
        if entry.tick > ARMED {
            let v = (q - before.0) / 0.002;
            assert!(v >= -1e-9, "tick {}: never back, {v}", entry.tick);
            assert!((v - before.1).abs() / 0.002 <= 90.0 * (1.0 + 1e-6), "tick {}: {v}", entry.tick);
            before.1 = v;
        }
        before.0 = q;
        if (bad_at..bad_at + 2 * STEP).contains(&entry.tick) {
            assert_eq!(rig.controller.command().level, Level::Hold);
        }
        if entry.tick == bad_at + 2 * STEP - 1 {
            assert_eq!(before.1, 0.0, "held at rest");
        }
    }
    assert!(before.0 > 0.6, "{}", before.0);
}

/// A stale state holds too, and the policy goes on answering to what it last saw: its target may run ahead of the held
/// robot by no more than the leash.
#[test]
fn a_target_cannot_wind_up_while_a_stale_state_holds_the_robot() {
    let (policy, seen) = push(0..0);
    let frozen = injection(100, 29, Trouble::Frozen);
    let mut rig = Rig::new(&increments(""), &[frozen], &[], policy);
    let levels = rig.levels(400);
    assert_eq!(levels[2..], [(110, Level::Hold), (129, Level::Run)]);
    assert!(seen.lock().unwrap().iter().all(|(_, ahead)| *ahead <= LEASH + 1e-6));
}
