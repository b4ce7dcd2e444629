//! The way of an action from the network to the motor command, for the control tick and for batched training.

use cadenza_policy::manifest::Manifest;

use super::{
    Accepted, ActionError, Chunk, DecodeError, Decoder, Flow, LimitError, Limiter, Noise, Refusal, Sequence,
    Target, noise::RELAXED,
};
use crate::config::RunConfig;
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

/// Where an output of the policy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Epoch of its observation.
    pub epoch: u32,
    /// Policy step of its observation.
    pub step: u64,
    /// Leading rows that repeat committed actions.
    pub prefix: usize,
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

/// Decoder, sequence, noise and limiter of one robot. Allocates nothing after construction.
///
/// They are public: a gate that blends or replaces targets works between them.
#[derive(Clone, Debug)]
pub struct ActionPath {
    /// Units and joints.
    pub decoder: Decoder,
    /// Which action holds now.
    pub sequence: Sequence,
    /// Exploration noise, if this run uses it.
    pub noise: Option<Noise>,
    /// What the joints can do.
    pub limiter: Limiter,
    pub(super) epoch: u32,
    rows: Vec<f64>,
    pub(super) chunks: u64,
}

impl ActionPath {
    /// The path of a bundle's actions on a robot, under the tighter of their limits.
    ///
    /// # Errors
    /// [`ActionError`]: what does not fit, or is not supported.
    pub fn new(manifest: &Manifest, robot: &Robot, config: &RunConfig) -> Result<Self, ActionError> {
        let decoder = Decoder::new(manifest, robot)?;
        let (limits, _) = effective_limits(robot, manifest)?;
        Ok(Self {
            rows: vec![0.0; decoder.output_len()],
            decoder,
            sequence: Sequence::new(manifest, robot, config)?,
            noise: Noise::new(manifest, robot, &limits, config.noise)?,
            limiter: Limiter::new(&limits, robot.control_dt())?,
            epoch: 0,
            chunks: 0,
        })
    }

    /// Starts at rest at the measured position, with an empty plan for the state's epoch.
    ///
    /// # Errors
    /// [`LimitError::OutsideLimits`]; nothing changes.
    pub fn reset(&mut self, state: &State) -> Result<(), LimitError> {
        self.limiter.reset(&state.q)?;
        self.restart(state.epoch, &state.q);
        Ok(())
    }

    /// Drops the plan and holds `q` until the first output of `epoch` is taken. The limiter goes on as it was.
    pub fn restart(&mut self, epoch: u32, q: &Joints) {
        self.decoder.reset(q);
        self.sequence.reset(epoch, q);
        if let Some(noise) = &mut self.noise {
            noise.reset();
        }
        self.epoch = epoch;
        self.chunks = 0;
    }

    /// Takes the policy's output for `state`, inferred in control tick `tick`; its first future row holds from this
    /// tick's policy step on.
    ///
    /// # Errors
    /// [`ActionFault`]; plan and decoder are as they were.
    pub fn accept(&mut self, raw: &[f32], state: &State, tick: u64) -> Result<Accepted, ActionFault> {
        let step = tick / self.sequence.ticks_per_step();
        self.accept_from(raw, state, Origin { epoch: state.epoch, step, prefix: 0 }, tick)
    }

    /// Takes in control tick `tick` an output whose observation is from an earlier policy step; its first future row
    /// belongs to that step.
    ///
    /// # Errors
    /// [`ActionFault`]; plan and decoder are as they were.
    pub fn accept_from(
        &mut self,
        raw: &[f32],
        state: &State,
        Origin { epoch, step, prefix }: Origin,
        tick: u64,
    ) -> Result<Accepted, ActionFault> {
        let now = tick / self.sequence.ticks_per_step();
        let rows = self.decoder.rows();
        // Asked first: a refused output must not move the decoder's target.
        self.sequence.admissible(self.chunks, epoch, step, rows, now)?;
        self.decoder.decode(raw, state, &mut self.rows)?;
        let id = self.chunks;
        let chunk = Chunk { id, epoch, obs_tick: step, first_tick: step, rows, prefix, values: &self.rows };
        let accepted = self.sequence.accept(&chunk, now)?;
        self.chunks += 1;
        Ok(accepted)
    }

    /// Adds the noise of control tick `tick`, if this run uses any; see [`Noise::add`].
    pub fn disturb(&mut self, tick: u64, strain: &Joints, allowed: f64, target: &mut Target) {
        if let Some(noise) = &mut self.noise {
            noise.add(self.epoch, tick, strain, allowed, &mut target.q, &mut target.dq);
        }
    }

    /// The motion of control tick `tick`.
    pub fn command(&mut self, tick: u64) -> Motion {
        let mut target = self.sequence.target(tick);
        self.disturb(tick, &RELAXED, 1.0, &mut target);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::robot::tests::{arm6, arm6_bundle};

    fn home(robot: &Robot) -> State {
        let mut state = State::new(robot.joints.len());
        for (q, joint) in state.q.iter_mut().zip(&robot.joints) {
            *q = joint.home;
        }
        state
    }

    #[test]
    fn a_full_increment_is_reached_within_its_policy_step() {
        let robot = arm6();
        let mut path = ActionPath::new(&arm6_bundle(), &robot, &RunConfig::default()).unwrap();
        let mut state = home(&robot);
        path.reset(&state).unwrap();
        let (mut q, mut dq) = ([0.0; 20 * 7], [0.0; 20 * 7]);
        // shoulder_pan is the second action and the first joint.
        let raw = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
        for step in 0..10u64 {
            path.rollout(&raw, &state, 20 * step, 20, &mut q, &mut dq).unwrap();
            state.q[..7].copy_from_slice(&q[19 * 7..]);
            assert!(q.chunks(7).all(|row| row[1..] == state.q[1..7]), "only shoulder_pan moves");
        }
        assert!((state.q[0] - 1.0).abs() < 0.1, "2.5 rad/s are possible: {}", state.q[0]);
        for i in 1..20 {
            assert!((q[7 * i] - q[7 * (i - 1)] - dq[7 * i] * 0.002).abs() < 1e-12);
        }
    }

    #[test]
    fn a_rollout_is_the_control_ticks_one_by_one() {
        let robot = arm6();
        let mut batch = ActionPath::new(&arm6_bundle(), &robot, &RunConfig::default()).unwrap();
        let state = home(&robot);
        batch.reset(&state).unwrap();
        let mut single = batch.clone();
        let raw = [0.3, -0.8, 0.5, 1.0, -1.0, 0.1];
        let (mut q, mut dq) = ([0.0; 140], [0.0; 140]);
        batch.rollout(&raw, &state, 40, 20, &mut q, &mut dq).unwrap();
        single.accept(&raw, &state, 40).unwrap();
        for i in 0..20 {
            let motion = single.command(40 + i as u64);
            assert_eq!(motion.flow, Flow::Run);
            assert_eq!((&motion.q[..7], &motion.dq[..7]), (&q[7 * i..7 * i + 7], &dq[7 * i..7 * i + 7]));
        }
        let short = batch.rollout(&raw, &state, 60, 20, &mut [0.0; 139], &mut dq);
        assert_eq!(short, Err(ActionFault::Decode(DecodeError::WrongLength { got: 139, want: 140 })));
    }

    #[test]
    fn a_refused_output_moves_nothing() {
        let robot = arm6();
        let mut path = ActionPath::new(&arm6_bundle(), &robot, &RunConfig::default()).unwrap();
        let mut state = home(&robot);
        path.reset(&state).unwrap();
        path.accept(&[0.5; 6], &state, 20).unwrap();
        let before = path.clone();
        let nan = path.accept(&[f32::NAN; 6], &state, 40);
        assert_eq!(nan, Err(ActionFault::Decode(DecodeError::NotFinite { row: 0, joint: 0 })));
        state.epoch = 1;
        let stale = path.accept(&[0.5; 6], &state, 40);
        assert_eq!(stale, Err(ActionFault::Refused(Refusal::StaleEpoch { got: 1, want: 0 })));
        assert_eq!(path.decoder.target(), before.decoder.target());
        assert_eq!(path.command(20), before.clone().command(20));
        state.q[3] = 9.0;
        assert!(matches!(path.reset(&state), Err(LimitError::OutsideLimits { joint: 3, .. })));
        assert_eq!(path.decoder.target(), before.decoder.target());
    }

    #[test]
    fn a_silent_policy_ends_at_rest() {
        let robot = arm6();
        let mut path = ActionPath::new(&arm6_bundle(), &robot, &RunConfig::default()).unwrap();
        let state = home(&robot);
        path.reset(&state).unwrap();
        path.accept(&[1.0; 6], &state, 0).unwrap();
        let flows: Vec<Flow> = (0..60).map(|tick| path.command(tick).flow).collect();
        assert!(flows[..20].iter().all(|f| *f == Flow::Run));
        assert!(flows[20..45].iter().all(|f| *f == Flow::Hold));
        assert!(flows[45..].iter().all(|f| *f == Flow::Exhausted));
        let (mut q, mut dq) = ([0.0; MAX_JOINTS], [0.0; MAX_JOINTS]);
        assert!((0..200).any(|_| path.limiter.brake(&mut q, &mut dq)));
    }

    proptest! {
        /// Another order of `[[joint]]` gives each joint, by name, the very same commands.
        #[test]
        fn a_permuted_robot_gets_permuted_commands(
            order in Just((0..7).collect::<Vec<usize>>()).prop_shuffle(),
            raws in prop::collection::vec(prop::collection::vec(-1.5..1.5f32, 6), 1..8),
        ) {
            let (robot, manifest) = (arm6(), arm6_bundle());
            let mut permuted = robot.clone();
            permuted.joints = order.iter().map(|&i| robot.joints[i].clone()).collect();
            let (mut s1, mut s2) = (home(&robot), home(&permuted));
            let mut p1 = ActionPath::new(&manifest, &robot, &RunConfig::default()).unwrap();
            let mut p2 = ActionPath::new(&manifest, &permuted, &RunConfig::default()).unwrap();
            p1.reset(&s1).unwrap();
            p2.reset(&s2).unwrap();
            for (step, raw) in raws.iter().enumerate() {
                p1.accept(raw, &s1, 20 * step as u64).unwrap();
                p2.accept(raw, &s2, 20 * step as u64).unwrap();
                for tick in 0..20 {
                    let tick = 20 * step as u64 + tick;
                    let (m1, m2) = (p1.command(tick), p2.command(tick));
                    for (new, &old) in order.iter().enumerate() {
                        prop_assert_eq!(m1.q[old].to_bits(), m2.q[new].to_bits());
                        prop_assert_eq!(m1.dq[old].to_bits(), m2.dq[new].to_bits());
                        prop_assert_eq!(m1.clamped >> old & 1, m2.clamped >> new & 1);
                    }
                    (s1.q, s2.q) = (m1.q, m2.q);
                }
            }
        }
    }
}
