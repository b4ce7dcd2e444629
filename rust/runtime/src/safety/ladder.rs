//! The ladder: a pure state machine of phase, level and latch.
//!
//! | event | where | becomes |
//! |---|---|---|
//! | `Arm` | Disarmed, no latch | Arming |
//! | `Ready` | Arming | Armed, Run |
//! | `Hold(on)` | Armed | Hold begins or ends; not latched |
//! | `Fault(level ≥ SoftStop)` | Armed | latched; the level grows, never shrinks |
//! | `Fault(level ≥ SoftStop)` | Arming | Disarmed; latched from Damp on |
//! | `Fault(level ≥ Damp)` | Disarmed | latched |
//! | `Rested` | Armed, SoftStop | Damp |
//! | `Disarm` | anywhere | Disarmed, the latch stays |
//! | `Reset` | latched | Disarmed, no latch |
//!
//! Everything else changes nothing, and a request ([`Event::Arm`], [`Event::Ready`], [`Event::Reset`]) is then
//! refused. Outside Armed the level is Off. So the only way from Damp or Off to Run is reset, arm, ready.

use super::{Level, Phase};

/// What may happen to the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The operator asks for motors on.
    Arm,
    /// The checks passed and the device is enabled.
    Ready,
    /// A condition that holds the last target begins or ends.
    Hold(bool),
    /// A fault asks for this level.
    Fault(Level),
    /// The soft stop has rested long enough.
    Rested,
    /// The operator asks for motors off.
    Disarm,
    /// The operator clears the latch; the gate has checked that the cause is gone.
    Reset,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A fault is latched.
    #[error("a fault is latched: reset first")]
    Latched,
    /// The phase does not allow it.
    #[error("not possible while {0:?}")]
    Phase(Phase),
    /// There is nothing to reset.
    #[error("no fault is latched")]
    NotLatched,
}

/// Phase, level and latch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ladder {
    phase: Phase,
    /// Level that the latch keeps; Run without a latch while armed, Off outside Armed.
    floor: Level,
    latched: bool,
    hold: bool,
}

impl Default for Ladder {
    fn default() -> Self {
        Self::new()
    }
}

impl Ladder {
    /// Disarmed, motors off, nothing latched.
    pub const fn new() -> Self {
        Self { phase: Phase::Disarmed, floor: Level::Off, latched: false, hold: false }
    }

    /// Phase.
    pub const fn phase(self) -> Phase {
        self.phase
    }

    /// Level at which commands are made now.
    pub fn level(self) -> Level {
        if self.hold { self.floor.max(Level::Hold) } else { self.floor }
    }

    /// Whether only a reset leads back.
    pub const fn latched(self) -> bool {
        self.latched
    }

    /// The ladder after `event`.
    pub fn next(self, event: Event) -> Result<Self, Refused> {
        use Phase::{Armed, Arming, Disarmed};
        let disarmed = Self { phase: Disarmed, floor: Level::Off, hold: false, ..self };
        Ok(match (event, self.phase) {
            (Event::Arm | Event::Ready, _) if self.latched => return Err(Refused::Latched),
            (Event::Arm, Disarmed) => Self { phase: Arming, ..disarmed },
            (Event::Ready, Arming) => Self { phase: Armed, floor: Level::Run, ..disarmed },
            (Event::Arm | Event::Ready, phase) => return Err(Refused::Phase(phase)),
            (Event::Hold(hold), Armed) => Self { hold, ..self },
            (Event::Hold(_), Disarmed | Arming) => self,
            (Event::Fault(level), Armed) if level >= Level::SoftStop => {
                Self { floor: self.floor.max(level), latched: true, ..self }
            }
            (Event::Fault(Level::SoftStop), Arming) => disarmed,
            (Event::Fault(level), Disarmed | Arming) if level >= Level::Damp => {
                Self { latched: true, ..disarmed }
            }
            (Event::Fault(_), _) => self,
            (Event::Rested, Armed) if self.floor == Level::SoftStop => Self { floor: Level::Damp, ..self },
            (Event::Rested, _) => self,
            (Event::Disarm, _) => disarmed,
            (Event::Reset, _) if self.latched => Self { latched: false, ..disarmed },
            (Event::Reset, _) => return Err(Refused::NotLatched),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use super::*;

    const LEVELS: [Level; 5] = [Level::Run, Level::Hold, Level::SoftStop, Level::Damp, Level::Off];

    fn events() -> Vec<Event> {
        let mut all = vec![
            Event::Arm,
            Event::Ready,
            Event::Hold(true),
            Event::Hold(false),
            Event::Rested,
            Event::Disarm,
            Event::Reset,
        ];
        all.extend(LEVELS.map(Event::Fault));
        all
    }

    /// Every reachable ladder with a shortest way to it.
    fn reachable() -> HashMap<Ladder, Vec<Event>> {
        let mut seen = HashMap::from([(Ladder::new(), Vec::new())]);
        let mut queue = VecDeque::from([Ladder::new()]);
        while let Some(ladder) = queue.pop_front() {
            for event in events() {
                let Ok(next) = ladder.next(event) else { continue };
                if !seen.contains_key(&next) {
                    let mut way = seen[&ladder].clone();
                    way.push(event);
                    seen.insert(next, way);
                    queue.push_back(next);
                }
            }
        }
        seen
    }

    #[test]
    fn every_reachable_ladder_is_one_of_the_table() {
        let seen = reachable();
        // Disarmed with and without latch, Arming, and Armed with hold on or off at Run and at three latched levels.
        assert_eq!(seen.len(), 3 + 2 + 3 * 2, "{seen:#?}");
        for ladder in seen.keys() {
            match ladder.phase() {
                Phase::Disarmed => assert_eq!(ladder.level(), Level::Off),
                Phase::Arming => assert!(ladder.level() == Level::Off && !ladder.latched()),
                Phase::Armed => assert_eq!(ladder.latched(), ladder.level() >= Level::SoftStop),
            }
        }
    }

    #[test]
    fn a_latched_level_never_shrinks_and_is_left_by_reset_only() {
        for ladder in reachable().into_keys().filter(|l| l.latched()) {
            for event in events() {
                let Ok(next) = ladder.next(event) else { continue };
                assert!(next.level() >= ladder.level(), "{ladder:?} --{event:?}--> {next:?}");
                assert_eq!(next.latched(), event != Event::Reset, "{ladder:?} --{event:?}--> {next:?}");
            }
        }
    }

    #[test]
    fn run_is_reached_from_damp_or_off_only_by_reset_arm_ready() {
        // Search for Run from every latched ladder at Damp or Off with one of the three events forbidden.
        for banned in [Event::Reset, Event::Arm, Event::Ready] {
            let starts = reachable().into_keys().filter(|l| l.latched() && l.level() >= Level::Damp);
            let mut seen: Vec<Ladder> = starts.collect();
            let mut at = 0;
            while at < seen.len() {
                for event in events().into_iter().filter(|e| *e != banned) {
                    if let Ok(next) = seen[at].next(event) {
                        assert!(
                            next.level() >= Level::Damp,
                            "{banned:?} was not needed: {:?} {event:?}",
                            seen[at]
                        );
                        if !seen.contains(&next) {
                            seen.push(next);
                        }
                    }
                }
                at += 1;
            }
        }
    }

    #[test]
    fn hold_comes_and_goes_without_a_latch() {
        let run = Ladder::new().next(Event::Arm).unwrap().next(Event::Ready).unwrap();
        let hold = run.next(Event::Hold(true)).unwrap();
        assert_eq!((run.level(), hold.level(), hold.latched()), (Level::Run, Level::Hold, false));
        assert_eq!(hold.next(Event::Hold(false)).unwrap(), run);
        assert_eq!(run.next(Event::Fault(Level::Hold)).unwrap(), run);
    }

    #[test]
    fn requests_out_of_place_are_refused_with_the_reason() {
        let disarmed = Ladder::new();
        let arming = disarmed.next(Event::Arm).unwrap();
        let stopped = arming.next(Event::Ready).unwrap().next(Event::Fault(Level::SoftStop)).unwrap();
        assert_eq!(disarmed.next(Event::Ready), Err(Refused::Phase(Phase::Disarmed)));
        assert_eq!(arming.next(Event::Arm), Err(Refused::Phase(Phase::Arming)));
        assert_eq!(arming.next(Event::Reset), Err(Refused::NotLatched));
        assert_eq!(stopped.next(Event::Arm), Err(Refused::Latched));
        // A stop while arming only ends the arming; an emergency stop also latches.
        assert_eq!(arming.next(Event::Fault(Level::SoftStop)).unwrap(), disarmed);
        assert!(arming.next(Event::Fault(Level::Damp)).unwrap().latched());
        assert!(disarmed.next(Event::Fault(Level::Damp)).unwrap().latched());
    }
}
