//! Runs a log again: its states through the same tick, every command compared with the recorded one.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cadenza_policy::manifest::Manifest;

use super::RunError;
use super::planner::{Answer, Planner};
use super::policy::{PolicyError, PolicySource};
use super::request::Inbox;
use super::skill::Skill;
use super::switch::{Successor, switcher};
use super::tick::{Controller, Due};
use crate::config::{PolicyMode, RunConfig};
use crate::device::replay::{Difference, ReplayDevice};
use crate::device::{Device, DeviceFault, Freshness, TimeSource};
use crate::log::read::{BundleRecord, Logged};
use crate::log::{Log, Recorder, Topic};
use crate::robot::Robot;
use crate::safety::{Fault, Reason};
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
    if let (Some(_), Some(tick)) = (&policy, log.switched()?) {
        return Err(RunError::Switched { tick });
    }
    let planner = match policy {
        Some(policy) => planner(policy, &header.run, robot.control_dt()),
        None => {
            let late = header.run.inject.is_some() || header.run.mode == PolicyMode::Async;
            Planner::recorded(answers(log)?, late)
        }
    };
    replay_on(log, &robot, &manifest, specification, planner)
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
    planner: Planner,
) -> Result<ReplayReport, RunError> {
    whole(log)?;
    let now_ns = Arc::new(AtomicI64::new(0));
    let mut device = device(log, TimeSource::Virtual(now_ns.clone()))?;
    // A dry run sends nothing, and what is not sent cannot be compared; its commands are those of any other run. What the
    // monitors take is not measured again: the log says how often each was stepped.
    let run = log.header().run.clone();
    let config = RunConfig { record: None, dry_run: false, monitor_budget_us: None, ..run };
    let objects = &device.info().objects;
    let mut skill = Skill::new(manifest, specification, robot, objects, planner, &config)?;
    skill.monitors.follow(&log.header().monitors)?;
    let mut controller = Controller::around(Box::new(skill), robot, &config);
    // More can be under way than the ring holds: it is filled as they are asked for.
    let (mut switcher, port) = switcher();
    controller.switch_by(port);
    let mut successors = successors(log, robot, &device.info().objects, &config)?;
    let is_fallback = |(_, successor): &(u64, Successor)| successor.bundle.fallback;
    // It stands by from the start; that it takes over follows from the states.
    if let Some(at) = successors.iter().position(is_fallback)
        && let Some((_, fallback)) = successors.remove(at)
    {
        controller.fall_back_on(fallback);
    }
    successors.retain(|successor| !is_fallback(successor));
    let requests = values(log.requests())?.into_iter().map(|r| (r.tick, r.request)).collect();
    let mut inbox = Inbox::script(requests);
    let mut events = values(log.events())?.into_iter().peekable();
    let clock = VirtualClock::new(now_ns.clone());
    // A log may be cut between a state and its command: there is nothing to compare with then.
    let last = log.commands().last().transpose()?.map(|c| c.value.tick);
    for state in values(log.states())?.into_iter().take_while(|state| Some(state.tick) <= last) {
        now_ns.store(state.t_read_ns, Ordering::Release);
        while let Some(event) = events.next_if(|event| event.tick <= state.tick) {
            controller.suffer(&event);
        }
        while successors.front().is_some_and(|(tick, _)| *tick <= state.tick) {
            if let Some((_, successor)) = successors.pop_front() {
                while switcher.outcome().is_some() {}
                // More are never asked for in one tick than there is room for.
                let _ = switcher.offer(successor);
            }
        }
        let due = Due { deadline_ns: state.t_read_ns, skipped: 0 };
        controller.tick(due, &mut device, &clock, &mut inbox, &mut Recorder::off());
    }
    Ok(ReplayReport { compared: device.compared(), difference: device.difference() })
}

/// The bundles that were offered, with the ticks at which they were asked for; what they answered comes from the log.
fn successors(
    log: &Log,
    robot: &Robot,
    objects: &[String],
    config: &RunConfig,
) -> Result<VecDeque<(u64, Successor)>, RunError> {
    let records = values(log.bundles())?.into_iter();
    records
        .map(|BundleRecord { tick, bundle }| {
            let manifest = Manifest::from_json(bundle.manifest_json.as_bytes())?;
            let specification = (!bundle.spec_stl.is_empty()).then_some(bundle.spec_stl.as_str());
            let planner = Planner::recorded(answers(log)?, bundle.late);
            let mut skill = Skill::new(&manifest, specification, robot, objects, planner, config)?;
            skill.monitors.follow(&bundle.monitors)?;
            Ok((tick, Successor::of(skill, bundle)))
        })
        .collect()
}

/// A policy that is asked again, with the delays that the run injected.
fn planner(policy: Box<dyn PolicySource>, run: &RunConfig, period: f64) -> Planner {
    match run.inject {
        Some(latency) => Planner::delayed(policy, latency, period),
        None => Planner::inline(policy),
    }
}

/// What the policy answered, with the ticks at which the loop heard it: actions, and what was wrong instead of one.
fn answers(log: &Log) -> Result<Vec<(u64, Answer)>, RunError> {
    let epochs = values(log.states())?;
    let epoch_at = |tick: u64| {
        let at = epochs.partition_point(|s| s.tick < tick);
        epochs.get(at).map_or(0, |s| s.epoch)
    };
    let mut answers: Vec<(u64, Answer)> = values(log.chunks())?
        .into_iter()
        .map(|c| {
            let (epoch, prefix) = (epoch_at(c.tick), c.prefix as usize);
            (c.tick, Answer { epoch, step: c.step, prefix, outcome: Ok(()), values: c.values })
        })
        .collect();
    for event in values(log.events())? {
        let error = match event.reason {
            Reason::PolicyNotFinite => PolicyError::NotFinite { what: "action", index: 0 },
            Reason::PolicyWrongLength => PolicyError::WrongLength { got: event.value as usize, want: 0 },
            Reason::PolicyLate => PolicyError::Late,
            _ => continue,
        };
        let answer = Answer { epoch: 0, step: 0, prefix: 0, outcome: Err(error), values: Vec::new() };
        answers.push((event.tick, answer));
    }
    answers.sort_by_key(|(tick, _)| *tick);
    Ok(answers)
}

impl Controller {
    /// Takes from a log what neither states nor requests say: faults that the device reported, deadlines missed.
    fn suffer(&mut self, event: &Fault) {
        if event.reason == Reason::Deadline {
            self.gate.report(*event);
        } else if let Some(fault) = reported(event) {
            // The next input judges it together with the state of its tick, whether a read or a write reported it.
            self.write_fault = Some(fault);
        }
    }
}

/// The report of the device that an event was made of: the reverse of [`device_fault`](crate::safety::reason::device_fault).
fn reported(event: &Fault) -> Option<DeviceFault> {
    let (joint, value) = (event.joint, event.value);
    Some(match event.reason {
        Reason::JointSilent => DeviceFault::JointSilent { joint, lost: value as u32 },
        Reason::BusSilent => DeviceFault::BusSilent { for_ms: value as u32 },
        // Also made by the gate from a measured temperature; the level that follows is the same.
        Reason::Temperature => {
            DeviceFault::Overheated { joint, celsius: value as f32, limit: event.limit as f32 }
        }
        Reason::Vendor => DeviceFault::Vendor { joint, code: value as u32 },
        Reason::WriteFailed => DeviceFault::Refused { joint },
        Reason::Diverged => DeviceFault::Diverged { joint },
        _ => return None,
    })
}

/// Refuses a log that lacks messages at its beginning or in the middle: what happened then is unknown.
fn whole(log: &Log) -> Result<(), RunError> {
    let firsts = [
        (Topic::State, log.states().next().transpose()?.map(|m| m.sequence)),
        (Topic::Command, log.commands().next().transpose()?.map(|m| m.sequence)),
        (Topic::Chunk, log.chunks().next().transpose()?.map(|m| m.sequence)),
        (Topic::Event, log.events().next().transpose()?.map(|m| m.sequence)),
        (Topic::Request, log.requests().next().transpose()?.map(|m| m.sequence)),
        (Topic::Bundle, log.bundles().next().transpose()?.map(|m| m.sequence)),
    ];
    for (topic, lost) in firsts {
        if let Some(lost) = lost.filter(|lost| *lost > 0) {
            return Err(RunError::Gap { text: format!("{} lacks its first {lost} messages", topic.name()) });
        }
    }
    match log.gaps()?.first() {
        Some(gap) => Err(RunError::Gap { text: gap.to_string() }),
        None => Ok(()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::safety::reason::device_fault;

    #[test]
    fn every_report_of_a_device_comes_back_from_its_event() {
        for fault in [
            DeviceFault::JointSilent { joint: 3, lost: u32::MAX },
            DeviceFault::BusSilent { for_ms: 12 },
            DeviceFault::Overheated { joint: 0, celsius: 71.3, limit: 70.1 },
            DeviceFault::Vendor { joint: 63, code: 0xdead_beef },
            DeviceFault::Refused { joint: u16::MAX },
            DeviceFault::Diverged { joint: 2 },
        ] {
            let (reason, joint, value, limit) = device_fault(fault);
            let event = Fault { tick: 9, reason, joint, value, limit, level: reason.level() };
            assert_eq!(reported(&event), Some(fault));
        }
    }
}
