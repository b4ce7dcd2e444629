//! A command that breaks a limit is found, whatever it breaks.

use cadenza_runtime::robot::TorqueMode;
use cadenza_runtime::safety::check::Check;
use cadenza_runtime::safety::{Level, Reason};
use cadenza_runtime::state::Command;

use crate::REST;
use crate::safety_support::*;
use Level::{Damp, Run, SoftStop};

#[test]
fn each_broken_limit_is_found_and_the_last_command_is_sent_again_at_rest() {
    type Break = fn(&mut Command);
    let cases: [(Check, Break); 11] = [
        (Check::Joints, |c| c.n = 1),
        (Check::Finite, |c| c.q[1] = f64::NAN),
        (Check::Finite, |c| c.tau[1] = f64::INFINITY),
        (Check::Position, |c| c.q[1] = 1.500_000_1),
        (Check::Velocity, |c| c.q[1] -= 0.0061),
        (Check::FeedForward, |c| c.dq[1] = 3.01),
        (Check::Acceleration, |c| c.q[1] += 0.000_21),
        (Check::Effort, |c| c.tau[1] = -20.1),
        (Check::Gain, |c| c.kp[1] = 201.0),
        (Check::Gain, |c| c.kd[1] = -0.1),
        (Check::Gain, |c| c.kp[1] = f64::MAX),
    ];
    for (what, broken) in cases {
        let mut rig = Rig::running(&robot(2));
        rig.target[0] = 1.0;
        rig.levels(20, |_, _| {});
        let before = rig.command;
        rig.read();
        rig.limit();
        broken(&mut rig.command);
        assert_eq!(rig.write(), SoftStop, "{what:?}");
        let mismatch = rig.gate.mismatch().unwrap();
        assert_eq!(mismatch.what, what);
        assert_eq!(mismatch.joint, if what == Check::Joints { u16::MAX } else { 1 });
        assert!(rig.gate.altered());
        let again = rig.command;
        assert_eq!((again.q, again.kp, again.kd, again.n), (before.q, before.kp, before.kd, before.n));
        assert_eq!(again.dq, [0.0; 64]);
        // The limiter, seeded from what was sent, goes on without another complaint.
        assert_eq!(rig.levels(100, |_, _| {}), [(SoftStop, REST - 1), (Damp, 100 - REST + 1)]);
        assert_eq!(rig.gate.count(Reason::GateMismatch), 1);
    }
}

#[test]
fn a_jump_of_the_acceleration_is_found_and_a_joint_that_the_gate_has_moved_is_not_judged_by_it() {
    let mut smooth = robot(2);
    smooth.joints[1].limits.jerk = 5000.0;
    let mut rig = Rig::running(&smooth);
    rig.read();
    rig.limit();
    // 25 rad/s² from rest: allowed, but not within one tick.
    rig.command.q[1] += 0.000_1;
    assert_eq!(rig.write(), SoftStop);
    let mismatch = rig.gate.mismatch().unwrap();
    assert_eq!((mismatch.joint, mismatch.what, mismatch.limit), (1, Check::Jerk, 5000.0));
    assert!((mismatch.value - 12_500.0).abs() < 1e-3, "{}", mismatch.value);

    // The gate's own way of moving a target has corners; they are not the limiter's fault.
    smooth.safety.torque_mode = TorqueMode::Target;
    let mut rig = Rig::running(&smooth);
    rig.frozen = true;
    rig.state.q[1] = -0.3;
    for _ in 0..9 {
        assert_eq!(rig.tick(), Run);
        assert!(rig.gate.altered());
    }
    assert_eq!(rig.gate.count(Reason::GateMismatch), 0);
}
