//! The report comes from the log alone, whole or cut short.

mod common;

use cadenza_runtime::log::Log;
use cadenza_runtime::report::html;

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
