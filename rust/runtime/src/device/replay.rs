//! A recorded run as a device: it feeds the states of a log and compares our commands with the recorded ones.

use std::fmt;

use super::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop, TimeSource};
use crate::state::{Command, Joints, State};

const NAME: &str = "replay";

/// A part of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The log holds a command for this tick and the loop sent none (1 recorded, 0 ours), or the other way round.
    Presence,
    /// Tick.
    Tick,
    /// Epoch.
    Epoch,
    /// Number of joints.
    Joints,
    /// Level of the ladder, as its number.
    Level,
    /// Target position.
    Position,
    /// Target velocity.
    Velocity,
    /// Position gain.
    Kp,
    /// Velocity gain.
    Kd,
    /// Feed-forward effort.
    Effort,
}

impl Field {
    /// Name in messages, that of [`Command`]'s field.
    pub const fn name(self) -> &'static str {
        match self {
            Field::Presence => "commands",
            Field::Tick => "tick",
            Field::Epoch => "epoch",
            Field::Joints => "n",
            Field::Level => "level",
            Field::Position => "q",
            Field::Velocity => "dq",
            Field::Kp => "kp",
            Field::Kd => "kd",
            Field::Effort => "tau",
        }
    }
}

/// The first command that differs from the recorded one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Recorded control tick.
    pub tick: u64,
    /// Joint in robot order; `u16::MAX` for a field of the whole command.
    pub joint: u16,
    /// What differs.
    pub field: Field,
    /// Value in the log.
    pub recorded: f64,
    /// Value that the loop sent.
    pub ours: f64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}", self.tick)?;
        if self.joint != u16::MAX {
            write!(f, ", joint {}", self.joint)?;
        }
        write!(f, ": {} recorded {:?}, ours {:?}", self.field.name(), self.recorded, self.ours)
    }
}

/// Feeds one recorded state for each tick, in order. Nothing leaves the process.
///
/// Ages are those of the recording: every stamp is shifted by the distance between the clock at `read` and the recorded
/// [`State::t_read_ns`]. `read` fills what a device measures; `tick`, `epoch` and `user` stay the loop's.
#[derive(Debug)]
pub struct ReplayDevice {
    info: DeviceInfo,
    states: Vec<(State, Freshness)>,
    commands: Vec<Command>,
    time: TimeSource,
    /// States already read.
    read: usize,
    /// Commands whose tick has been reached.
    due: usize,
    /// The recorded command of the current tick, until it is answered.
    open: Option<usize>,
    finished: bool,
    compared: u64,
    difference: Option<Difference>,
}

impl ReplayDevice {
    /// A run from a log: its states with their stamps, and its commands.
    ///
    /// A command belongs to the state with the same tick; a state may lack one (the log was cut there, or the loop sent
    /// none).
    ///
    /// # Errors
    /// No state; ticks that do not grow; another number of joints along the way; commands whose state is missing, with
    /// their ticks: what the robot measured then is unknown, and a replay does not guess.
    pub fn new(
        states: Vec<(State, Freshness)>,
        commands: Vec<Command>,
        objects: Vec<String>,
        time: TimeSource,
    ) -> Result<Self, DeviceError> {
        let error = |what: String| Err(DeviceError::Config { device: NAME, what });
        let Some((first, _)) = states.first() else {
            return error("the log holds no state".into());
        };
        if let Some(w) = states.windows(2).find(|w| w[1].0.tick <= w[0].0.tick) {
            return error(format!("state of tick {} follows tick {}", w[1].0.tick, w[0].0.tick));
        }
        if let Some(w) = commands.windows(2).find(|w| w[1].tick <= w[0].tick) {
            return error(format!("command of tick {} follows tick {}", w[1].tick, w[0].tick));
        }
        if let Some((s, _)) = states.iter().find(|(s, _)| s.n != first.n) {
            return error(format!("{} joints at tick {}, {} at tick {}", s.n, s.tick, first.n, first.tick));
        }
        let lone = |c: &&Command| states.binary_search_by_key(&c.tick, |(s, _)| s.tick).is_err();
        if let Some(from) = commands.iter().find(lone) {
            let to = commands.iter().rfind(lone).unwrap_or(from);
            let count = commands.iter().filter(lone).count();
            return error(format!(
                "the log lacks {count} states between ticks {} and {}",
                from.tick, to.tick
            ));
        }
        Ok(Self {
            info: DeviceInfo { name: NAME, moves: false, objects },
            states,
            commands,
            time,
            read: 0,
            due: 0,
            open: None,
            finished: false,
            compared: 0,
            difference: None,
        })
    }

    /// The first difference, if any.
    pub fn difference(&self) -> Option<Difference> {
        self.difference
    }

    /// Commands compared so far.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Keeps the first difference only.
    fn differs(&mut self, tick: u64, joint: u16, field: Field, recorded: f64, ours: f64) {
        self.difference.get_or_insert(Difference { tick, joint, field, recorded, ours });
    }

    fn compare(&mut self, k: usize, ours: &Command) {
        let recorded = self.commands[k];
        let tick = recorded.tick;
        let whole = [
            (Field::Tick, tick as f64, ours.tick as f64, tick == ours.tick),
            (Field::Epoch, f64::from(recorded.epoch), f64::from(ours.epoch), recorded.epoch == ours.epoch),
            (Field::Joints, f64::from(recorded.n), f64::from(ours.n), recorded.n == ours.n),
            (
                Field::Level,
                recorded.level as u8 as f64,
                ours.level as u8 as f64,
                recorded.level == ours.level,
            ),
        ];
        for (field, a, b, same) in whole {
            if !same {
                self.differs(tick, u16::MAX, field, a, b);
            }
        }
        let columns: [(Field, &Joints, &Joints); 5] = [
            (Field::Position, &recorded.q, &ours.q),
            (Field::Velocity, &recorded.dq, &ours.dq),
            (Field::Kp, &recorded.kp, &ours.kp),
            (Field::Kd, &recorded.kd, &ours.kd),
            (Field::Effort, &recorded.tau, &ours.tau),
        ];
        for i in 0..recorded.joints().min(ours.joints()) {
            for (field, a, b) in columns {
                if a[i].to_bits() != b[i].to_bits() {
                    self.differs(tick, i as u16, field, a[i], b[i]);
                }
            }
        }
    }

    /// The command of a tick that has passed without an answer.
    fn close(&mut self) {
        if let Some(k) = self.open.take() {
            self.differs(self.commands[k].tick, u16::MAX, Field::Presence, 1.0, 0.0);
        }
    }
}

impl Device for ReplayDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn connect(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn enable(&mut self, _hold: &Command) -> Result<(), DeviceError> {
        Ok(())
    }

    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        self.close();
        self.finished = self.read == self.states.len();
        let (state, mut freshness) = self.states[self.read.min(self.states.len() - 1)];
        let shift = self.time.now_ns().wrapping_sub(state.t_read_ns);
        out.n = state.n;
        out.q = state.q;
        out.dq = state.dq;
        out.tau = state.tau;
        out.temp = state.temp;
        out.imu = state.imu;
        out.base = state.base;
        out.objects = state.objects;
        for object in &mut out.objects {
            object.stamp_ns = object.stamp_ns.wrapping_add(shift);
        }
        out.estop = state.estop;
        freshness.stamp_ns = freshness.stamp_ns.wrapping_add(shift);
        freshness.finished = self.finished;
        if !self.finished {
            self.read += 1;
            if self.commands.get(self.due).is_some_and(|c| c.tick == state.tick) {
                self.open = Some(self.due);
                self.due += 1;
            }
        }
        Ok(freshness)
    }

    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        match self.open.take() {
            Some(k) => {
                self.compare(k, command);
                self.compared += 1;
            }
            None if self.finished => {}
            None => {
                let tick = self.states[self.read.saturating_sub(1)].0.tick;
                self.differs(tick, u16::MAX, Field::Presence, 0.0, 1.0);
            }
        }
        Ok(())
    }

    fn stop(&mut self, _how: Stop) -> Result<(), DeviceFault> {
        Ok(())
    }
}
