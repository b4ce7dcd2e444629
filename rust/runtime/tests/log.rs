//! Runs recorded and read back: exact, reproducible, and readable after every kind of accident.

mod common;

use std::path::Path;

use cadenza_runtime::log::entry::{Entry, Request};
use cadenza_runtime::log::{Log, LogError, Recorder, Topic};
use cadenza_runtime::safety::Reason;
use cadenza_runtime::timing::stats::Stats;
use cadenza_runtime::timing::summary::StatsSummary;
use common::{PERIOD_NS, command, header, record, state, tick_entry, verdict};
use proptest::prelude::*;

const TICKS: u64 = 5000;

#[test]
fn everything_comes_back_exactly() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    let status = record(&path, TICKS, true);
    assert!(status.complete(), "{status:?}");
    assert_eq!(status.written, TICKS * 3 + TICKS / 10 * 3 + 4);
    assert_eq!(status.bytes, std::fs::metadata(&path).expect("file").len());

    let log = Log::open(&path).expect("own file");
    assert_eq!((log.damage(), log.dropped()), (&[][..], &[][..]));
    assert_eq!(log.header(), &header(true));
    for (tick, logged) in (0..).zip(log.states()) {
        let logged = logged.expect("own state");
        assert_eq!(logged.value, state(tick));
        assert_eq!(logged.value.tau[1].to_bits(), (-0.0f64).to_bits());
        assert_eq!(u64::from(logged.sequence), tick);
        assert_eq!(logged.log_ns, tick * PERIOD_NS as u64);
        assert_eq!(logged.sensor_ns, logged.log_ns.saturating_sub(300_000));
    }
    for (tick, logged) in (0..).zip(log.commands()) {
        assert_eq!(logged.expect("own command").value, command(tick));
    }
    for (tick, logged) in (0..).zip(log.ticks()) {
        assert_eq!(logged.expect("own tick").value, tick_entry(tick));
    }
    for (i, logged) in (0..).zip(log.verdicts()) {
        assert_eq!(logged.expect("own verdict").value, verdict(i * 10));
    }
    for (i, logged) in (0..).zip(log.chunks()) {
        let chunk = logged.expect("own chunk").value;
        assert_eq!((chunk.tick, chunk.id, chunk.values[3]), (i * 10, i, i as f32 * 10.0));
    }
    assert_eq!((log.len(Topic::State), log.len(Topic::Tick)), (TICKS as usize, TICKS as usize));
    assert_eq!((log.len(Topic::Obs), log.len(Topic::Chunk), log.len(Topic::Verdict)), (500, 500, 500));
    let reasons: Vec<Reason> = log.events().map(|e| e.expect("own event").value.reason).collect();
    assert_eq!(reasons, [Reason::PolicyLate, Reason::VelocityMeasured]);
    let requests: Vec<Request> = log.requests().map(|r| r.expect("own request").value.request).collect();
    assert_eq!(requests, [Request::Arm, Request::Command { slot: 0, value: 0.5 }]);
    assert_eq!(log.gaps().expect("ticks"), []);
    let stats = log.stats().expect("statistics");
    assert_eq!((stats.counters.ticks, stats.counters.missed), (TICKS, 5));
}

#[test]
fn two_virtual_runs_are_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temporary folder");
    // Several times the ring, so that the writer is waited for.
    let files = ["a.mcap", "b.mcap"].map(|name| {
        let path = dir.path().join(name);
        assert!(record(&path, 15_000, true).complete());
        std::fs::read(path).expect("file")
    });
    assert!(files[0].len() > 9 << 20, "{}", files[0].len());
    assert!(files[0] == files[1]);
}

#[test]
fn the_real_clock_is_mapped_to_utc_once() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(record(&path, 10, false).complete());
    let log = Log::open(&path).expect("own file");
    let offset = log.header().utc_offset_ns;
    let boot =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos()
            as i64;
    assert!(offset > 0 && offset <= boot, "{offset}");
    for logged in log.states() {
        let logged = logged.expect("own state");
        assert_eq!(logged.log_ns as i64, logged.value.t_read_ns + offset);
    }
}

#[test]
fn a_log_cut_anywhere_gives_its_complete_chunks() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(record(&path, 3000, true).complete());
    let whole = std::fs::read(&path).expect("file");
    let mut most = 0;
    // The last eight bytes only repeat the magic.
    for cut in (0..whole.len() - 8).rev().step_by(whole.len() / 60) {
        match Log::from_bytes(&whole[..cut]) {
            Ok(log) => {
                assert!(!log.damage().is_empty(), "cut at {cut}");
                assert_eq!(log.header().robot, "duo");
                most = most.max(log.len(Topic::State));
                for (tick, logged) in (0..).zip(log.states()) {
                    assert_eq!(logged.expect("own state").value, state(tick));
                }
            }
            Err(LogError::NoHeader(_) | LogError::NotMcap(_)) => assert!(cut < 20_000, "cut at {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    assert!(most > 2000, "{most}");
}

/// Stands for kill −9: the file as it is on disk while the run goes on.
#[test]
fn a_log_is_readable_while_it_is_written() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    let mut recorder = Recorder::start(&path, header(false));
    let mut stats = Stats::new(PERIOD_NS);
    common::push(&mut recorder, &mut stats, 200);
    let begin = std::time::Instant::now();
    // Flushed each second; the bound is for a stopped machine only.
    while recorder.status().written < 200 && begin.elapsed().as_secs() < 60 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let log = Log::open(&path).expect("readable");
    assert_eq!(log.len(Topic::State), 200);
    assert!(log.stats().is_none());
    assert!(log.damage().iter().any(|d| d.contains("breaks off")), "{:?}", log.damage());
    assert!(log.damage().iter().any(|d| d.contains("statistics")), "{:?}", log.damage());
    drop(recorder);
    let log = Log::open(&path).expect("readable");
    assert_eq!(log.damage(), ["no statistics: the run did not end in order"]);
}

#[test]
fn a_path_that_cannot_be_written_never_fails_the_run() {
    let status = record(Path::new("/nonexistent/folder/run.mcap"), 100, false);
    let error = status.error.as_ref().expect("an error");
    assert!(error.contains("/nonexistent/folder/run.mcap") && error.contains("No such file"), "{error}");
    assert_eq!((status.written, status.bytes), (0, 0));
    let dropped: u64 = status.dropped.iter().map(|(_, n)| n).sum();
    assert_eq!(dropped + status.lost, 2 + 300 + 30);
}

#[test]
fn a_full_disk_stops_the_recording_and_nothing_else() {
    let mut recorder = Recorder::start(Path::new("/dev/full"), header(false));
    let mut stats = Stats::new(PERIOD_NS);
    let begin = std::time::Instant::now();
    let mut pushed = 0;
    while !recorder.failed() && begin.elapsed().as_secs() < 60 {
        common::push(&mut recorder, &mut stats, 10);
        pushed += 2 + 30 + 3;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    common::push(&mut recorder, &mut stats, 10);
    pushed += 2 + 30 + 3;
    assert!(recorder.failed());
    let status = recorder.finish(&StatsSummary::default());
    assert!(status.error.as_ref().is_some_and(|e| e.contains("No space left")), "{status:?}");
    assert_eq!(status.written, 0);
    assert_eq!(status.dropped.iter().map(|(_, n)| n).sum::<u64>() + status.lost, pushed);
}

/// On the virtual clock a full ring waits for the writer; a dead writer must not be waited for.
#[test]
fn a_full_disk_does_not_hang_a_virtual_run() {
    let status = record(Path::new("/dev/full"), 15_000, true);
    assert!(status.error.is_some() && !status.complete());
}

#[test]
fn off_records_nothing() {
    let mut recorder = Recorder::off();
    recorder.push(Entry::State(&state(0)));
    assert!(!recorder.failed());
    assert_eq!(recorder.finish(&StatsSummary::default()), Default::default());
}

#[test]
fn files_that_are_no_log() {
    assert!(matches!(Log::open(Path::new("/nonexistent")), Err(LogError::Io { .. })));
    assert!(matches!(Log::from_bytes(b""), Err(LogError::NotMcap(_) | LogError::NoHeader(_))));
    assert!(matches!(Log::from_bytes(b"PK\x03\x04 something else"), Err(LogError::NotMcap(_))));
    let mut foreign = mcap::Writer::new(std::io::Cursor::new(Vec::new())).expect("writer");
    foreign.finish().expect("finish");
    let bytes = foreign.into_inner().into_inner();
    assert!(matches!(Log::from_bytes(&bytes), Err(LogError::NoHeader(_))));
}

fn small() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(record(&path, 30, true).complete());
    std::fs::read(path).expect("file")
}

/// Reads all there is; any outcome but a panic.
fn exhaust(bytes: &[u8]) {
    if let Ok(log) = Log::from_bytes(bytes) {
        let _ = (log.states().count(), log.commands().count(), log.ticks().count(), log.obs().count());
        let _ = (log.chunks().count(), log.verdicts().count(), log.events().count(), log.requests().count());
        let _ = (log.gaps(), cadenza_runtime::report::html(&log));
    }
}

#[test]
fn hostile_logs_never_panic() {
    let whole = small();
    // Bytes of the framing are hit more often than those of the messages.
    let front = whole.len().min(4000);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 400, ..Default::default() });
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6);
    runner
        .run(&(flips, any::<prop::sample::Index>(), any::<bool>()), |(flips, cut, keep)| {
            let mut bytes = whole.clone();
            for (at, value, early) in flips {
                let at = at.index(if early { front } else { bytes.len() });
                bytes[at] = value;
            }
            if !keep {
                bytes.truncate(cut.index(bytes.len()));
            }
            exhaust(&bytes);
            Ok(())
        })
        .expect("no panic");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(junk in prop::collection::vec(any::<u8>(), 0..600)) {
        exhaust(&junk);
        let mut framed = b"\x89MCAP0\r\n".to_vec();
        framed.extend(junk);
        exhaust(&framed);
    }
}

#[test]
fn a_damaged_chunk_is_lost_alone() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    assert!(record(&path, 3000, true).complete());
    let mut bytes = std::fs::read(&path).expect("file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let log = Log::from_bytes(&bytes).expect("the rest is whole");
    assert_eq!(log.damage().len(), 1, "{:?}", log.damage());
    let gaps = log.gaps().expect("ticks");
    let gap = gaps.iter().find(|gap| gap.topic == Topic::State).expect("a gap");
    assert_eq!(gap.lost, gap.before - gap.after - 1);
    assert_eq!(log.len(Topic::State) as u64, 3000 - gap.lost);
}

#[test]
fn a_header_that_names_too_much_is_refused() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("run.mcap");
    let mut long = header(true);
    let monitor = long.monitors[0].clone();
    for (count, taken) in [(64, true), (65, false)] {
        long.monitors = vec![monitor.clone(); count];
        let mut recorder = Recorder::start(&path, long.clone());
        recorder.push(Entry::State(&state(0)));
        assert!(recorder.finish(&StatsSummary::default()).complete());
        assert_eq!(Log::open(&path).is_ok(), taken, "{count}");
    }
    let error = Log::open(&path).unwrap_err().to_string();
    assert!(error.contains("65 monitors, at most 64"), "{error}");
}

#[test]
fn a_length_that_lies_ends_the_reading() {
    for bytes in [
        &include_bytes!("../../../fuzz/seeds/mcap_read/long_key.mcap")[..],
        include_bytes!("../../../fuzz/seeds/mcap_read/short_attachment.mcap"),
        include_bytes!("../../../fuzz/seeds/mcap_read/long_chunk.mcap"),
    ] {
        assert!(matches!(Log::from_bytes(bytes), Err(LogError::NoHeader(_))));
        // After a whole log it costs the rest and nothing before it.
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("run.mcap");
        assert!(common::record(&path, 100, true).complete());
        let mut file = std::fs::read(&path).expect("file");
        // In front of the footer, which is 9 + 20 bytes long and followed by 8 more.
        let footer = file.len() - 37;
        file.splice(footer..footer, bytes[8..].iter().copied());
        let log = Log::from_bytes(&file).expect("the header stands before it");
        assert_eq!(log.len(Topic::State), 100);
        assert!(log.damage().iter().any(|d| d.contains("breaks off: a length")), "{:?}", log.damage());
    }
}
