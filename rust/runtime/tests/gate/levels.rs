//! What the levels do to the robot, and that they only grow.

use cadenza_runtime::safety::check::Check;
use cadenza_runtime::safety::{Fault, Level, Reason};
use cadenza_runtime::state::Command;

use crate::safety_support::*;
use crate::{REST, fault};
use Level::{Damp, Hold, Off, Run, SoftStop};

#[test]
fn the_first_fault_is_kept_and_the_level_only_grows() {
    let mut rig = Rig::running(&robot(2));
    let runs = rig.levels(40, |rig, i| match i {
        5 => rig.gate.stop(),
        10 => rig.gate.report(fault(rig, Reason::Monitor, Hold)),
        20 => rig.gate.report(fault(rig, Reason::Tilt, Damp)),
        25 => rig.gate.stop(),
        30 => rig.gate.report(fault(rig, Reason::Monitor, Off)),
        _ => {}
    });
    assert_eq!(runs, [(Run, 5), (SoftStop, 15), (Damp, 10), (Off, 10)]);
    assert_eq!(rig.gate.first_fault().unwrap().reason, Reason::OperatorStop);
    assert_eq!((rig.gate.count(Reason::OperatorStop), rig.gate.count(Reason::Monitor)), (2, 2));
    assert_eq!(rig.command, Command { tick: rig.command.tick, ..Command::off(2) });
}

#[test]
fn a_soft_stop_brakes_within_the_limits_and_rests_before_it_damps() {
    let mut rig = Rig::running(&robot(1));
    rig.target[0] = 1.4;
    let mut speeds = Vec::new();
    let runs = rig.levels(200, |rig, i| {
        speeds.push(rig.gate.sent_velocity()[0]);
        if i == 100 {
            rig.gate.stop();
        }
    });
    // 2.998… rad/s at 50 rad/s² and 2 ms: 30 ticks of braking, the last of which is at rest, then the 50 at rest.
    assert_eq!(runs, [(Run, 100), (SoftStop, 29 + REST), (Damp, 100 - 29 - REST)]);
    assert!(speeds[100] > 2.9 && speeds.windows(2).all(|w| (w[1] - w[0]).abs() <= 0.1 * (1.0 + 1e-6)));
    assert_eq!(rig.gate.count(Reason::GateMismatch), 0);
    assert!((rig.command.q[0] - rig.state.q[0]).abs() < 1e-12);
    assert_eq!((rig.command.kp[0], rig.command.kd[0], rig.command.tau[0]), (0.0, 1.0, 0.0));
}

#[test]
fn a_soft_stop_that_does_not_brake_is_made_to() {
    let mut rig = Rig::running(&robot(1));
    rig.target[0] = 1.4;
    rig.levels(60, |_, _| {});
    rig.gate.stop();
    // A loop that ignores the level: it goes on at the same speed, for the longest that braking may take (0.174 s).
    let mut ignored = 0;
    while rig.gate.mismatch().is_none() {
        rig.read();
        rig.follower.step(Some(&rig.target), &rig.limits, &mut rig.command);
        rig.write();
        ignored += 1;
        assert!(ignored <= 89);
    }
    assert!(ignored > 87);
    let rest = rig.command;
    assert_eq!(rig.gate.mismatch().unwrap().what, Check::Braking);
    assert_eq!((rig.gate.sent_velocity()[0], rest.dq[0], rest.level), (0.0, 0.0, SoftStop));
    rig.read();
    rig.follower.step(Some(&rig.target), &rig.limits, &mut rig.command);
    rig.write();
    assert_eq!(rig.command.q[0], rest.q[0]);
}

#[test]
fn a_hold_in_which_the_robot_never_rests_is_a_fault() {
    let mut rig = Rig::running(&robot(1));
    rig.gate.report(Fault { joint: 0, ..fault(&rig, Reason::Monitor, Hold) });
    // Crossing 2.5 rad at 3 rad/s and stopping takes at most 1.01 s, 504 ticks; the loop swings for ever.
    let mut ticks = 0;
    while rig.gate.mismatch().is_none() {
        rig.target[0] = if ticks / 100 % 2 == 0 { 0.3 } else { -0.3 };
        rig.read();
        rig.follower.step(Some(&rig.target), &rig.limits, &mut rig.command);
        rig.write();
        ticks += 1;
        assert!(ticks < 1_000);
    }
    assert!(ticks > 504);
    assert_eq!((rig.gate.mismatch().unwrap().what, rig.command.level), (Check::Braking, SoftStop));
}
