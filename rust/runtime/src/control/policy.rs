//! Where actions come from: a network, a log, or anything else that answers in time.

use cadenza_policy::manifest::ChunkMode;
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

/// What a policy is asked. Plain references: it is made on the control thread.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Control tick.
    pub tick: u64,
    /// Whether a sequence begins here; false only between two beginnings of one that is decoded step by step.
    pub begin: bool,
    /// The observation, `observation.size` numbers.
    pub obs: &'a [f32],
    /// The action before, graph units.
    pub previous: &'a [f32],
    /// Actions that will be executed before the answer can be, rows × actions in graph units, the first one at this step.
    /// Where the plan ends its last row is repeated; empty before the first answer.
    pub committed: &'a [f32],
}

/// Gives one action (or one action sequence) for each question. No heap and no lock: it may run on the control thread.
pub trait PolicySource: Send {
    /// Forgets everything of the episode before.
    fn reset(&mut self);

    /// Writes the answer in graph units to `out`: rows × actions.
    ///
    /// # Errors
    /// [`PolicyError`]; the answer is not used.
    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError>;

    /// Leading rows of its answers that repeat [`Ask::committed`].
    fn prefix(&self) -> usize {
        0
    }
}

impl PolicySource for Policy {
    fn reset(&mut self) {
        Policy::reset(self);
    }

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        let answer = match self.mode() {
            ChunkMode::Lazy => {
                let begun = if ask.begin { self.begin(ask.obs) } else { Ok(()) };
                begun.and_then(|()| self.next(ask.previous, out))
            }
            ChunkMode::None | ChunkMode::Open => Policy::act(self, ask.obs, ask.previous, out),
        };
        answer.map_err(|error| match error {
            ActError::NonFiniteInput { index, .. } => PolicyError::NotFinite { what: "observation", index },
            ActError::NonFiniteOutput { index, .. } => PolicyError::NotFinite { what: "action", index },
            ActError::Length { expected, got, .. } => PolicyError::WrongLength { got, want: expected },
            _ => PolicyError::Late,
        })
    }
}
