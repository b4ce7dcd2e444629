//! Runs a log again: its states through the same tick, every command compared with the recorded one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cadenza_policy::manifest::Manifest;

use super::RunError;
use super::policy::{PolicySource, Recorded};
use super::request::Inbox;
use super::tick::{Controller, Due};
use crate::config::RunConfig;
use crate::device::replay::{Difference, ReplayDevice};
use crate::device::{Device, Freshness, TimeSource};
use crate::log::read::Logged;
use crate::log::{Log, Recorder};
use crate::robot::Robot;
use crate::state::State;
use crate::timing::clock::VirtualClock;

/// What a replay gave.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayReport {
    /// Commands compared.
    pub compared: u64,
    /// The first number that differs.
    pub difference: Option<Difference>,
}

/// Replays `log`. Actions come from the log, so the answer does not depend on the processor; with `policy` they are
/// inferred again from the recorded states.
///
/// # Errors
/// A log that cannot be read, lacks states, or whose robot and bundle do not fit any more.
pub fn replay(log: &Log, policy: Option<Box<dyn PolicySource>>) -> Result<ReplayReport, RunError> {
    let header = log.header();
    let robot = Robot::parse(&header.robot_toml, Path::new("robot.toml of the log"))?;
    let manifest = Manifest::from_json(header.manifest_json.as_bytes())?;
    let specification = (!header.spec_stl.is_empty()).then_some(header.spec_stl.as_str());
    let policy = match policy {
        Some(policy) => policy,
        None => Box::new(Recorded::new(values(log.chunks())?.into_iter().map(|c| (c.tick, c.values)))),
    };
    replay_on(log, &robot, &manifest, specification, policy)
}

/// Replays the states and requests of `log` with another bundle or robot: what would have been commanded?
///
/// # Errors
/// As for [`replay`].
pub fn replay_on(
    log: &Log,
    robot: &Robot,
    manifest: &Manifest,
    specification: Option<&str>,
    policy: Box<dyn PolicySource>,
) -> Result<ReplayReport, RunError> {
    if let Some(gap) = log.gaps()?.first() {
        return Err(RunError::Gap { text: gap.to_string() });
    }
    let now_ns = Arc::new(AtomicI64::new(0));
    let mut device = device(log, TimeSource::Virtual(now_ns.clone()))?;
    // A dry run sends nothing, and what is not sent cannot be compared; its commands are those of any other run.
    let config = RunConfig { record: None, dry_run: false, ..log.header().run.clone() };
    let mut controller = Controller::new(manifest, specification, robot, device.info(), policy, &config)?;
    let requests = values(log.requests())?.into_iter().map(|r| (r.tick, r.request)).collect();
    let mut inbox = Inbox::script(requests);
    let clock = VirtualClock::new(now_ns.clone());
    // A log may be cut between a state and its command: there is nothing to compare with then.
    let last = log.commands().last().transpose()?.map(|c| c.value.tick);
    for state in values(log.states())?.into_iter().take_while(|state| Some(state.tick) <= last) {
        now_ns.store(state.t_read_ns, Ordering::Release);
        let due = Due { deadline_ns: state.t_read_ns, skipped: 0 };
        controller.tick(due, &mut device, &clock, &mut inbox, &mut Recorder::off());
    }
    Ok(ReplayReport { compared: device.compared(), difference: device.difference() })
}

/// The robot of a log.
///
/// # Errors
/// As for [`replay`].
pub fn device(log: &Log, time: TimeSource) -> Result<ReplayDevice, RunError> {
    let mut sequence = 0;
    let mut before = None;
    let states = values(log.states())?
        .into_iter()
        .map(|state: State| {
            // Equal stamps were the same measurement.
            if before.replace(state.t_sensor_ns) != Some(state.t_sensor_ns) {
                sequence += 1;
            }
            let fresh = Freshness { sequence, stamp_ns: state.t_sensor_ns, stale_joints: 0, finished: false };
            (state, fresh)
        })
        .collect();
    Ok(ReplayDevice::new(states, values(log.commands())?, log.header().objects.clone(), time)?)
}

fn values<T>(
    messages: impl Iterator<Item = Result<Logged<T>, crate::log::LogError>>,
) -> Result<Vec<T>, RunError> {
    messages.map(|message| Ok(message?.value)).collect()
}
