//! The whole tick allocates nothing once the loop stands: recorder, monitors, policy, faults and operator included.

mod counting;
mod rig;

use std::sync::Arc;

use cadenza_runtime::control::{Inbox, PolicyError, Request, switcher};
use cadenza_runtime::device::DeviceFault;
use cadenza_runtime::device::fault::Trouble;
use cadenza_runtime::log::{Log, Recorder, Topic};
use cadenza_runtime::safety::{Level, Reason};
use cadenza_runtime::timing::stats::Stats;
use cadenza_runtime::timing::summary::StatsSummary;
use counting::calls_of;
use rig::{Act, HOME, PERIOD_NS, Parts, Rig, faulty, injection};
use serde_json::json;

const TICKS: u64 = 100_000;
const ROUND: u64 = 5_000;

/// Sways, and is wrong in each of its ways now and then.
fn policy(tick: u64, _: &[f32], out: &mut [f32]) -> Result<(), PolicyError> {
    for (i, (out, home)) in out.iter_mut().zip(HOME).enumerate() {
        *out = home + 0.4 * (tick as f32 * 0.01 + i as f32).sin();
    }
    match tick / 10 % 97 {
        11 => out[1] = f32::NAN,
        23 => return Err(PolicyError::Late),
        31 => return Err(PolicyError::WrongLength { got: 2, want: 3 }),
        _ => {}
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_ticks_allocate_nothing() {
    let spec = "spec fence: G[0,50] (tool.z > -9.0);\nspec slow: F[0,20] (abs(dq.pan) < 0.001);\n";
    let monitor =
        |name: &str, action: &str| json!({ "name": name, "dt": 0.02, "trip": "violated", "action": action });
    let parts = Parts::default().watched(spec, monitor("fence", "log"));
    let mut parts = parts.watched(spec, monitor("slow", "fallback_policy"));
    parts.config.fallback = Some("fallback.cadenza".into());
    // A real-time run never waits for the writer; what it cannot take is counted.
    parts.config.virtual_clock = false;
    let mut injections = Vec::new();
    let mut requests = Vec::new();
    for at in [2_003, 7_000, 12_000] {
        requests.push((at, Request::Switch));
    }
    for from in (0..TICKS).step_by(ROUND as usize) {
        let fault = DeviceFault::Refused { joint: 1 };
        injections.extend([
            injection(from + 1000, 15, Trouble::Frozen),
            injection(from + 1500, 2, Trouble::NotFinite { joint: 0 }),
            injection(from + 4000, 5, Trouble::Write(fault)),
        ]);
        let last = match from / ROUND % 3 {
            0 => Request::Stop,
            1 => Request::Estop,
            _ => Request::Disarm,
        };
        requests.extend([
            (from, Request::Reset),
            (from, Request::Arm),
            (from + 700, Request::Command { slot: 0, value: 0.5 }),
            (from + 3500, last),
            (from + 3800, Request::Reset),
            (from + 3850, Request::Arm),
            (from + 4500, Request::Reset),
            (from + 4550, Request::Arm),
        ]);
    }
    let now = Arc::default();
    let device = faulty(&parts.robot(), &now, &injections);
    let mut rig = Rig::around(&parts, device, now, &[], Act(policy));
    rig.inbox = Inbox::script(requests);
    let (mut switcher, port) = switcher();
    rig.controller.switch_by(port);
    for _ in 0..3 {
        assert!(switcher.offer(parts.successor(Act(policy))).is_ok());
    }
    rig.controller.fall_back_on(parts.successor(Act(policy)));
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    rig.log = Recorder::start(&path, parts.header());
    let mut stats = Stats::new(PERIOD_NS);
    let mut levels = [0u64; 5];

    let calls = calls_of(|| {
        for _ in 0..TICKS {
            let entry = rig.tick();
            stats.add(&entry);
            levels[rig.controller.command().level as usize] += 1;
        }
    });
    assert_eq!(calls, 0);

    for _ in 0..3 {
        assert!(matches!(switcher.outcome(), Some(Ok(_))), "another bundle took over");
    }
    assert!(rig.controller.gate().count(Reason::BundleSwitched) > 3, "the fallback took over, too");
    assert!(levels.iter().all(|n| *n > 100), "{levels:?}");
    assert!(levels[Level::Run as usize] > TICKS / 2, "{levels:?}");
    for reason in [Reason::Monitor, Reason::PolicyLate, Reason::StateStale, Reason::WriteFailed] {
        assert!(rig.controller.gate().count(reason) > 0, "{reason:?}");
    }
    let status = rig.log.finish(&StatsSummary::default());
    assert!(status.error.is_none() && status.written > 100_000, "{status:?}");
    assert!(Log::open(&path).expect("own file").len(Topic::State) > 30_000);
}
