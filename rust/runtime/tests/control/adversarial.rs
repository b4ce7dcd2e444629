//! A million ticks of a policy, a device and an operator that mean harm: whatever they do, the device only ever
//! receives what the robot can do.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use cadenza_runtime::control::{Inbox, PolicyError, Request};
use cadenza_runtime::device::fault::{Faulty, Injection, Trouble};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop};
use cadenza_runtime::robot::{Limits, Robot, TorqueMode, effective_limits};
use cadenza_runtime::safety::{Level, Phase, Reason};
use cadenza_runtime::state::{Command, State};
use serde_json::json;

use crate::rig::{Act, HOME, Parts, Rig, faulty, injection, uniform};

const DT: f64 = 0.002;

/// Stands at the motors: knows the limits, the last positions and nothing of the loop.
struct Judge<D> {
    inner: D,
    limits: Vec<Limits>,
    robot: Robot,
    /// Positions, velocities and accelerations of the last stiff command; absent while the motors have no stiffness.
    last: Option<[[f64; 3]; 3]>,
    written: [u64; 5],
    /// Largest part of its limit that a velocity, an acceleration and a jerk reached.
    most: [f64; 3],
}

impl<D> Judge<D> {
    fn new(inner: D, limits: Vec<Limits>, robot: Robot) -> Self {
        Self { inner, limits, robot, last: None, written: [0; 5], most: [0.0; 3] }
    }

    fn judge(&mut self, c: &Command) {
        assert!(c.joints() == 3 && c.is_finite(), "{c:?}");
        self.written[c.level as usize] += 1;
        for (i, joint) in self.robot.joints.iter().enumerate() {
            assert!((0.0..=joint.gains.kp_max).contains(&c.kp[i]), "tick {}: kp {}", c.tick, c.kp[i]);
            assert!((0.0..=joint.gains.kd_max).contains(&c.kd[i]), "tick {}: kd {}", c.tick, c.kd[i]);
            assert!(c.tau[i] == 0.0);
        }
        if c.level > Level::SoftStop {
            assert!(c.kp[..3] == [0.0; 3]);
            self.last = None;
            return;
        }
        let [q0, v0, a0] = self.last.expect("stiff only after enable");
        let [mut q, mut v, mut acceleration] = [q0, v0, a0];
        for (i, l) in self.limits.iter().enumerate() {
            q[i] = c.q[i];
            v[i] = (q[i] - q0[i]) / DT;
            let a = (v[i] - v0[i]) / DT;
            let [lo, hi] = l.position;
            assert!((lo..=hi).contains(&q[i]), "tick {}: position {} of joint {i}", c.tick, q[i]);
            // What subtracting positions of size 1 rounds off: 1e-12 rad/s, 1e-9 rad/s².
            assert!(
                v[i].abs() <= l.velocity * (1.0 + 1e-6),
                "tick {}: velocity {} of joint {i}",
                c.tick,
                v[i]
            );
            assert!(
                c.dq[i].abs() <= l.velocity * (1.0 + 1e-6),
                "tick {}: dq {} of joint {i}",
                c.tick,
                c.dq[i]
            );
            assert!(
                a.abs() <= l.acceleration * (1.0 + 1e-6),
                "tick {}: acceleration {a} of joint {i}",
                c.tick
            );
            let jerk = (a - a0[i]) / DT;
            // A target that the gate moves to save torque has corners.
            assert!(
                jerk.abs() <= l.jerk * (1.0 + 1e-6) || self.robot.safety.torque_mode == TorqueMode::Target,
                "tick {}: jerk {jerk} of joint {i}",
                c.tick
            );
            acceleration[i] = a;
            self.most[0] = self.most[0].max(v[i].abs() / l.velocity);
            self.most[1] = self.most[1].max(a.abs() / l.acceleration);
            self.most[2] = self.most[2].max(jerk.abs() / l.jerk);
        }
        self.last = Some([q, v, acceleration]);
    }
}

impl<D: Device> Device for Judge<D> {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn connect(&mut self) -> Result<(), DeviceError> {
        self.inner.connect()
    }
    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        self.inner.enable(hold)?;
        self.last = Some([[hold.q[0], hold.q[1], hold.q[2]], [0.0; 3], [0.0; 3]]);
        Ok(())
    }
    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        self.inner.read(out)
    }
    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        self.judge(command);
        self.inner.write(command)
    }
    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        self.inner.stop(how)
    }
}

/// A policy that changes its way of being wrong every 60 answers.
fn hostile(mut seed: u64) -> impl FnMut(u64, &[f32], &mut [f32]) -> Result<(), PolicyError> + Send {
    let (mut mood, mut left) = (0, 0);
    move |tick, _, out| {
        if left == 0 {
            (mood, left) = ((uniform(&mut seed) * 9.0) as u8, 60);
        }
        left -= 1;
        let random = uniform(&mut seed) as f32;
        let rare = random < 0.1;
        for (i, (out, home)) in out.iter_mut().zip(HOME).enumerate() {
            *out = match mood {
                0 | 1 => home + 0.5 * (tick as f32 * 0.01 + i as f32).sin(),
                2 => {
                    if (tick / 130).is_multiple_of(2) {
                        f32::MAX
                    } else {
                        f32::MIN
                    }
                }
                3 => 4.0 * uniform(&mut seed) as f32 - 2.0,
                4 if rare => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][(tick % 3) as usize],
                5 => 1e30 * (random - 0.5),
                _ => home,
            };
        }
        match mood {
            6 if rare => Err(PolicyError::Late),
            7 if rare => Err(PolicyError::WrongLength { got: (1e6 * random) as usize, want: 3 }),
            8 if random < 0.9 => Err(PolicyError::NotFinite { what: "action", index: 0 }),
            _ => Ok(()),
        }
    }
}

/// Up to four things that go wrong within `ticks`.
fn troubles(seed: &mut u64, ticks: u64) -> Vec<Injection> {
    let count = (uniform(seed) * 5.0) as usize;
    let one = |seed: &mut u64| {
        let joint = (uniform(seed) * 3.0) as usize;
        let trouble = match (uniform(seed) * 9.0) as u8 {
            0 => Trouble::NotFinite { joint },
            1 => Trouble::Jump { joint, by: 0.4 * (uniform(seed) - 0.5) },
            2 => Trouble::Jump { joint, by: 100.0 * (uniform(seed) - 0.5) },
            3 => Trouble::Silent { joint },
            4 => Trouble::Frozen,
            5 => Trouble::Delayed { by: 1 + (uniform(seed) * 12.0) as usize },
            6 => Trouble::Estop,
            7 => Trouble::Read(DeviceFault::Overheated { joint: joint as u16, celsius: 90.0, limit: 70.0 }),
            _ => Trouble::Write(DeviceFault::Refused { joint: joint as u16 }),
        };
        injection((uniform(seed) * ticks as f64) as u64, 1 + (uniform(seed).powi(3) * 60.0) as u64, trouble)
    };
    (0..count).map(|_| one(seed)).collect()
}

/// Requests at random ticks; whatever they did, the operator resets and arms again and again.
fn requests(seed: &mut u64, from: u64, ticks: u64) -> Vec<(u64, Request)> {
    let mut all = Vec::new();
    for _ in 0..(uniform(seed) * 4.0) as usize {
        let value = [f64::NAN, 1e300, -0.5][(uniform(seed) * 3.0) as usize];
        let slot = (uniform(seed) * 20.0) as u16;
        let kinds = [Request::Stop, Request::Estop, Request::Disarm, Request::Command { slot, value }];
        all.push((from + (uniform(seed) * ticks as f64) as u64, kinds[(uniform(seed) * 4.0) as usize]));
    }
    for at in (0..ticks).step_by(120) {
        all.extend([(from + at, Request::Reset), (from + at, Request::Arm)]);
    }
    all
}

fn attack(seed: u64, parts: &Parts, total: u64) {
    const EPISODE: u64 = 2000;
    let robot = parts.robot();
    let limits = effective_limits(&robot, &parts.manifest).unwrap().0;
    let mut random = seed;
    let now = Arc::<AtomicI64>::default();
    let fresh = |random: &mut u64| faulty(&robot, &now, &troubles(random, EPISODE));
    let device: Judge<Faulty<NullDevice>> = Judge::new(fresh(&mut random), limits, robot.clone());
    let mut rig = Rig::around(parts, device, now.clone(), &[], Act(hostile(!seed)));
    let mut before = (Phase::Disarmed, Level::Off, 0);
    for episode in 0..total / EPISODE {
        // The robot stands at home again, with other things about to go wrong. Its motors are off.
        rig.controller.obey(Request::Disarm, &mut rig.device, &mut rig.log);
        rig.device.inner = fresh(&mut random);
        rig.device.last = None;
        let script = requests(&mut random, episode * EPISODE, EPISODE);
        rig.inbox = Inbox::script(script.clone());
        let mut script = script.into_iter().collect::<Vec<_>>();
        script.sort_by_key(|(tick, _)| *tick);
        let mut due = script.iter().peekable();
        for tick in 0..EPISODE {
            let entry = rig.tick();
            let mut asked = Vec::new();
            while let Some((_, request)) = due.next_if(|(at, _)| *at == entry.tick) {
                asked.push(*request);
            }
            let gate = rig.controller.gate();
            assert_eq!(gate.count(Reason::GateMismatch), 0, "tick {}: {:?}", entry.tick, gate.mismatch());
            let (phase, level) = (gate.phase(), gate.level());
            let epoch = rig.controller.state().epoch;
            let off = asked.iter().any(|r| matches!(r, Request::Reset | Request::Disarm)) || tick == 0;
            if before.1 >= Level::SoftStop && before.0 == Phase::Armed && !off {
                assert!(
                    phase == Phase::Armed && level >= before.1,
                    "tick {}: {before:?} → {level:?}",
                    entry.tick
                );
            }
            // Motors come on in no other way than by a new episode at level Run or Hold.
            if phase == Phase::Armed && before.0 != Phase::Armed {
                assert!(epoch == before.2 + 1, "tick {}", entry.tick);
            }
            before = (phase, level, epoch);
        }
    }
    let (gate, judge) = (rig.controller.gate(), &rig.device);
    // The attack went where it was meant to go.
    println!("{:?} {:?} {:?}", judge.written, judge.most, gate.counts().collect::<Vec<_>>());
    let [run, hold, stop, damp, off] = judge.written.map(|n| n as f64 / total as f64);
    assert!(run > 0.2 && hold > 0.005 && stop > 0.02 && damp > 0.02 && off > 0.01, "{:?}", judge.written);
    assert!(judge.most.iter().all(|m| *m > 0.99), "the limits were never reached: {:?}", judge.most);
    for reason in [
        Reason::StateStale,
        Reason::StateLost,
        Reason::StateNotFinite,
        Reason::StateNotFiniteRepeated,
        Reason::ObservationNotFinite,
        Reason::PolicyNotFinite,
        Reason::PolicyLate,
        Reason::PolicyWrongLength,
        Reason::PositionMeasured,
        Reason::Estop,
        Reason::Temperature,
        Reason::WriteFailed,
        Reason::OperatorStop,
        Reason::OperatorEstop,
    ] {
        assert!(gate.count(reason) > 0, "{reason:?} never happened");
    }
}

#[test]
fn positions_for_a_million_ticks() {
    attack(1, &Parts::default(), 1_000_000);
}

/// The target of increments lives in the loop: a policy that pushes for ever must not wind it up.
#[test]
fn increments_for_a_million_ticks() {
    let manifest = crate::rig::manifest(|m| {
        m["action"]["kind"] = json!("position_increment");
        m["action"]["scale"] = json!({ "*": 0.2 });
        m["action"]["leash"] = json!(0.4);
    });
    attack(2, &Parts { manifest, ..Parts::default() }, 1_000_000);
}

/// The gate moves targets for torque's sake here, and the limiter must go on from where they ended.
#[test]
fn moved_targets_for_a_million_ticks() {
    let text = crate::rig::toml([0, 1, 2], "torque_mode = \"target\"\n");
    attack(3, &Parts { text, ..Parts::default() }, 1_000_000);
}
