//! A million ticks of everything that can go wrong at once: what leaves the gate is checked against the limits by
//! arithmetic of its own.

mod safety_support;

use cadenza_runtime::device::DeviceFault;
use cadenza_runtime::robot::TorqueMode;
use cadenza_runtime::safety::{Fault, Level, Reason};
use cadenza_runtime::state::{Command, Joints, MAX_JOINTS};
use safety_support::*;

const N: usize = 3;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    }

    /// A number that nobody should send.
    fn bad(&mut self) -> f64 {
        match self.below(8) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => f64::MAX * self.unit(),
            4 => f64::from_bits(self.next()),
            5 => 1e6 * self.unit(),
            6 => 10.0 * self.unit(),
            _ => self.unit(),
        }
    }

    fn level(&mut self) -> Level {
        [Level::Run, Level::Hold, Level::SoftStop, Level::Damp, Level::Off][self.below(5) as usize]
    }
}

/// What the test remembers of the command before, in its own words.
struct Before {
    command: Command,
    velocity: Joints,
    measured: [(f64, f64); N],
}

impl Before {
    /// Checks `sent` and takes it as the command before the next one. `armed` says that motors came on since.
    fn check(&mut self, rig: &Rig, armed: bool, torque_mode: TorqueMode) {
        let (sent, l, tick) = (&rig.command, limits(), rig.state.tick);
        for (i, m) in self.measured.iter_mut().enumerate() {
            if rig.state.q[i].is_finite() && rig.state.dq[i].is_finite() {
                *m = (rig.state.q[i], rig.state.dq[i]);
            }
        }
        assert!(sent.is_finite(), "tick {tick}: {sent:?}");
        assert_eq!((sent.joints(), sent.level, sent.tick), (N, rig.gate.level(), tick));
        if sent.level < self.command.level {
            assert!(
                armed || self.command.level == Level::Hold,
                "tick {tick}: {:?} → {:?}",
                self.command.level,
                sent.level
            );
        }
        match sent.level {
            Level::Off => assert_eq!(*sent, Command { tick, epoch: rig.state.epoch, ..Command::off(N) }),
            Level::Damp => {
                for i in 0..N {
                    assert!((l.position[0]..=l.position[1]).contains(&sent.q[i]), "tick {tick}");
                    assert_eq!((sent.dq[i], sent.kp[i], sent.kd[i], sent.tau[i]), (0.0, 0.0, 1.0, 0.0));
                }
            }
            Level::Run | Level::Hold | Level::SoftStop => {
                let resent = rig.gate.altered() && torque_mode != TorqueMode::Target;
                self.check_stiff(rig, resent, torque_mode);
            }
        }
        self.command = *sent;
    }

    fn check_stiff(&mut self, rig: &Rig, resent: bool, torque_mode: TorqueMode) {
        let (sent, l, tick) = (&rig.command, limits(), rig.state.tick);
        for i in 0..N {
            assert!((l.position[0]..=l.position[1]).contains(&sent.q[i]), "tick {tick}: {}", sent.q[i]);
            assert!(
                (0.0..=200.0 * (1.0 + 1e-6)).contains(&sent.kp[i])
                    && sent.tau[i].abs() <= l.effort * (1.0 + 1e-6)
            );
            assert!(
                (0.0..=10.0 * (1.0 + 1e-6)).contains(&sent.kd[i])
                    && sent.dq[i].abs() <= l.velocity * (1.0 + 1e-6)
            );
            let (q, dq) = self.measured[i];
            let torque = sent.tau[i] + sent.kp[i] * (sent.q[i] - q) + sent.kd[i] * (sent.dq[i] - dq);
            // A measurement of 1e300 leaves gains so small that their product with it carries rounding only.
            if torque_mode != TorqueMode::Off {
                assert!(torque.abs() <= l.effort * (1.0 + 1e-6), "tick {tick}: {torque}");
            }
            let velocity = (sent.q[i] - self.command.q[i]) / DT;
            assert!(velocity.abs() <= l.velocity * (1.0 + 2e-6), "tick {tick}: {velocity}");
            if resent {
                // A broken command: the one before stands once more, at rest.
                assert!(sent.q[i] == self.command.q[i] && sent.dq[i] == 0.0, "tick {tick}");
            } else if rig.gate.altered() && velocity == 0.0 {
                // The same with moved targets.
            } else {
                let acceleration = (velocity - self.velocity[i]) / DT;
                assert!(acceleration.abs() <= l.acceleration * (1.0 + 2e-6), "tick {tick}: {acceleration}");
            }
            self.velocity[i] = velocity;
        }
    }
}

fn disturb_command(rig: &mut Rig, r: &mut Random) {
    let i = r.below(N as u64) as usize;
    let value = r.bad();
    match r.below(8) {
        0 => rig.command.q[i] = value,
        1 => rig.command.dq[i] = value,
        2 => rig.command.kp[i] = value,
        3 => rig.command.kd[i] = value,
        4 => rig.command.tau[i] = value,
        5 => rig.command.q[i] += 1e-3 * r.unit(),
        6 => rig.command.n = r.next() as u16,
        _ => {
            for joints in [&mut rig.command.q, &mut rig.command.dq, &mut rig.command.kp, &mut rig.command.tau]
            {
                joints.iter_mut().for_each(|x| *x = r.bad());
            }
        }
    }
}

fn disturb_state(rig: &mut Rig, r: &mut Random) {
    let i = r.below(N as u64) as usize;
    let value = r.bad();
    match r.below(12) {
        0 => rig.state.q[i] = value,
        1 => rig.state.dq[i] = value,
        2 => rig.state.tau[i] = value,
        3 => rig.state.temp[i] = value as f32,
        4 => rig.state.imu.quat[r.below(4) as usize] = value,
        5 => rig.state.imu.valid = r.one_in(2),
        6 => rig.state.estop = r.one_in(2),
        7 => rig.fresh.stamp_ns = r.next() as i64,
        8 => rig.frozen = r.one_in(2),
        9 => rig.state.user[0] = value,
        10 => rig.state.base.pos[2] = value,
        _ => {
            rig.device = Some(match r.below(3) {
                0 => DeviceFault::JointSilent { joint: r.next() as u16, lost: 6 },
                1 => DeviceFault::Overheated { joint: 1, celsius: value as f32, limit: 70.0 },
                _ => DeviceFault::BusSilent { for_ms: 7 },
            });
        }
    }
}

fn heal(rig: &mut Rig) {
    let fresh = Rig::new(&robot(N)).state;
    let (tick, epoch) = (rig.state.tick, rig.state.epoch);
    rig.state = cadenza_runtime::state::State { tick, epoch, ..fresh };
    rig.frozen = false;
    rig.device = None;
}

fn disturb_gate(rig: &mut Rig, r: &mut Random) -> bool {
    match r.below(9) {
        0 => rig.gate.stop(),
        1 => rig.gate.estop(),
        2 => rig.gate.disarm(),
        3 => _ = rig.gate.reset(),
        4 => _ = rig.gate.arm(),
        5 => return rig.gate.armable(&rig.state).is_ok() && rig.enable().is_ok(),
        // Armed without any check: the ladder alone must refuse.
        6 => return rig.enable().is_ok(),
        7 => rig.gate.policy_answered(),
        _ => {
            let reason = Reason::ALL[r.below(Reason::ALL.len() as u64) as usize];
            let (tick, joint, level) = (rig.state.tick, r.next() as u16, r.level());
            rig.gate.report(Fault { tick, reason, joint, value: r.bad(), limit: r.bad(), level });
        }
    }
    false
}

fn adversary(ticks: usize, torque_mode: TorqueMode, seed: u64) {
    let mut r = Random(seed);
    let mut robot = robot(N);
    robot.safety.torque_mode = torque_mode;
    let mut rig = Rig::new(&robot);
    let mut before =
        Before { command: Command::off(N), velocity: [0.0; MAX_JOINTS], measured: [(0.0, 0.0); N] };
    let (mut stiff, mut runs, mut faults, mut heat) = (0, 0, 0, 0);
    for tick in 0..ticks {
        // Stretches of quiet and of trouble, so that the robot comes on, moves, fails and comes on again.
        if tick % 64 == 0 {
            heat = r.below(4);
            heal(&mut rig);
        }
        let trouble = |r: &mut Random| match heat {
            0 => false,
            1 => r.one_in(200),
            2 => r.one_in(30),
            _ => r.one_in(3),
        };
        if r.one_in(20) {
            rig.target[r.below(N as u64) as usize] = 3.0 * r.unit();
        }
        if trouble(&mut r) {
            disturb_state(&mut rig, &mut r);
        }
        rig.read();
        let mut armed = false;
        if heat == 0 && rig.gate.level() == Level::Off {
            // The operator brings it back.
            let _ = (rig.gate.reset(), rig.gate.arm());
            armed = rig.gate.armable(&rig.state).is_ok() && rig.enable().is_ok();
        }
        if heat < 2 && rig.gate.level() == Level::Damp && rig.gate.reset().is_ok() {
            assert_eq!(rig.gate.level(), Level::Off);
        }
        if trouble(&mut r) {
            armed |= disturb_gate(&mut rig, &mut r);
        }
        if trouble(&mut r) {
            rig.target = [r.bad(); MAX_JOINTS];
        }
        if armed {
            // Motion begins at rest from the pose that the device was enabled with.
            before.command = *rig.gate.sent();
            before.velocity = [0.0; MAX_JOINTS];
        }
        rig.limit();
        if trouble(&mut r) {
            disturb_command(&mut rig, &mut r);
        }
        rig.write();
        before.check(&rig, armed, torque_mode);
        stiff += usize::from(rig.command.level <= Level::SoftStop);
        runs += usize::from(rig.command.level == Level::Run);
        rig.gate.drain_faults(|_| faults += 1);
    }
    // The adversary must have had something to attack.
    assert!(stiff > ticks / 5 && runs > ticks / 8, "{stiff} stiff, {runs} running of {ticks}");
    assert!(
        faults > ticks / 100 && rig.gate.count(Reason::GateMismatch) > ticks as u64 / 1000,
        "{faults} faults"
    );
}

#[test]
fn half_a_million_ticks_with_scaled_gains() {
    adversary(500_000, TorqueMode::Gain, 1);
}

#[test]
fn a_quarter_of_a_million_ticks_with_moved_targets() {
    adversary(250_000, TorqueMode::Target, 2);
}

#[test]
fn a_quarter_of_a_million_ticks_without_torque_limits() {
    adversary(250_000, TorqueMode::Off, 3);
}
