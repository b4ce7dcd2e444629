//! Everything that can be wrong with a robot.toml, alone or together with a bundle.

use std::fmt;
use std::path::PathBuf;

/// A place in a file, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File.
    pub path: PathBuf,
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl Place {
    /// The place of byte `offset` of `text`.
    pub(super) fn new(path: &std::path::Path, text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |i| i + 1);
        Self {
            path: path.to_path_buf(),
            line: before.matches('\n').count() + 1,
            column: before[start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// Why a robot.toml is refused, or a bundle does not fit it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RobotError {
    /// The file cannot be read.
    #[error("{}: {what}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
    /// Not TOML, an unknown or a missing key, or a value of the wrong type.
    #[error("{at}: {message}")]
    Syntax {
        /// Where.
        at: Place,
        /// What is wrong, with the key.
        message: String,
    },
    /// A number is NaN or infinite.
    #[error("{at}: {key} = {value} is not finite")]
    NotFinite {
        /// Where.
        at: Place,
        /// Path of the key, e.g. `joint[2].limits.velocity`.
        key: String,
        /// As written.
        value: String,
    },
    /// A value outside what its key may hold.
    #[error("{at}: {key} = {value}: expected {expected}")]
    BadValue {
        /// Where.
        at: Place,
        /// Key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A limit that is not a positive number.
    #[error("{at}: joint {joint}: {key} = {value} must be above 0")]
    NotPositive {
        /// Where.
        at: Place,
        /// Joint.
        joint: String,
        /// Key.
        key: &'static str,
        /// The value.
        value: f64,
    },
    /// A range without inside.
    #[error("{at}: joint {joint}: {key} = [{lo}, {hi}] is empty")]
    BadRange {
        /// Where.
        at: Place,
        /// Joint.
        joint: String,
        /// Key.
        key: &'static str,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// A motor direction other than 1 and −1.
    #[error("{at}: joint {joint}: sign = {value} must be 1 or -1")]
    DirectionNotUnit {
        /// Where.
        at: Place,
        /// Joint.
        joint: String,
        /// The value.
        value: f64,
    },
    /// A home position outside the joint's range.
    #[error("{at}: joint {joint}: home = {home} lies outside [{lo}, {hi}]")]
    HomeOutside {
        /// Where.
        at: Place,
        /// Joint.
        joint: String,
        /// Home position.
        home: f64,
        /// Lower end.
        lo: f64,
        /// Upper end.
        hi: f64,
    },
    /// Two joints of one name.
    #[error("{at}: joint {name} stands twice")]
    DuplicateJoint {
        /// The second one.
        at: Place,
        /// Name.
        name: String,
    },
    /// Two frames or two monitors of one name.
    #[error("{at}: {what} {name} stands twice")]
    DuplicateName {
        /// The second one.
        at: Place,
        /// `frame` or `monitor`.
        what: &'static str,
        /// Name.
        name: String,
    },
    /// Two motors of one id on one bus.
    #[error("{at}: motor id {id} belongs to joint {a} and to joint {b}")]
    DuplicateMotorId {
        /// The second one.
        at: Place,
        /// Id.
        id: u32,
        /// First joint.
        a: String,
        /// Second joint.
        b: String,
    },
    /// More joints than fit.
    #[error("{n} joints, at most {max}")]
    TooManyJoints {
        /// Found.
        n: usize,
        /// Most.
        max: usize,
    },
    /// The bundle names a joint that the robot lacks.
    #[error("the robot has no joint {name}; it has {}", known.join(", "))]
    MissingJoint {
        /// The joint.
        name: String,
        /// The robot's joints.
        known: Vec<String>,
    },
    /// The bundle's list names a joint twice.
    #[error("joint {name} stands twice in the bundle's list")]
    RepeatedJoint {
        /// The joint.
        name: String,
    },
    /// The bundle uses a frame that robot.toml does not name.
    #[error("robot.toml names no frame {name}; it names {}", known.join(", "))]
    MissingFrame {
        /// The frame.
        name: String,
        /// The robot's frames.
        known: Vec<String>,
    },
    /// A link of a frame's chain is no rigid motion.
    #[error("frame {frame}, link {link}: {what} has length {length}, expected 1")]
    BadLink {
        /// Frame.
        frame: String,
        /// Link, outwards from 0.
        link: usize,
        /// `axis` or `quat`.
        what: &'static str,
        /// Its length.
        length: f64,
    },
    /// The bundle was made for another control period.
    #[error("the bundle was made for a control period of {bundle} s, the robot runs at {robot} s")]
    ControlPeriod {
        /// The bundle's, s.
        bundle: f64,
        /// The robot's, s.
        robot: f64,
    },
    /// A policy step is not a whole number of control periods.
    #[error("policy_dt = {policy_dt} s is no whole multiple of control_dt = {control_dt} s")]
    RateNotDivisible {
        /// Policy step, s.
        policy_dt: f64,
        /// Control period, s.
        control_dt: f64,
    },
    /// Robot and bundle leave a joint nothing to do.
    #[error(
        "joint {joint}: {key} of the robot {robot:?} and of the bundle {bundle:?} have nothing in common"
    )]
    EmptyLimits {
        /// Joint.
        joint: String,
        /// Which limit.
        key: &'static str,
        /// The robot's, as a range.
        robot: [f64; 2],
        /// The bundle's, as a range.
        bundle: [f64; 2],
    },
    /// A gain of the bundle is negative or not finite.
    #[error("joint {joint}: the bundle's {key} = {value} must be a number from 0 up")]
    BadGain {
        /// Joint.
        joint: String,
        /// `kp` or `kd`.
        key: &'static str,
        /// The value.
        value: f64,
    },
}
