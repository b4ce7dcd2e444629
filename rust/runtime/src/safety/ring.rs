//! Faults on their way to the log and the operator: counted always, buffered while there is room.

use super::{Fault, Level, Reason};

const CAPACITY: usize = 64;
const CODES: usize = 64;

const _: () = {
    let mut i = 0;
    while i < Reason::ALL.len() {
        assert!((Reason::ALL[i] as usize) < CODES, "a count for each reason");
        i += 1;
    }
};

#[derive(Clone, Debug)]
pub(super) struct FaultRing {
    slots: [Fault; CAPACITY],
    start: usize,
    len: usize,
    dropped: u64,
    counts: [u64; CODES],
    /// Tick after the one at which the reason was last seen; 0 for never.
    seen: [u64; CODES],
}

impl FaultRing {
    pub(super) fn new() -> Self {
        let level = Level::Run;
        let empty = Fault { tick: 0, reason: Reason::Panic, joint: 0, value: 0.0, limit: 0.0, level };
        Self { slots: [empty; CAPACITY], start: 0, len: 0, dropped: 0, counts: [0; CODES], seen: [0; CODES] }
    }

    pub(super) fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn count_and_push(&mut self, fault: Fault) {
        self.counts[fault.reason as usize] += 1;
        if self.len == CAPACITY {
            self.dropped += 1;
        } else {
            self.slots[(self.start + self.len) % CAPACITY] = fault;
            self.len += 1;
        }
    }

    /// Pushes `fault` unless the same reason was seen at this tick or at the one before.
    pub(super) fn count_and_push_first(&mut self, fault: Fault) {
        let seen = std::mem::replace(&mut self.seen[fault.reason as usize], fault.tick.saturating_add(1));
        if seen == 0 || fault.tick > seen || fault.tick.saturating_add(1) < seen {
            self.count_and_push(fault);
        } else {
            self.counts[fault.reason as usize] += 1;
        }
    }

    pub(super) fn drain(&mut self, mut f: impl FnMut(&Fault)) {
        for i in 0..std::mem::take(&mut self.len) {
            f(&self.slots[(self.start + i) % CAPACITY]);
        }
        self.start = 0;
    }
}
