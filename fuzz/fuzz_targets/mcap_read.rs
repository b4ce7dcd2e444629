#![no_main]
//! Bytes → log: no panic, bounded, every message a value or an error, and the same again.

use cadenza_runtime::log::{Log, Topic};
use libfuzzer_sys::fuzz_target;

/// Reads every message; counts those that decode.
fn all(log: &Log) -> usize {
    log.states().flatten().count()
        + log.commands().flatten().count()
        + log.ticks().flatten().count()
        + log.obs().flatten().count()
        + log.chunks().flatten().count()
        + log.verdicts().flatten().count()
        + log.events().flatten().count()
        + log.requests().flatten().count()
        + log.bundles().flatten().count()
}

fuzz_target!(|data: &[u8]| {
    let Ok(log) = Log::from_bytes(data) else { return };
    let decoded = all(&log);
    assert!(decoded <= Topic::ALL.iter().map(|topic| log.len(*topic)).sum());
    assert_eq!(all(&log), decoded);
    let _ = (log.gaps(), log.span(), log.stats(), log.damage(), log.dropped());
});
