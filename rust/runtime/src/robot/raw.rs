//! The shape of robot.toml: what serde checks, before [`super::parse`] checks the values.

use std::collections::BTreeMap;

use cadenza_policy::manifest::{MonitorAction, Trip};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::device::Stop;

/// A duration as text: `20ms`, `1.5s`, `500us`.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) f64);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(unit);
        let per_second = match unit {
            "s" => Some(1.0),
            "ms" => Some(1e3),
            "us" => Some(1e6),
            _ => None,
        };
        // Dividing keeps round figures exact: 20/1000 is the double nearest to 0.02, 20·0.001 is not always.
        match (number.trim().parse::<f64>(), per_second) {
            (Ok(value), Some(scale)) if value >= 0.0 && value.is_finite() => Ok(Self(value / scale)),
            _ => Err(serde::de::Error::custom(format!("{text:?} is no duration such as \"20ms\" or \"1s\""))),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRobot {
    pub(super) schema: Spanned<u32>,
    pub(super) name: Spanned<String>,
    pub(super) model: Option<String>,
    pub(super) device: RawDevice,
    pub(super) rates: RawRates,
    pub(super) imu: Option<RawImu>,
    #[serde(default)]
    pub(super) safety: RawSafety,
    #[serde(default)]
    pub(super) frame: Vec<RawFrame>,
    pub(super) joint: Spanned<Vec<RawJoint>>,
    #[serde(default)]
    pub(super) monitor: Vec<RawMonitor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRates {
    pub(super) control_hz: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDevice {
    pub(super) kind: Spanned<String>,
    pub(super) port: Option<String>,
    pub(super) baud: Option<u32>,
    pub(super) period: Option<Spanned<Time>>,
    pub(super) command_timeout: Option<Spanned<Time>>,
    #[serde(default = "RawStop::hold")]
    pub(super) on_silence: RawStop,
    #[serde(default = "RawStop::off")]
    pub(super) on_exit: RawStop,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawStop {
    Hold,
    Damp,
    Off,
}

impl RawStop {
    fn hold() -> Self {
        Self::Hold
    }

    fn off() -> Self {
        Self::Off
    }
}

impl From<RawStop> for Stop {
    fn from(raw: RawStop) -> Self {
        match raw {
            RawStop::Hold => Stop::Hold,
            RawStop::Damp => Stop::Damp,
            RawStop::Off => Stop::Off,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawImu {
    pub(super) present: bool,
    #[serde(default = "RawImu::unturned")]
    pub(super) mount_quat: Spanned<[f64; 4]>,
    pub(super) source: Option<String>,
}

impl RawImu {
    fn unturned() -> Spanned<[f64; 4]> {
        Spanned::new(0..0, [1.0, 0.0, 0.0, 0.0])
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSafety {
    pub(super) stale_after: Option<Spanned<Time>>,
    pub(super) lost_after: Option<Spanned<Time>>,
    pub(super) tilt_max: Option<Spanned<f64>>,
    pub(super) track_max: Option<Spanned<f64>>,
    pub(super) hold_ticks: u32,
    pub(super) max_consecutive_misses: u32,
    pub(super) overrun: RawOverrun,
    pub(super) gain_ramp: Option<Spanned<Time>>,
    pub(super) authority_ramp: Option<Spanned<Time>>,
    pub(super) start: RawStart,
    pub(super) torque_mode: RawTorque,
    pub(super) estop: Vec<Spanned<String>>,
    pub(super) estop_level: RawLevel,
    pub(super) softstop_damp: Option<Spanned<Time>>,
    pub(super) softstop_pose: Option<Spanned<BTreeMap<String, f64>>>,
}

impl Default for RawSafety {
    fn default() -> Self {
        Self {
            stale_after: None,
            lost_after: None,
            tilt_max: None,
            track_max: None,
            hold_ticks: 25,
            max_consecutive_misses: 5,
            overrun: RawOverrun::Skip,
            gain_ramp: None,
            authority_ramp: None,
            start: RawStart::Measured,
            torque_mode: RawTorque::Gain,
            estop: vec![Spanned::new(0..0, "device".into())],
            estop_level: RawLevel::Damp,
            softstop_damp: None,
            softstop_pose: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawOverrun {
    Skip,
    Fault,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawStart {
    Measured,
    Home,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawTorque {
    Gain,
    Target,
    Off,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLevel {
    SoftStop,
    Damp,
    Off,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFrame {
    pub(super) name: Spanned<String>,
    pub(super) site: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJoint {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) motor: RawMotor,
    pub(super) limits: RawLimits,
    pub(super) gains: RawGains,
    pub(super) home: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) wrap: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMotor {
    pub(super) model: Option<String>,
    pub(super) bus: Option<String>,
    pub(super) id: Option<Spanned<u32>>,
    pub(super) sign: Option<Spanned<f64>>,
    pub(super) gear: Option<Spanned<f64>>,
    #[serde(default)]
    pub(super) offset: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) position: Spanned<[f64; 2]>,
    pub(super) velocity: Spanned<f64>,
    pub(super) acceleration: Spanned<f64>,
    pub(super) jerk: Option<Spanned<f64>>,
    pub(super) effort: Spanned<f64>,
    pub(super) effort_rate: Option<Spanned<f64>>,
    pub(super) temperature: Option<Spanned<f64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGains {
    pub(super) kp_max: Spanned<f64>,
    pub(super) kd_max: Spanned<f64>,
    pub(super) kd_damp: Spanned<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMonitor {
    pub(super) name: Spanned<String>,
    pub(super) formula: String,
    pub(super) dt: Option<Spanned<Time>>,
    pub(super) trip: Trip,
    pub(super) action: MonitorAction,
    #[serde(default)]
    pub(super) margin: f64,
    #[serde(default)]
    pub(super) params: BTreeMap<String, f64>,
}
