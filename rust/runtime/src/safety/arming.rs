//! How the motors come on, go off, and how a latch is cleared: every refusal names the value.

use super::check::Mismatch;
use super::gate::{ARM_SLACK, ARM_STATES, Gate};
use super::ladder::{Event, Refused};
use super::{Fault, Level, Phase, Reason};
use crate::state::{Command, State};

/// Part of the velocity limit that a joint may move at when it is armed.
const ARM_SPEED: f64 = 0.5;

/// Why the motors are not switched on.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ArmRefusal {
    /// Not yet: more fresh finite states are needed.
    #[error("{have} fresh finite states in a row, {need} needed")]
    States {
        /// Seen.
        have: u32,
        /// Needed.
        need: u32,
    },
    /// A fault is latched.
    #[error("{} is latched: reset first", reason.name())]
    Latched {
        /// The first fault.
        reason: Reason,
    },
    /// The phase does not allow it.
    #[error("not possible while {phase:?}")]
    Phase {
        /// Phase.
        phase: Phase,
    },
    /// An emergency stop is pressed.
    #[error("the emergency stop is pressed")]
    Estop,
    /// A joint stands outside its range.
    #[error("joint {joint} stands at {q} rad, outside [{lo}, {hi}]")]
    OutsideLimits {
        /// Joint, robot order.
        joint: u16,
        /// Measured.
        q: f64,
        /// Range.
        lo: f64,
        /// Range.
        hi: f64,
    },
    /// A joint moves.
    #[error("joint {joint} moves at {dq} rad/s, limit {limit}")]
    Moving {
        /// Joint, robot order.
        joint: u16,
        /// Measured.
        dq: f64,
        /// Limit.
        limit: f64,
    },
    /// Something measured is a fault: tilt, temperature, the bus.
    #[error("{} stands: {value}, limit {limit}", reason.name())]
    Condition {
        /// What.
        reason: Reason,
        /// Joint, or `u16::MAX`.
        joint: u16,
        /// Seen.
        value: f64,
        /// Allowed.
        limit: f64,
    },
    /// The command that the device was enabled with is not one that the gate would send.
    #[error("the robot cannot be held: {0}")]
    Hold(Mismatch),
}

impl ArmRefusal {
    /// The joint that it is about, robot order.
    pub fn joint(&self) -> Option<u16> {
        match *self {
            Self::OutsideLimits { joint, .. }
            | Self::Moving { joint, .. }
            | Self::Condition { joint, .. }
            | Self::Hold(Mismatch { joint, .. }) => Some(joint),
            Self::States { .. } | Self::Latched { .. } | Self::Phase { .. } | Self::Estop => None,
        }
    }

    /// Whether more ticks alone may change the answer.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::States { .. })
    }
}

/// Why a latch is not cleared.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ResetRefusal {
    /// There is nothing to clear.
    #[error("no fault is latched")]
    NotLatched,
    /// The cause is still there.
    #[error("{} still stands: {value}, limit {limit}", reason.name())]
    Standing {
        /// What.
        reason: Reason,
        /// Joint, or `u16::MAX`.
        joint: u16,
        /// Seen.
        value: f64,
        /// Allowed.
        limit: f64,
    },
}

impl Gate {
    /// The operator asks for motors on: from now on the loop asks [`armable`](Self::armable) once a tick.
    pub fn arm(&mut self) -> Result<(), ArmRefusal> {
        self.request(Event::Arm)?;
        self.good_states = 0;
        Ok(())
    }

    /// Whether everything measured allows the motors to come on, judged on the newest [`input`](Self::input): ten fresh
    /// finite states in a row, joints inside their range and slow, upright, cool, no fault, no emergency stop.
    pub fn armable(&self, state: &State) -> Result<(), ArmRefusal> {
        if let Some(fault) = self.first {
            return Err(ArmRefusal::Latched { reason: fault.reason });
        }
        if self.phase() != Phase::Arming {
            return Err(ArmRefusal::Phase { phase: self.phase() });
        }
        if state.estop {
            return Err(ArmRefusal::Estop);
        }
        let standing =
            |f: &Fault| f.reason != Reason::PositionMeasured && f.reason != Reason::VelocityMeasured;
        if let Some(Fault { reason, joint, value, limit, .. }) = self.standing.filter(standing) {
            return Err(ArmRefusal::Condition { reason, joint, value, limit });
        }
        if self.good_states < ARM_STATES {
            return Err(ArmRefusal::States { have: self.good_states, need: ARM_STATES });
        }
        for (i, l) in self.limits.iter().enumerate() {
            let (joint, q, [lo, hi]) = (i as u16, state.q[i], l.position);
            if !(lo - ARM_SLACK..=hi + ARM_SLACK).contains(&q) {
                return Err(ArmRefusal::OutsideLimits { joint, q, lo, hi });
            }
            let (dq, limit) = (state.dq[i], ARM_SPEED * l.velocity);
            if dq.is_nan() || dq.abs() >= limit {
                return Err(ArmRefusal::Moving { joint, dq, limit });
            }
        }
        Ok(())
    }

    /// The device is enabled and holds `hold`: [`hold_command`](Self::hold_command), with other gains if the loop has
    /// them. From the next tick on the policy may move the robot, with kp and authority growing from 0.
    pub fn armed(&mut self, hold: &Command) -> Result<(), ArmRefusal> {
        self.check_hold(hold).map_err(ArmRefusal::Hold)?;
        self.request(Event::Ready)?;
        self.seed(hold);
        Ok(())
    }

    /// The operator asks for motors off. A latch stays.
    pub fn disarm(&mut self) {
        if let Ok(next) = self.ladder.next(Event::Disarm) {
            self.ladder = next;
        }
    }

    /// The operator asks to stop: brake to rest, hold, damp.
    pub fn stop(&mut self) {
        self.report_operator(Reason::OperatorStop, Level::SoftStop);
    }

    /// The operator presses the software emergency stop.
    pub fn estop(&mut self) {
        self.report_operator(Reason::OperatorEstop, self.safety.estop_level.max(Level::Damp));
    }

    /// The operator clears the latch. Leaves the robot disarmed.
    pub fn reset(&mut self) -> Result<(), ResetRefusal> {
        if let Some(Fault { reason, joint, value, limit, .. }) =
            self.standing.filter(|_| self.ladder.latched())
        {
            return Err(ResetRefusal::Standing { reason, joint, value, limit });
        }
        self.ladder = self.ladder.next(Event::Reset).map_err(|_| ResetRefusal::NotLatched)?;
        self.first = None;
        Ok(())
    }

    fn request(&mut self, event: Event) -> Result<(), ArmRefusal> {
        self.ladder = self.ladder.next(event).map_err(|refused| match (refused, self.first) {
            (Refused::Latched, Some(fault)) => ArmRefusal::Latched { reason: fault.reason },
            _ => ArmRefusal::Phase { phase: self.phase() },
        })?;
        Ok(())
    }
}
