//! Bounds the jerk: the mean of a joint's last N positions.
//!
//! A mean is a convex combination of positions that the [`Limiter`](super::Limiter)'s law allowed, so range, velocity and
//! acceleration stay as they are. With `N = ⌈2·acceleration / (jerk·dt)⌉` the acceleration, which the law may reverse in one
//! tick, changes by at most `2·acceleration/N` a tick: the jerk bound. The price is a delay of (N − 1)/2 ticks.

use serde::{Deserialize, Serialize};

/// More positions than this are a mistake in the limits.
const MOST_TAPS: f64 = 1024.0;

/// One joint's last positions. Allocates nothing after [`Boxcar::new`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Boxcar {
    ring: Vec<f64>,
    oldest: usize,
    /// Somebody else moved the joint, so that the past is not ours: positions pass until the joint stands still.
    bypass: bool,
}

impl Boxcar {
    /// A filter for a joint with these limits; without one (N = 1) when `jerk` is infinite. `None` when it would need more
    /// than 1024 positions.
    pub(super) fn new(acceleration: f64, jerk: f64, dt: f64, p: f64) -> Option<Self> {
        let taps = (2.0 * acceleration / (jerk * dt)).ceil().max(1.0);
        (taps <= MOST_TAPS).then(|| Self { ring: vec![p; taps as usize], oldest: 0, bypass: false })
    }

    /// At rest at `p`.
    pub(super) fn fill(&mut self, p: f64) {
        self.ring.fill(p);
        self.bypass = false;
    }

    /// In motion at `p`, with a past that is not known.
    pub(super) fn bypass(&mut self, p: f64) {
        let newest = self.newest();
        self.ring[newest] = p;
        self.bypass = true;
    }

    /// Goes on from what `other` remembers, if it is a filter of the same length.
    pub(super) fn restore(&mut self, other: &Self) {
        if other.ring.len() == self.ring.len() {
            self.ring.copy_from_slice(&other.ring);
            (self.oldest, self.bypass) = (other.oldest % self.ring.len(), other.bypass);
        }
    }

    fn newest(&self) -> usize {
        (self.oldest + self.ring.len() - 1) % self.ring.len()
    }

    /// Takes the law's new position `p` and velocity `v`; gives the position and velocity to send.
    pub(super) fn step(&mut self, p: f64, v: f64, dt: f64) -> (f64, f64) {
        if self.bypass {
            let newest = self.newest();
            if self.ring[newest] == p {
                self.fill(p);
            } else {
                self.ring[newest] = p;
            }
            return (p, v);
        }
        let n = self.ring.len();
        let before = std::mem::replace(&mut self.ring[self.oldest], p);
        self.oldest = (self.oldest + 1) % n;
        if n == 1 {
            return (p, v);
        }
        // Summed as distances from the newest: exact at rest, and no rounding grows with N.
        let behind: f64 = self.ring.iter().map(|x| p - x).sum();
        (p - behind / n as f64, (p - before) / (n as f64 * dt))
    }

    /// Whether all that will come out is `p`.
    pub(super) fn settled(&self, p: f64) -> bool {
        self.bypass || self.ring.iter().all(|x| *x == p)
    }

    /// Positions that it remembers.
    pub(super) fn taps(&self) -> usize {
        self.ring.len()
    }

    /// How long the output lags behind the input, in ticks.
    pub(super) fn delay(&self) -> f64 {
        (self.ring.len() - 1) as f64 / 2.0
    }
}
