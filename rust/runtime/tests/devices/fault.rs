use std::sync::atomic::Ordering;

use cadenza_runtime::device::fault::{Faulty, Injection, Trouble};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceFault, Freshness};
use cadenza_runtime::state::{Command, State};

use crate::support::{command, robot, virtual_time};

const PERIOD: i64 = 2_000_000;

/// What came of `read` and of `write` in one tick.
type Tick = (Result<(State, Freshness), DeviceFault>, Result<(), DeviceFault>);

/// Ten ticks of a robot that is told tick/100 at each tick, so that tick k measures (k−1)/100 rad at k·2 ms. Returns what
/// was read and what was written.
fn ticks(injections: Vec<Injection>) -> Vec<Tick> {
    let (ns, time) = virtual_time();
    let robot = robot(2);
    let mut device = Faulty::new(NullDevice::new(&robot, time).unwrap(), injections);
    let mut hold = Command::off(2);
    (hold.q[0], hold.q[1]) = (0.1, 0.2);
    device.enable(&hold).unwrap();
    let mut state = State::new(2);
    (0..10)
        .map(|k| {
            ns.store(k * PERIOD, Ordering::Release);
            let read = device.read(&mut state).map(|f| (state, f));
            (read, device.write(&command(2, k as f64 / 100.0, 0.0, 60.0, 6.0, 0.0)))
        })
        .collect()
}

fn at(from: u64, ticks: u64, trouble: Trouble) -> Vec<Injection> {
    vec![Injection { from, ticks, trouble }]
}

/// Everything but ticks 4, 5 and 6 is as without injections.
fn assert_only_4_to_6(trouble: Trouble) -> Vec<(State, Freshness)> {
    let clean = ticks(vec![]);
    let run = ticks(at(4, 3, trouble));
    let mut inside = Vec::new();
    for (k, (got, expected)) in run.iter().zip(&clean).enumerate() {
        if (4..=6).contains(&k) {
            inside.push(got.0.unwrap());
        } else {
            assert_eq!(got, expected, "tick {k}");
        }
    }
    inside
}

#[test]
fn without_injections_nothing_changes() {
    for (k, (read, write)) in ticks(vec![]).into_iter().enumerate().skip(1) {
        let (s, f) = read.unwrap();
        assert_eq!(
            (s.q[0], f.stamp_ns, f.sequence),
            ((k as f64 - 1.0) / 100.0, k as i64 * PERIOD, k as u64 + 1)
        );
        assert_eq!(write, Ok(()));
    }
}

#[test]
fn one_joint_is_nan_or_elsewhere() {
    for (s, f) in assert_only_4_to_6(Trouble::NotFinite { joint: 1 }) {
        assert!(s.q[1].is_nan() && s.q[0].is_finite() && f.stale_joints == 0);
    }
    for (k, (s, _)) in assert_only_4_to_6(Trouble::Jump { joint: 0, by: 0.5 }).into_iter().enumerate() {
        let truth = (k as f64 + 3.0) / 100.0;
        assert_eq!((s.q[0], s.q[1]), (truth + 0.5, truth));
    }
}

#[test]
fn a_silent_joint_keeps_its_old_number_and_ages() {
    for (k, (s, f)) in assert_only_4_to_6(Trouble::Silent { joint: 1 }).into_iter().enumerate() {
        assert_eq!((s.q[0], s.q[1]), ((k as f64 + 3.0) / 100.0, 0.02));
        assert_eq!((f.stale_joints, f.stamp_ns, f.sequence), (0b10, 3 * PERIOD, k as u64 + 5));
    }
}

#[test]
fn a_frozen_device_repeats_the_same_measurement() {
    for (s, f) in assert_only_4_to_6(Trouble::Frozen) {
        assert_eq!((s.q[0], s.q[1]), (0.02, 0.02));
        assert_eq!((f.sequence, f.stamp_ns), (4, 3 * PERIOD));
    }
}

#[test]
fn delayed_states_are_the_old_ones_with_their_stamps() {
    for (k, (s, f)) in assert_only_4_to_6(Trouble::Delayed { by: 2 }).into_iter().enumerate() {
        assert_eq!((s.q[0], f.stamp_ns), ((k as f64 + 1.0) / 100.0, (k as i64 + 2) * PERIOD));
    }
}

#[test]
fn the_emergency_stop_is_let_go_again() {
    assert!(assert_only_4_to_6(Trouble::Estop).iter().all(|(s, _)| s.estop));
}

#[test]
fn read_and_write_report_faults() {
    let fault = DeviceFault::BusSilent { for_ms: 12 };
    for (k, (read, write)) in ticks(at(4, 3, Trouble::Read(fault))).into_iter().enumerate() {
        assert_eq!(read.err(), (4..=6).contains(&k).then_some(fault));
        assert_eq!(write, Ok(()));
    }
    let refused = DeviceFault::Refused { joint: 0 };
    for (k, (read, write)) in ticks(at(4, 3, Trouble::Write(refused))).into_iter().enumerate() {
        assert_eq!(write.err(), (4..=6).contains(&k).then_some(refused));
        let told = if (4..=6).contains(&(k.max(1) - 1)) { 3 } else { k.max(1) - 1 };
        if k > 0 {
            assert_eq!(read.unwrap().0.q[0], told as f64 / 100.0, "a refused command does not arrive");
        }
    }
}

#[test]
fn injections_of_one_tick_add_up() {
    let both = [Trouble::Silent { joint: 0 }, Trouble::Jump { joint: 1, by: 1.0 }, Trouble::Estop];
    let run = ticks(both.map(|trouble| Injection { from: 6, ticks: 1, trouble }).to_vec());
    let (s, f) = run[6].0.unwrap();
    assert_eq!((s.q[0], s.q[1], f.stale_joints, s.estop), (0.04, 1.05, 1, true));
}
