//! Every reason, provoked: what makes it, and the exact levels that follow.

use cadenza_runtime::action::Seam;
use cadenza_runtime::control::{Ask, PolicyError, PolicySource, Request, switcher};
use cadenza_runtime::device::fault::{Injection, Trouble};
use cadenza_runtime::device::{DeviceFault, Freshness};
use cadenza_runtime::log::Log;
use cadenza_runtime::safety::{Level, Reason};
use serde_json::json;

use crate::rig::{ARMED, HOLD, HOME, PERIOD_NS, Parts, REST, Rig, STEP, injection, manifest, monitor, toml};
use crate::run::{trapped, virtual_config};
use Level::{Damp, Hold, Off, Run, SoftStop};

/// When things go wrong: between two policy steps, with everything at rest.
const AT: u64 = 300;
const WRONG_STEP: u64 = ARMED + 10 * STEP;

type Levels = Vec<(u64, Level)>;

/// What a provoked loop did.
struct Seen {
    levels: Levels,
    faults: Vec<(Reason, Level)>,
}

/// Stays at home in every row of its answers. From `from` to `to` it answers `bad` instead; it may lie about what it repeats.
struct Stay {
    from: u64,
    to: u64,
    bad: fn(&mut [f32]) -> Result<(), PolicyError>,
    lies: bool,
    prefix: usize,
}

impl Default for Stay {
    fn default() -> Self {
        Self { from: 0, to: 0, bad: |_| Ok(()), lies: false, prefix: 0 }
    }
}

impl PolicySource for Stay {
    fn reset(&mut self) {}

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        out.chunks_exact_mut(3).for_each(|row| row.copy_from_slice(&HOME));
        if self.lies {
            self.prefix = ask.committed.len() / 3;
            out[0] += if self.prefix > 0 { 0.1 } else { 0.0 };
        }
        if (self.from..self.to).contains(&ask.tick) { (self.bad)(out) } else { Ok(()) }
    }

    fn prefix(&self) -> usize {
        self.prefix
    }
}

fn run(mut rig: Rig<impl cadenza_runtime::device::Device>, ticks: u64) -> Seen {
    let levels = rig.levels(ticks);
    Seen { levels, faults: rig.controller.faults().iter().map(|f| (f.reason, f.level)).collect() }
}

/// A device in trouble.
fn device(troubles: &[Injection]) -> Seen {
    run(Rig::new(&Parts::default(), troubles, &[], Stay::default()), 600)
}

fn once(trouble: Trouble) -> Seen {
    device(&[injection(AT, 1, trouble)])
}

/// A policy that is wrong for one step.
fn policy(bad: fn(&mut [f32]) -> Result<(), PolicyError>) -> Seen {
    let stay = Stay { from: WRONG_STEP, to: WRONG_STEP + STEP, bad, ..Stay::default() };
    run(Rig::new(&Parts::default(), &[], &[], stay), 600)
}

fn operator(request: Request) -> Seen {
    run(Rig::new(&Parts::default(), &[], &[(AT, request)], Stay::default()), 600)
}

/// Sequences of eight steps whose answers come late.
fn late(execute: usize, latency: &str, stay: Stay) -> Seen {
    let manifest = manifest(|m| {
        m["chunk"] = json!({ "mode": "open", "horizon": 8, "execute": execute, "on_exhausted": "hold",
                             "seam": "replace" });
        m["functions"]["step"]["outputs"] = json!({ "actions": "actions" });
    });
    let mut parts = Parts { manifest, ..Parts::default() };
    parts.config.inject = Some(latency.parse().unwrap());
    parts.config.seam = stay.lies.then_some(Seam::Prefix);
    run(Rig::new(&parts, &[], &[], stay), 1200)
}

/// The loop's own gate after 300 ticks, given a command that no limiter makes: a bug upstream.
fn mismatch() -> Seen {
    let mut rig = Rig::new(&Parts::default(), &[], &[], Stay::default());
    let mut levels = rig.levels(AT);
    let (mut gate, mut state) = (rig.controller.gate().clone(), *rig.controller.state());
    let mut faults = Vec::new();
    for tick in AT..AT + 200 {
        (state.tick, state.t_read_ns) = (tick, state.t_read_ns + PERIOD_NS);
        let stamp_ns = state.t_read_ns;
        let fresh = Freshness { sequence: 2 * AT + tick, stamp_ns, ..Freshness::default() };
        gate.input(&state, &fresh, None, stamp_ns);
        let mut command = *gate.sent();
        command.q[0] += if tick == AT { 0.5 } else { 0.0 };
        gate.output(&state, &mut command);
        if levels.last().is_some_and(|(_, last)| *last != command.level) {
            levels.push((tick, command.level));
        }
        gate.drain_faults(|f| faults.push((f.reason, f.level)));
    }
    Seen { levels, faults }
}

/// A device that brings the control thread down: what was sent before, and what the motors were told after.
fn panic() -> Seen {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.mcap");
    let (report, stopped) = trapped(
        &cadenza_runtime::config::RunConfig { record: Some(path.clone()), ..virtual_config() },
        AT + 1,
        false,
    );
    assert_eq!((report.level, &stopped[..]), ("damp", &[cadenza_runtime::device::Stop::Damp][..]));
    let log = Log::open(&path).unwrap();
    let mut levels: Levels = log.commands().map(|c| c.unwrap().value).map(|c| (c.tick, c.level)).collect();
    let faults: Vec<_> = log.events().map(|e| e.unwrap().value).collect();
    levels.push((faults.last().unwrap().tick, Damp));
    levels.dedup_by_key(|(_, level)| *level);
    Seen { levels, faults: faults.iter().map(|f| (f.reason, f.level)).collect() }
}

/// Makes `reason` happen. Returns the levels that must follow the motors' coming on, and what was seen. A new reason does
/// not compile before it has an entry.
fn provoke(reason: Reason) -> (Levels, Seen) {
    let fault = |fault| once(Trouble::Read(fault));
    // At rest: a soft stop has nothing to brake.
    let stop = |at| vec![(at, SoftStop), (at + REST, Damp)];
    let held = vec![(WRONG_STEP, Hold), (WRONG_STEP + STEP, Run)];
    match reason {
        // 20 ms are 10 ticks, 60 ms are 30; the last good state was read at 299.
        Reason::StateStale => {
            (vec![(AT + 10, Hold), (AT + 25, Run)], device(&[injection(AT, 25, Trouble::Frozen)]))
        }
        Reason::StateLost => {
            (vec![(AT + 10, Hold), (AT + 30, Damp)], device(&[injection(AT, 99, Trouble::Frozen)]))
        }
        Reason::StateNotFinite => (vec![(AT, Hold), (AT + 1, Run)], once(Trouble::NotFinite { joint: 1 })),
        Reason::StateNotFiniteRepeated => {
            let nan = device(&[injection(AT, 9, Trouble::NotFinite { joint: 1 })]);
            (vec![(AT, Hold), (AT + 2, Damp)], nan)
        }
        Reason::ObservationNotFinite => {
            (held, policy(|_| Err(PolicyError::NotFinite { what: "observation", index: 2 })))
        }
        Reason::PolicyNotFinite => {
            let nan = policy(|out| {
                out[1] = f32::NAN;
                Ok(())
            });
            (held, nan)
        }
        Reason::PolicyLate => (held, policy(|_| Err(PolicyError::Late))),
        Reason::PolicyWrongLength => (held, policy(|_| Err(PolicyError::WrongLength { got: 7, want: 3 }))),
        // The first answer of a policy elsewhere has a second, and holds its hold time.
        Reason::PolicyExhausted => (stop(ARMED + 500 + HOLD), late(3, "drop:1", Stay::default())),
        Reason::PositionMeasured => (stop(AT), once(Trouble::Jump { joint: 1, by: 1.2 })),
        Reason::VelocityMeasured => {
            (vec![(AT + 2, Damp)], device(&[injection(AT, 9, Trouble::Fast { joint: 0, by: 5.0 })]))
        }
        Reason::Tracking => (stop(AT), once(Trouble::Jump { joint: 0, by: 0.7 })),
        // 50 N·m/rad · 0.5 rad is more than 15 N·m; 200 ms are 100 ticks, which are still allowed.
        Reason::TorqueSaturated => {
            (stop(AT + 100), device(&[injection(AT, 400, Trouble::Jump { joint: 2, by: 0.5 })]))
        }
        Reason::Temperature => {
            (stop(AT), fault(DeviceFault::Overheated { joint: 2, celsius: 91.0, limit: 80.0 }))
        }
        Reason::Tilt => {
            let text = toml([0, 1, 2], "tilt_max = 0.8\n[imu]\npresent = true\n");
            let troubles = [
                injection(0, u64::MAX, Trouble::Tilted { by: 0.5 }),
                injection(AT, 1, Trouble::Tilted { by: -0.9 }),
            ];
            let parts = Parts { text, ..Parts::default() };
            (vec![(AT, Damp)], run(Rig::new(&parts, &troubles, &[], Stay::default()), 600))
        }
        Reason::Estop => (vec![(AT, Damp)], once(Trouble::Estop)),
        Reason::JointSilent => (vec![(AT, Damp)], fault(DeviceFault::JointSilent { joint: 2, lost: 5 })),
        Reason::BusSilent => (vec![(AT, Damp)], fault(DeviceFault::BusSilent { for_ms: 12 })),
        Reason::Vendor => (vec![(AT, Damp)], fault(DeviceFault::Vendor { joint: 0, code: 4 })),
        Reason::Diverged => (vec![(AT, Off)], fault(DeviceFault::Diverged { joint: 0 })),
        // What a write reports is judged with the next state.
        Reason::WriteFailed => {
            (vec![(AT + 1, Damp)], once(Trouble::Write(DeviceFault::Refused { joint: 1 })))
        }
        Reason::Deadline => {
            let text = toml([0, 1, 2], "overrun = \"fault\"\nmax_consecutive_misses = 4\n");
            let parts = Parts { text, ..Parts::default() };
            let mut rig = Rig::new(&parts, &[], &[], Stay::default());
            let mut levels = rig.levels(AT);
            for tick in AT..600 {
                rig.tick_skipping(u32::from(tick < AT + 4));
                levels.push((tick, rig.controller.command().level));
            }
            levels.dedup_by_key(|(_, level)| *level);
            let faults = rig.controller.faults().iter().map(|f| (f.reason, f.level)).collect();
            (stop(AT + 3), Seen { levels, faults })
        }
        // The monitor steps at every tenth tick since the motors came on.
        Reason::Monitor => {
            let spec = "spec calm: user.speed > -0.5;\n";
            let watch = json!({ "name": "calm", "dt": 0.02, "trip": "violated", "action": "hold" });
            let speed = |value| Request::Command { slot: 0, value };
            let requests = [(AT, speed(-0.75)), (AT + 100, speed(0.25))];
            let parts = Parts::default().watched(spec, watch);
            let seen = run(Rig::new(&parts, &[], &requests, Stay::default()), 600);
            (vec![(ARMED + 30 * STEP, Hold), (ARMED + 40 * STEP, Run)], seen)
        }
        Reason::GateMismatch => (stop(AT), mismatch()),
        Reason::Panic => (vec![(AT, Damp)], panic()),
        Reason::OperatorStop => (stop(AT), operator(Request::Stop)),
        Reason::OperatorEstop => (vec![(AT, Damp)], operator(Request::Estop)),
        // Answers 0 to 35 ms late to questions 20 ms apart overtake each other.
        Reason::ChunkRefused => (vec![], late(1, "uniform:0ms..35ms", Stay::default())),
        Reason::PrefixMismatch => {
            (vec![], late(3, "uniform:0ms..25ms", Stay { lies: true, ..Stay::default() }))
        }
        Reason::BundleSwitched => {
            let parts = Parts::default();
            let mut rig = Rig::new(&parts, &[], &[(AT, Request::Switch)], Stay::default());
            let (mut switcher, port) = switcher();
            rig.controller.switch_by(port);
            assert!(switcher.offer(parts.successor(Stay::default())).is_ok());
            (vec![], run(rig, 600))
        }
        // While the robot stops.
        Reason::BundleRefused => {
            let parts = Parts::default();
            let mut rig =
                Rig::new(&parts, &[], &[(AT, Request::Stop), (AT, Request::Switch)], Stay::default());
            let (mut switcher, port) = switcher();
            rig.controller.switch_by(port);
            assert!(switcher.offer(parts.successor(Stay::default())).is_ok());
            let mut seen = run(rig, 600);
            seen.faults.retain(|(reason, _)| *reason != Reason::OperatorStop);
            (stop(AT), seen)
        }
        Reason::MonitorSlowed => {
            let parts = Parts::default().watched("spec far: G[0,320ms] q.pan < 3;", monitor("far"));
            let mut rig = Rig::new(&parts, &[], &[], Stay::default());
            rig.controller = parts.slowed(Stay::default);
            (vec![], run(rig, 600))
        }
        // Four steps late with sequences asked for each three: the third answer stops.
        Reason::HorizonTooShort => (stop(ARMED + 6 * STEP + 40), late(3, "const:40ticks", Stay::default())),
    }
}

#[test]
fn every_reason_is_provoked_and_takes_its_exact_levels() {
    for &reason in Reason::ALL {
        let (expected, seen) = provoke(reason);
        assert_eq!(seen.levels[..2], [(0, Off), (ARMED, Run)], "{reason:?}");
        assert_eq!(seen.levels[2..], expected, "{reason:?}: {:?}", seen.faults);
        // The first fault of the highest level is this one: nothing else moved the ladder.
        let highest = seen.faults.iter().map(|(_, level)| *level).max().expect("a fault");
        let first = seen.faults.iter().find(|(_, level)| *level == highest).map(|(reason, _)| *reason);
        assert_eq!(first, Some(reason), "{:?}", seen.faults);
        let level = seen.faults.iter().find(|(r, _)| *r == reason).map(|(_, level)| *level);
        assert_eq!(level, Some(reason.level()), "{reason:?} asks for its own level");
    }
}
