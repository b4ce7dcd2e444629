use std::sync::atomic::Ordering;

use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, Stop};
use cadenza_runtime::state::{Command, State};

use crate::support::{command, robot, virtual_time};

fn measured(device: &mut NullDevice) -> State {
    let mut state = State::new(0);
    device.read(&mut state).unwrap();
    state
}

#[test]
fn it_starts_at_home_and_measures_what_it_was_told() {
    let (_, time) = virtual_time();
    let mut device = NullDevice::new(&robot(2), time).unwrap();
    device.connect().unwrap();
    assert!(!device.info().moves);
    assert_eq!(measured(&mut device).q[..2], [0.1, 0.2]);

    let mut c = command(2, 0.1, 0.0, 60.0, 6.0, 0.5);
    c.q[1] = 0.2;
    device.write(&c).unwrap();
    assert_eq!(measured(&mut device).tau[..2], [0.0; 2], "not enabled");

    device.enable(&c).unwrap();
    device.write(&command(2, 0.7, 0.3, 60.0, 6.0, 0.5)).unwrap();
    let s = measured(&mut device);
    assert_eq!((s.n, &s.q[..2], &s.dq[..2], &s.tau[..2]), (2, &[0.7; 2][..], &[0.3; 2][..], &[0.5; 2][..]));

    device.write(&command(2, 9.0, 0.5, 0.0, 6.0, 0.0)).unwrap();
    let s = measured(&mut device);
    assert_eq!(s.q[0], 0.7 + 0.5 / 500.0, "damping only: the commanded velocity");
    device.write(&command(2, 9.0, 0.5, 0.0, 0.0, 0.0)).unwrap();
    assert_eq!((measured(&mut device).q[0], measured(&mut device).dq[0]), (s.q[0], 0.0), "no gains: at rest");

    device.stop(Stop::Damp).unwrap();
    device.write(&command(2, 0.0, 0.3, 60.0, 6.0, 0.0)).unwrap();
    assert_eq!(measured(&mut device).q, s.q, "stopped");
}

#[test]
fn every_read_is_a_new_measurement_of_the_loops_clock() {
    let (ns, time) = virtual_time();
    let mut device = NullDevice::new(&robot(1), time).unwrap();
    let mut state = State::new(0);
    state.estop = true;
    for k in 1..4 {
        ns.store(k * 2_000_000, Ordering::Release);
        let f = device.read(&mut state).unwrap();
        assert_eq!((f.sequence, f.stamp_ns, f.stale_joints, f.finished), (k as u64, k * 2_000_000, 0, false));
        assert!(!state.estop);
    }
}

#[test]
fn it_refuses_what_motors_must_refuse() {
    let (_, time) = virtual_time();
    let mut device = NullDevice::new(&robot(2), time.clone()).unwrap();
    let far = command(2, 0.0, 0.0, 60.0, 6.0, 0.0);
    assert!(matches!(device.enable(&far), Err(DeviceError::NotAtHold { joint, .. }) if joint == "j0"));
    let bad = command(2, f64::INFINITY, 0.0, 60.0, 6.0, 0.0);
    assert_eq!(device.write(&bad), Err(DeviceFault::Refused { joint: 0 }));
    assert_eq!(device.write(&Command::off(1)), Err(DeviceFault::Refused { joint: u16::MAX }));
    assert!(NullDevice::new(&robot(0), time).is_err());
}
