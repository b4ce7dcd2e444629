//! A log is the whole truth of a run: it replays to the same commands, and what was changed in it is found.

use std::path::Path;

use cadenza_runtime::action::Flow;
use cadenza_runtime::control::{PolicyError, Request, replay};
use cadenza_runtime::device::DeviceFault;
use cadenza_runtime::device::fault::{Injection, Trouble};
use cadenza_runtime::device::replay::Field;
use cadenza_runtime::log::entry::Entry;
use cadenza_runtime::log::{Log, LogHeader, Recorder};
use cadenza_runtime::safety::{Level, Reason};
use cadenza_runtime::timing::summary::StatsSummary;
use serde_json::json;

use crate::rig::{ARMED, Act, Parts, Rig, injection, monitor, sway, toml};

/// Records `ticks` ticks and reads the log.
fn record(
    path: &Path,
    parts: &Parts,
    injections: &[Injection],
    requests: &[(u64, Request)],
    ticks: u64,
    skipped: impl Fn(u64) -> u32,
) -> Log {
    let mut rig = Rig::new(parts, injections, requests, Act(wrong_now_and_then));
    rig.log = Recorder::start(path, parts.header());
    for tick in 0..ticks {
        rig.tick_skipping(skipped(tick));
    }
    let status = rig.log.finish(&StatsSummary::default());
    assert!(status.complete(), "{status:?}");
    Log::open(path).unwrap()
}

/// Reacts to state and command, and is wrong in each way now and then.
fn wrong_now_and_then(tick: u64, obs: &[f32], out: &mut [f32]) -> Result<(), PolicyError> {
    sway(0.3)(tick, obs, out)?;
    out[1] += 0.2 * obs[9] - 0.1 * obs[4];
    match tick / 10 % 40 {
        13 => out[0] = f32::INFINITY,
        22 => return Err(PolicyError::Late),
        31 => return Err(PolicyError::WrongLength { got: 1, want: 3 }),
        _ => {}
    }
    Ok(())
}

/// The run of these tests: commands that change, a fence, a soft stop, a reset, a second episode.
fn eventful() -> (Parts, Vec<(u64, Request)>) {
    let spec =
        "spec fence: G[0,50] (tool.z > -0.2 and abs(q.pan) < 2.0);\nspec near: F[0,20] (tool.x > 0.29);\n";
    let monitor =
        |name: &str, action: &str| json!({ "name": name, "dt": 0.02, "trip": "violated", "action": action });
    let parts =
        Parts::default().watched(spec, monitor("near", "log")).watched(spec, monitor("fence", "soft_stop"));
    let command = |value| Request::Command { slot: 0, value };
    let requests = vec![
        (100, command(-1.0)),
        (333, command(0.7)),
        (500, Request::Stop),
        (700, Request::Reset),
        (710, Request::Arm),
        (900, Request::Disarm),
        (930, Request::Arm),
        (1100, Request::Estop),
        (1200, Request::Reset),
        (1210, Request::Arm),
    ];
    (parts, requests)
}

fn levels(log: &Log) -> Vec<(u64, Level)> {
    let mut levels: Vec<(u64, Level)> =
        log.commands().map(|c| c.unwrap().value).map(|c| (c.tick, c.level)).collect();
    levels.dedup_by_key(|(_, level)| *level);
    levels
}

fn assert_replays(log: &Log) {
    let report = replay(log, None).unwrap();
    assert_eq!((report.difference, report.compared), (None, log.commands().len() as u64));
}

#[test]
fn an_eventful_run_replays_to_the_same_commands_from_its_log_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, requests) = eventful();
    let log = record(&dir.path().join("run.mcap"), &parts, &[], &requests, 1500, |_| 0);
    let seen: Vec<Level> = levels(&log).into_iter().map(|(_, level)| level).collect();
    for level in [Level::Run, Level::Hold, Level::SoftStop, Level::Damp, Level::Off] {
        assert!(seen.contains(&level), "{level:?} in {seen:?}");
    }
    assert!(log.verdicts().len() > 100 && log.chunks().len() > 50 && log.requests().len() == 11);
    assert_replays(&log);
    // The policy again, on the recorded observations: it is a function, so nothing changes.
    let report = replay(&log, Some(Box::new(Act(wrong_now_and_then)))).unwrap();
    assert_eq!(report.difference, None);
    // Another policy is found at the first command that its answer changes.
    let other = Act(|tick: u64, obs: &[f32], out: &mut [f32]| {
        wrong_now_and_then(tick, obs, out)?;
        out[2] += if tick >= 209 { 0.01 } else { 0.0 };
        Ok(())
    });
    let found = replay(&log, Some(Box::new(other))).unwrap().difference.unwrap();
    // It takes effect as soon as the limiter need not do its utmost any more.
    assert!((209..219).contains(&found.tick) && found.joint == 1, "{found}");
}

#[test]
fn a_violated_fence_stands_in_the_log_with_the_index_of_its_property() {
    let dir = tempfile::tempdir().unwrap();
    let (mut parts, _) = eventful();
    parts.specification = parts.specification.map(|s| s.replace("tool.z > -0.2", "tool.z > 0.02"));
    let log = record(&dir.path().join("run.mcap"), &parts, &[], &[], 1000, |_| 0);
    let events: Vec<_> =
        log.events().map(|e| e.unwrap().value).filter(|e| e.reason == Reason::Monitor).collect();
    let fence = events.iter().find(|e| e.level == Level::SoftStop).expect("the fence");
    assert_eq!(log.header().monitors[usize::from(fence.joint)].name, "fence");
    let verdicts = log.verdicts().map(|v| v.unwrap().value).filter(|v| v.tick == fence.tick);
    assert!(
        verdicts.into_iter().any(|v| v.monitor == fence.joint && v.hi.min(v.closed.unwrap_or(v.hi)) <= 0.0)
    );
    assert!(levels(&log).contains(&(fence.tick, Level::SoftStop)));
    assert_replays(&log);
}

#[test]
fn equal_runs_give_equal_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, requests) = eventful();
    let files = ["a.mcap", "b.mcap"].map(|name| {
        let path = dir.path().join(name);
        record(&path, &parts, &[injection(400, 13, Trouble::Frozen)], &requests, 1500, |_| 0);
        std::fs::read(path).unwrap()
    });
    assert!(files[0].len() > 100_000 && files[0] == files[1]);
}

/// Copies `log` with one number of one command changed by `change`.
fn tampered(log: &Log, path: &Path, change: impl Fn(&mut cadenza_runtime::state::Command)) -> Log {
    let mut copy = Recorder::start(path, log.header().clone());
    let mut commands = log.commands().map(|c| c.unwrap().value).peekable();
    let mut requests = log.requests().map(|r| r.unwrap().value).peekable();
    let mut chunks = log.chunks().map(|c| c.unwrap().value).peekable();
    for state in log.states().map(|s| s.unwrap().value) {
        while let Some(r) = requests.next_if(|r| r.tick <= state.tick) {
            copy.push(Entry::Request { tick: r.tick, request: r.request });
        }
        while let Some(c) = chunks.next_if(|c| c.tick <= state.tick) {
            copy.push(Entry::Chunk {
                tick: c.tick,
                id: c.id,
                step: c.step,
                prefix: c.prefix,
                values: &c.values,
            });
        }
        copy.push(Entry::State(&state));
        if let Some(mut command) = commands.next_if(|c| c.tick <= state.tick) {
            change(&mut command);
            copy.push(Entry::Command(&command));
        }
    }
    assert!(copy.finish(&StatsSummary::default()).complete());
    Log::open(path).unwrap()
}

#[test]
fn one_flipped_bit_of_one_command_is_found_with_tick_and_joint() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, requests) = eventful();
    let log = record(&dir.path().join("run.mcap"), &parts, &[], &requests, 600, |_| 0);
    let copy = dir.path().join("copy.mcap");
    assert_replays(&tampered(&log, &copy, |_| ()));
    let flipped = tampered(&log, &copy, |c| {
        if c.tick == 345 {
            c.q[1] = f64::from_bits(c.q[1].to_bits() ^ 1);
        }
    });
    let found = replay(&flipped, None).unwrap().difference.expect("a difference");
    assert_eq!((found.tick, found.joint, found.field), (345, 1, Field::Position));
    assert_eq!(found.recorded.to_bits() ^ found.ours.to_bits(), 1);
    let flipped = tampered(&log, &copy, |c| {
        if c.tick == 21 {
            c.level = Level::Hold;
        }
    });
    let found = replay(&flipped, None).unwrap().difference.expect("a difference");
    assert_eq!((found.tick, found.joint, found.field), (21, u16::MAX, Field::Level));
}

#[test]
fn faults_that_a_device_reported_are_suffered_again() {
    let dir = tempfile::tempdir().unwrap();
    let (parts, mut requests) = eventful();
    let silent = DeviceFault::JointSilent { joint: 2, lost: 9 };
    let refused = DeviceFault::Refused { joint: 0 };
    let hot = DeviceFault::Overheated { joint: 1, celsius: 80.5, limit: 70.0 };
    let injections = [
        // Delays arming although it is never a fault of an armed robot.
        injection(2, 3, Trouble::Read(silent)),
        injection(5, 1, Trouble::Estop),
        // Stands until after the operator asks for a reset, so that it is refused the first time.
        injection(200, 120, Trouble::Read(silent)),
        injection(420, 3, Trouble::Write(refused)),
        injection(1000, 2, Trouble::Read(hot)),
        injection(1400, 20, Trouble::NotFinite { joint: 0 }),
    ];
    requests.splice(
        0..0,
        [
            (10, Request::Arm),
            (300, Request::Reset),
            (310, Request::Arm),
            (350, Request::Reset),
            (360, Request::Arm),
            (450, Request::Reset),
            (460, Request::Arm),
        ],
    );
    let log = record(&dir.path().join("run.mcap"), &parts, &injections, &requests, 1500, |_| 0);
    let armed: Vec<u64> =
        levels(&log).into_iter().filter(|(_, l)| *l == Level::Run).map(|(t, _)| t).collect();
    assert!(armed.starts_with(&[19]) && armed.contains(&369) && armed.contains(&469), "{armed:?}");
    let told = log.events().map(|e| e.unwrap().value).filter(|e| e.reason == Reason::JointSilent).count();
    assert_eq!(told, 3 + 120, "every report is in the log, once");
    assert_replays(&log);
}

#[test]
fn missed_deadlines_stop_a_replay_where_they_stopped_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let text = toml([0, 1, 2], "overrun = \"fault\"\nmax_consecutive_misses = 3\n");
    let parts = Parts { text, ..Parts::default() };
    let late = |tick| u32::from((300..310).contains(&tick));
    let log = record(&dir.path().join("run.mcap"), &parts, &[], &[], 500, late);
    assert!(levels(&log).contains(&(302, Level::SoftStop)), "{:?}", levels(&log));
    assert_replays(&log);
}

#[test]
fn a_dry_run_replays_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = Parts::default();
    parts.config.dry_run = true;
    let log = record(&dir.path().join("run.mcap"), &parts, &[], &[], 300, |_| 0);
    assert!(log.ticks().any(|t| t.unwrap().value.flow == Flow::Run));
    assert_replays(&log);
}

#[test]
fn a_log_with_a_hole_is_refused_with_its_ticks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let log = record(&path, &Parts::default(), &[], &[], 12_000, |_| 0);
    assert_replays(&log);
    let whole = std::fs::read(&path).unwrap();
    // In the first chunk, and in one in the middle.
    for (at, text) in [(100_000, "lacks its first"), (1_700_000, "between ticks")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let error = replay(&Log::from_bytes(&bytes).unwrap(), None).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_slowed_monitor_trips_in_the_replay_when_it_did_in_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let parts = Parts::default().watched("spec near: G[0,320ms] q.pan < 0.2;", monitor("near"));
    let mut rig = Rig::new(&parts, &[], &[], Act(sway(0.3)));
    rig.controller = parts.slowed(|| Act(sway(0.3)));
    // What a run of a bundle writes; the header of a rig knows the periods of the manifest only.
    let monitors = rig.controller.monitors().headers();
    let every = (monitors[0].dt / 0.002).round() as u64;
    assert!([2, 4, 8, 16].contains(&every), "{}", monitors[0].dt);
    rig.log = Recorder::start(&path, LogHeader { monitors, ..parts.header() });
    for _ in 0..900 {
        rig.tick();
    }
    let trip =
        rig.controller.faults().iter().find(|f| f.reason == Reason::Monitor).copied().expect("it trips");
    assert_eq!((trip.tick - ARMED) % every, 0, "at one of its own steps");
    assert!(rig.log.finish(&StatsSummary::default()).complete());
    let log = Log::open(&path).unwrap();
    let replayed = replay(&log, None).unwrap();
    assert_eq!((replayed.compared, replayed.difference), (900, None));
}
