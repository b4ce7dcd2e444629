//! Sensor-level parity: the observations that a policy was recorded on, built again from the sensors of that moment.
//!
//! A bundle may carry `frame.<name>` `[sequences, steps, ·]` beside the recorded `obs`, for the first sequences: what
//! was measured, before offset, scale, clip and history. Order of joints, units, histories and the convention of the
//! quaternion all have to be right for the two to agree. Each sequence starts with a reset.

use std::collections::BTreeMap;

use cadenza_policy::manifest::Manifest;
use cadenza_policy::{Bundle, ParityError, Recorded, Vectors};

use super::{Feedback, NotFinite, ObserveError, Observer};
use crate::robot::{JointMap, Robot};
use crate::state::{Joints, MAX_JOINTS, MAX_OBJECTS, State};

/// Prefix of the tensors.
const PREFIX: &str = "frame.";

/// Prefix of the sensors that are objects.
const OBJECT: &str = "object.";

/// Largest difference, relative to numbers above 1: sensors are recorded in 32 bits and then scaled.
const TOLERANCE: f64 = 1e-4;

/// What may be recorded. Joints stand in the order of the manifest.
///
/// | name | numbers | what |
/// |---|---|---|
/// | `joint_pos`, `joint_vel`, `joint_effort` | joints | rad, rad/s, N·m, as measured |
/// | `joint_target`, `executed` | joints | what the policy asked for, and what was sent last, rad |
/// | `gyro`, `accelerometer` | 3 | body axes |
/// | `base_quat` | 4 | wxyz, body → world |
/// | `base_pos`, `base_vel` | 3 | world |
/// | `command` | commands | operator commands |
/// | `last_action` | actions | graph units |
/// | `time` | 1 | since the start of the policy, s |
///
/// Beside these `object.<name>` (3): position of an object in the world.
pub const SENSORS: [&str; 13] = [
    "joint_pos",
    "joint_vel",
    "joint_effort",
    "joint_target",
    "executed",
    "gyro",
    "accelerometer",
    "base_quat",
    "base_pos",
    "base_vel",
    "command",
    "last_action",
    "time",
];

/// How well the observations are rebuilt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameReport {
    /// Observations compared.
    pub observations: usize,
    /// Largest difference.
    pub measured: f64,
}

/// Why observations are not rebuilt.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The recorded tensors are not in order.
    #[error(transparent)]
    Vectors(#[from] ParityError),
    /// The observation cannot be computed on this robot.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A tensor that no sensor is behind.
    #[error("parity.safetensors: there is no sensor {name:?}; there are {}", SENSORS.join(", "))]
    Unknown {
        /// Name behind `frame.`.
        name: String,
    },
    /// A term reads a sensor that was not recorded.
    #[error("term {term} reads {sensor}, but there is no frame.{sensor}")]
    Missing {
        /// Term.
        term: String,
        /// Sensor.
        sensor: &'static str,
    },
    /// A number cannot be computed from what was recorded.
    #[error("sequence {sequence}, step {step}: {error}")]
    NotFinite {
        /// Sequence.
        sequence: usize,
        /// Step.
        step: usize,
        /// Term and component.
        error: NotFinite,
    },
    /// The recorded observation is another one.
    #[error(
        "sequence {sequence}, step {step}: observation {element} (term {term}) is {got} when built from the recorded \
         sensors, {expected} in training"
    )]
    Differs {
        /// Sequence.
        sequence: usize,
        /// Step.
        step: usize,
        /// Element of the observation.
        element: usize,
        /// Term that it belongs to.
        term: String,
        /// Recorded.
        expected: f32,
        /// Rebuilt.
        got: f32,
    },
}

/// Rebuilds the recorded observations of a bundle; `None` when it carries no sensors.
///
/// # Errors
/// [`FrameError`]: what is malformed, missing, or differs.
pub fn verify(bundle: &Bundle, robot: &Robot) -> Result<Option<FrameReport>, FrameError> {
    let manifest = bundle.manifest();
    if manifest.parity.is_none() {
        return Ok(None);
    }
    let vectors = Vectors::open(bundle)?;
    let names = vectors.names().into_iter().filter_map(|name| name.strip_prefix(PREFIX));
    let mut frames = BTreeMap::new();
    for name in names.map(str::to_owned).collect::<Vec<_>>() {
        if let Some(tensor) = vectors.tensor(&format!("{PREFIX}{name}"))? {
            frames.insert(name, tensor);
        }
    }
    if frames.is_empty() {
        return Ok(None);
    }
    let recorder = Frames::new(manifest, robot, &frames)?;
    let n = manifest.observation.size;
    let obs = vectors.tensor("obs")?.ok_or_else(|| ParityError::Missing("obs".into()))?;
    let fits =
        matches!(obs.shape[..], [s, k, each] if s >= recorder.sequences && k == recorder.steps && each == n);
    if !fits {
        let (s, k) = (recorder.sequences, recorder.steps);
        let why = format!("has the shape {:?}, but the frames have {s} sequences of {k} steps", obs.shape);
        return Err(ParityError::Tensor { tensor: "obs".into(), why }.into());
    }
    let mut report = FrameReport { observations: 0, measured: 0.0 };
    recorder.rebuild(|sequence, step, got| {
        let row = (sequence * recorder.steps + step) * n;
        for (element, (&expected, &got)) in obs.data[row..row + n].iter().zip(got).enumerate() {
            let difference = (f64::from(expected) - f64::from(got)).abs();
            if difference > TOLERANCE * f64::from(expected).abs().max(1.0) {
                let term = manifest.term_of(element).unwrap_or_default().to_owned();
                return Err(FrameError::Differs { sequence, step, element, term, expected, got });
            }
            report.measured = report.measured.max(difference);
        }
        report.observations += 1;
        Ok(())
    })?;
    Ok(Some(report))
}

/// Recorded sensors, ready to be observed.
#[derive(Debug)]
pub struct Frames<'a> {
    tensors: &'a BTreeMap<String, Recorded>,
    observer: Observer,
    /// Names of the recorded objects, in the order of `State::objects`.
    objects: Vec<String>,
    start: Feedback,
    joints: usize,
    map: JointMap,
    /// Sequences.
    pub sequences: usize,
    /// Steps of each.
    pub steps: usize,
}

impl<'a> Frames<'a> {
    /// Checks names and shapes, and that every term finds what it reads.
    ///
    /// # Errors
    /// [`FrameError`]
    pub fn new(
        manifest: &Manifest,
        robot: &Robot,
        tensors: &'a BTreeMap<String, Recorded>,
    ) -> Result<Self, FrameError> {
        let mut observer = Observer::new(manifest, robot)?;
        let objects: Vec<String> = tensors
            .keys()
            .filter_map(|name| name.strip_prefix(OBJECT))
            .take(MAX_OBJECTS)
            .map(str::to_owned)
            .collect();
        observer.bind_objects(&objects)?;
        let names: Vec<&String> = manifest.joints.iter().map(|j| &j.name).collect();
        let map = JointMap::new(robot, &names).map_err(ObserveError::from)?;
        let (mut sequences, mut steps) = (0, 0);
        for (i, (name, tensor)) in tensors.iter().enumerate() {
            let each = size(manifest, name).ok_or_else(|| FrameError::Unknown { name: name.clone() })?;
            let bad = |why: String| ParityError::Tensor { tensor: format!("{PREFIX}{name}"), why };
            let [s, k, _] = tensor.shape[..] else {
                let why = format!("has the shape {:?}, not [sequences, steps, {each}]", tensor.shape);
                return Err(bad(why).into());
            };
            if i == 0 {
                (sequences, steps) = (s, k);
            }
            if tensor.shape != [sequences, steps, each] || tensor.data.len() != sequences * steps * each {
                let why = format!("has the shape {:?}, not {:?}", tensor.shape, [sequences, steps, each]);
                return Err(bad(why).into());
            }
        }
        for term in &manifest.observation.terms {
            let floating = |frame: &Option<String>| {
                manifest.frames.iter().any(|f| f.floating && Some(&f.name) == frame.as_ref())
            };
            let base = floating(&term.params.frame) || floating(&term.params.axes);
            let missing = |sensor: &&&str| !tensors.contains_key(**sensor);
            if let Some(&sensor) = reads(&term.source, base).iter().find(missing) {
                return Err(FrameError::Missing { term: term.name.clone(), sensor });
            }
        }
        let start = Feedback::reset(manifest, &[0.0; MAX_JOINTS]);
        Ok(Self { tensors, observer, objects, start, joints: robot.joints.len(), map, sequences, steps })
    }

    /// Hands every observation to `put`, by sequence and step.
    ///
    /// # Errors
    /// A number that cannot be computed, or what `put` says.
    pub fn rebuild(
        &self,
        mut put: impl FnMut(usize, usize, &[f32]) -> Result<(), FrameError>,
    ) -> Result<(), FrameError> {
        let mut observer = self.observer.clone();
        let mut out = vec![0.0; observer.size()];
        for sequence in 0..self.sequences {
            observer.reset();
            for step in 0..self.steps {
                let (state, feedback) = self.moment(sequence * self.steps + step);
                observer.step(&state, &feedback, &mut out).map_err(|error| FrameError::NotFinite {
                    sequence,
                    step,
                    error,
                })?;
                put(sequence, step, &out)?;
            }
        }
        Ok(())
    }

    /// Row `i` of a sensor.
    fn row(&self, name: &str, i: usize) -> Option<&[f32]> {
        let tensor = self.tensors.get(name)?;
        let each = tensor.shape[2];
        Some(&tensor.data[i * each..(i + 1) * each])
    }

    /// What was measured at row `i`.
    fn moment(&self, i: usize) -> (State, Feedback) {
        let mut state = State::new(self.joints);
        let mut feedback = self.start;
        let joints = |name: &str, into: &mut Joints| {
            for (&place, &x) in self.map.places().iter().zip(self.row(name, i).unwrap_or_default()) {
                into[place] = f64::from(x);
            }
        };
        joints("joint_pos", &mut state.q);
        joints("joint_vel", &mut state.dq);
        joints("joint_effort", &mut state.tau);
        joints("joint_target", &mut feedback.target);
        joints("executed", &mut feedback.executed);
        let plain = |name: &str, into: &mut [f64]| {
            let row = self.row(name, i).unwrap_or_default();
            into.iter_mut().zip(row).for_each(|(to, &x)| *to = f64::from(x));
            !row.is_empty()
        };
        let imu = [
            plain("gyro", &mut state.imu.gyro),
            plain("accelerometer", &mut state.imu.acc),
            plain("base_quat", &mut state.imu.quat),
        ];
        state.imu.valid = imu.contains(&true);
        let base = [plain("base_pos", &mut state.base.pos), plain("base_vel", &mut state.base.vel)];
        state.base.valid = base.contains(&true);
        for (name, object) in self.objects.iter().zip(&mut state.objects) {
            object.valid = plain(&format!("{OBJECT}{name}"), &mut object.pos);
        }
        plain("command", &mut state.user);
        plain("time", std::slice::from_mut(&mut feedback.time));
        let action = self.row("last_action", i).unwrap_or_default();
        feedback.action.iter_mut().zip(action).for_each(|(to, &x)| *to = x);
        (state, feedback)
    }
}

/// Numbers of a sensor; `None` when there is no such sensor.
fn size(manifest: &Manifest, name: &str) -> Option<usize> {
    Some(match name {
        "joint_pos" | "joint_vel" | "joint_effort" | "joint_target" | "executed" => manifest.joints.len(),
        "gyro" | "accelerometer" | "base_pos" | "base_vel" => 3,
        "base_quat" => 4,
        "command" => manifest.commands.len(),
        "last_action" => manifest.action.joints.len(),
        "time" => 1,
        _ if name.starts_with(OBJECT) => 3,
        _ => return None,
    })
}

/// The sensors behind a source; `base`: it is about a frame that floats.
fn reads(source: &str, base: bool) -> &'static [&'static str] {
    match source {
        "joint_pos" => &["joint_pos"],
        "joint_vel" => &["joint_vel"],
        "joint_effort" => &["joint_effort"],
        "joint_target_error" => &["joint_target", "joint_pos"],
        "gyro" => &["gyro"],
        "accelerometer" => &["accelerometer"],
        "projected_gravity" | "base_quat" => &["base_quat"],
        "base_pos" => &["base_pos"],
        "base_lin_vel" => &["base_vel", "base_quat"],
        "command" | "target_cylindrical" => &["command"],
        "last_action" => &["last_action"],
        "prev_executed_action" => &["executed"],
        "phase" | "time" => &["time"],
        "frame_pos" if base => &["joint_pos", "base_pos", "base_quat"],
        "frame_pos" => &["joint_pos"],
        "frame_pos_error" if base => &["joint_pos", "command", "base_pos", "base_quat"],
        "frame_pos_error" => &["joint_pos", "command"],
        _ => &[],
    }
}
