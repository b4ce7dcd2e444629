//! What a log says before its first message: the robot, the bundle, the run, and the names of every column.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::robot::Robot;
use crate::timing::sched::RtReport;

/// What a log says before its first message. Stored as the metadata record `cadenza.run`, one JSON value for each field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogHeader {
    /// Name of the robot.
    pub robot: String,
    /// Joints: the columns of every array over joints.
    pub joints: Vec<JointHeader>,
    /// Control rate, Hz.
    pub control_hz: f64,
    /// Policy rate, Hz.
    pub policy_hz: f64,
    /// Operator command slots: the columns of `State.user`.
    pub commands: Vec<String>,
    /// Objects: the columns of `State.objects`.
    pub objects: Vec<String>,
    /// Named frames of the robot.
    pub frames: Vec<String>,
    /// Names of the actions: the columns of a chunk's row.
    pub actions: Vec<String>,
    /// Monitors, in the order of `Verdict.monitor`.
    pub monitors: Vec<MonitorHeader>,
    /// Name of the bundle.
    pub bundle: String,
    /// SHA-256 of the bundle, hexadecimal.
    pub bundle_sha256: String,
    /// Knobs of the run. The log's own path is left out, so that equal runs give equal logs.
    pub run: RunConfig,
    /// Level that the control thread reached.
    pub rt: RtReport,
    /// Version of the runtime.
    pub version: String,
    /// `release` or `debug`.
    pub build: String,
    /// Nanoseconds to add to the loop's clock to get the log's time (UTC). Set by the recorder.
    pub utc_offset_ns: i64,
    /// Text of robot.toml; an attachment of the log.
    #[serde(skip)]
    pub robot_toml: String,
    /// Text of the bundle's manifest; an attachment of the log.
    #[serde(skip)]
    pub manifest_json: String,
    /// STL specification; an attachment of the log.
    #[serde(skip)]
    pub spec_stl: String,
}

/// A joint: one column.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JointHeader {
    /// Name.
    pub name: String,
    /// Position range; absent where the joint turns without end.
    pub position: Option<[f64; 2]>,
    /// Velocity limit.
    pub velocity: f64,
    /// Acceleration limit.
    pub acceleration: f64,
    /// Effort limit.
    pub effort: f64,
}

/// A monitor: one value of `Verdict.monitor`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MonitorHeader {
    /// Name.
    pub name: String,
    /// Step, s.
    pub dt: f64,
    /// STL text.
    pub formula: String,
}

/// Metadata record with the header.
pub(super) const RUN: &str = "cadenza.run";
/// Metadata record with the number of entries dropped so far, one key for each topic.
pub(super) const DROPS: &str = "cadenza.drops";
/// Metadata record with the statistics, under the key `json`.
pub(super) const STATS: &str = "cadenza.stats";

impl LogHeader {
    /// The header of a run of `robot` under `run`, at this version and build; what concerns the bundle is still empty.
    pub fn new(robot: &Robot, run: &RunConfig, rt: &RtReport) -> Self {
        let joints = robot.joints.iter().map(|joint| JointHeader {
            name: joint.name.clone(),
            position: Some(joint.limits.position).filter(|p| !joint.wrap && p.iter().all(|x| x.is_finite())),
            velocity: joint.limits.velocity,
            acceleration: joint.limits.acceleration,
            effort: joint.limits.effort,
        });
        Self {
            robot: robot.name.clone(),
            joints: joints.collect(),
            control_hz: robot.control_hz,
            frames: robot.frames.iter().map(|frame| frame.name.clone()).collect(),
            run: run.clone(),
            rt: rt.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
            robot_toml: robot.text.clone(),
            ..Self::default()
        }
    }

    /// Files that travel in the log: name, media type, text.
    pub(super) fn attachments(&self) -> [(&'static str, &'static str, &str); 3] {
        [
            ("robot.toml", "application/toml", &self.robot_toml),
            ("manifest.json", "application/json", &self.manifest_json),
            ("spec.stl", "text/plain", &self.spec_stl),
        ]
    }

    /// Puts an attachment of [`Self::attachments`] back; others are ignored.
    pub(super) fn attach(&mut self, name: &str, text: String) {
        match name {
            "robot.toml" => self.robot_toml = text,
            "manifest.json" => self.manifest_json = text,
            "spec.stl" => self.spec_stl = text,
            _ => {}
        }
    }

    /// Fields as JSON, by name.
    pub(super) fn to_metadata(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        let header = Self { run: RunConfig { record: None, ..self.run.clone() }, ..self.clone() };
        let fields: BTreeMap<String, serde_json::Value> =
            serde_json::from_value(serde_json::to_value(header)?)?;
        Ok(fields.into_iter().map(|(name, value)| (name, value.to_string())).collect())
    }

    /// The reverse of [`Self::to_metadata`].
    pub(super) fn from_metadata(fields: &BTreeMap<String, String>) -> Result<Self, serde_json::Error> {
        let mut object = serde_json::Map::new();
        for (name, text) in fields {
            object.insert(name.clone(), serde_json::from_str(text)?);
        }
        serde_json::from_value(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_back() {
        let header = LogHeader {
            joints: vec![JointHeader {
                name: "knee".into(),
                position: Some([-0.1, 2.0]),
                ..JointHeader::default()
            }],
            run: RunConfig { record: Some("x.mcap".into()), seconds: Some(0.1), ..RunConfig::default() },
            utc_offset_ns: -3,
            ..LogHeader::default()
        };
        let metadata = header.to_metadata().expect("plain data");
        assert_eq!(metadata["control_hz"], "0.0");
        let back = LogHeader::from_metadata(&metadata).expect("own form");
        assert_eq!(back.run.record, None);
        assert_eq!(LogHeader { run: header.run.clone(), ..back }, header);
    }
}
