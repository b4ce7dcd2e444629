//! A made-up run: two joints, all topics, every number a function of the tick.

// Each test binary uses its own part of this file.
#![allow(dead_code)]

use std::path::Path;

use cadenza_runtime::action::Flow;
use cadenza_runtime::config::RunConfig;
use cadenza_runtime::log::entry::{Entry, Request, Stage, TickEntry, VerdictEntry};
use cadenza_runtime::log::header::{JointHeader, MonitorHeader};
use cadenza_runtime::log::{LogHeader, RecordStatus, Recorder};
use cadenza_runtime::safety::{Fault, Level, Phase, Reason};
use cadenza_runtime::state::{Command, State};
use cadenza_runtime::timing::sched::RtReport;
use cadenza_runtime::timing::stats::Stats;
use cadenza_runtime::timing::summary::Environment;

pub(crate) const PERIOD_NS: i64 = 2_000_000;

pub(crate) fn header(virtual_clock: bool) -> LogHeader {
    let joint = |name: &str| JointHeader {
        name: name.into(),
        position: Some([-1.2, 1.2]),
        velocity: 8.0,
        acceleration: 100.0,
        effort: 40.0,
    };
    let formula = "always[0,1s](err.knee < 0.5)".into();
    LogHeader {
        robot: "duo".into(),
        joints: vec![joint("hip"), joint("knee")],
        control_hz: 500.0,
        policy_hz: 50.0,
        commands: vec!["vx".into()],
        objects: vec!["cube".into()],
        actions: vec!["hip".into(), "knee".into()],
        monitors: vec![MonitorHeader { name: "track".into(), dt: 0.02, formula }],
        bundle: "walk".into(),
        bundle_sha256: "00".repeat(32),
        run: RunConfig { virtual_clock, ..RunConfig::default() },
        rt: RtReport { policy: "FIFO".into(), priority: 80, locked: true, ..RtReport::default() },
        robot_toml: "name = \"duo\"\n".into(),
        manifest_json: "{}".into(),
        spec_stl: "spec track: always[0,1s](err.knee < 0.5);\n".into(),
        ..LogHeader::default()
    }
}

pub(crate) fn state(tick: u64) -> State {
    let t = tick as f64 * 0.002;
    let mut state = State { tick, epoch: 1, ..State::new(2) };
    state.t_read_ns = tick as i64 * PERIOD_NS;
    state.t_sensor_ns = (state.t_read_ns - 300_000).max(0);
    state.q[..2].copy_from_slice(&[(3.0 * t).sin(), 0.1 + 0.9 * (2.0 * t).cos()]);
    state.dq[..2].copy_from_slice(&[3.0 * (3.0 * t).cos(), -1.8 * (2.0 * t).sin()]);
    state.tau[..2].copy_from_slice(&[5.0 * t.sin(), -0.0]);
    state.user[0] = 0.5;
    state.objects[0].pos = [0.3, 0.1 / 3.0, 0.0];
    state.objects[0].valid = true;
    (state.imu.quat[1], state.imu.valid) = (1e-300, true);
    state
}

pub(crate) fn command(tick: u64) -> Command {
    let state = state(tick + 5);
    let level = level(tick);
    let mut command = Command { tick, epoch: 1, level, ..Command::off(2) };
    command.q = state.q;
    command.dq = state.dq;
    command.kp[..2].fill(40.0);
    command
}

pub(crate) fn level(tick: u64) -> Level {
    match tick {
        4000..4200 => Level::Hold,
        4800.. => Level::Damp,
        _ => Level::Run,
    }
}

pub(crate) fn tick_entry(tick: u64) -> TickEntry {
    // Waits of a few µs with a heavy tail, from a counter: the same in every run.
    let h = (tick + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let tail = 1.0 / (1.0 - h as f64 / (1u64 << 24) as f64).sqrt();
    let inferred = tick.is_multiple_of(10);
    let mut stage_ns = [0; Stage::COUNT];
    stage_ns[Stage::Wake as usize] = (15_000.0 * tail) as u32;
    stage_ns[Stage::Read as usize] = 2_100 + (h % 300) as u32;
    stage_ns[Stage::Infer as usize] = if inferred { 11_000 + (h % 3000) as u32 } else { 0 };
    stage_ns[Stage::Gate as usize] = 700 + (h % 91) as u32;
    stage_ns[Stage::Write as usize] = 2_600;
    let total: u32 = stage_ns[1..].iter().sum();
    stage_ns[Stage::Total as usize] = total;
    TickEntry {
        tick,
        deadline_ns: tick as i64 * PERIOD_NS,
        stage_ns,
        skipped: u32::from(tick % 1000 == 999),
        inferred,
        flow: if level(tick) == Level::Hold { Flow::Hold } else { Flow::Run },
        level: level(tick),
        phase: Phase::Armed,
        clamped: u64::from(tick.is_multiple_of(50)) << 1,
        authority: 1.0,
        age_ns: 300_000,
    }
}

pub(crate) fn verdict(tick: u64) -> VerdictEntry {
    let rho = 0.3 + 0.25 * (tick as f64 * 0.004).sin();
    let closed = (tick > 500).then_some(rho);
    VerdictEntry { tick, monitor: 0, step: tick / 10, closed, lo: rho - 0.2, hi: rho + 0.1 }
}

/// Pushes `ticks` ticks of all topics.
pub(crate) fn push(recorder: &mut Recorder, stats: &mut Stats, ticks: u64) {
    recorder.push(Entry::Request { tick: 0, request: Request::Arm });
    recorder.push(Entry::Request { tick: 1, request: Request::Command { slot: 0, value: 0.5 } });
    for tick in 0..ticks {
        recorder.push(Entry::State(&state(tick)));
        if tick.is_multiple_of(10) {
            recorder.push(Entry::Obs { tick, values: &[0.25, tick as f32] });
            let values = &[0.5, -0.5, 0.25, tick as f32];
            recorder.push(Entry::Chunk { tick, id: tick / 10, step: tick / 10, prefix: 0, values });
            recorder.push(Entry::Verdict(&verdict(tick)));
        }
        if tick == 4000 || tick == 4800 {
            let (reason, joint) =
                if tick == 4000 { (Reason::PolicyLate, u16::MAX) } else { (Reason::VelocityMeasured, 1) };
            let fault = Fault { tick, reason, joint, value: 9.7, limit: 9.6, level: reason.level() };
            recorder.push(Entry::Event(&fault));
        }
        recorder.push(Entry::Command(&command(tick)));
        let entry = tick_entry(tick);
        stats.add(&entry);
        recorder.push(Entry::Tick(&entry));
    }
}

/// Records a run of `ticks` ticks.
pub(crate) fn record(path: &Path, ticks: u64, virtual_clock: bool) -> RecordStatus {
    let header = header(virtual_clock);
    let environment = Environment::without_load(header.rt.clone());
    let mut recorder = Recorder::start(path, header);
    let mut stats = Stats::new(PERIOD_NS);
    push(&mut recorder, &mut stats, ticks);
    recorder.finish(&stats.summary(environment))
}
