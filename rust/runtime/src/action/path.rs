//! The way of an action from the network to the motor command, for the control tick and for batched training.

use cadenza_policy::manifest::Manifest;

use super::{
    Accepted, ActionError, Chunk, DecodeError, Decoder, Flow, LimitError, Limiter, Refusal, Sequence,
};
use crate::config::Upsample;
use crate::robot::{Robot, effective_limits};
use crate::state::{Joints, MAX_JOINTS, State};

/// Why an output of the policy was not taken; the plan is as it was.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ActionFault {
    /// It could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The sequence refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// One control tick's motion, robot order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// Positions, inside the limits.
    pub q: Joints,
    /// Velocities, inside the limits.
    pub dq: Joints,
    /// How the sequence stands.
    pub flow: Flow,
    /// Joints whose target the limiter changed, one bit each.
    pub clamped: u64,
}

/// Decoder, sequence and limiter of one robot. Allocates nothing after construction.
///
/// The three are public: a gate that blends or replaces targets works between them.
#[derive(Clone, Debug)]
pub struct ActionPath {
    /// Units and joints.
    pub decoder: Decoder,
    /// Which action holds now.
    pub sequence: Sequence,
    /// What the joints can do.
    pub limiter: Limiter,
    rows: Vec<f64>,
    pub(super) chunks: u64,
}

impl ActionPath {
    /// The path of a bundle's actions on a robot, under the tighter of their limits.
    ///
    /// # Errors
    /// [`ActionError`]: what does not fit, or is not supported.
    pub fn new(manifest: &Manifest, robot: &Robot, upsample: Upsample) -> Result<Self, ActionError> {
        let decoder = Decoder::new(manifest, robot)?;
        let (limits, _) = effective_limits(robot, manifest)?;
        Ok(Self {
            rows: vec![0.0; decoder.output_len()],
            decoder,
            sequence: Sequence::new(manifest, robot, upsample)?,
            limiter: Limiter::new(&limits, robot.control_dt())?,
            chunks: 0,
        })
    }

    /// Starts at rest at the measured position, with an empty plan for the state's epoch.
    ///
    /// # Errors
    /// [`LimitError::OutsideLimits`]; nothing changes.
    pub fn reset(&mut self, state: &State) -> Result<(), LimitError> {
        self.limiter.reset(&state.q)?;
        self.decoder.reset(&state.q);
        self.sequence.reset(state.epoch, &state.q);
        self.chunks = 0;
        Ok(())
    }

    /// Takes the policy's output for `state`, inferred in control tick `tick`; its first future row holds from this
    /// tick's policy step on.
    ///
    /// # Errors
    /// [`ActionFault`]; plan and decoder are as they were.
    pub fn accept(&mut self, raw: &[f32], state: &State, tick: u64) -> Result<Accepted, ActionFault> {
        let now = tick / self.sequence.ticks_per_step();
        let rows = self.decoder.rows();
        // Asked first: a refused output must not move the decoder's target.
        self.sequence.admit(self.chunks, state.epoch, now, now, rows, now)?;
        self.decoder.decode(raw, state, &mut self.rows)?;
        let chunk = Chunk {
            id: self.chunks,
            epoch: state.epoch,
            obs_tick: now,
            first_tick: now,
            rows,
            values: &self.rows,
        };
        let accepted = self.sequence.accept(&chunk, now)?;
        self.chunks += 1;
        Ok(accepted)
    }

    /// The motion of control tick `tick`.
    pub fn command(&mut self, tick: u64) -> Motion {
        let target = self.sequence.target(tick);
        let (mut q, mut dq) = ([0.0; MAX_JOINTS], [0.0; MAX_JOINTS]);
        let clamped = self.limiter.step(&target.q, &target.dq, &mut q, &mut dq);
        Motion { q, dq, flow: target.flow, clamped }
    }

    /// One policy step of training: takes the output, then gives the next `k` control ticks from `first_tick` on.
    /// `q` and `dq` hold k × joints, row by row.
    ///
    /// # Errors
    /// [`ActionFault`], also when `q` or `dq` has another length; nothing has moved.
    pub fn rollout(
        &mut self,
        raw: &[f32],
        state: &State,
        first_tick: u64,
        k: usize,
        q: &mut [f64],
        dq: &mut [f64],
    ) -> Result<(), ActionFault> {
        let n = state.joints();
        for out in [&*q, &*dq] {
            if out.len() != k * n {
                return Err(DecodeError::WrongLength { got: out.len(), want: k * n }.into());
            }
        }
        self.accept(raw, state, first_tick)?;
        for i in 0..k {
            let motion = self.command(first_tick + i as u64);
            q[i * n..(i + 1) * n].copy_from_slice(&motion.q[..n]);
            dq[i * n..(i + 1) * n].copy_from_slice(&motion.dq[..n]);
        }
        Ok(())
    }
}
