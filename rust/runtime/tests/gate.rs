//! Every reason provoked, with the exact levels that follow; arming, reset, ramps and torque.

mod safety_support;

use cadenza_runtime::device::DeviceFault;
use cadenza_runtime::robot::TorqueMode;
use cadenza_runtime::safety::check::Check;
use cadenza_runtime::safety::{ArmRefusal, Fault, Level, Phase, Reason, ResetRefusal};
use cadenza_runtime::state::Command;
use proptest::prelude::*;
use safety_support::*;

use Level::{Damp, Hold, Off, Run, SoftStop};

/// Ticks at rest that a soft stop takes with `softstop_damp` = 0.1 s.
const REST: usize = 50;

/// Levels of commands, run-length encoded.
type Runs = Vec<(Level, usize)>;

/// Disturbs a running rig for 100 ticks so that `reason` must follow; gives the levels that followed and those that must.
/// There is no wildcard: a new reason does not compile until it is provoked.
fn provoke(reason: Reason, rig: &mut Rig) -> (Runs, Runs) {
    let stop_at_10 = vec![(Run, 10), (SoftStop, REST), (Damp, 100 - 10 - REST)];
    let damp_at_10 = vec![(Run, 10), (Damp, 90)];
    let hold_10_to_19 = vec![(Run, 10), (Hold, 10), (Run, 80)];
    // A fault reported once, between two ticks.
    let once = |rig: &mut Rig| {
        rig.levels(100, |rig, i| {
            if i == 10 {
                rig.report(reason)
            }
        })
    };
    // The policy's: reported for ten ticks, then the policy answers.
    let policy = |rig: &mut Rig| {
        rig.levels(100, |rig, i| match i {
            10 => rig.report(reason),
            20 => rig.gate.policy_answered(),
            _ => {}
        })
    };
    match reason {
        // Frozen from tick 10 on (10 periods of age are allowed), alive again from tick 25 on.
        Reason::StateStale => (
            rig.levels(100, |rig, i| rig.frozen = (10..25).contains(&i)),
            vec![(Run, 20), (Hold, 5), (Run, 75)],
        ),
        Reason::StateLost => {
            (rig.levels(100, |rig, i| rig.frozen = i >= 10), vec![(Run, 20), (Hold, 20), (Damp, 60)])
        }
        Reason::StateNotFinite => (
            rig.levels(100, |rig, i| {
                // Two bad ticks, one good one, two bad ones: never three in a row.
                rig.state.tau[1] = if [10, 11, 13, 14].contains(&i) { f64::NAN } else { 0.0 }
            }),
            vec![(Run, 10), (Hold, 2), (Run, 1), (Hold, 2), (Run, 85)],
        ),
        Reason::StateNotFiniteRepeated => (
            rig.levels(100, |rig, i| rig.state.imu.acc[2] = if i >= 10 { f64::INFINITY } else { 9.81 }),
            vec![(Run, 10), (Hold, 2), (Damp, 88)],
        ),
        Reason::ObservationNotFinite
        | Reason::PolicyNotFinite
        | Reason::PolicyLate
        | Reason::PolicyWrongLength => (policy(rig), hold_10_to_19),
        Reason::PolicyExhausted | Reason::HorizonTooShort => (once(rig), stop_at_10),
        // Recorded, and nothing more.
        Reason::ChunkRefused | Reason::PrefixMismatch | Reason::BundleSwitched | Reason::BundleRefused => {
            (once(rig), vec![(Run, 100)])
        }
        Reason::PositionMeasured => (
            rig.levels(100, |rig, i| rig.state.q[0] = if i == 10 { 1.56 } else { rig.command.q[0] }),
            stop_at_10,
        ),
        Reason::VelocityMeasured => (
            rig.levels(100, |rig, i| rig.state.dq[0] = if (10..13).contains(&i) { -3.7 } else { 0.0 }),
            vec![(Run, 12), (Damp, 88)],
        ),
        Reason::Tracking => {
            (rig.levels(100, |rig, i| rig.state.q[1] += if i == 10 { 0.61 } else { 0.0 }), stop_at_10)
        }
        Reason::TorqueSaturated => {
            // The joint is pulled 0.3 rad off its target: 30 N·m where 20 are allowed.
            let runs = rig.levels(200, |rig, _| rig.state.q[0] = -0.3);
            (runs, vec![(Run, 100), (SoftStop, REST), (Damp, 100 - REST)])
        }
        Reason::Temperature => {
            (rig.levels(100, |rig, i| rig.state.temp[2] = if i == 10 { 70.5 } else { 40.0 }), stop_at_10)
        }
        Reason::Tilt => (
            // 1.1 rad about y, once.
            rig.levels(100, |rig, i| {
                let half: f64 = if i == 10 { 0.55 } else { 0.0 };
                rig.state.imu.quat = [half.cos(), 0.0, half.sin(), 0.0];
            }),
            damp_at_10,
        ),
        Reason::Estop => (rig.levels(100, |rig, i| rig.state.estop = i == 10), damp_at_10),
        Reason::JointSilent => {
            let fault = DeviceFault::JointSilent { joint: 1, lost: 5 };
            (rig.levels(100, |rig, i| rig.device = (i == 10).then_some(fault)), damp_at_10)
        }
        Reason::BusSilent => {
            let fault = DeviceFault::BusSilent { for_ms: 30 };
            (rig.levels(100, |rig, i| rig.device = (i == 10).then_some(fault)), damp_at_10)
        }
        Reason::Vendor => {
            let fault = DeviceFault::Vendor { joint: 2, code: 77 };
            (rig.levels(100, |rig, i| rig.device = (i == 10).then_some(fault)), damp_at_10)
        }
        // Latched in the device: reported on every tick from 10 on.
        Reason::Diverged => {
            let fault = DeviceFault::Diverged { joint: 0 };
            (rig.levels(100, |rig, i| rig.device = (i >= 10).then_some(fault)), vec![(Run, 10), (Off, 90)])
        }
        // A monitor with `action = "hold"` trips at 10 and recovers at 20.
        Reason::Monitor => (
            rig.levels(100, |rig, i| match i {
                10 => rig.gate.report(Fault { joint: 3, ..fault(rig, reason, Hold) }),
                20 => rig.gate.monitor_cleared(3),
                _ => {}
            }),
            hold_10_to_19,
        ),
        Reason::GateMismatch => {
            // The limiter jumps by 0.1 rad in one tick.
            let runs = rig.levels(100, |rig, i| rig.follower.p[0] += if i == 10 { 0.1 } else { 0.0 });
            (runs, stop_at_10)
        }
        Reason::Deadline => (once(rig), stop_at_10),
        Reason::Panic | Reason::WriteFailed => (once(rig), damp_at_10),
        Reason::OperatorStop => (
            rig.levels(100, |rig, i| {
                if i == 10 {
                    rig.gate.stop()
                }
            }),
            stop_at_10,
        ),
        Reason::OperatorEstop => (
            rig.levels(100, |rig, i| {
                if i == 10 {
                    rig.gate.estop()
                }
            }),
            damp_at_10,
        ),
    }
}

fn fault(rig: &Rig, reason: Reason, level: Level) -> Fault {
    Fault { tick: rig.state.tick, reason, joint: u16::MAX, value: 1.0, limit: 0.0, level }
}

#[test]
fn every_reason_takes_its_way_down_the_ladder() {
    for &reason in Reason::ALL {
        let mut rig = Rig::running(&robot(3));
        let (seen, expected) = provoke(reason, &mut rig);
        assert_eq!(seen, expected, "{}", reason.name());
        assert!(rig.gate.count(reason) > 0, "{}", reason.name());
        let mut drained = Vec::new();
        rig.gate.drain_faults(|f| drained.push(f.reason));
        assert!(drained.contains(&reason), "{}: {drained:?}", reason.name());
        // A latch appears exactly when the level reached SoftStop; its fault asked for that much and is the first one.
        let latched = expected.iter().any(|(level, _)| *level >= SoftStop);
        let first = rig.gate.first_fault();
        assert_eq!(first.is_some(), latched, "{}", reason.name());
        if let Some(first) = first {
            assert_eq!(first.reason, reason, "{first:?}");
            assert!(first.level >= SoftStop);
        }
    }
}

#[test]
fn faults_carry_joint_value_and_limit() {
    let drained = |disturb: &dyn Fn(&mut Rig)| {
        let mut rig = Rig::running(&robot(3));
        disturb(&mut rig);
        rig.tick();
        let mut all = Vec::new();
        rig.gate.drain_faults(|f| all.push((f.reason, f.joint, f.value, f.limit, f.level)));
        all
    };
    let hot = drained(&|rig| rig.state.temp[2] = 70.5);
    assert_eq!(hot, [(Reason::Temperature, 2, 70.5, 70.0, SoftStop)]);
    let outside = drained(&|rig| rig.state.q[1] = -1.0625);
    assert_eq!(outside[0], (Reason::PositionMeasured, 1, -1.0625, -1.0, SoftStop));
    let jump = drained(&|rig| rig.follower.p[1] = 2.0);
    assert_eq!(jump[0].0, Reason::GateMismatch);
    let silent = drained(&|rig| rig.device = Some(DeviceFault::JointSilent { joint: 1, lost: 5 }));
    assert_eq!(silent, [(Reason::JointSilent, 1, 5.0, 0.0, Damp)]);
}

#[test]
fn a_policy_that_holds_too_long_stops_the_robot() {
    let mut rig = Rig::running(&robot(2));
    let runs = rig.levels(100, |rig, i| {
        if i == 10 {
            rig.report(Reason::PolicyLate)
        }
    });
    assert_eq!(runs, [(Run, 10), (Hold, 25), (SoftStop, REST), (Damp, 15)]);
    let first = rig.gate.first_fault().unwrap();
    assert_eq!((first.reason, first.value, first.limit), (Reason::PolicyLate, 26.0, 25.0));
}

#[test]
fn a_monitor_may_ask_for_any_level_and_may_only_log() {
    for (level, expected) in
        [(Run, vec![Run]), (SoftStop, vec![SoftStop]), (Damp, vec![Damp]), (Off, vec![Off])]
    {
        let mut rig = Rig::running(&robot(2));
        rig.gate.report(fault(&rig, Reason::Monitor, level));
        let levels: Vec<_> = rig.levels(3, |_, _| {}).into_iter().map(|(level, _)| level).collect();
        assert_eq!(levels, expected);
        assert_eq!(rig.gate.count(Reason::Monitor), 1);
        assert_eq!(rig.command.kp[0] > 0.0, level <= SoftStop);
    }
}

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

#[test]
fn a_device_whose_stamps_run_ahead_is_still_found_silent() {
    let mut rig = Rig::running(&robot(1));
    rig.fresh.stamp_ns += 1_000_000_000;
    rig.frozen = true;
    assert_eq!(rig.levels(60, |_, _| {}), [(Run, 10), (Hold, 20), (Damp, 30)]);
}

#[test]
fn a_full_buffer_drops_and_counts() {
    let mut rig = Rig::running(&robot(1));
    for _ in 0..100 {
        rig.gate.report(fault(&rig, Reason::Monitor, Run));
    }
    let mut seen = 0;
    rig.gate.drain_faults(|_| seen += 1);
    assert_eq!((seen, rig.gate.dropped_faults(), rig.gate.count(Reason::Monitor)), (64, 36, 100));
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Arm,
    Enable,
    Disarm,
    Reset,
    Stop,
    Estop,
    Press(bool),
    Fault(Level),
    Answered,
    Ticks(u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Arm),
        Just(Ask::Enable),
        Just(Ask::Disarm),
        Just(Ask::Reset),
        Just(Ask::Stop),
        Just(Ask::Estop),
        any::<bool>().prop_map(Ask::Press),
        prop::sample::select(vec![Run, Hold, SoftStop, Damp, Off]).prop_map(Ask::Fault),
        Just(Ask::Answered),
        (1u8..70).prop_map(Ask::Ticks),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is asked in whatever order: once a latched level was reached, the robot runs again only after a reset,
    /// an arm and an enable that were all granted, in this order.
    #[test]
    fn no_request_leads_back_to_run_without_reset_arm_enable(asks in prop::collection::vec(ask(), 1..60)) {
        let mut rig = Rig::running(&robot(1));
        // How much of reset, arm, enable has been granted since the last latched level.
        let mut granted = 3;
        for ask in asks {
            match ask {
                Ask::Arm => if rig.gate.arm().is_ok() && granted == 1 { granted = 2 },
                Ask::Enable => {
                    let ready = rig.gate.armable(&rig.state).is_ok();
                    if ready && rig.enable().is_ok() && granted == 2 { granted = 3 }
                }
                Ask::Disarm => { rig.gate.disarm(); granted = granted.min(1) }
                Ask::Reset => if rig.gate.reset().is_ok() { granted = 1 },
                Ask::Stop => rig.gate.stop(),
                Ask::Estop => rig.gate.estop(),
                Ask::Press(pressed) => rig.state.estop = pressed,
                Ask::Fault(level) => rig.gate.report(fault(&rig, Reason::Monitor, level)),
                Ask::Answered => rig.gate.policy_answered(),
                Ask::Ticks(count) => (0..count).for_each(|_| { rig.tick(); }),
            }
            if rig.gate.first_fault().is_some() {
                granted = 0;
            } else if granted == 2 && rig.gate.phase() == Phase::Disarmed {
                granted = 1;
            }
            let level = rig.tick();
            if rig.gate.first_fault().is_some() {
                granted = 0;
            }
            prop_assert!(level >= SoftStop || granted == 3, "{ask:?} led to {level:?} with {granted} granted");
            prop_assert_eq!(rig.gate.phase() == Phase::Armed || level == Off, true);
        }
    }
}
