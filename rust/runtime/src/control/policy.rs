//! Where actions come from: a network, a log, or anything else that answers in time.

use std::collections::VecDeque;

use cadenza_policy::{ActError, Policy};

/// Why a policy gave no action. Plain numbers: it is made on the control thread.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A number of the action, or of the network's input, is not finite.
    #[error("element {index} of the {what} is not finite")]
    NotFinite {
        /// `observation` or `action`.
        what: &'static str,
        /// Which element.
        index: usize,
    },
    /// The action has the wrong length.
    #[error("{got} numbers, {want} wanted")]
    WrongLength {
        /// Length given.
        got: usize,
        /// Length wanted.
        want: usize,
    },
    /// There is no action for this tick.
    #[error("no action for this tick")]
    Late,
}

/// Gives one action (or one action sequence) for each policy step. Called on the control thread: no heap, no lock.
pub trait PolicySource: Send {
    /// Forgets everything of the episode before.
    fn reset(&mut self);
    /// Writes the action for `tick` in graph units to `out`: rows × actions.
    fn act(&mut self, tick: u64, obs: &[f32], previous: &[f32], out: &mut [f32]) -> Result<(), PolicyError>;
}

impl PolicySource for Policy {
    fn reset(&mut self) {
        Policy::reset(self);
    }

    fn act(&mut self, _tick: u64, obs: &[f32], previous: &[f32], out: &mut [f32]) -> Result<(), PolicyError> {
        Policy::act(self, obs, previous, out).map_err(|error| match error {
            ActError::NonFiniteInput { index, .. } => PolicyError::NotFinite { what: "observation", index },
            ActError::NonFiniteOutput { index, .. } => PolicyError::NotFinite { what: "action", index },
            ActError::Length { expected, got, .. } => PolicyError::WrongLength { got, want: expected },
            _ => PolicyError::Late,
        })
    }
}

/// Plays the actions of a log at the ticks at which they were accepted.
pub struct Recorded {
    chunks: VecDeque<(u64, Vec<f32>)>,
}

impl Recorded {
    /// Actions with their ticks, in order.
    pub fn new(chunks: impl IntoIterator<Item = (u64, Vec<f32>)>) -> Self {
        Self { chunks: chunks.into_iter().collect() }
    }
}

impl PolicySource for Recorded {
    fn reset(&mut self) {}

    fn act(
        &mut self,
        tick: u64,
        _obs: &[f32],
        _previous: &[f32],
        out: &mut [f32],
    ) -> Result<(), PolicyError> {
        while self.chunks.front().is_some_and(|(t, _)| *t < tick) {
            self.chunks.pop_front();
        }
        match self.chunks.front() {
            Some((t, values)) if *t == tick => {
                if values.len() != out.len() {
                    return Err(PolicyError::WrongLength { got: values.len(), want: out.len() });
                }
                out.copy_from_slice(values);
                Ok(())
            }
            _ => Err(PolicyError::Late),
        }
    }
}
