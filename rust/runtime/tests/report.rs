//! The report comes from the log alone, whole or cut short.

mod common;

use cadenza_runtime::log::entry::Entry;
use cadenza_runtime::log::{Log, Recorder};
use cadenza_runtime::report::html;
use cadenza_runtime::timing::summary::{StageSummary, StatsSummary};

#[test]
fn a_report_shows_everything_and_fetches_nothing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(common::record(&path, 5000, true).complete());
    let page = html(&Log::open(&path).expect("own file")).expect("own log");
    for words in [
        "duo · walk",
        "10.00 s",
        ">5000<",
        "FIFO 80, locked",
        "POLICY_LATE",
        "VELOCITY_MEASURED",
        "wake lateness",
        "sensor-&gt;command",
        "always[0,1s](err.knee &lt; 0.5)",
        "held, worst 0.0",
        "range -1.2 … 1.2 rad",
        "limiter acted on 100 ticks",
    ] {
        assert!(page.contains(words), "{words}");
    }
    // Two bands, one monitor, one survival chart, two charts for each of two joints.
    assert_eq!(page.matches("<svg").count(), 8);
    assert!(!page.contains("<script") && !page.contains("href=") && !page.contains("src="));
    assert!(page.len() < 2_000_000, "{}", page.len());
    if let Some(folder) = std::env::var_os("CADENZA_KEEP") {
        std::fs::write(std::path::Path::new(&folder).join("report.html"), &page).expect("written");
        std::fs::copy(&path, std::path::Path::new(&folder).join("run.mcap")).expect("copied");
    }
}

#[test]
fn a_killed_run_is_reported_with_its_damage() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(common::record(&path, 5000, true).complete());
    let bytes = std::fs::read(&path).expect("file");
    let log = Log::from_bytes(&bytes[..bytes.len() / 2]).expect("the first half");
    let page = html(&log).expect("own log");
    assert!(page.contains("the run did not end in order") && page.contains("wake lateness"));
}

#[test]
fn a_log_without_messages_has_a_report() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(common::record(&path, 0, true).complete());
    let page = html(&Log::open(&path).expect("own file")).expect("own log");
    assert!(page.contains("No events."));
}

#[test]
fn numbers_beyond_every_axis_have_a_report() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    let mut header = common::header(true);
    header.joints[0].position = Some([f64::MIN, f64::MAX]);
    header.joints[1].velocity = f64::MAX;
    let mut recorder = Recorder::start(&path, header);
    let extremes = [0.0, f64::MAX, f64::MIN, f64::NAN, f64::NEG_INFINITY, 1e12, -1e12, 1e-300];
    for (tick, value) in (0..).zip(extremes) {
        let (mut state, mut verdict) = (common::state(tick), common::verdict(tick));
        (state.q[0], state.dq[1], state.t_read_ns) = (value, value, i64::MAX - tick as i64);
        (verdict.closed, verdict.lo, verdict.hi) = (Some(value), -value, value);
        recorder.push(Entry::State(&state));
        recorder.push(Entry::Verdict(&verdict));
    }
    let odd =
        StageSummary { name: "whole tick".into(), count: u64::MAX, max: u64::MAX, ..StageSummary::default() };
    let buckets = vec![(0, u64::MAX), (u64::MAX, 7), (3, 0)];
    let stages = vec![odd.clone(), StageSummary { name: "infer".into(), buckets, ..odd }];
    assert!(recorder.finish(&StatsSummary { stages, ..StatsSummary::default() }).complete());
    let page = html(&Log::open(&path).expect("own file")).expect("own log");
    assert!(page.contains("violated, worst"));
}
