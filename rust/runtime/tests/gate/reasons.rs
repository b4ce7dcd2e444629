//! Every reason takes its way down the ladder.

use cadenza_runtime::device::DeviceFault;
use cadenza_runtime::safety::{Fault, Level, Reason};

use crate::safety_support::*;
use crate::{REST, fault};
use Level::{Damp, Hold, Off, Run, SoftStop};

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
        Reason::ChunkRefused
        | Reason::PrefixMismatch
        | Reason::BundleSwitched
        | Reason::BundleRefused
        | Reason::MonitorSlowed => (once(rig), vec![(Run, 100)]),
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
