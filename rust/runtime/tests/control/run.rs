//! A bundle on a robot from start to end: `Prepared`, its reports and exit codes, and the live handle.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cadenza_policy::{Bundle, write_bundle};
use cadenza_runtime::config::RunConfig;
use cadenza_runtime::control::{Inbox, Prepared, Report, Request, RunError, exploring, replay};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop, TimeSource};
use cadenza_runtime::log::{Log, Topic};
use cadenza_runtime::robot::Robot;
use cadenza_runtime::safety::{Level, Phase};
use cadenza_runtime::state::{Command, State};
use serde_json::json;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn robot() -> Robot {
    Robot::load(&file("robots/arm6")).unwrap()
}

/// A network of 16 numbers in and 6 out, moving the arm's targets by increments at 25 Hz; with `fence`, one that the
/// arm's first moves break.
fn bundle(fence: bool) -> Bundle {
    bundle_of("mlp_tanh.onnx", fence, |_| {})
}

/// The same with another network, and with what `edit` changes in its manifest.
fn bundle_of(network: &str, fence: bool, edit: impl FnOnce(&mut serde_json::Value)) -> Bundle {
    let names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "forearm_roll", "wrist_flex", "wrist_roll"];
    let joint = |name: &&str| {
        json!({ "name": name, "default": 0.0, "kp": 60.0, "kd": 4.0, "position": null, "velocity_max": null,
                "effort_max": null })
    };
    let mut manifest = json!({
        "format": 1, "name": "arm", "robot": { "name": "arm6", "model_sha256": null },
        "rates": { "policy_dt": 0.04, "control_dt": 0.002, "physics_dt": null },
        "joints": names.iter().map(joint).collect::<Vec<_>>(),
        "observation": { "size": 16, "interleave": "term", "terms": [
            { "name": "q", "source": "joint_pos", "size": 6 }, { "name": "dq", "source": "joint_vel", "size": 6 },
            { "name": "goal", "source": "command", "size": 3 }, { "name": "time", "source": "time", "size": 1 } ] },
        "normalizer": { "where": "none" },
        "action": { "kind": "position_increment", "joints": names, "raw_clip": [-1.0, 1.0],
                    "scale": { "*": 0.1 }, "leash": 0.2 },
        "chunk": { "mode": "none", "horizon": 1, "execute": 1, "on_exhausted": "hold", "seam": "replace" },
        "functions": { "step": { "file": "step.onnx", "batch": 1,
                                 "inputs": { "obs": "observation" }, "outputs": { "action": "action" } } },
        "commands": [ { "name": "x", "range": [-1.0, 1.0] }, { "name": "y", "range": [-1.0, 1.0] },
                      { "name": "z", "range": [0.0, 1.0], "default": 0.5 } ],
        "in_graph": { "normalize": false, "squash": false, "action_scale": false, "action_offset": false },
        "weights": "f32", "provenance": { "cadenza": "0.1.0" }
    });
    let onnx = std::fs::read(file("tests/golden/policy").join(network)).unwrap();
    edit(&mut manifest);
    let mut entries = vec![("step.onnx".to_owned(), onnx)];
    if fence {
        manifest["monitors"] =
            json!([{ "name": "fence", "dt": 0.04, "trip": "violated", "action": "soft_stop" }]);
        let text = "spec fence: G[0,50] (abs(q.shoulder_pan) < 0.05 and abs(q.elbow_flex - 1.5) < 0.05);\n";
        entries.push(("spec.stl".to_owned(), text.into()));
    }
    let manifest = cadenza_policy::Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
    Bundle::from_bytes(write_bundle(manifest, &entries).unwrap()).unwrap()
}

pub(crate) fn virtual_config() -> RunConfig {
    RunConfig { virtual_clock: true, seconds: Some(1.0), ..RunConfig::default() }
}

fn prepared(config: &RunConfig, fence: bool) -> Prepared {
    let (robot, time) = (robot(), config.time_source());
    let device = Box::new(NullDevice::new(&robot, time.clone()).unwrap());
    Prepared::new(&bundle(fence), &robot, device, time, config).unwrap()
}

fn run(config: &RunConfig, fence: bool, requests: Vec<(u64, Request)>) -> Report {
    prepared(config, fence).run(Inbox::script(requests))
}

#[test]
fn seconds_count_from_arming_and_end_in_a_soft_stop() {
    let report = run(&virtual_config(), false, Vec::new());
    assert_eq!((report.ended.as_str(), report.exit_code, report.level), ("finished", 0, "damp"));
    // Ten ticks to arm, 500 of running, 500 at rest at least, and a little braking.
    assert!((1010..1100).contains(&report.ticks), "{}", report.ticks);
    assert_eq!(report.faults.iter().map(|f| f.reason).collect::<Vec<_>>(), ["OPERATOR_STOP"]);
    // 500 commands at level Run, the last one at tick 508.
    assert_eq!((report.faults[0].tick, report.stats.counters.ticks), (508, report.ticks));

    // Armed by hand a second later.
    let late = RunConfig { arm: false, ..virtual_config() };
    let report = run(&late, false, vec![(500, Request::Arm)]);
    assert_eq!((report.exit_code, report.faults[0].tick), (0, 1008));
}

#[test]
fn a_stop_by_the_operator_is_no_fault_and_an_estop_is_one() {
    let report = run(&virtual_config(), false, vec![(200, Request::Stop)]);
    assert_eq!(
        (report.ended.as_str(), report.exit_code, report.level),
        ("stopped by the operator", 0, "damp")
    );
    assert!((700..790).contains(&report.ticks), "{}", report.ticks);
    let report = run(&virtual_config(), false, vec![(200, Request::Estop)]);
    assert_eq!((report.exit_code, report.level, report.ticks), (1, "damp", 201));
    assert!(report.ended.contains("OPERATOR_ESTOP"), "{}", report.ended);
}

#[test]
fn a_fence_ends_the_run_with_its_name() {
    let report = run(&virtual_config(), true, Vec::new());
    assert_eq!((report.exit_code, report.level), (1, "damp"));
    assert!(
        report.ended.contains("MONITOR (fence)") && report.ended.contains("soft stop"),
        "{}",
        report.ended
    );
    assert_eq!((report.monitors[0].name.as_str(), report.monitors[0].trips), ("fence", 1));
}

#[test]
fn equal_runs_of_a_bundle_give_equal_logs_that_replay() {
    let dir = tempfile::tempdir().unwrap();
    let requests = vec![
        (100, Request::Command { slot: 0, value: -0.5 }),
        (300, Request::Command { slot: 2, value: 0.1 }),
    ];
    let files = ["a.mcap", "b.mcap"].map(|name| {
        let config = RunConfig { record: Some(dir.path().join(name)), ..virtual_config() };
        let report = run(&config, false, requests.clone());
        assert!(report.record.complete(), "{:?}", report.record);
        std::fs::read(dir.path().join(name)).unwrap()
    });
    assert!(files[0] == files[1]);
    let log = Log::from_bytes(&files[0]).unwrap();
    let commands = log.len(Topic::Command) as u64;
    assert!(commands > 1000 && log.damage().is_empty());
    for policy in [false, true] {
        let again = policy.then(|| {
            let policy =
                cadenza_policy::Policy::load(&bundle(false), &cadenza_policy::Options::default()).unwrap();
            Box::new(policy) as Box<dyn cadenza_runtime::control::PolicySource>
        });
        let report = replay(&log, again).unwrap();
        assert_eq!((report.compared, report.difference), (commands, None));
    }
}

#[test]
fn a_log_that_cannot_be_written_leaves_the_run_alone() {
    for (path, text) in [("/dev/full", "No space left"), ("/nonexistent/run.mcap", "/nonexistent/run.mcap")] {
        let config = RunConfig { record: Some(path.into()), ..virtual_config() };
        let report = run(&config, false, Vec::new());
        assert_eq!((report.ended.as_str(), report.exit_code), ("finished", 0));
        assert!(report.ticks > 1000);
        let error = report.record.error.as_ref().expect("an error");
        assert!(error.contains(text) && !report.record.complete(), "{error}");
    }
}

/// Passes everything on until `panic_at` reads, remembers how it was stopped, and refuses to enable if it is told to.
struct Trap {
    inner: NullDevice,
    reads: u64,
    panic_at: u64,
    refuse: bool,
    stopped: Arc<Mutex<Vec<Stop>>>,
}

impl Device for Trap {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn connect(&mut self) -> Result<(), DeviceError> {
        self.inner.connect()
    }
    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        if self.refuse {
            return Err(DeviceError::Io { device: "null", what: "no answer from motor 4".into() });
        }
        self.inner.enable(hold)
    }
    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        self.reads += 1;
        assert!(self.reads != self.panic_at, "the trap closes");
        self.inner.read(out)
    }
    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        self.inner.write(command)
    }
    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        self.stopped.lock().unwrap().push(how);
        self.inner.stop(how)
    }
}

pub(crate) fn trapped(config: &RunConfig, panic_at: u64, refuse: bool) -> (Report, Vec<Stop>) {
    let (robot, time) = (robot(), config.time_source());
    let inner = NullDevice::new(&robot, time.clone()).unwrap();
    let stopped = Arc::<Mutex<Vec<Stop>>>::default();
    let device = Box::new(Trap { inner, reads: 0, panic_at, refuse, stopped: stopped.clone() });
    let report = Prepared::new(&bundle(false), &robot, device, time, config).unwrap().run(Inbox::empty());
    let stopped = stopped.lock().unwrap().clone();
    (report, stopped)
}

#[test]
fn a_panic_damps_the_motors_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let config = RunConfig { record: Some(path.clone()), ..virtual_config() };
    let (report, stopped) = trapped(&config, 301, false);
    assert_eq!((report.exit_code, report.level, report.ticks), (70, "damp", 300));
    assert!(report.ended.contains("panicked"), "{}", report.ended);
    assert_eq!(stopped, [Stop::Damp]);
    let last = report.faults.last().unwrap();
    assert_eq!((last.reason, last.tick), ("PANIC", 300));
    // The log is whole up to there and says so too.
    let log = Log::open(&path).unwrap();
    assert_eq!((log.len(Topic::State), log.damage().len()), (300, 0));
    assert_eq!(log.events().last().unwrap().unwrap().value.reason.name(), "PANIC");
}

#[test]
fn a_device_that_does_not_switch_on_ends_the_run_with_its_words() {
    let (report, stopped) = trapped(&virtual_config(), 0, true);
    assert_eq!((report.exit_code, report.level, report.ticks), (1, "off", 10));
    assert!(report.ended.contains("no answer from motor 4"), "{}", report.ended);
    assert_eq!(stopped, [Stop::Off]);
}

#[test]
fn a_dry_run_stops_no_motors() {
    let (report, stopped) = trapped(&RunConfig { dry_run: true, ..virtual_config() }, 0, true);
    assert_eq!((report.exit_code, report.ended.as_str()), (0, "finished"));
    assert_eq!(stopped, []);
}

#[test]
fn a_run_that_nobody_can_switch_on_again_ends() {
    let report = run(
        &virtual_config(),
        false,
        vec![(200, Request::Disarm), (250, Request::Arm), (300, Request::Disarm)],
    );
    assert_eq!((report.exit_code, report.level, report.ticks), (0, "off", 301));
    assert!(report.ended.contains("the motors are off"), "{}", report.ended);
}

#[test]
fn a_dropped_handle_stops_the_motors_even_when_the_operator_floods_it() {
    let (robot, time) = (robot(), TimeSource::Monotonic);
    let inner = NullDevice::new(&robot, time.clone()).unwrap();
    let stopped = Arc::<Mutex<Vec<Stop>>>::default();
    let device = Box::new(Trap { inner, reads: 0, panic_at: 0, refuse: false, stopped: stopped.clone() });
    let mut handle =
        Prepared::new(&bundle(false), &robot, device, time, &RunConfig::default()).unwrap().start();
    wait_for(&mut handle, |s| s.phase == Phase::Armed);
    let command = handle.command("x", 0.5).unwrap();
    while handle.request(command).is_ok() {}
    drop(handle);
    assert_eq!(*stopped.lock().unwrap(), [Stop::Off]);
}

#[test]
fn commands_are_checked_by_name_and_range() {
    let run = prepared(&virtual_config(), false);
    assert_eq!(run.command("z", 0.25).unwrap(), Request::Command { slot: 2, value: 0.25 });
    assert!(matches!(run.command("z", -0.1), Err(RunError::CommandRange { value, .. }) if value == -0.1));
    assert!(matches!(run.command("z", f64::NAN), Err(RunError::CommandRange { .. })));
    let unknown = run.command("w", 0.0).unwrap_err().to_string();
    assert!(unknown.contains("x, y, z"), "{unknown}");
}

/// Symphony's own exploration: before the last tanh, at the share that the run asks for, off by default.
#[test]
fn noise_before_the_squash_is_what_the_run_asks_for_and_replays() {
    let dir = tempfile::tempdir().unwrap();
    let squashed = bundle_of("presquash.onnx", false, |m| {
        m["functions"]["step"]["outputs"]["presquash"] = "presquash".into();
        m["noise"] = json!({ "kind": "clipped_gaussian_pre_tanh", "std": 0.25, "clip": 3.0 });
    });
    let run = |bundle: &Bundle, noise: f64| {
        let path = dir.path().join(format!("{noise}.mcap"));
        let config = RunConfig { noise, record: Some(path.clone()), ..virtual_config() };
        let (robot, time) = (robot(), config.time_source());
        let device = Box::new(NullDevice::new(&robot, time.clone()).unwrap());
        let report = Prepared::new(bundle, &robot, device, time, &config)?.run(Inbox::empty());
        assert_eq!(report.ended, "finished");
        let log = Log::open(&path).unwrap();
        let first = log.chunks().next().unwrap().unwrap().value.values;
        let policy = cadenza_policy::Policy::load(bundle, &Default::default()).unwrap();
        let again = exploring(policy, bundle.manifest(), &config)?;
        assert_eq!(replay(&log, Some(again)).unwrap().difference, None, "{noise}");
        Ok::<_, RunError>(first)
    };
    let quiet = run(&squashed, 0.0).unwrap();
    let (half, full) = (run(&squashed, 0.5).unwrap(), run(&squashed, 1.0).unwrap());
    // Both begin with the same observation: u + N/2 and u + N.
    for ((quiet, half), full) in quiet.iter().zip(&half).zip(&full) {
        let (u, h, f) = (quiet.atanh(), half.atanh(), full.atanh());
        assert!((2.0 * (h - u) - (f - u)).abs() < 1e-4 && (f - u).abs() > 1e-6, "{u} {h} {f}");
    }
    for (noise, words) in [(1.5, "noise = 1.5"), (f64::NAN, "noise = NaN")] {
        assert!(run(&squashed, noise).unwrap_err().to_string().contains(words));
    }
    let none = run(&bundle(false), 0.5).unwrap_err().to_string();
    assert!(none.contains("noise = 0.5") && none.contains("allows no noise"), "{none}");
}

/// Waits until `is` holds of the newest snapshot; the bound is for a stopped machine only.
fn wait_for(
    handle: &mut cadenza_runtime::control::Handle,
    is: impl Fn(&cadenza_runtime::control::Snapshot) -> bool,
) -> cadenza_runtime::control::Snapshot {
    let begin = Instant::now();
    loop {
        let snapshot = handle.snapshot();
        if is(&snapshot) {
            return snapshot;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{snapshot:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// In real time, on whatever this machine is: only what must hold at any speed is asserted.
#[test]
fn a_live_run_obeys_and_accounts_for_every_period() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let config = RunConfig { record: Some(path.clone()), ..RunConfig::default() };
    let robot = robot();
    let device = Box::new(NullDevice::new(&robot, TimeSource::Monotonic).unwrap());
    let mut handle =
        Prepared::new(&bundle(false), &robot, device, TimeSource::Monotonic, &config).unwrap().start();
    let armed = wait_for(&mut handle, |s| s.phase == Phase::Armed && s.authority > 0.5);
    assert_eq!((armed.n, armed.level, armed.fault), (7, Level::Run, None));
    let request = handle.command("x", 0.5).unwrap();
    handle.request(request).unwrap();
    handle.request(Request::Estop).unwrap();
    let damped = wait_for(&mut handle, |s| s.level == Level::Damp);
    assert_eq!(damped.fault.unwrap().reason.name(), "OPERATOR_ESTOP");
    // A fault does not end a live run: the operator goes on.
    handle.request(Request::Reset).unwrap();
    handle.request(Request::Arm).unwrap();
    let again = wait_for(&mut handle, |s| s.phase == Phase::Armed && s.level == Level::Run);
    assert!(again.tick > damped.tick && again.fault.is_none());
    assert!(handle.wait(Some(Duration::from_millis(1))).is_none());
    handle.request(Request::Stop).unwrap();
    let report = handle.wait(Some(Duration::from_secs(60))).expect("an end");
    assert!(handle.wait(None).is_none(), "given out once");
    assert_eq!(
        (report.ended.as_str(), report.exit_code, report.level),
        ("stopped by the operator", 0, "damp")
    );

    let log = Log::open(&path).unwrap();
    let ticks: Vec<_> = log.ticks().map(|t| t.unwrap().value).collect();
    assert_eq!(ticks.len() as u64, report.ticks);
    let skipped: u64 = ticks.iter().map(|t| u64::from(t.skipped)).sum();
    let missed = ticks.iter().filter(|t| t.skipped > 0).count() as u64;
    assert_eq!((report.stats.counters.missed, report.stats.counters.skipped), (missed, skipped));
    // Deadlines lie on one grid; what is not a tick was counted as skipped.
    let periods = (ticks.last().unwrap().deadline_ns - ticks[0].deadline_ns) / robot.control_period_ns();
    assert_eq!(periods as u64 + 1, report.ticks + skipped - u64::from(ticks[0].skipped));
    let requests: Vec<Request> = log.requests().map(|r| r.unwrap().value.request).collect();
    assert_eq!(
        requests,
        [Request::Arm, request, Request::Estop, Request::Reset, Request::Arm, Request::Stop]
    );
    let replayed = replay(&log, None).unwrap();
    assert_eq!((replayed.difference, replayed.compared), (None, report.ticks));
}
