//! `cadenza-rt doctor`: what this machine grants to a real-time loop, measured by taking it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::clock::{Clock, MonotonicClock, next_deadline, period_ns};
use super::host;
use super::sched::{RtReport, RtRequest, enter};
use super::stats::Latency;

/// How good one item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works with worse tails.
    Degraded,
    /// Does not work at this rate.
    Failed,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// What was looked at.
    pub name: String,
    /// What was found.
    pub found: String,
    /// How good that is.
    pub health: Health,
    /// What would make it better.
    pub remedy: Option<String>,
}

/// Absolute sleeps at the rate asked for, with no work between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeTest {
    /// Ticks.
    pub ticks: u64,
    /// Median lateness, ns.
    pub p50: u64,
    /// 99th percentile, ns.
    pub p99: u64,
    /// Largest, ns.
    pub max: u64,
    /// Deadlines skipped because they had passed.
    pub missed: u64,
}

/// What [`doctor`] found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// Rate that was tested, Hz.
    pub hz: f64,
    /// Level that was reached.
    pub rt: RtReport,
    /// The table.
    pub items: Vec<Item>,
    /// Wake-up lateness.
    pub wake: WakeTest,
    /// In one sentence.
    pub verdict: String,
}

impl DoctorReport {
    /// The worst of all items.
    pub fn health(&self) -> Health {
        self.items.iter().map(|item| item.health).max().unwrap_or(Health::Ok)
    }

    /// Exit code: 0 usable, 1 degraded, 2 unusable at this rate.
    pub fn exit_code(&self) -> u8 {
        self.health() as u8
    }
}

impl fmt::Display for DoctorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            let health = match item.health {
                Health::Ok => "ok",
                Health::Degraded => "degraded",
                Health::Failed => "FAILED",
            };
            write!(f, " {:12}{:40} {health}", item.name, item.found)?;
            if let Some(remedy) = &item.remedy {
                write!(f, ": {remedy}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, " {:12}{}", "verdict", self.verdict)
    }
}

/// Takes the best level for a thread of its own, sleeps on absolute deadlines at `hz` for `seconds`, and judges.
///
/// # Panics
/// When `hz` is not a positive number.
pub fn doctor(hz: f64, seconds: f64, request: &RtRequest) -> DoctorReport {
    assert!(hz > 0.0 && hz.is_finite(), "rate {hz} Hz");
    let (rt, wake) = std::thread::scope(|scope| {
        let test = scope.spawn(|| {
            let guard = enter(request);
            let wake = wake_test(period_ns(hz), seconds, request.spin_us);
            (guard.report().clone(), wake)
        });
        test.join().expect("the wake test does not panic")
    });
    let mut items = judge(&rt);
    items.push(judge_wake(&wake, hz, seconds));
    let verdict = verdict(&items, hz);
    DoctorReport { hz, rt, items, wake, verdict }
}

fn wake_test(period: i64, seconds: f64, spin_us: u32) -> WakeTest {
    let mut clock = MonotonicClock::new(spin_us);
    let mut lateness = Latency::new();
    let mut deadline = clock.now_ns() + period;
    let end = deadline + (seconds * 1e9) as i64;
    let mut missed = 0;
    while deadline < end || lateness.count() == 0 {
        clock.sleep_until(deadline);
        let now = clock.now_ns();
        lateness.record((now - deadline).unsigned_abs());
        let (next, skipped) = next_deadline(deadline, now, period);
        missed += u64::from(skipped);
        deadline = next;
    }
    WakeTest {
        ticks: lateness.count(),
        p50: lateness.quantile(0.5),
        p99: lateness.quantile(0.99),
        max: lateness.max(),
        missed,
    }
}

fn judge(rt: &RtReport) -> Vec<Item> {
    let remedy = |step: &str| rt.failures.iter().find(|f| f.step.starts_with(step)).map(ToString::to_string);
    let item = |name: &str, found: String, remedy: Option<String>| Item {
        name: name.into(),
        found,
        health: if remedy.is_some() { Health::Degraded } else { Health::Ok },
        remedy,
    };
    let class = match rt.policy.as_str() {
        "OTHER" => format!("OTHER nice {}, slack {} ns", rt.nice, rt.timer_slack_ns),
        policy => format!("{policy} {}", rt.priority),
    };
    let mut items = vec![item("scheduler", class, remedy("SCHED_FIFO"))];
    items.push(item("memory", if rt.locked { "locked" } else { "not locked" }.into(), remedy("lock memory")));

    let mut affinity = item("affinity", cores(&rt.affinity), remedy("pin to"));
    if let [core] = rt.affinity[..]
        && !rt.isolated
    {
        affinity.found += &format!(" (not isolated: add isolcpus={core} nohz_full={core})");
    }
    items.push(affinity);

    let tails = (rt.preempt != "PREEMPT_RT").then(|| "not PREEMPT_RT, expect rare ms tails".into());
    items.push(item("kernel", format!("{} {}", rt.kernel, rt.preempt), tails));
    if let Some(governor) = &rt.governor {
        let fix = (governor != "performance").then(|| "cpupower frequency-set -g performance".into());
        items.push(item("governor", governor.clone(), fix));
    }
    items.push(item(
        "idle states",
        if rt.dma_latency { "held off" } else { "allowed" }.into(),
        remedy("hold /dev"),
    ));
    if let Some([runtime, period]) = rt.rt_throttle {
        let found =
            if runtime < 0 { "off".into() } else { format!("{} ms of {} ms", runtime / 1000, period / 1000) };
        let limits = runtime >= 0 && rt.spin_us > 0 && rt.policy == "FIFO";
        items.push(item(
            "throttle",
            found,
            limits.then(|| "a spinning loop may be stopped; use spin_us = 0".into()),
        ));
    }
    let budget = host::rt_group_budget();
    if let Some(container) = host::container() {
        items.push(item("container", container, None));
    }
    if budget == Some(0) {
        let remedy = "no SCHED_FIFO in this control group; set its cpu.rt_runtime_us".into();
        items.push(item("rt group", "budget 0".into(), Some(remedy)));
    }
    for (port, ms) in host::serial_latency() {
        let fix = (ms > 1).then(|| "set its latency_timer to 1".into());
        items.push(item("devices", format!("{port} latency timer {ms} ms"), fix));
    }
    items
}

fn cores(affinity: &[usize]) -> String {
    match affinity {
        [core] => format!("core {core}"),
        many => format!("{} cores, not pinned", many.len()),
    }
}

/// A wake-up may use a tenth of the period in the median and the whole of it never.
fn judge_wake(wake: &WakeTest, hz: f64, seconds: f64) -> Item {
    let period = 1e9 / hz;
    let us = |ns: u64| ns as f64 / 1e3;
    let found = format!(
        "{seconds} s at {hz} Hz: p50 {:.1} p99 {:.1} max {:.1} us, {} missed",
        us(wake.p50),
        us(wake.p99),
        us(wake.max),
        wake.missed
    );
    let (health, remedy) = if wake.p99 as f64 > 0.5 * period || wake.missed as f64 > 0.01 * wake.ticks as f64
    {
        (Health::Failed, Some("wake-ups use up the period; lower the rate or fix the items above".to_owned()))
    } else if wake.missed > 0 || wake.p99 as f64 > 0.1 * period {
        (Health::Degraded, Some("some wake-ups take a large part of the period".to_owned()))
    } else {
        (Health::Ok, None)
    };
    Item { name: "wake test".into(), found, health, remedy }
}

fn verdict(items: &[Item], hz: f64) -> String {
    let names: Vec<&str> =
        items.iter().filter(|item| item.health == Health::Degraded).map(|item| item.name.as_str()).collect();
    if items.iter().any(|item| item.health == Health::Failed) {
        format!("not usable at {hz} Hz")
    } else if names.is_empty() {
        format!("usable at {hz} Hz")
    } else {
        format!("usable at {hz} Hz, degraded: {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wake(p50: u64, p99: u64, missed: u64) -> WakeTest {
        WakeTest { ticks: 1000, p50, p99, max: p99, missed }
    }

    #[test]
    fn wake_tests_are_judged_against_the_period() {
        assert_eq!(judge_wake(&wake(18_000, 37_000, 0), 1000.0, 2.0).health, Health::Ok);
        assert_eq!(judge_wake(&wake(18_000, 37_000, 1), 1000.0, 2.0).health, Health::Degraded);
        assert_eq!(judge_wake(&wake(18_000, 137_000, 0), 1000.0, 2.0).health, Health::Degraded);
        assert_eq!(judge_wake(&wake(18_000, 600_000, 0), 1000.0, 2.0).health, Health::Failed);
        assert_eq!(judge_wake(&wake(18_000, 37_000, 11), 1000.0, 2.0).health, Health::Failed);
    }

    #[test]
    fn a_perfect_machine_and_a_bare_one() {
        let perfect = RtReport {
            policy: "FIFO".into(),
            priority: 80,
            locked: true,
            affinity: vec![1],
            isolated: true,
            dma_latency: true,
            governor: Some("performance".into()),
            preempt: "PREEMPT_RT".into(),
            ..RtReport::default()
        };
        let bad: Vec<_> =
            judge(&perfect).into_iter().filter(|i| i.health > Health::Ok && i.name != "devices").collect();
        assert!(bad.is_empty(), "{bad:?}");
        let failure = super::super::sched::RtFailure {
            step: "SCHED_FIFO 80".into(),
            errno: libc::EPERM,
            remedy: "grant CAP_SYS_NICE".into(),
        };
        let bare =
            RtReport { policy: "OTHER".into(), preempt: "none".into(), failures: vec![failure], ..perfect };
        let items = judge(&bare);
        assert_eq!(items[0].health, Health::Degraded);
        assert!(
            items[0]
                .remedy
                .as_ref()
                .is_some_and(|r| r.contains("not permitted") && r.contains("CAP_SYS_NICE"))
        );
        assert!(verdict(&items, 500.0).contains("scheduler"), "{}", verdict(&items, 500.0));
    }

    #[test]
    fn the_report_is_complete() {
        let report = doctor(200.0, 0.05, &RtRequest { priority: 10, core: None, spin_us: 0 });
        // 10 deadlines in 50 ms; late ones are skipped and counted, never lost.
        assert!(report.wake.ticks + report.wake.missed >= 10);
        let text = report.to_string();
        for word in ["scheduler", "memory", "affinity", "kernel", "wake test", "verdict"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(report.exit_code(), report.health() as u8);
        let json = serde_json::to_string(&report).expect("plain data");
        assert_eq!(serde_json::from_str::<DoctorReport>(&json).expect("own form"), report);
    }
}
