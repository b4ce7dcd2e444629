//! What a monitor may speak of: names for numbers of the state, of the last command and of the robot's frames.
//!
//! | name | number |
//! |---|---|
//! | `q.J` `dq.J` `tau.J` | measured position, velocity, effort of joint J (rad, rad/s, N·m) |
//! | `cmd.J` `err.J` | last sent position (0 while motors are off); the same minus the measured position |
//! | `user.NAME` | slot of the operator command |
//! | `FRAME.x` `.y` `.z` | position of a frame of the bundle, m |
//! | `tilt` `roll` `pitch` | orientation of the base, rad (with an IMU) |
//! | `gyro.x` … `acc.z` | IMU, body frame, rad/s and m/s² |
//! | `base.x` `.y` `.z` | position of the floating base, m; NaN while the device does not report it |
//! | `object.NAME.x` `.y` `.z` | position of an object, m; NaN while it has not been seen |
//! | `age` `level` | age of the oldest joint in seconds; level of the ladder, 0 to 4 |
//! | `exhausted` | 1 once the action sequence has run out and is held no longer, else 0 |

use cadenza_policy::manifest::CommandSlot;

use super::{Level, gate};
use crate::robot::Robot;
use crate::state::{Command, Imu, MAX_OBJECTS, MAX_USER, State};

const AXES: [&str; 3] = ["x", "y", "z"];

#[derive(Clone, Copy, Debug)]
enum Source {
    Q(usize),
    Dq(usize),
    Tau(usize),
    Cmd(usize),
    Err(usize),
    User(usize),
    Frame(usize, usize),
    Tilt,
    Roll,
    Pitch,
    Gyro(usize),
    Acc(usize),
    Base(usize),
    Object(usize, usize),
    Age,
    Level,
    Exhausted,
}

/// Why a table of signals cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// Two things would have the same name.
    #[error("two signals would be called `{name}`: rename the frame, joint or command")]
    Duplicate {
        /// Name.
        name: String,
    },
    /// More than the state can hold.
    #[error("{count} {what}, at most {max}")]
    TooMany {
        /// What.
        what: &'static str,
        /// Number.
        count: usize,
        /// Largest number.
        max: usize,
    },
}

/// Where the numbers of one tick come from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Measured.
    pub state: &'a State,
    /// The last command that was sent.
    pub sent: &'a Command,
    /// Position of each frame in the world, m, in the order that [`SignalTable::new`] was given.
    pub frames: &'a [[f64; 3]],
    /// Age of the oldest joint, ns.
    pub age_ns: i64,
    /// Level of the ladder.
    pub level: Level,
    /// Whether the action sequence has run out and is held no longer.
    pub exhausted: bool,
}

/// The names of all signals and where each comes from; compiled once.
#[derive(Clone, Debug)]
pub struct SignalTable {
    names: Vec<String>,
    sources: Vec<Source>,
    objects: Vec<String>,
}

/// One number for each signal of a [`SignalTable`].
#[derive(Clone, Debug, PartialEq)]
pub struct Signals(pub(super) Vec<f64>);

impl SignalTable {
    /// The signals of `robot`, of a bundle with these `commands` and `frames`, and of a device that reports `objects`.
    pub fn new(
        robot: &Robot,
        commands: &[CommandSlot],
        frames: &[String],
        objects: &[String],
    ) -> Result<Self, SignalError> {
        for (what, count, max) in
            [("commands", commands.len(), MAX_USER), ("objects", objects.len(), MAX_OBJECTS)]
        {
            if count > max {
                return Err(SignalError::TooMany { what, count, max });
            }
        }
        let mut all: Vec<(String, Source)> = Vec::new();
        for (i, joint) in robot.joints.iter().enumerate() {
            let of = |what: &str| format!("{what}.{}", joint.name);
            let joint_signals = [("q", Source::Q(i)), ("dq", Source::Dq(i)), ("tau", Source::Tau(i))];
            all.extend(joint_signals.map(|(what, source)| (of(what), source)));
            all.extend([(of("cmd"), Source::Cmd(i)), (of("err"), Source::Err(i))]);
        }
        all.extend(commands.iter().enumerate().map(|(i, c)| (format!("user.{}", c.name), Source::User(i))));
        let mut axes = |name: &str, source: &dyn Fn(usize) -> Source| {
            all.extend((0..3).map(|axis| (format!("{name}.{}", AXES[axis]), source(axis))));
        };
        for (i, frame) in frames.iter().enumerate() {
            axes(frame, &|axis| Source::Frame(i, axis));
        }
        axes("base", &Source::Base);
        for (i, object) in objects.iter().enumerate() {
            axes(&format!("object.{object}"), &|axis| Source::Object(i, axis));
        }
        if robot.imu.is_some() {
            axes("gyro", &Source::Gyro);
            axes("acc", &Source::Acc);
            let posture = [("tilt", Source::Tilt), ("roll", Source::Roll), ("pitch", Source::Pitch)];
            all.extend(posture.map(|(name, source)| (name.to_owned(), source)));
        }
        let loop_signals = [("age", Source::Age), ("level", Source::Level), ("exhausted", Source::Exhausted)];
        all.extend(loop_signals.map(|(name, source)| (name.to_owned(), source)));
        for (i, (name, _)) in all.iter().enumerate() {
            if all[..i].iter().any(|(other, _)| other == name) {
                return Err(SignalError::Duplicate { name: name.clone() });
            }
        }
        let (names, sources) = all.into_iter().unzip();
        Ok(Self { names, sources, objects: objects.to_vec() })
    }

    /// Every name, in the order of [`Signals`].
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Objects that the device reports.
    pub fn objects(&self) -> &[String] {
        &self.objects
    }

    /// Place of `name`.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    /// Room for the numbers of one tick. Allocates; made once.
    pub fn signals(&self) -> Signals {
        Signals(vec![f64::NAN; self.names.len()])
    }

    /// Writes the numbers of this tick. Allocates nothing. A frame that `inputs` lacks is NaN.
    pub fn fill(&self, inputs: &Inputs, out: &mut Signals) {
        let Inputs { state, sent, frames, .. } = *inputs;
        let imu = |value: f64| if state.imu.valid { value } else { f64::NAN };
        let (roll, pitch) = roll_pitch(&state.imu);
        for (value, source) in out.0.iter_mut().zip(&self.sources) {
            *value = match *source {
                Source::Q(i) => state.q[i],
                Source::Dq(i) => state.dq[i],
                Source::Tau(i) => state.tau[i],
                Source::Cmd(i) => sent.q[i],
                Source::Err(i) => sent.q[i] - state.q[i],
                Source::User(i) => state.user[i],
                Source::Frame(i, axis) => frames.get(i).map_or(f64::NAN, |p| p[axis]),
                Source::Tilt => gate::tilt(&state.imu).unwrap_or(f64::NAN),
                Source::Roll => imu(roll),
                Source::Pitch => imu(pitch),
                Source::Gyro(axis) => imu(state.imu.gyro[axis]),
                Source::Acc(axis) => imu(state.imu.acc[axis]),
                Source::Base(axis) if state.base.valid => state.base.pos[axis],
                Source::Object(i, axis) if state.objects[i].valid => state.objects[i].pos[axis],
                Source::Base(_) | Source::Object(..) => f64::NAN,
                Source::Age => inputs.age_ns as f64 * 1e-9,
                Source::Level => f64::from(inputs.level as u8),
                Source::Exhausted => f64::from(u8::from(inputs.exhausted)),
            };
        }
    }
}

impl Signals {
    /// The numbers, in the order of [`SignalTable::names`].
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

/// Roll about x and pitch about y of yaw-pitch-roll angles, rad.
fn roll_pitch(imu: &Imu) -> (f64, f64) {
    let [w, x, y, z] = imu.quat;
    let norm = w * w + x * x + y * y + z * z;
    let roll = (2.0 * (w * x + y * z) / norm).atan2(1.0 - 2.0 * (x * x + y * y) / norm);
    (roll, (2.0 * (w * y - z * x) / norm).clamp(-1.0, 1.0).asin())
}
