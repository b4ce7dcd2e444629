//! A small robot around the whole controller: three joints, a tool that dips when `lift` grows, a policy made of a
//! closure, the virtual clock.
#![allow(dead_code)] // each test binary uses its own part

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use cadenza_policy::manifest::Manifest;
use cadenza_runtime::config::RunConfig;
use cadenza_runtime::control::{
    Ask, Controller, Due, Inbox, Planner, PolicyError, PolicySource, Request, Successor,
};
use cadenza_runtime::device::fault::{Faulty, Injection, Trouble};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceInfo, TimeSource};
use cadenza_runtime::log::entry::TickEntry;
use cadenza_runtime::log::header::MonitorHeader;
use cadenza_runtime::log::{LogHeader, Recorder};
use cadenza_runtime::robot::Robot;
use cadenza_runtime::safety::{Level, Reason};
use cadenza_runtime::timing::clock::{Clock, VirtualClock};
use cadenza_runtime::timing::sched::RtReport;
use serde_json::{Value, json};

pub(crate) const PERIOD_NS: i64 = 2_000_000;
/// Control ticks in a policy step.
pub(crate) const STEP: u64 = 10;
/// The tick at which the motors come on when they are asked for at tick 0: ten fresh states are needed.
pub(crate) const ARMED: u64 = 9;
/// Ticks at rest before a soft stop becomes damping (0.1 s).
pub(crate) const REST: u64 = 50;
/// Ticks for which a policy may keep the robot holding.
pub(crate) const HOLD: u64 = 25;

const HEAD: &str = r#"schema = 1
name = "rig"
[device]
kind = "null"
[rates]
control_hz = 500
[safety]
stale_after = "20ms"
lost_after = "60ms"
track_max = 0.6
hold_ticks = 25
gain_ramp = "20ms"
softstop_damp = "100ms"
"#;

const FRAME: &str = "[[frame]]\nname = \"tool\"\nsite = \"tool\"\n";

const JOINTS: [(&str, &str); 3] = [
    (
        "pan",
        r#"limits = { position = [-2.0, 2.0], velocity = 4.0, acceleration = 60.0, effort = 40.0 }
gains = { kp_max = 200.0, kd_max = 10.0, kd_damp = 4.0 }
home = 0.0"#,
    ),
    (
        "lift",
        r#"limits = { position = [-1.0, 1.2], velocity = 3.0, acceleration = 40.0, effort = 60.0 }
gains = { kp_max = 80.0, kd_max = 8.0, kd_damp = 3.0 }
home = 0.1"#,
    ),
    (
        "wrist",
        r#"limits = { position = [-1.5, 1.5], velocity = 6.0, acceleration = 90.0, effort = 15.0 }
gains = { kp_max = 50.0, kd_max = 3.0, kd_damp = 1.0 }
home = -0.2"#,
    ),
];

/// robot.toml with the joints in `order`; `safety` is more text for `[safety]`.
pub(crate) fn toml(order: [usize; 3], safety: &str) -> String {
    let joints: String = order
        .map(|i| {
            let (name, rest) = JOINTS[i];
            format!("[[joint]]\nname = \"{name}\"\nmotor = {{ id = {i} }}\n{rest}\n")
        })
        .concat();
    let ramp = if safety.contains("authority_ramp") { "" } else { "authority_ramp = \"40ms\"\n" };
    format!("{HEAD}{ramp}{safety}{FRAME}{joints}")
}

pub(crate) fn parse(text: &str) -> Robot {
    Robot::parse(text, Path::new("robot.toml")).unwrap()
}

/// A position policy at 50 Hz that names the joints in an order of its own and is narrower than the robot in two
/// places. `edit` changes its JSON.
pub(crate) fn manifest(edit: impl FnOnce(&mut Value)) -> Manifest {
    let joint = |name: &str, position: Value, velocity: Value| {
        json!({ "name": name, "default": 0.0, "kp": 100.0, "kd": 5.0, "position": position,
                "velocity_max": velocity, "effort_max": null })
    };
    let link = |pos: [f64; 3], joint: Value, axis: [f64; 3]| {
        json!({ "pos": pos, "quat": [1.0, 0.0, 0.0, 0.0], "joint": joint, "axis": axis, "kind": "hinge",
                "zero": 0.0 })
    };
    let mut json = json!({
        "format": 1, "name": "rig", "files": {}, "robot": { "name": "rig", "model_sha256": null },
        "rates": { "policy_dt": 0.02, "control_dt": 0.002, "physics_dt": null },
        "joints": [joint("wrist", json!([-1.0, 3.0]), Value::Null), joint("pan", Value::Null, json!(2.5)),
                   joint("lift", Value::Null, Value::Null)],
        "frames": [ { "name": "tool", "chain": [
            link([0.0, 0.0, 0.1], json!("pan"), [0.0, 0.0, 1.0]),
            link([0.0, 0.0, 0.0], json!("lift"), [0.0, 1.0, 0.0]),
            link([0.3, 0.0, 0.0], Value::Null, [0.0, 0.0, 1.0]) ] } ],
        "observation": { "size": 10, "interleave": "term", "terms": [
            { "name": "q", "source": "joint_pos", "size": 3, "params": { "absolute": true } },
            { "name": "dq", "source": "joint_vel", "size": 3 },
            { "name": "before", "source": "last_action", "size": 3 },
            { "name": "speed", "source": "command", "size": 1 } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position", "joints": ["wrist", "pan", "lift"], "scale": { "*": 1.0 } },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": { "step": { "file": "step.onnx", "batch": 1, "inputs": { "obs": "observation" },
                                 "outputs": { "action": "action" } } },
        "commands": [ { "name": "speed", "range": [-1.0, 1.0], "default": 0.25 } ],
        "in_graph": { "normalize": false, "squash": true, "action_scale": false, "action_offset": false },
        "weights": "f32", "provenance": {},
    });
    edit(&mut json);
    serde_json::from_value(json).unwrap()
}

/// The action that leaves every joint at home: wrist, pan, lift.
pub(crate) const HOME: [f32; 3] = [-0.2, 0.0, 0.1];

/// A policy that is a closure of tick, observation and output.
pub(crate) struct Act<F>(pub(crate) F);

impl<F: FnMut(u64, &[f32], &mut [f32]) -> Result<(), PolicyError> + Send> PolicySource for Act<F> {
    fn reset(&mut self) {}

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        (self.0)(ask.tick, ask.obs, out)
    }
}

/// Sways every joint about home, at most `size` rad.
pub(crate) fn sway(size: f32) -> impl FnMut(u64, &[f32], &mut [f32]) -> Result<(), PolicyError> + Send {
    move |tick, _, out| {
        for (i, (out, home)) in out.iter_mut().zip(HOME).enumerate() {
            *out = home + size * (tick as f32 * (0.004 + 0.001 * i as f32)).sin();
        }
        Ok(())
    }
}

/// A manifest's entry for the property `name` that stops softly, each control tick.
pub(crate) fn monitor(name: &str) -> Value {
    json!({ "name": name, "dt": 0.002, "trip": "violated", "action": "soft_stop" })
}

/// What a run is made of.
pub(crate) struct Parts {
    pub(crate) text: String,
    pub(crate) manifest: Manifest,
    pub(crate) specification: Option<String>,
    pub(crate) config: RunConfig,
}

impl Default for Parts {
    fn default() -> Self {
        let config = RunConfig { seconds: Some(1.0), virtual_clock: true, ..RunConfig::default() };
        Self { text: toml([0, 1, 2], ""), manifest: manifest(|_| ()), specification: None, config }
    }
}

impl Parts {
    /// With the property `spec`, watched as the JSON `monitor` says.
    pub(crate) fn watched(mut self, spec: &str, monitor: Value) -> Self {
        self.specification = Some(spec.to_owned());
        self.manifest.monitors.push(serde_json::from_value(monitor).unwrap());
        self
    }

    pub(crate) fn robot(&self) -> Robot {
        parse(&self.text)
    }

    pub(crate) fn controller(&self, device: &dyn Device, policy: impl PolicySource + 'static) -> Controller {
        let robot = self.robot();
        let planner = self.planner(policy);
        let specification = self.specification.as_deref();
        Controller::new(&self.manifest, specification, &robot, device.info(), planner, &self.config).unwrap()
    }

    fn planner(&self, policy: impl PolicySource + 'static) -> Planner {
        match self.config.inject {
            Some(latency) => Planner::delayed(Box::new(policy), latency, self.robot().control_dt()),
            None => Planner::inline(Box::new(policy)),
        }
    }

    /// The loop in which the monitors have so little time that one is slowed. What they take depends on the machine, so the
    /// time is halved until it is short but not too short.
    pub(crate) fn slowed<P: PolicySource + 'static>(&self, policy: impl Fn() -> P) -> Controller {
        let (robot, device) = (self.robot(), DeviceInfo::default());
        for halvings in (0..40).cycle().take(4000) {
            let monitor_budget_us = Some(1e3 * 0.5f64.powi(halvings));
            let config = RunConfig { virtual_clock: false, monitor_budget_us, ..self.config.clone() };
            let planner = Planner::inline(Box::new(policy()));
            let specification = self.specification.as_deref();
            match Controller::new(&self.manifest, specification, &robot, &device, planner, &config) {
                Ok(controller) if controller.gate().count(Reason::MonitorSlowed) > 0 => return controller,
                Ok(_) => {}
                Err(error) => assert!(error.to_string().contains("monitor_budget_us"), "{error}"),
            }
        }
        panic!("no time is short but not too short");
    }

    /// A bundle that may take over in a rig of these parts, at once, whatever delay the run injects.
    pub(crate) fn successor(&self, policy: impl PolicySource + 'static) -> Successor {
        let (robot, device, planner) =
            (self.robot(), DeviceInfo::default(), Planner::inline(Box::new(policy)));
        let specification = self.specification.as_deref();
        Successor::new(&self.manifest, specification, &robot, &device, planner, &self.config).unwrap()
    }

    /// The header that a log of this run needs for a replay.
    pub(crate) fn header(&self) -> LogHeader {
        let monitor = |m: &cadenza_policy::manifest::MonitorSpec| MonitorHeader {
            name: m.name.clone(),
            dt: m.dt,
            formula: String::new(),
        };
        LogHeader {
            commands: self.manifest.commands.iter().map(|c| c.name.clone()).collect(),
            actions: self.manifest.action.joints.clone(),
            monitors: self.manifest.monitors.iter().map(monitor).collect(),
            manifest_json: self.manifest.to_json(),
            spec_stl: self.specification.clone().unwrap_or_default(),
            ..LogHeader::new(&self.robot(), &self.config, &RtReport::default())
        }
    }
}

/// The loop, one tick at a time, on the virtual clock.
pub(crate) struct Rig<D> {
    pub(crate) controller: Controller,
    pub(crate) device: D,
    pub(crate) inbox: Inbox,
    pub(crate) log: Recorder,
    clock: VirtualClock,
    pub(crate) now: Arc<AtomicI64>,
}

/// A device that measures what it was told, and `injections` on top.
pub(crate) fn faulty(robot: &Robot, now: &Arc<AtomicI64>, injections: &[Injection]) -> Faulty<NullDevice> {
    Faulty::new(NullDevice::new(robot, TimeSource::Virtual(now.clone())).unwrap(), injections.to_vec())
}

impl Rig<Faulty<NullDevice>> {
    /// A rig that is asked to arm at tick 0, and does `requests` later.
    pub(crate) fn new(
        parts: &Parts,
        injections: &[Injection],
        requests: &[(u64, Request)],
        policy: impl PolicySource + 'static,
    ) -> Self {
        let now = Arc::default();
        let device = faulty(&parts.robot(), &now, injections);
        Self::around(parts, device, now, requests, policy)
    }
}

impl<D: Device> Rig<D> {
    /// The same around `device`, which is stamped by `now`.
    pub(crate) fn around(
        parts: &Parts,
        device: D,
        now: Arc<AtomicI64>,
        requests: &[(u64, Request)],
        policy: impl PolicySource + 'static,
    ) -> Self {
        let mut script = vec![(0, Request::Arm)];
        script.extend_from_slice(requests);
        Self {
            controller: parts.controller(&device, policy),
            device,
            inbox: Inbox::script(script),
            log: Recorder::off(),
            clock: VirtualClock::new(now.clone()),
            now,
        }
    }

    pub(crate) fn tick(&mut self) -> TickEntry {
        self.tick_skipping(0)
    }

    /// A tick before which `skipped` periods were missed.
    pub(crate) fn tick_skipping(&mut self, skipped: u32) -> TickEntry {
        let deadline_ns = self.clock.now_ns() + PERIOD_NS;
        self.clock.sleep_until(deadline_ns);
        let due = Due { deadline_ns, skipped };
        self.controller.tick(due, &mut self.device, &self.clock, &mut self.inbox, &mut self.log)
    }

    /// `count` ticks; where the level of the commands changes, with the tick.
    pub(crate) fn levels(&mut self, count: u64) -> Vec<(u64, Level)> {
        let mut changes: Vec<(u64, Level)> = Vec::new();
        for _ in 0..count {
            let entry = self.tick();
            let level = self.controller.command().level;
            if changes.last().is_none_or(|(_, last)| *last != level) {
                changes.push((entry.tick, level));
            }
        }
        changes
    }
}

/// `trouble` for `ticks` ticks from `from` on.
pub(crate) fn injection(from: u64, ticks: u64, trouble: Trouble) -> Injection {
    Injection { from, ticks, trouble }
}

/// splitmix64 → [0, 1).
pub(crate) fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
