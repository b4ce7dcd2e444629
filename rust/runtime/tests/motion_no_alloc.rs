//! Observation, decoding, sequence, limiter and kinematics allocate nothing once they stand.

mod counting;

use std::path::Path;

use cadenza_policy::manifest::Manifest;
use cadenza_runtime::action::ActionPath;
use cadenza_runtime::config::{RunConfig, Upsample};
use cadenza_runtime::observe::{Feedback, Observer};
use cadenza_runtime::robot::Robot;
use cadenza_runtime::state::State;
use counting::calls_of;
use serde_json::json;

fn manifest() -> Manifest {
    let names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "forearm_roll", "wrist_flex", "wrist_roll"];
    let joints: Vec<_> = names
        .iter()
        .map(|name| {
            json!({ "name": name, "default": 0.0, "kp": 20.0, "kd": 1.0,
                    "position": null, "velocity_max": null, "effort_max": null })
        })
        .collect();
    let history = json!({ "length": 4, "order": "newest_first", "fill": "zero" });
    serde_json::from_value(json!({
        "format": 1, "name": "reach", "files": {}, "robot": { "name": "arm6", "model_sha256": null },
        "rates": { "policy_dt": 0.04, "control_dt": 0.002, "physics_dt": null },
        "joints": joints,
        "frames": [ { "name": "tool", "chain": [
            { "pos": [0.0, 0.0, 0.12], "quat": [1.0, 0.0, 0.0, 0.0], "joint": "shoulder_lift",
              "axis": [0.0, 1.0, 0.0], "kind": "hinge", "zero": 0.0 },
            { "pos": [0.0, 0.0, 0.3], "quat": [1.0, 0.0, 0.0, 0.0], "joint": null,
              "axis": [0.0, 0.0, 1.0], "kind": "hinge", "zero": 0.0 } ] } ],
        "observation": { "size": 48, "interleave": "time", "terms": [
            { "name": "q", "source": "joint_pos", "size": 6, "history": history },
            { "name": "to", "source": "frame_pos_error", "size": 3, "history": history,
              "params": { "frame": "tool", "in": "tool", "target": ["x", "y", "z"], "soft": 0.1 } },
            { "name": "phase", "source": "phase", "size": 2, "params": { "period": 1.0 }, "history": history },
            { "name": "time", "source": "time", "size": 1, "history": history } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position_increment", "joints": names, "raw_clip": [-1.0, 1.0],
                    "scale": { "*": 0.1 }, "leash": 0.3 },
        "chunk": { "mode": "open", "horizon": 4, "execute": 1, "on_exhausted": "hold", "seam": "fade" },
        "functions": {},
        "commands": [ { "name": "x", "range": [-1.0, 1.0] }, { "name": "y", "range": [-1.0, 1.0] },
                      { "name": "z", "range": [-1.0, 1.0] } ],
        "in_graph": { "normalize": false, "squash": true, "action_scale": false, "action_offset": false },
        "weights": "f32", "provenance": {},
    }))
    .unwrap()
}

#[test]
fn a_hundred_thousand_ticks_allocate_nothing() {
    let robot = Robot::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../robots/arm6")).unwrap();
    let manifest = manifest();
    let mut observer = Observer::new(&manifest, &robot).unwrap();
    let mut path = ActionPath::new(
        &manifest,
        &robot,
        &RunConfig { upsample: Some(Upsample::Cubic), ..RunConfig::default() },
    )
    .unwrap();
    let mut state = State::new(7);
    for (q, joint) in state.q.iter_mut().zip(&robot.joints) {
        *q = joint.home;
    }
    let mut feedback = Feedback::reset(&manifest, &state.q);
    let mut observation = vec![0.0f32; observer.size()];
    let mut raw = vec![0.0f32; path.decoder.input_len()];
    path.reset(&state).unwrap();
    observer.reset();

    let (mut refused, mut starved, mut blind) = (0, 0, 0);
    let calls = calls_of(|| {
        for tick in 0..100_000u64 {
            state.tick = tick;
            if tick % 20 == 0 {
                feedback.time = tick as f64 * 0.002;
                feedback.target = *path.decoder.target();
                blind += usize::from(observer.step(&state, &feedback, &mut observation).is_err());
                for (i, r) in raw.iter_mut().enumerate() {
                    *r = ((tick as f32) * 0.01 + i as f32).sin() * 1.5 + observation[0] * 1e-3;
                }
                // Now and then the policy is wrong, or late for longer than its sequence lasts.
                match tick / 20 % 50 {
                    7 => raw[3] = f32::NAN,
                    20..30 => continue,
                    _ => {}
                }
                refused += usize::from(path.accept(&raw, &state, tick).is_err());
            }
            let motion = path.command(tick);
            starved += usize::from(motion.flow != cadenza_runtime::action::Flow::Run);
            state.q = motion.q;
            state.dq = motion.dq;
            if tick % 9000 == 8999 {
                path.limiter.brake(&mut state.q, &mut state.dq);
                path.limiter.seed(&state.q, &state.dq).unwrap();
                state.epoch += 1;
                path.reset(&state).unwrap();
                observer.reset();
            }
        }
    });
    assert_eq!(calls, 0);
    assert!(
        refused >= 90 && starved > 1000 && blind == 0,
        "{refused} {starved} {blind}: the test went another way"
    );
}
