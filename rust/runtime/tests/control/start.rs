//! How motion begins and ends when robot.toml asks for more than the pose of now; what is fed back; who may stop it.

use std::sync::{Arc, Mutex};

use cadenza_policy::manifest::Previous;
use cadenza_runtime::control::{Controller, Estops, Planner, Request};
use cadenza_runtime::device::fault::Trouble;
use cadenza_runtime::device::{Device, DeviceInfo};
use cadenza_runtime::safety::{Level, Reason};

use crate::rig::{ARMED, Act, HOME, Parts, REST, Rig, STEP, injection, sway, toml};
use Level::{Damp, Off, Run, SoftStop};

const LIFT: usize = 1;

/// Commands of `rig`, tick by tick, with every limit of the rig checked.
fn drive(rig: &mut Rig<impl Device>, ticks: u64) -> Vec<(Level, [f64; 3])> {
    let (velocity, acceleration, dt) = ([2.5, 3.0, 6.0], [60.0, 40.0, 90.0], 0.002);
    let mut all: Vec<(Level, [f64; 3])> = Vec::new();
    let mut before = [0.0; 3];
    for _ in 0..ticks {
        rig.tick();
        let command = rig.controller.command();
        let q: [f64; 3] = std::array::from_fn(|i| command.q[i]);
        if let Some((last, p)) = all.last().filter(|(last, _)| *last <= SoftStop && command.level <= SoftStop)
        {
            for i in 0..3 {
                let v = (q[i] - p[i]) / dt;
                assert!(v.abs() <= velocity[i] * (1.0 + 1e-6), "{last:?} joint {i}: {v}");
                assert!(((v - before[i]) / dt).abs() <= acceleration[i] * (1.0 + 1e-4), "joint {i}");
                before[i] = v;
            }
        } else {
            before = [0.0; 3];
        }
        all.push((command.level, q));
    }
    all
}

#[test]
fn a_robot_moves_home_before_its_policy_begins() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let policy = Act(move |tick: u64, obs: &[f32], out: &mut [f32]| {
        seen.lock().unwrap().push((tick, obs[2]));
        out.copy_from_slice(&HOME);
        out[2] = 0.5;
        Ok(())
    });
    // It stands 0.6 rad beside home, where the device keeps it until the motors come on.
    let parts = Parts {
        text: toml([0, 1, 2], "start = \"home\"\n").replace("home = 0.1", "home = 0.7"),
        ..Parts::default()
    };
    let standing = Parts { text: toml([0, 1, 2], ""), ..Parts::default() };
    let now = Arc::default();
    let device = crate::rig::faulty(&standing.robot(), &now, &[]);
    let mut rig = Rig::around(&parts, device, now, &[], policy);
    let all = drive(&mut rig, 800);
    assert_eq!((all[ARMED as usize - 1].0, all[ARMED as usize].0), (Off, Run));
    let begun = asked.lock().unwrap()[0].0;
    assert!(asked.lock().unwrap().iter().all(|(tick, _)| (tick - begun).is_multiple_of(STEP)));
    assert!((0.7 - all[begun as usize - 1].1[LIFT]).abs() < 1e-6, "{begun}: {:?}", all[begun as usize - 1]);
    let (home, way): (f64, Vec<f64>) =
        (0.7, all[ARMED as usize..begun as usize].iter().map(|(_, q)| q[LIFT]).collect());
    assert!(
        way.windows(2).all(|w| w[1] >= w[0] - 1e-9) && way[0] < 0.11 && way[way.len() - 1] <= home + 1e-9
    );
    // 0.6 rad at 3 rad/s and 40 rad/s² are 138 ticks and the delay of the bound on the jerk.
    assert!((ARMED + 130..ARMED + 180).contains(&begun), "{begun}");
    // From home on the policy has it, beginning without a jump.
    assert!((all[begun as usize].1[LIFT] - home).abs() < 1e-6 && (all[799].1[LIFT] - 0.5).abs() < 1e-6);
    assert!((rig.controller.armed_seconds() - 0.002 * (799 - begun + 1) as f64).abs() < 0.003);
}

#[test]
fn a_blocked_move_home_ends_as_any_blocked_motion() {
    let parts = Parts {
        text: toml([0, 1, 2], "start = \"home\"\n").replace("home = 0.1", "home = 1.1"),
        ..Parts::default()
    };
    let standing = Parts::default();
    let now = Arc::default();
    let stuck = injection(ARMED + 5, u64::MAX, Trouble::Jump { joint: LIFT, by: -0.7 });
    let device = crate::rig::faulty(&standing.robot(), &now, &[stuck]);
    let mut rig = Rig::around(&parts, device, now, &[], Act(sway(0.1)));
    rig.levels(400);
    assert_eq!(rig.controller.gate().first_fault().unwrap().reason, Reason::Tracking);
    assert_eq!((rig.controller.gate().level(), rig.controller.armed_seconds()), (Damp, 0.0));
}

#[test]
fn a_soft_stop_moves_to_its_pose_rests_and_damps() {
    let text = toml([0, 1, 2], "softstop_pose = { lift = 0.9, pan = -0.5 }\n");
    let parts = Parts { text, ..Parts::default() };
    let mut rig = Rig::new(&parts, &[], &[(500, Request::Stop)], Act(sway(0.3)));
    let all = drive(&mut rig, 1200);
    let damped = all.iter().position(|(level, _)| *level == Damp).expect("damped") as u64;
    let last = all[damped as usize - 1].1;
    assert!((last[LIFT] - 0.9).abs() < 1e-3 && (last[0] + 0.5).abs() < 1e-3, "{last:?}");
    // The wrist is not named: it brakes and stays.
    assert!((last[2] - all[500].1[2]).abs() < 0.1);
    assert!(damped > 500 + REST + 100 && damped < 500 + REST + 400, "{damped}");
    // For all of the rest the pose stands.
    assert!(all[(damped - REST) as usize..damped as usize].iter().all(|(_, q)| (q[LIFT] - 0.9).abs() < 1e-3));
    assert_eq!(rig.controller.gate().count(Reason::GateMismatch), 0);
}

#[test]
fn poses_that_the_bundle_keeps_the_robot_from_are_refused() {
    // The bundle's wrist ends at -1.0, the robot's at -1.5.
    let refused = |text: String| {
        let parts = Parts { text, ..Parts::default() };
        let planner = Planner::inline(Box::new(Act(sway(0.1))));
        let (robot, device) = (parts.robot(), DeviceInfo::default());
        Controller::new(&parts.manifest, None, &robot, &device, planner, &parts.config)
            .err()
            .unwrap()
            .to_string()
    };
    let pose = refused(toml([0, 1, 2], "softstop_pose = { wrist = -1.2 }\n"));
    assert_eq!(pose, "safety.softstop_pose: wrist would go to -1.2 rad, outside [-1, 1.5]");
    let home = refused(toml([0, 1, 2], "start = \"home\"\n").replace("home = -0.2", "home = -1.2"));
    assert!(home.starts_with("safety.start = home: wrist would go to -1.2 rad"), "{home}");
}

/// Positions through `scale` and `offset`: what the network sees is what the robot was sent, in its own units.
#[test]
fn the_applied_action_is_what_was_sent_and_not_what_was_asked_for() {
    for increment in [false, true] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let policy = {
            let seen = seen.clone();
            Act(move |tick: u64, obs: &[f32], out: &mut [f32]| {
                seen.lock().unwrap().push((tick, [obs[6], obs[7], obs[8]]));
                out.fill(if increment { 0.8 } else { 9.0 });
                Ok(())
            })
        };
        let manifest = crate::rig::manifest(|m| {
            m["action"]["scale"] = serde_json::json!({ "*": 0.5 });
            if increment {
                m["action"]["kind"] = "position_increment".into();
                m["action"]["leash"] = 0.3.into();
            } else {
                m["action"]["offset"] = serde_json::json!({ "lift": 0.25 });
            }
            m["action"]["reset"] = serde_json::json!([0.5, 0.25, 0.125]);
        });
        let mut parts = Parts { manifest, ..Parts::default() };
        parts.manifest.action.previous = Previous::Applied;
        let mut rig = Rig::new(&parts, &[], &[], policy);
        let mut sent = Vec::new();
        for _ in 0..400 {
            rig.tick();
            sent.push(rig.controller.command().q);
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].1, [0.5, 0.25, 0.125], "the manifest's reset value");
        let mut moved = false;
        for &(tick, before) in &seen[1..] {
            let at = tick as usize - 1;
            // wrist, pan, lift in the bundle; pan, lift, wrist in the robot.
            for (action, (joint, offset)) in [(2, 0.0), (0, 0.0), (1, 0.25)].into_iter().enumerate() {
                let was = if tick == ARMED + STEP { HOMES[joint] } else { sent[at - STEP as usize][joint] };
                let y = if increment { sent[at][joint] - was } else { sent[at][joint] - offset };
                assert!((f64::from(before[action]) - y / 0.5).abs() < 1e-6, "tick {tick}, action {action}");
                moved |= (f64::from(before[action]) - 0.8).abs() > 1e-3;
            }
        }
        assert!(moved && seen.len() > 30);
    }
}

const HOMES: [f64; 3] = [0.0, 0.1, -0.2];

#[test]
fn a_pressed_source_is_an_emergency_stop_that_stands() {
    let (read, write) = std::io::pipe().unwrap();
    let estops = Estops::lines(std::os::fd::OwnedFd::from(read).into()).unwrap();
    let requests = [(700, Request::Reset), (800, Request::Reset)];
    let mut rig = Rig::new(&Parts::default(), &[], &requests, Act(sway(0.3)));
    rig.controller.obey_button(estops.button());
    assert_eq!(rig.levels(500), [(0, Off), (ARMED, Run)]);
    let mut write = std::fs::File::from(std::os::fd::OwnedFd::from(write));
    let mut tell = |text: &[u8], down: bool| {
        std::io::Write::write_all(&mut write, text).unwrap();
        // Its thread lives in real time; the flag that a short press leaves is the loop's.
        let begin = std::time::Instant::now();
        while estops.is_down() != down {
            assert!(begin.elapsed() < std::time::Duration::from_secs(30));
            std::thread::yield_now();
        }
    };
    tell(b"stop\n", true);
    assert_eq!(rig.levels(250), [(500, Damp)], "and it is not reset while it is pressed");
    tell(b"release\n", false);
    assert_eq!(rig.levels(100), [(750, Damp), (800, Off)]);
    let first = rig.controller.faults().iter().find(|f| f.level == Damp).unwrap();
    assert_eq!((first.reason, first.tick), (Reason::Estop, 500));
}
