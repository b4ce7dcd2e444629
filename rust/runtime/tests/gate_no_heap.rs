//! The gate and the monitors allocate nothing once they are built; a counting allocator watches, in a binary of its own.

mod counting;
mod safety_support;

use cadenza_policy::manifest::{MonitorAction, MonitorSpec, Trip};
use cadenza_runtime::safety::signals::Inputs;
use cadenza_runtime::safety::{Level, Monitors, Reason, SignalTable};
use counting::calls_of;
use safety_support::*;

#[test]
fn the_counter_counts() {
    assert_eq!(calls_of(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn the_gate_allocates_nothing_from_arming_to_damping() {
    let mut rig = Rig::new(&robot(7));
    let mut faults = 0;
    let used = calls_of(|| {
        rig.arm();
        for tick in 0..20_000 {
            rig.target[tick % 7] = if tick % 200 < 100 { 1.2 } else { -0.8 };
            match tick {
                5_000 => rig.report(Reason::PolicyLate),
                5_010 => rig.gate.policy_answered(),
                15_000 => rig.follower.p[0] -= 0.05,
                _ => {}
            }
            rig.tick();
            rig.gate.drain_faults(|_| faults += 1);
        }
    });
    assert_eq!((used, rig.gate.level(), faults), (0, Level::Damp, 2));
}

#[test]
fn ten_monitors_allocate_nothing() {
    let rig = Rig::running(&robot(7));
    let table = SignalTable::new(&robot(7), &[], &["tool".into()], &[]).unwrap();
    let mut text = String::new();
    let spec = |name: String| MonitorSpec {
        name,
        dt: DT,
        trip: Trip::AtRisk,
        action: MonitorAction::Hold,
        margin: 0.1,
        params: Default::default(),
    };
    let specs: Vec<MonitorSpec> = (0..10).map(|i| spec(format!("m{i}"))).collect();
    for i in 0..10 {
        text += &format!("spec m{i}: G[0,{}] (F[0,{i}] (tool.z > 0.1) and abs(q.j{}) < 2);\n", 10 * i, i % 7);
    }
    let mut monitors = Monitors::new(Some(&text), &specs, &[], &table, DT).unwrap();
    let mut signals = table.signals();
    let (mut verdicts, mut changes) = (0, 0);
    let used = calls_of(|| {
        for tick in 0..5_000u64 {
            let z = if tick % 700 == 333 { f64::NAN } else { (tick as f64 * 0.01).sin() };
            let (state, sent) = (&rig.state, rig.gate.sent());
            let (frames, level) = (&[[0.0, 0.0, z]], Level::Run);
            let inputs = Inputs { state, sent, frames, age_ns: 0, level, exhausted: false };
            table.fill(&inputs, &mut signals);
            monitors.step(tick, &signals, |_, change| {
                verdicts += 1;
                changes += usize::from(change != cadenza_runtime::safety::monitors::Change::Same);
            });
            if tick == 2_500 {
                monitors.reset();
            }
        }
    });
    assert_eq!((used, verdicts), (0, 50_000));
    assert!(changes > 20, "{changes}");
}
