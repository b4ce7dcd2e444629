//! The state of an [`ActionPath`] between two policy steps, so that a stopped training run goes on exactly.

use serde::{Deserialize, Serialize};

use super::{ActionPath, Decoder, Limiter, Sequence};

/// All that an [`ActionPath`] remembers. Numbers survive JSON bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathSnapshot {
    pub(super) chunks: u64,
    /// Decoded target of each joint.
    pub(super) target: Vec<f64>,
    /// Position, velocity and last target of each joint.
    pub(super) limiter: Vec<[f64; 3]>,
    pub(super) epoch: u32,
    pub(super) newest: Option<(u64, u64)>,
    pub(super) values: Vec<f64>,
    pub(super) ticks: Vec<Option<u64>>,
    pub(super) end: Option<u64>,
    pub(super) held: Vec<f64>,
    pub(super) idle_since: Option<u64>,
}

/// A snapshot of another robot or bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot has {got} numbers, this path has {want}: it belongs to another robot or bundle")]
pub struct WrongSnapshot {
    /// Numbers of the snapshot.
    pub got: usize,
    /// Numbers of the path.
    pub want: usize,
}

impl PathSnapshot {
    fn size(&self) -> usize {
        self.target.len() + 3 * self.limiter.len() + self.values.len() + self.ticks.len() + self.held.len()
    }
}

impl ActionPath {
    /// All that it remembers. Allocates: for training, not for the control thread.
    pub fn snapshot(&self) -> PathSnapshot {
        let Self { decoder, sequence, limiter, chunks, .. } = self;
        let n = sequence.n;
        PathSnapshot {
            chunks: *chunks,
            target: decoder.target()[..n].to_vec(),
            limiter: limiter.motion(),
            epoch: sequence.epoch,
            newest: sequence.newest,
            values: sequence.values.clone(),
            ticks: sequence.ticks.clone(),
            end: sequence.end,
            held: sequence.held[..n].to_vec(),
            idle_since: sequence.idle_since,
        }
    }

    /// Goes on from `snapshot`.
    ///
    /// # Errors
    /// [`WrongSnapshot`]; nothing changes.
    pub fn restore(&mut self, snapshot: &PathSnapshot) -> Result<(), WrongSnapshot> {
        let (got, want) = (snapshot.size(), self.snapshot().size());
        if got != want || snapshot.values.len() != self.sequence.values.len() {
            return Err(WrongSnapshot { got, want });
        }
        self.chunks = snapshot.chunks;
        self.decoder.restore(&snapshot.target);
        self.limiter.restore(&snapshot.limiter);
        self.sequence.restore(snapshot);
        Ok(())
    }
}

impl Decoder {
    fn restore(&mut self, target: &[f64]) {
        self.target[..target.len()].copy_from_slice(target);
    }
}

impl Limiter {
    fn motion(&self) -> Vec<[f64; 3]> {
        self.axes[..self.n].iter().map(|axis| [axis.p, axis.v, axis.u]).collect()
    }

    fn restore(&mut self, motion: &[[f64; 3]]) {
        for (axis, &[p, v, u]) in self.axes.iter_mut().zip(motion) {
            (axis.p, axis.v, axis.u) = (p, v, u);
        }
    }
}

impl Sequence {
    fn restore(&mut self, snapshot: &PathSnapshot) {
        self.epoch = snapshot.epoch;
        self.newest = snapshot.newest;
        self.values.copy_from_slice(&snapshot.values);
        self.ticks.copy_from_slice(&snapshot.ticks);
        self.end = snapshot.end;
        self.held[..snapshot.held.len()].copy_from_slice(&snapshot.held);
        self.idle_since = snapshot.idle_since;
    }
}
