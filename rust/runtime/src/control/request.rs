//! What the operator asks for: over a ring while the loop runs, or from a script at given ticks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

pub use crate::log::entry::Request;

/// Most requests obeyed in one tick; the rest wait.
const PER_TICK: usize = 4;

/// Where requests come from.
pub enum Inbox {
    /// Live, from a handle on another thread.
    Ring(rtrb::Consumer<Request>),
    /// At given control ticks, in order: deterministic runs and replays.
    Script(VecDeque<(u64, Request)>),
}

impl Inbox {
    /// No requests.
    pub fn empty() -> Self {
        Self::Script(VecDeque::new())
    }

    /// A script; sorted by tick, requests of one tick keep their order.
    pub fn script(mut requests: Vec<(u64, Request)>) -> Self {
        requests.sort_by_key(|(tick, _)| *tick);
        Self::Script(requests.into())
    }

    /// Whether no request can come any more.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Script(script) if script.is_empty())
    }

    /// Hands out what is due at `tick`: at most four live requests, all scripted ones.
    pub fn drain(&mut self, tick: u64, mut obey: impl FnMut(Request)) {
        match self {
            Self::Ring(ring) => {
                for _ in 0..PER_TICK {
                    match ring.pop() {
                        Ok(request) => obey(request),
                        Err(_) => break,
                    }
                }
            }
            Self::Script(script) => {
                while script.front().is_some_and(|(t, _)| *t <= tick) {
                    if let Some((_, request)) = script.pop_front() {
                        obey(request);
                    }
                }
            }
        }
    }
}

/// How often SIGINT or SIGTERM arrived since [`catch_signals`].
static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Counts SIGINT and SIGTERM instead of dying of them, until dropped: the first is a soft stop, the second damps.
pub(super) struct SignalGuard {
    before: [libc::sigaction; 2],
}

/// The signals that ask a run to stop.
const STOP_SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// Installs the handlers; the ones before come back when the guard is dropped.
pub(super) fn catch_signals() -> SignalGuard {
    SIGNALS.store(0, Ordering::Relaxed);
    let handler = count_signal as extern "C" fn(libc::c_int);
    let before = STOP_SIGNALS.map(|signal| {
        // SAFETY: both structs are plain data for which all zeros is valid; the handler only touches an atomic.
        unsafe {
            let mut new: libc::sigaction = std::mem::zeroed();
            let mut old: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = handler as libc::sighandler_t;
            libc::sigaction(signal, &new, &mut old);
            old
        }
    });
    SignalGuard { before }
}

impl SignalGuard {
    /// How often a stop signal arrived.
    pub(super) fn count(&self) -> u32 {
        SIGNALS.load(Ordering::Relaxed)
    }
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        for (signal, old) in STOP_SIGNALS.iter().zip(&self.before) {
            // SAFETY: restores an action that sigaction itself gave us.
            unsafe { libc::sigaction(*signal, old, std::ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gives_each_request_at_its_tick_and_in_order() {
        let command = |value| Request::Command { slot: 0, value };
        let mut inbox = Inbox::script(vec![(5, command(2.0)), (0, Request::Arm), (5, command(3.0))]);
        let mut seen = Vec::new();
        for tick in 0..8 {
            inbox.drain(tick, |r| seen.push((tick, r)));
        }
        assert_eq!(seen, [(0, Request::Arm), (5, command(2.0)), (5, command(3.0))]);
    }

    #[test]
    fn a_flooded_ring_gives_four_a_tick_and_loses_none() {
        let (mut tx, rx) = rtrb::RingBuffer::new(16);
        (0..10).for_each(|i| tx.push(Request::Command { slot: i, value: 0.0 }).unwrap());
        let mut inbox = Inbox::Ring(rx);
        let mut counts = Vec::new();
        for tick in 0..4 {
            let mut n = 0;
            inbox.drain(tick, |_| n += 1);
            counts.push(n);
        }
        assert_eq!(counts, [4, 4, 2, 0]);
    }
}
