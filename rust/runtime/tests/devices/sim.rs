use std::sync::atomic::Ordering;

use cadenza_runtime::device::sim::{SimBase, SimDevice, SimHandles};
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, Stop};
use cadenza_runtime::robot::ImuConfig;
use cadenza_runtime::safety::{Level, Reason, reason::device_fault};
use cadenza_runtime::state::{Command, State};
use proptest::prelude::*;

use crate::support::{DT, INERTIA, LOAD, Physics, Rig, command, robot, virtual_time};

const SUBSTEPS: u64 = 4;

/// Holds the measured pose.
fn hold(rig: &mut Rig, kp: f64, kd: f64) -> Command {
    let mut state = State::new(0);
    rig.device.read(&mut state).unwrap();
    let mut hold = command(state.joints(), 0.0, 0.0, kp, kd, 0.0);
    hold.q = state.q;
    hold
}

fn enabled(n: usize) -> Rig {
    let mut rig = Rig::new(n);
    let hold = hold(&mut rig, 0.0, 0.0);
    rig.device.enable(&hold).unwrap();
    rig
}

fn state(rig: &mut Rig) -> State {
    let mut state = State::new(0);
    rig.device.read(&mut state).unwrap();
    state
}

#[test]
fn motor_law_is_evaluated_at_every_physics_step() {
    let mut rig = enabled(3);
    let mut c = Command::off(3);
    c.level = Level::Run;
    let (mut q, mut v) = ([0.1, 0.2, 0.3], [0.0; 3]);
    for tick in 0..200 {
        let t = tick as f64 * 0.002;
        for i in 0..3 {
            let w = 3.0 + i as f64;
            (c.q[i], c.dq[i]) = (0.1 * (i + 1) as f64 + 0.4 * (w * t).sin(), 0.4 * w * (w * t).cos());
            // Stiff and hard: held from tick to tick, this law would be unstable.
            (c.kp[i], c.kd[i], c.tau[i]) = (150.0 + 10.0 * i as f64, 150.0, 0.2 * i as f64);
        }
        rig.device.write(&c).unwrap();
        for _ in 0..SUBSTEPS {
            for i in 0..3 {
                let law = c.tau[i] + c.kp[i] * (c.q[i] - q[i]) + c.kd[i] * (c.dq[i] - v[i]);
                let limit = 10.0 + i as f64;
                v[i] += DT * (law.clamp(-limit, limit) + LOAD) / INERTIA;
                q[i] += DT * v[i];
            }
        }
        let s = state(&mut rig);
        for i in 0..3 {
            assert!((s.q[i] - q[i]).abs() < 1e-9, "tick {tick} joint {i}: {} against {}", s.q[i], q[i]);
            assert!((s.dq[i] - v[i]).abs() < 1e-9, "tick {tick} joint {i}: {} against {}", s.dq[i], v[i]);
        }
    }
    assert_eq!(rig.physics().steps, 200 * SUBSTEPS);
}

#[test]
fn effort_is_what_the_simulator_clamped() {
    let mut rig = enabled(2);
    rig.device.write(&command(2, 3.0, 0.0, 900.0, 0.0, 0.0)).unwrap();
    assert_eq!(state(&mut rig).tau[..2], [10.0, 11.0]);
}

proptest! {
    /// What is written to control and bias is the motor law, and stays in the order of the robot.
    #[test]
    fn control_and_bias_are_the_law(
        n in 1usize..7,
        seed in proptest::collection::vec((-3.0..3.0f64, -5.0..5.0f64, 0.0..500.0f64, 0.0..50.0f64, -9.0..9.0f64), 7),
        q in -3.0..3.0f64,
        v in -9.0..9.0f64,
    ) {
        let mut rig = enabled(n);
        let mut c = Command::off(n);
        c.level = Level::Hold;
        for (i, s) in seed.iter().take(n).enumerate() {
            (c.q[i], c.dq[i], c.kp[i], c.kd[i], c.tau[i]) = *s;
        }
        rig.device.write(&c).unwrap();
        let p = rig.physics();
        for i in 0..n {
            let k = n - 1 - i;
            let bias = &p.bias[10 * k..10 * k + 10];
            let ours = p.ctrl[k + 1] + bias[0] + bias[1] * q + bias[2] * v;
            let law = c.tau[i] + c.kp[i] * (c.q[i] - q) + c.kd[i] * (c.dq[i] - v);
            prop_assert!((ours - law).abs() <= 1e-9, "joint {}: {} against {}", i, ours, law);
            prop_assert!(bias[3..].iter().all(|b| *b == 0.0));
        }
        prop_assert_eq!(p.ctrl[0], 0.0, "a control that is not the robot's");
    }
}

#[test]
fn physics_advances_with_write_and_never_with_read() {
    let mut rig = enabled(2);
    let mut s = State::new(0);
    rig.time.store(100, Ordering::Release);
    let first = rig.device.read(&mut s).unwrap();
    rig.time.store(200, Ordering::Release);
    let again = rig.device.read(&mut s).unwrap();
    assert_eq!((first.stamp_ns, again.stamp_ns), (100, 200), "every read is a measurement");
    assert_eq!(again.sequence, first.sequence + 1);
    assert_eq!(rig.physics().steps, 0);
    rig.device.write(&Command::off(2)).unwrap();
    assert_eq!(rig.physics().steps, SUBSTEPS);
}

#[test]
fn the_simulation_stands_still_until_it_is_enabled_for_the_first_time() {
    let mut rig = Rig::new(2);
    let before = state(&mut rig);
    for _ in 0..10 {
        rig.device.write(&command(2, 0.1, 0.0, 500.0, 5.0, 9.0)).unwrap();
    }
    assert_eq!(rig.physics().steps, 0);
    assert_eq!((state(&mut rig).q, state(&mut rig).dq), (before.q, before.dq));
}

#[test]
fn a_robot_that_is_off_falls() {
    let fall = |rig: &mut Rig| {
        let before = state(rig).q;
        for _ in 0..10 {
            rig.device.write(&command(2, 0.1, 0.0, 500.0, 5.0, 9.0)).unwrap();
        }
        let steps = 10.0 * SUBSTEPS as f64;
        let expected = LOAD / INERTIA * DT * DT * steps * (steps + 1.0) / 2.0;
        assert!((state(rig).q[0] - before[0] - expected).abs() < 1e-12);
    };
    let mut stopped = enabled(2);
    stopped.device.stop(Stop::Off).unwrap();
    fall(&mut stopped);
    let mut off = enabled(2);
    let mut c = command(2, 0.1, 0.0, 500.0, 5.0, 9.0);
    c.level = Level::Off;
    off.device.write(&c).unwrap();
    assert_eq!(off.physics().ctrl, [0.0; 3]);
    assert_eq!(off.physics().force[6..], [0.0; 2]);
}

#[test]
fn hold_keeps_the_last_gains_where_the_robot_stands() {
    let mut rig = enabled(2);
    for _ in 0..50 {
        rig.device.write(&command(2, 0.5, 0.0, 60.0, 6.0, 0.0)).unwrap();
    }
    let stopped = state(&mut rig).q;
    for _ in 0..2000 {
        rig.device.stop(Stop::Hold).unwrap();
        rig.device.write(&Command::off(2)).unwrap();
    }
    let rest = state(&mut rig);
    for (i, at) in stopped[..2].iter().enumerate() {
        // The stiffness carries the load at kp·(hold − q); had every stop measured anew, the joint would creep.
        assert!((rest.q[i] - (at + LOAD / 60.0)).abs() < 1e-6, "joint {i}: {}", rest.q[i]);
    }
}

#[test]
fn damp_is_the_robots_own_damping() {
    let mut rig = enabled(2);
    rig.device.stop(Stop::Damp).unwrap();
    for _ in 0..2000 {
        rig.device.write(&command(2, 0.5, 0.0, 60.0, 6.0, 0.0)).unwrap();
    }
    let s = state(&mut rig);
    for i in 0..2 {
        let sinking = LOAD / (1.0 + i as f64);
        assert!((s.dq[i] - sinking).abs() < 1e-6, "joint {i}: {} against {sinking}", s.dq[i]);
    }
}

#[test]
fn stop_never_switches_motors_on() {
    let mut rig = enabled(1);
    rig.device.write(&command(1, 0.1, 0.0, 60.0, 6.0, 0.0)).unwrap();
    for how in [Stop::Off, Stop::Damp, Stop::Hold] {
        rig.device.stop(how).unwrap();
        rig.device.write(&command(1, 0.1, 0.0, 60.0, 6.0, 0.0)).unwrap();
        assert_eq!(rig.physics().bias[..3], [0.0; 3], "after {how:?}");
    }
    let again = hold(&mut rig, 60.0, 6.0);
    rig.device.enable(&again).unwrap();
    rig.device.write(&again).unwrap();
    assert_eq!(rig.physics().bias[..3], [0.0, -60.0, -6.0]);

    // Nor does it stiffen joints that commands have left limp.
    rig.device.write(&Command::off(1)).unwrap();
    rig.device.stop(Stop::Hold).unwrap();
    rig.device.write(&again).unwrap();
    assert_eq!(rig.physics().bias[..3], [0.0; 3]);

    // Before the first command the gains are those of the hold that switched the motors on.
    let mut again = hold(&mut rig, 40.0, 4.0);
    rig.device.enable(&again).unwrap();
    rig.device.stop(Stop::Hold).unwrap();
    again.kp[0] = 70.0;
    rig.device.write(&again).unwrap();
    assert_eq!(rig.physics().bias[..3], [0.0, -40.0, -4.0]);
}

#[test]
fn enable_refuses_a_jump_and_names_the_joint() {
    let mut rig = Rig::new(2);
    let mut c = hold(&mut rig, 60.0, 6.0);
    c.q[1] += 0.051;
    assert!(matches!(rig.device.enable(&c), Err(DeviceError::NotAtHold { joint, .. }) if joint == "j1"));
    c.q[1] -= 0.002;
    rig.device.enable(&c).unwrap();
    c.q[0] = f64::NAN;
    assert!(rig.device.enable(&c).is_err());
    assert!(rig.device.enable(&command(3, 0.1, 0.0, 0.0, 0.0, 0.0)).is_err());
}

#[test]
fn a_command_that_is_not_finite_does_not_reach_the_physics() {
    let mut rig = enabled(2);
    for k in 0..5 {
        let mut c = command(2, 0.1, 0.0, 60.0, 6.0, 0.0);
        [&mut c.q, &mut c.dq, &mut c.kp, &mut c.kd, &mut c.tau][k][1] = f64::NAN;
        assert_eq!(rig.device.write(&c), Err(DeviceFault::Refused { joint: 1 }));
    }
    assert_eq!(rig.device.write(&Command::off(3)), Err(DeviceFault::Refused { joint: u16::MAX }));
    assert_eq!(rig.physics().steps, 0);
    assert_eq!(device_fault(DeviceFault::Refused { joint: 1 }).0, Reason::WriteFailed);
}

/// The fault is reported by the write that found it and by everything after it, and physics stands still.
fn assert_diverged(mut rig: Rig, fault: DeviceFault) {
    let c = command(2, 0.1, 0.0, 60.0, 6.0, 0.0);
    assert_eq!(rig.device.write(&c), Err(fault));
    let steps = rig.physics().steps;
    assert_eq!(rig.device.write(&c), Err(fault));
    assert_eq!(rig.device.read(&mut State::new(2)), Err(fault));
    assert!(rig.device.enable(&c).is_err());
    rig.device.stop(Stop::Off).unwrap();
    assert_eq!(rig.physics().steps, steps);
    assert_eq!(device_fault(fault).0, Reason::Diverged);
}

#[test]
fn diverged_physics_is_a_latched_fault() {
    let mut rig = enabled(2);
    rig.physics_mut().qvel[6] = f64::INFINITY; // the robot's joint 1
    assert_diverged(rig, DeviceFault::Diverged { joint: 1 });
    let mut rig = enabled(2);
    rig.physics_mut().qpos[0] = f64::NAN; // the base
    assert_diverged(rig, DeviceFault::Diverged { joint: u16::MAX });
    let mut rig = enabled(2);
    rig.physics_mut().warnings[0] += 1; // the simulator has reset itself: all numbers are finite again
    assert_diverged(rig, DeviceFault::Diverged { joint: u16::MAX });
}

#[test]
fn the_world_beside_the_joints_is_read() {
    let mut rig = Rig::with_imu(2);
    rig.time.store(42, Ordering::Release);
    let s = state(&mut rig);
    assert!(s.imu.valid && s.base.valid && s.objects[0].valid && !s.objects[1].valid);
    assert_eq!(s.imu.quat, [0.01, 0.02, 0.03, 0.04]);
    assert_eq!(s.imu.gyro, [0.05, 0.06, 0.07]);
    assert_eq!(s.imu.acc, [0.08, 0.09, 0.1]);
    assert_eq!((s.base.pos, s.base.vel), ([1.0, 2.0, 3.0], [0.1, 0.2, 0.3]));
    assert_eq!((s.objects[0].pos, s.objects[0].quat), ([7.0, 8.0, 9.0], [0.0, 1.0, 0.0, 0.0]));
    assert_eq!(s.objects[0].stamp_ns, 42);
    assert_eq!(rig.device.info().objects, ["cup"]);
    assert!(rig.device.info().moves);
    assert!(!state(&mut Rig::new(2)).imu.valid, "robot.toml has no IMU");
}

#[test]
fn without_inertial_sensors_the_free_joint_answers() {
    let mut robot = robot(2);
    robot.imu = Some(ImuConfig { mount_quat: [1.0, 0.0, 0.0, 0.0], source: None });
    let no_sensors = |h: &mut SimHandles| (h.imu.quat, h.imu.gyro) = (None, None);
    let mut rig = Rig::with(&robot, |_| {}, no_sensors).unwrap();
    let s = state(&mut rig);
    assert_eq!((s.imu.quat, s.imu.gyro), ([0.5; 4], [0.4, 0.5, 0.6]));
    let message = |robot: &_, change: fn(&mut SimHandles)| match Rig::with(robot, |_| {}, change) {
        Ok(_) => panic!("accepted"),
        Err(e) => e.to_string(),
    };
    assert!(message(&robot, |h| h.imu.acc = None).contains("imu_accel"));
    let no_base = |h: &mut SimHandles| (h.imu.gyro, h.base) = (None, None);
    assert!(message(&robot, no_base).contains("imu_gyro"));
    robot.imu.as_mut().unwrap().mount_quat = [0.0, 1.0, 0.0, 0.0];
    assert!(message(&robot, |h| h.imu.quat = None).contains("mounted"));
}

#[test]
fn handles_that_cannot_be_are_refused_with_the_value() {
    type Case = (&'static str, fn(&mut Physics), fn(&mut SimHandles));
    let cases: Vec<Case> = vec![
        ("not a whole number", |_| {}, |h| h.timestep = 0.0003),
        ("not a whole number", |_| {}, |h| h.timestep = 0.01),
        ("not a whole number", |_| {}, |h| h.timestep = f64::NAN),
        ("model has the address 0x0", |_| {}, |h| h.model = 0),
        ("data 0x0", |_| {}, |h| h.data = 0),
        ("qpos has the address 0x0", |_| {}, |h| h.qpos = 0),
        ("ctrl has the address", |_| {}, |h| h.ctrl += 1),
        ("warning counter has the address 0x0", |_| {}, |h| h.warnings[1] = 0),
        ("joint_qpos of joint j1 is 99", |_| {}, |h| h.joint_qpos[1] = 99),
        ("joint_qvel names 1 joints", |_| {}, |h| h.joint_qvel.truncate(1)),
        ("joints j0 and j1 share actuator 1", |_| {}, |h| h.actuator[1] = 1),
        ("actuator_ctrl of joint j0 is 3", |_| {}, |h| h.actuator_ctrl[0] = 3),
        ("j0: the model's force limit is 9, robot.toml says 10", |_| {}, |h| h.effort[0] = 9.0),
        ("joint j0 has gain 2", |p| p.gain[10] = 2.0, |_| {}),
        ("rows of biasprm", |_| {}, |h| h.prm_row = 2),
        ("qpos[8] is NaN", |p| p.qpos[8] = f64::NAN, |_| {}),
        ("qvel[0] is inf", |p| p.qvel[0] = f64::INFINITY, |_| {}),
        ("gyroscope starts at 9", |_| {}, |h| h.imu.gyro = Some(9)),
        ("base position starts at 3", |_| {}, |h| h.base = Some(SimBase { qpos: 3, qvel: 0 })),
        ("17 objects", |_| {}, |h| h.objects = vec![h.objects[0].clone(); 17]),
        ("cup has the address 0x0", |_| {}, |h| h.objects[0].quat = 0),
        ("parameters", |_| {}, |h| h.nactuator = usize::MAX),
    ];
    for (expected, physics, change) in cases {
        match Rig::with(&robot(2), physics, change) {
            Ok(_) => panic!("{expected}: accepted"),
            Err(e) => assert!(e.to_string().contains(expected), "{expected}: {e}"),
        }
    }
    assert!(Rig::with(&robot(0), |_| {}, |_| {}).is_err());
    assert!(Rig::with(&robot(65), |_| {}, |_| {}).is_err());
}

#[test]
fn only_a_loaded_library_that_is_mujoco_will_do() {
    let mut physics = Physics::new(2);
    for (path, expected) in [("/nowhere/libmujoco.so", "not loaded"), ("libc.so.6", "is not MuJoCo")] {
        let mut handles = physics.handles();
        handles.library = path.into();
        // SAFETY: the handles describe `physics`, which outlives the call; no device comes of it.
        let result = unsafe { SimDevice::new(handles, &robot(2), Box::new(()), virtual_time().1) };
        let message = result.expect_err("refused").to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn the_owner_lives_as_long_as_the_device() {
    let Rig { device, dropped, .. } = Rig::new(1);
    assert!(!dropped.load(Ordering::Acquire));
    drop(device);
    assert!(dropped.load(Ordering::Acquire));
}
