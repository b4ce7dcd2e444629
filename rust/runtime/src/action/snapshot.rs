//! The state of an [`ActionPath`] between two policy steps, so that a stopped training run goes on exactly.

use serde::{Deserialize, Serialize};

use super::boxcar::Boxcar;
use super::limiter::Motion;
use super::noise::Memory;
use super::{ActionPath, Decoder, Limiter, Noise, Sequence};

/// All that an [`ActionPath`] remembers. Numbers survive JSON bit for bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathSnapshot {
    pub(super) chunks: u64,
    /// Decoded target of each joint.
    pub(super) target: Vec<f64>,
    /// Motion and last positions of each joint.
    pub(super) limiter: Vec<(Motion, Boxcar)>,
    /// Noise of each joint; empty without noise.
    pub(super) noise: Vec<Memory>,
    pub(super) epoch: u32,
    pub(super) newest: Option<(u64, u64)>,
    pub(super) values: Vec<f64>,
    pub(super) ticks: Vec<Option<u64>>,
    pub(super) count: Vec<u32>,
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
        let positions: usize = self.limiter.iter().map(|(_, boxcar)| boxcar.taps()).sum();
        self.target.len()
            + positions
            + self.noise.len()
            + self.values.len()
            + self.ticks.len()
            + self.held.len()
    }
}

impl ActionPath {
    /// All that it remembers. Allocates: for training, not for the control thread.
    pub fn snapshot(&self) -> PathSnapshot {
        let Self { decoder, sequence, noise, limiter, chunks, .. } = self;
        let n = sequence.n;
        PathSnapshot {
            chunks: *chunks,
            target: decoder.target()[..n].to_vec(),
            limiter: limiter.motion(),
            noise: noise.as_ref().map_or_else(Vec::new, Noise::memory),
            epoch: sequence.epoch,
            newest: sequence.newest,
            values: sequence.values.clone(),
            ticks: sequence.ticks.clone(),
            count: sequence.count.clone(),
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
        let fits = snapshot.values.len() == self.sequence.values.len()
            && snapshot.limiter.len() == self.limiter.axes.len()
            && snapshot.ticks.len() == self.sequence.ticks.len()
            && snapshot.count.len() == self.sequence.count.len()
            && snapshot.target.len() == self.sequence.n;
        if got != want || !fits {
            return Err(WrongSnapshot { got, want });
        }
        self.chunks = snapshot.chunks;
        self.decoder.restore(&snapshot.target);
        self.limiter.restore(&snapshot.limiter);
        self.sequence.restore(snapshot);
        self.epoch = snapshot.epoch;
        if let Some(noise) = &mut self.noise {
            noise.restore(&snapshot.noise);
        }
        Ok(())
    }
}

impl Decoder {
    fn restore(&mut self, target: &[f64]) {
        self.target[..target.len()].copy_from_slice(target);
    }
}

impl Limiter {
    fn motion(&self) -> Vec<(Motion, Boxcar)> {
        self.axes.iter().map(|axis| (axis.motion, axis.boxcar.clone())).collect()
    }

    fn restore(&mut self, motion: &[(Motion, Boxcar)]) {
        for (axis, (motion, boxcar)) in self.axes.iter_mut().zip(motion) {
            axis.motion = *motion;
            axis.boxcar.restore(boxcar);
        }
    }
}

impl Sequence {
    fn restore(&mut self, snapshot: &PathSnapshot) {
        self.epoch = snapshot.epoch;
        self.newest = snapshot.newest;
        self.values.copy_from_slice(&snapshot.values);
        self.ticks.copy_from_slice(&snapshot.ticks);
        self.count.copy_from_slice(&snapshot.count);
        self.end = snapshot.end;
        self.held[..snapshot.held.len()].copy_from_slice(&snapshot.held);
        self.idle_since = snapshot.idle_since;
    }
}
