//! A device that misbehaves on schedule, for tests of everything that stands between a bad robot and its motors.

use super::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop};
use crate::state::{Command, Imu, State};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    /// A joint measures NaN.
    NotFinite {
        /// Joint, robot order.
        joint: usize,
    },
    /// A joint measures `by` rad beside the truth.
    Jump {
        /// Joint, robot order.
        joint: usize,
        /// Distance, rad.
        by: f64,
    },
    /// A joint measures `by` rad/s beside the truth.
    Fast {
        /// Joint, robot order.
        joint: usize,
        /// Difference, rad/s.
        by: f64,
    },
    /// The IMU measures a body that is turned by so many rad about its y axis, and nothing else.
    Tilted {
        /// Angle, rad.
        by: f64,
    },
    /// A joint does not answer: its last good numbers are kept, its stale bit is set, the stamp stays.
    Silent {
        /// Joint, robot order.
        joint: usize,
    },
    /// Nothing answers: the last good state comes again, sequence and stamp too.
    Frozen,
    /// States arrive this many ticks late.
    Delayed {
        /// Ticks.
        by: usize,
    },
    /// The emergency stop is pressed.
    Estop,
    /// `read` reports a fault.
    Read(DeviceFault),
    /// `write` reports a fault; the command does not arrive.
    Write(DeviceFault),
}

/// When it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Injection {
    /// First tick; ticks count reads from 0, and a `write` belongs to the read before it.
    pub from: u64,
    /// Number of ticks.
    pub ticks: u64,
    /// What goes wrong.
    pub trouble: Trouble,
}

impl Injection {
    fn is_active(&self, tick: u64) -> bool {
        tick >= self.from && tick - self.from < self.ticks
    }
}

/// A device inside which things go wrong on schedule. Injections of the same tick apply in the order given.
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    injections: Vec<Injection>,
    /// Newest first; as long as the longest delay needs.
    history: Vec<(State, Freshness)>,
    filled: usize,
    /// The last state handed out before anything froze it.
    last: Option<(State, Freshness)>,
    reads: u64,
}

impl<D: Device> Faulty<D> {
    /// Wraps `inner`.
    pub fn new(inner: D, injections: Vec<Injection>) -> Self {
        let longest =
            injections.iter().map(|i| if let Trouble::Delayed { by } = i.trouble { by } else { 0 }).max();
        let slots = longest.unwrap_or(0) + 1;
        let history = vec![(State::new(0), Freshness::default()); slots];
        Self { inner, injections, history, filled: 0, last: None, reads: 0 }
    }

    /// The device inside.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// Number of the last read, counted from 0.
    fn tick(&self) -> u64 {
        self.reads.saturating_sub(1)
    }

    fn remember(&mut self, state: State, freshness: Freshness) {
        self.history.rotate_right(1);
        self.history[0] = (state, freshness);
        self.filled = (self.filled + 1).min(self.history.len());
    }
}

/// Copies what a device measures; the rest of a state belongs to the loop.
fn copy_measured(from: &State, to: &mut State) {
    let State { n, q, dq, tau, temp, imu, base, objects, estop, .. } = *from;
    *to = State { n, q, dq, tau, temp, imu, base, objects, estop, ..*to };
}

impl<D: Device> Device for Faulty<D> {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }

    fn connect(&mut self) -> Result<(), DeviceError> {
        self.inner.connect()
    }

    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        self.inner.enable(hold)
    }

    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        self.reads += 1;
        let tick = self.tick();
        let mut freshness = self.inner.read(out)?;
        self.remember(*out, freshness);
        for k in 0..self.injections.len() {
            let injection = self.injections[k];
            if !injection.is_active(tick) {
                continue;
            }
            match injection.trouble {
                Trouble::NotFinite { joint } => out.q[joint] = f64::NAN,
                Trouble::Jump { joint, by } => out.q[joint] += by,
                Trouble::Fast { joint, by } => out.dq[joint] += by,
                Trouble::Tilted { by } => {
                    let (sin, cos) = (0.5 * by).sin_cos();
                    out.imu = Imu { quat: [cos, 0.0, sin, 0.0], gyro: [0.0; 3], acc: [0.0; 3], valid: true };
                }
                Trouble::Silent { joint } => {
                    if let Some((last, then)) = &self.last {
                        (out.q[joint], out.dq[joint], out.tau[joint]) =
                            (last.q[joint], last.dq[joint], last.tau[joint]);
                        freshness.stamp_ns = freshness.stamp_ns.min(then.stamp_ns);
                        freshness.stale_joints |= 1 << joint;
                    }
                }
                Trouble::Frozen => {
                    if let Some((last, then)) = &self.last {
                        copy_measured(last, out);
                        freshness = *then;
                    }
                }
                Trouble::Delayed { by } => {
                    let (old, then) = &self.history[by.min(self.filled - 1)];
                    copy_measured(old, out);
                    freshness = *then;
                }
                Trouble::Estop => out.estop = true,
                Trouble::Read(fault) => return Err(fault),
                Trouble::Write(_) => {}
            }
        }
        let quiet = |i: &Injection| !i.is_active(tick) || matches!(i.trouble, Trouble::Write(_));
        if self.injections.iter().all(quiet) {
            self.last = Some((*out, freshness));
        }
        Ok(freshness)
    }

    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        let tick = self.tick();
        for injection in &self.injections {
            if let (true, Trouble::Write(fault)) = (injection.is_active(tick), injection.trouble) {
                return Err(fault);
            }
        }
        self.inner.write(command)
    }

    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        self.inner.stop(how)
    }
}
