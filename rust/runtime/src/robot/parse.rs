//! The strict reader of robot.toml.
//!
//! TOML is parsed once; a walk drops the `x-` keys and refuses numbers that are not finite, with their path; serde
//! refuses unknown and missing keys; the rest is checked here, where each value still knows its place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use cadenza_policy::manifest::MonitorSpec;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::raw::{
    RawDevice, RawFrame, RawImu, RawJoint, RawLevel, RawMonitor, RawOverrun, RawRobot, RawSafety, RawStart,
    RawTorque, Time,
};
use super::{
    DeviceConfig, EstopSource, FrameConfig, Gains, ImuConfig, Joint, Limits, Motor, Overrun, Place, Robot,
    RobotError, RobotMonitor, SafetyConfig, Start, TorqueMode,
};
use crate::safety::Level;
use crate::state::MAX_JOINTS;

const DEVICES: [&str; 8] = ["sim", "replay", "null", "link", "feetech", "dynamixel", "mit_can", "unitree"];

/// Reads `text`, which lies at `path`.
pub(super) fn robot(text: &str, path: &Path) -> Result<Robot, RobotError> {
    Reader { text, path }.robot()
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Reader<'_> {
    fn at(&self, span: Range<usize>) -> Place {
        Place::new(self.path, self.text, span.start)
    }

    fn syntax(&self, error: &toml::de::Error) -> RobotError {
        RobotError::Syntax {
            at: self.at(error.span().unwrap_or(0..0)),
            message: error.message().replace('\n', "; "),
        }
    }

    fn bad<T: std::fmt::Debug>(
        &self,
        value: &Spanned<T>,
        key: &'static str,
        expected: &'static str,
    ) -> RobotError {
        let text = format!("{:?}", value.get_ref());
        RobotError::BadValue { at: self.at(value.span()), key, value: text, expected }
    }

    /// A value that satisfies `ok`.
    fn checked<T: std::fmt::Debug + Copy>(
        &self,
        value: Spanned<T>,
        key: &'static str,
        expected: &'static str,
        ok: impl Fn(T) -> bool,
    ) -> Result<T, RobotError> {
        if ok(*value.get_ref()) { Ok(value.into_inner()) } else { Err(self.bad(&value, key, expected)) }
    }

    /// A duration, or its default.
    fn time(
        &self,
        value: Option<Spanned<Time>>,
        key: &'static str,
        default: f64,
        allow_zero: bool,
    ) -> Result<f64, RobotError> {
        let Some(value) = value else { return Ok(default) };
        let expected = if allow_zero { "a time" } else { "a time above 0" };
        Ok(self.checked(value, key, expected, |t| allow_zero || t.0 > 0.0)?.0)
    }

    fn robot(&self) -> Result<Robot, RobotError> {
        let mut table = DeTable::parse(self.text).map_err(|e| self.syntax(&e))?;
        self.walk(table.get_mut(), "")?;
        let raw = RawRobot::deserialize(toml::de::Deserializer::from(table)).map_err(|e| self.syntax(&e))?;

        self.checked(raw.schema, "schema", "1, the only format", |s| s == 1)?;
        self.name(&raw.name, "name")?;
        let control_hz = self.checked(raw.rates.control_hz, "rates.control_hz", "1 to 10000 Hz", |hz| {
            (1.0..=1e4).contains(&hz)
        })?;
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let model = raw.model.map(|m| folder.join(m));
        let model = match model.map(std::path::absolute).transpose() {
            Ok(model) => model,
            Err(e) => return Err(RobotError::Read { path: folder.to_path_buf(), what: e.to_string() }),
        };
        let pose = raw.safety.softstop_pose.clone();
        let joints = self.joints(raw.joint)?;
        if let Some(pose) = &pose {
            self.pose(pose, &joints)?;
        }
        Ok(Robot {
            name: raw.name.into_inner(),
            path: self.path.to_path_buf(),
            text: self.text.to_owned(),
            model,
            device: self.device(raw.device)?,
            control_hz,
            imu: raw.imu.map(|imu| self.imu(imu)).transpose()?.flatten(),
            safety: self.safety(raw.safety)?,
            frames: self.frames(raw.frame)?,
            joints,
            monitors: self.monitors(raw.monitor, 1.0 / control_hz)?,
        })
    }

    /// Drops `x-` keys and refuses numbers that are not finite, anywhere.
    fn walk(&self, table: &mut DeTable<'_>, path: &str) -> Result<(), RobotError> {
        let all = std::mem::take(table);
        table.extend(all.into_iter().filter(|(key, _)| !key.get_ref().starts_with("x-")));
        for (key, value) in table.iter_mut() {
            let key =
                if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
            self.walk_value(value, &key)?;
        }
        Ok(())
    }

    fn walk_value(&self, value: &mut Spanned<DeValue<'_>>, key: &str) -> Result<(), RobotError> {
        let at = value.span();
        match value.get_mut() {
            DeValue::Float(number) if !number.as_str().parse::<f64>().is_ok_and(f64::is_finite) => {
                Err(RobotError::NotFinite {
                    at: self.at(at),
                    key: key.to_owned(),
                    value: number.as_str().to_owned(),
                })
            }
            DeValue::Table(table) => self.walk(table, key),
            DeValue::Array(array) => {
                for (i, item) in array.iter_mut().enumerate() {
                    self.walk_value(item, &format!("{key}[{i}]"))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn name(&self, name: &Spanned<String>, key: &'static str) -> Result<(), RobotError> {
        let text = name.get_ref();
        let fine = !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        if fine { Ok(()) } else { Err(self.bad(name, key, "a name without spaces")) }
    }

    fn device(&self, raw: RawDevice) -> Result<DeviceConfig, RobotError> {
        if !DEVICES.contains(&raw.kind.get_ref().as_str()) {
            return Err(self.bad(
                &raw.kind,
                "device.kind",
                "sim, replay, null, link, feetech, dynamixel, mit_can or unitree",
            ));
        }
        Ok(DeviceConfig {
            kind: raw.kind.into_inner(),
            port: raw.port,
            baud: raw.baud,
            period: match raw.period {
                Some(period) => Some(self.time(Some(period), "device.period", 0.0, false)?),
                None => None,
            },
            command_timeout: self.time(raw.command_timeout, "device.command_timeout", 0.02, false)?,
            on_silence: raw.on_silence.into(),
            on_exit: raw.on_exit.into(),
        })
    }

    fn imu(&self, raw: RawImu) -> Result<Option<ImuConfig>, RobotError> {
        let norm = |q: [f64; 4]| q.iter().map(|x| x * x).sum::<f64>().sqrt();
        let quat = self.checked(raw.mount_quat, "imu.mount_quat", "a unit quaternion wxyz", |q| {
            (norm(q) - 1.0).abs() <= 1e-6
        })?;
        let n = norm(quat);
        Ok(raw.present.then(|| ImuConfig { mount_quat: quat.map(|x| x / n), source: raw.source }))
    }

    fn safety(&self, raw: RawSafety) -> Result<SafetyConfig, RobotError> {
        let stale_after = self.time(raw.stale_after, "safety.stale_after", 0.02, false)?;
        let lost_after = match raw.lost_after {
            None => 3.0 * stale_after,
            Some(lost) => {
                self.checked(lost, "safety.lost_after", "a time not below stale_after", |t| {
                    t.0 >= stale_after
                })?
                .0
            }
        };
        let tilt_max = raw
            .tilt_max
            .map(|t| {
                self.checked(t, "safety.tilt_max", "an angle in (0, pi]", |t| {
                    t > 0.0 && t <= std::f64::consts::PI
                })
            })
            .transpose()?;
        let track_max = match raw.track_max {
            None => 0.6,
            Some(t) => self.checked(t, "safety.track_max", "a distance above 0", |t| t > 0.0)?,
        };
        Ok(SafetyConfig {
            stale_after,
            lost_after,
            tilt_max,
            track_max,
            hold_ticks: raw.hold_ticks,
            max_consecutive_misses: raw.max_consecutive_misses,
            overrun: match raw.overrun {
                RawOverrun::Skip => Overrun::Skip,
                RawOverrun::Fault => Overrun::Fault,
            },
            gain_ramp: self.time(raw.gain_ramp, "safety.gain_ramp", 1.0, true)?,
            authority_ramp: self.time(raw.authority_ramp, "safety.authority_ramp", 1.0, true)?,
            start: match raw.start {
                RawStart::Measured => Start::Measured,
                RawStart::Home => Start::Home,
            },
            torque_mode: match raw.torque_mode {
                RawTorque::Gain => TorqueMode::Gain,
                RawTorque::Target => TorqueMode::Target,
                RawTorque::Off => TorqueMode::Off,
            },
            estop_level: match raw.estop_level {
                RawLevel::SoftStop => Level::SoftStop,
                RawLevel::Damp => Level::Damp,
                RawLevel::Off => Level::Off,
            },
            softstop_damp: self.time(raw.softstop_damp, "safety.softstop_damp", 1.0, true)?,
            softstop_pose: raw.softstop_pose.map(Spanned::into_inner).unwrap_or_default(),
            estop: raw.estop.iter().map(|source| self.estop(source)).collect::<Result<_, _>>()?,
        })
    }

    fn estop(&self, source: &Spanned<String>) -> Result<EstopSource, RobotError> {
        source.get_ref().parse().map_err(|_| {
            self.bad(source, "safety.estop", "device, stdin, udp:PORT, udp:ADDRESS:PORT or evdev:NAME")
        })
    }

    /// The pose of a soft stop names joints and lies inside their ranges.
    fn pose(&self, pose: &Spanned<BTreeMap<String, f64>>, joints: &[Joint]) -> Result<(), RobotError> {
        for (name, q) in pose.get_ref() {
            let inside = joints.iter().any(|j| {
                let [lo, hi] = j.limits.position;
                j.name == *name && (lo..=hi).contains(q)
            });
            if !inside {
                return Err(RobotError::BadValue {
                    at: self.at(pose.span()),
                    key: "safety.softstop_pose",
                    value: format!("{name} = {q}"),
                    expected: "a joint at a position inside its range",
                });
            }
        }
        Ok(())
    }

    fn frames(&self, raw: Vec<RawFrame>) -> Result<Vec<FrameConfig>, RobotError> {
        let mut frames: Vec<FrameConfig> = Vec::with_capacity(raw.len());
        for frame in raw {
            self.name(&frame.name, "frame.name")?;
            if frames.iter().any(|f| f.name == *frame.name.get_ref()) {
                let at = self.at(frame.name.span());
                return Err(RobotError::DuplicateName { at, what: "frame", name: frame.name.into_inner() });
            }
            frames.push(FrameConfig { name: frame.name.into_inner(), site: frame.site });
        }
        Ok(frames)
    }

    fn joints(&self, raw: Spanned<Vec<RawJoint>>) -> Result<Vec<Joint>, RobotError> {
        if raw.get_ref().len() > MAX_JOINTS {
            return Err(RobotError::TooManyJoints { n: raw.get_ref().len(), max: MAX_JOINTS });
        }
        if raw.get_ref().is_empty() {
            return Err(RobotError::BadValue {
                at: self.at(raw.span()),
                key: "joint",
                value: "[]".into(),
                expected: "at least one joint",
            });
        }
        let mut joints: Vec<Joint> = Vec::with_capacity(raw.get_ref().len());
        for joint in raw.into_inner() {
            self.name(&joint.name, "joint.name")?;
            if joints.iter().any(|j| j.name == *joint.name.get_ref()) {
                let at = self.at(joint.name.span());
                return Err(RobotError::DuplicateJoint { at, name: joint.name.into_inner() });
            }
            if let Some(id) = &joint.motor.id {
                let same = |j: &&Joint| j.motor.id == Some(*id.get_ref()) && j.motor.bus == joint.motor.bus;
                if let Some(first) = joints.iter().find(same) {
                    return Err(RobotError::DuplicateMotorId {
                        at: self.at(id.span()),
                        id: *id.get_ref(),
                        a: first.name.clone(),
                        b: joint.name.into_inner(),
                    });
                }
            }
            joints.push(self.joint(joint)?);
        }
        Ok(joints)
    }

    fn joint(&self, raw: RawJoint) -> Result<Joint, RobotError> {
        let name = raw.name.into_inner();
        let positive = |value: Spanned<f64>, key: &'static str| {
            let (at, value) = (value.span(), value.into_inner());
            if value > 0.0 {
                Ok(value)
            } else {
                Err(RobotError::NotPositive { at: self.at(at), joint: name.clone(), key, value })
            }
        };
        let optional = |value: Option<Spanned<f64>>, key| value.map(|v| positive(v, key)).transpose();

        let sign = match raw.motor.sign {
            None => 1.0,
            Some(sign) if sign.get_ref().abs() == 1.0 => sign.into_inner(),
            Some(sign) => {
                let at = self.at(sign.span());
                return Err(RobotError::DirectionNotUnit { at, joint: name, value: sign.into_inner() });
            }
        };
        let motor = Motor {
            model: raw.motor.model,
            bus: raw.motor.bus,
            id: raw.motor.id.map(Spanned::into_inner),
            sign,
            gear: optional(raw.motor.gear, "gear")?.unwrap_or(1.0),
            offset: raw.motor.offset,
        };

        let range = raw.limits.position;
        let [lo, hi] = *range.get_ref();
        if lo >= hi {
            let at = self.at(range.span());
            return Err(RobotError::BadRange { at, joint: name, key: "position", lo, hi });
        }
        let acceleration = positive(raw.limits.acceleration, "acceleration")?;
        let limits = Limits {
            position: [lo, hi],
            velocity: positive(raw.limits.velocity, "velocity")?,
            acceleration,
            jerk: optional(raw.limits.jerk, "jerk")?.unwrap_or(100.0 * acceleration),
            effort: positive(raw.limits.effort, "effort")?,
            effort_rate: optional(raw.limits.effort_rate, "effort_rate")?,
            temperature: optional(raw.limits.temperature, "temperature")?,
        };

        let gain = |value, key| self.checked(value, key, "a gain from 0 up", |g: f64| g >= 0.0);
        let gains = Gains {
            kp_max: gain(raw.gains.kp_max, "gains.kp_max")?,
            kd_max: gain(raw.gains.kd_max, "gains.kd_max")?,
            kd_damp: gain(raw.gains.kd_damp, "gains.kd_damp")?,
        };

        let (home, at) = raw.home.map_or((0.0, range.span()), |h| (*h.get_ref(), h.span()));
        if !(lo..=hi).contains(&home) {
            return Err(RobotError::HomeOutside { at: self.at(at), joint: name, home, lo, hi });
        }
        Ok(Joint { name, motor, limits, gains, home, wrap: raw.wrap })
    }

    fn monitors(&self, raw: Vec<RawMonitor>, control_dt: f64) -> Result<Vec<RobotMonitor>, RobotError> {
        let mut monitors: Vec<RobotMonitor> = Vec::with_capacity(raw.len());
        for monitor in raw {
            self.name(&monitor.name, "monitor.name")?;
            if monitors.iter().any(|m| m.spec.name == *monitor.name.get_ref()) {
                let at = self.at(monitor.name.span());
                return Err(RobotError::DuplicateName {
                    at,
                    what: "monitor",
                    name: monitor.name.into_inner(),
                });
            }
            let dt = match monitor.dt {
                None => control_dt,
                Some(dt) => {
                    let whole = |t: Time| {
                        let ratio = t.0 / control_dt;
                        ratio.round() >= 1.0 && (ratio - ratio.round()).abs() <= 1e-9 * ratio
                    };
                    self.checked(dt, "monitor.dt", "a whole number of control periods", whole)?.0
                }
            };
            let spec = MonitorSpec {
                name: monitor.name.into_inner(),
                dt,
                trip: monitor.trip,
                action: monitor.action,
                margin: monitor.margin,
                params: monitor.params,
            };
            monitors.push(RobotMonitor { spec, formula: monitor.formula });
        }
        Ok(monitors)
    }
}
