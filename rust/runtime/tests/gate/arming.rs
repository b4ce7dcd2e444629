//! When the motors come on, and when a latch is cleared.

use cadenza_runtime::safety::check::Check;
use cadenza_runtime::safety::{ArmRefusal, Fault, Level, Phase, Reason, ResetRefusal};

use crate::fault;
use crate::safety_support::*;
use Level::{Hold, Off, Run};

#[test]
fn arming_waits_for_ten_good_states_and_refuses_with_the_value() {
    let mut rig = Rig::new(&robot(2));
    assert_eq!(rig.gate.armable(&rig.state), Err(ArmRefusal::Phase { phase: Phase::Disarmed }));
    rig.gate.arm().unwrap();
    assert_eq!(rig.gate.arm(), Err(ArmRefusal::Phase { phase: Phase::Arming }));
    for have in 1..10 {
        rig.read();
        assert_eq!(rig.gate.armable(&rig.state), Err(ArmRefusal::States { have, need: 10 }));
        assert_eq!(rig.write(), Off);
    }
    // A bad state starts the count again; a repeated one does not count.
    rig.state.dq[0] = f64::NAN;
    rig.read();
    assert_eq!(rig.gate.armable(&rig.state), Err(ArmRefusal::States { have: 0, need: 10 }));
    rig.state.dq[0] = 0.0;
    for i in 0..14 {
        rig.frozen = i < 5;
        rig.read();
    }
    assert!(rig.gate.armable(&rig.state).unwrap_err().is_waiting());
    rig.read();
    rig.gate.armable(&rig.state).unwrap();

    let refusal = |disturb: &dyn Fn(&mut Rig)| {
        let mut rig = Rig::new(&robot(2));
        rig.gate.arm().unwrap();
        disturb(&mut rig);
        for _ in 0..12 {
            rig.read();
        }
        rig.gate.armable(&rig.state).unwrap_err()
    };
    let outside = refusal(&|rig| rig.state.q[1] = 1.515);
    assert_eq!(outside, ArmRefusal::OutsideLimits { joint: 1, q: 1.515, lo: -1.0, hi: 1.5 });
    let far = refusal(&|rig| rig.state.q[1] = -2.0);
    assert_eq!(far.to_string(), "joint 1 stands at -2 rad, outside [-1, 1.5]");
    let moving = refusal(&|rig| rig.state.dq[0] = -1.5);
    assert_eq!(moving, ArmRefusal::Moving { joint: 0, dq: -1.5, limit: 1.5 });
    let fast = refusal(&|rig| rig.state.dq[0] = 9.0);
    assert_eq!(fast, ArmRefusal::Moving { joint: 0, dq: 9.0, limit: 1.5 });
    assert_eq!(refusal(&|rig| rig.state.estop = true), ArmRefusal::Estop);
    let hot = refusal(&|rig| rig.state.temp[1] = 71.0);
    assert_eq!(hot.to_string(), "TEMPERATURE stands: 71, limit 70");
    let lying = refusal(&|rig| rig.state.imu.quat = [0.0, 1.0, 0.0, 0.0]);
    assert!(matches!(lying, ArmRefusal::Condition { reason: Reason::Tilt, .. }));
    let blind = refusal(&|rig| rig.state.imu.valid = false);
    assert!(matches!(blind, ArmRefusal::Condition { reason: Reason::StateNotFiniteRepeated, .. }));
    assert!(refusal(&|rig| rig.frozen = true).is_waiting() || rig.gate.first_fault().is_none());

    // A joint that leans a little into its end stop is held inside its range.
    let mut rig = Rig::new(&robot(1));
    rig.state.q[0] = 1.505;
    rig.arm();
    assert_eq!(rig.gate.sent().q[0], 1.5);
    // The hold command is checked like any other.
    let mut rig = Rig::new(&robot(1));
    rig.gate.arm().unwrap();
    let mut hold = rig.gate.hold_command();
    hold.q[0] = 1.6;
    assert!(matches!(rig.gate.armed(&hold), Err(ArmRefusal::Hold(m)) if m.what == Check::Position));
    assert_eq!(rig.gate.phase(), Phase::Arming);
}

#[test]
fn arming_starts_afresh() {
    let mut rig = Rig::running(&robot(1));
    rig.report(Reason::PolicyLate);
    rig.gate.report(Fault { joint: 5, ..fault(&rig, Reason::Monitor, Hold) });
    assert_eq!(rig.tick(), Hold);
    rig.gate.disarm();
    rig.levels(20, |_, _| {});
    rig.gate.arm().unwrap();
    rig.read();
    assert_eq!(rig.gate.armable(&rig.state), Err(ArmRefusal::States { have: 1, need: 10 }));
    rig.gate.disarm();
    rig.arm();
    assert_eq!(rig.levels(40, |_, _| {}), [(Run, 40)]);
}

#[test]
fn a_reset_needs_the_cause_gone_and_leaves_the_robot_disarmed() {
    let mut rig = Rig::running(&robot(1));
    assert_eq!(rig.gate.reset(), Err(ResetRefusal::NotLatched));
    rig.state.estop = true;
    rig.tick();
    let standing = ResetRefusal::Standing { reason: Reason::Estop, joint: u16::MAX, value: 1.0, limit: 0.0 };
    assert_eq!(rig.gate.reset(), Err(standing));
    assert_eq!(rig.gate.arm(), Err(ArmRefusal::Latched { reason: Reason::Estop }));
    rig.gate.disarm();
    assert_eq!((rig.gate.phase(), rig.gate.level()), (Phase::Disarmed, Off));
    rig.tick();
    assert_eq!(rig.gate.reset(), Err(standing));
    assert_eq!(rig.gate.arm(), Err(ArmRefusal::Latched { reason: Reason::Estop }));
    rig.state.estop = false;
    rig.tick();
    rig.gate.reset().unwrap();
    assert_eq!((rig.gate.phase(), rig.gate.level(), rig.gate.first_fault()), (Phase::Disarmed, Off, None));
    assert_eq!(rig.tick(), Off);
    rig.arm();
    assert_eq!(rig.tick(), Run);
}
