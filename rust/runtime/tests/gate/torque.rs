//! Gains and targets under the effort limit, and the ramps after arming.

use cadenza_runtime::robot::TorqueMode;
use cadenza_runtime::safety::{Level, Reason};
use cadenza_runtime::state::Command;

use crate::safety_support::*;
use Level::Run;

#[test]
fn gains_scale_to_the_effort_and_targets_stay() {
    let mut rig = Rig::running(&robot(1));
    (rig.state.q[0], rig.state.dq[0]) = (-0.3, 0.5);
    rig.frozen = true;
    rig.tick();
    // 100·0.3 + 5·(0 − 0.5) = 27.5 N·m
    assert!((rig.command.kp[0] - KP * 20.0 / 27.5).abs() < 1e-9);
    assert!((rig.command.kd[0] - KD * 20.0 / 27.5).abs() < 1e-9);
    assert_eq!(rig.command.q[0], 0.0);

    let mut off = robot(1);
    off.safety.torque_mode = TorqueMode::Off;
    let mut rig = Rig::running(&off);
    (rig.state.q[0], rig.frozen) = (-0.3, true);
    rig.tick();
    assert_eq!(rig.command.kp[0], KP);
}

#[test]
fn a_target_moves_towards_the_joint_and_the_limiter_follows() {
    let mut target = robot(1);
    target.safety.torque_mode = TorqueMode::Target;
    let mut rig = Rig::running(&target);
    rig.frozen = true;
    rig.state.q[0] = -0.3;
    for _ in 0..9 {
        assert_eq!(rig.tick(), Run);
        let Command { q, dq, kp, kd, .. } = rig.command;
        let torque = kp[0] * (q[0] + 0.3) + kd[0] * (dq[0] - rig.state.dq[0]);
        assert!(torque <= 20.0 + 1e-9, "{torque}");
        assert!(rig.gate.altered() && rig.command.q[0] < 0.0);
    }
    assert_eq!(rig.gate.count(Reason::GateMismatch), 0);
}

#[test]
fn gains_and_authority_grow_smoothly_from_zero() {
    let mut rig = Rig::new(&robot(1));
    rig.arm();
    let smooth = |x: f64| x.min(1.0) * x.min(1.0) * (3.0 - 2.0 * x.min(1.0));
    for tick in 0..25 {
        assert!((rig.gate.authority() - smooth(f64::from(tick) * DT / 0.04)).abs() < 1e-12);
        rig.tick();
        assert!((rig.command.kp[0] - KP * smooth(f64::from(tick) * DT / 0.02)).abs() < 1e-9);
        assert_eq!(rig.command.kd[0], KD);
    }
    rig.gate.disarm();
    assert_eq!(rig.gate.authority(), 0.0);
}
