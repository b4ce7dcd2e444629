//! How the loop asks its policy and gets the answers: at once, after an injected delay, from another thread, from a log.
//!
//! An answer says from which policy step its observation was; that, and no clock, decides where its actions belong.

use std::collections::VecDeque;

use super::inject::Latency;
use super::policy::{Ask, PolicyError, PolicySource};
use super::worker::Worker;

/// Answers that may be under way at once.
pub(super) const UNDER_WAY: usize = 64;
/// Delays that the forecast looks back on, and how many of the first ones it leaves out: they are cold.
const WINDOW: usize = 32;
const COLD: u64 = 5;

/// What a policy said.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Epoch of the question.
    pub epoch: u32,
    /// Policy step of the question.
    pub step: u64,
    /// Leading rows that repeat committed actions.
    pub prefix: usize,
    /// Whether `values` are an answer.
    pub outcome: Result<(), PolicyError>,
    /// Rows × actions, graph units.
    pub values: Vec<f32>,
}

impl Answer {
    pub(super) fn empty(len: usize) -> Self {
        Self { epoch: 0, step: 0, prefix: 0, outcome: Err(PolicyError::Late), values: vec![0.0; len] }
    }

    /// Asks `policy` and keeps what it says.
    pub(super) fn fill(&mut self, policy: &mut dyn PolicySource, ask: &Ask<'_>, epoch: u32, step: u64) {
        (self.epoch, self.step) = (epoch, step);
        self.outcome = policy.act(ask, &mut self.values);
        self.prefix = policy.prefix();
    }
}

/// A policy, and how its answers come. Allocates nothing once the loop has made room for its answers.
pub struct Planner {
    way: Way,
    answer: Answer,
    forecast: Forecast,
}

enum Way {
    /// On the control thread, at once.
    Inline { policy: Box<dyn PolicySource>, ready: bool },
    /// On the control thread, held back for some control ticks: deterministic tests of lateness.
    Delayed(Delayed),
    /// On a thread of its own.
    Threaded(Worker),
    /// From a log, at the ticks at which they came. If the run answered at once, a question without an answer is late.
    Recorded { answers: VecDeque<(u64, Answer)>, late: bool },
}

struct Delayed {
    policy: Box<dyn PolicySource>,
    latency: Latency,
    period: f64,
    asked: u64,
    /// Due ticks and answers.
    waiting: Vec<(u64, Answer)>,
    free: Vec<Answer>,
}

impl Planner {
    /// Answers at once, on the control thread.
    pub fn inline(policy: Box<dyn PolicySource>) -> Self {
        Self::new(Way::Inline { policy, ready: false })
    }

    /// Answers after `latency`, at a control period of `period` seconds.
    pub fn delayed(policy: Box<dyn PolicySource>, latency: Latency, period: f64) -> Self {
        let (waiting, free) = (Vec::with_capacity(UNDER_WAY), Vec::with_capacity(UNDER_WAY));
        Self::new(Way::Delayed(Delayed { policy, latency, period, asked: 0, waiting, free }))
    }

    /// Answers from a thread of its own, which is asked every `every` seconds or so.
    pub fn threaded(policy: Box<dyn PolicySource>, every: f64) -> Self {
        Self::new(Way::Threaded(Worker::new(policy, every)))
    }

    /// Answers of a log with the control ticks at which they came, in order; `late` when they might come later than their
    /// questions.
    pub fn recorded(answers: impl IntoIterator<Item = (u64, Answer)>, late: bool) -> Self {
        Self::new(Way::Recorded { answers: answers.into_iter().collect(), late })
    }

    fn new(way: Way) -> Self {
        Self { way, answer: Answer::empty(0), forecast: Forecast::default() }
    }

    /// Makes room for questions and answers of these sizes.
    pub(super) fn allocate(&mut self, observation: usize, actions: usize, answer: usize) {
        self.answer = Answer::empty(answer);
        match &mut self.way {
            Way::Delayed(delayed) => {
                delayed.free.extend((0..UNDER_WAY).map(|_| Answer::empty(answer)));
            }
            Way::Threaded(worker) => worker.start(observation, actions, answer),
            Way::Inline { .. } | Way::Recorded { .. } => {}
        }
    }

    /// Whether an answer may come later than its question.
    pub fn is_late(&self) -> bool {
        match self.way {
            Way::Inline { .. } => false,
            Way::Recorded { late, .. } => late,
            Way::Delayed(_) | Way::Threaded(_) => true,
        }
    }

    /// A new episode.
    pub(super) fn reset(&mut self) {
        self.forecast = Forecast::default();
        match &mut self.way {
            Way::Inline { policy, ready } => {
                policy.reset();
                *ready = false;
            }
            Way::Delayed(delayed) => {
                delayed.policy.reset();
                delayed.free.extend(delayed.waiting.drain(..).map(|(_, answer)| answer));
            }
            // It sees the new epoch with the next question.
            Way::Threaded(_) | Way::Recorded { .. } => {}
        }
    }

    /// Asks. Returns whether the network ran on this thread.
    pub(super) fn ask(&mut self, ask: &Ask<'_>, epoch: u32, step: u64) -> bool {
        match &mut self.way {
            Way::Inline { policy, ready } => {
                self.answer.fill(policy.as_mut(), ask, epoch, step);
                *ready = true;
                true
            }
            Way::Delayed(delayed) => delayed.ask(ask, epoch, step),
            Way::Threaded(worker) => {
                worker.ask(ask, epoch, step);
                false
            }
            Way::Recorded { answers, late } => {
                let told = answers.iter().take_while(|(t, _)| *t <= ask.tick).any(|(t, _)| *t == ask.tick);
                if !*late && !told {
                    let outcome = Err(PolicyError::Late);
                    answers.push_front((ask.tick, Answer { epoch, step, outcome, ..Answer::empty(0) }));
                }
                false
            }
        }
    }

    /// The next answer that has come by `tick`, if there is one.
    pub(super) fn take(&mut self, tick: u64) -> Option<&Answer> {
        let come = match &mut self.way {
            Way::Inline { ready, .. } => std::mem::take(ready),
            Way::Delayed(delayed) => delayed.take(tick, &mut self.answer),
            Way::Threaded(worker) => return worker.take(),
            Way::Recorded { answers, .. } => {
                while answers.front().is_some_and(|(t, _)| *t < tick) {
                    answers.pop_front();
                }
                match answers.front() {
                    Some((t, _)) if *t == tick => {
                        self.answer = answers.pop_front().map_or_else(|| Answer::empty(0), |(_, a)| a);
                        true
                    }
                    _ => false,
                }
            }
        };
        come.then_some(&self.answer)
    }

    /// Runs the policy `times` on zeros, so that no page and no branch is cold. A thread of its own warms itself.
    pub(super) fn warm_up(&mut self, times: usize, ask: &Ask<'_>) {
        if let Way::Inline { policy, .. } | Way::Delayed(Delayed { policy, .. }) = &mut self.way {
            for _ in 0..times {
                // Zeros are a finite observation; what the policy says to them does not matter.
                let _ = policy.act(ask, &mut self.answer.values);
            }
            policy.reset();
        }
    }

    /// Notes that an answer came `steps` policy steps after its question.
    pub(super) fn delay(&mut self, steps: u64) {
        self.forecast.add(steps);
    }

    /// Policy steps that the next answer may take.
    pub(super) fn forecast(&self) -> u64 {
        self.forecast.most()
    }
}

impl Delayed {
    fn ask(&mut self, ask: &Ask<'_>, epoch: u32, step: u64) -> bool {
        self.asked += 1;
        // As a thread that is still busy, a full queue loses the question.
        let Some(late) = self.latency.ticks(self.asked, self.period) else { return false };
        let Some(mut answer) = self.free.pop() else { return false };
        answer.fill(self.policy.as_mut(), ask, epoch, step);
        self.waiting.push((ask.tick + late, answer));
        true
    }

    fn take(&mut self, tick: u64, into: &mut Answer) -> bool {
        let due = (0..self.waiting.len()).filter(|&i| self.waiting[i].0 <= tick);
        let Some(first) = due.min_by_key(|&i| self.waiting[i].0) else { return false };
        let (_, answer) = self.waiting.remove(first);
        self.free.push(std::mem::replace(into, answer));
        true
    }
}

/// The largest of the last delays. Old ones leave: one slow start must not be remembered for ever.
#[derive(Clone, Copy, Debug, Default)]
struct Forecast {
    last: [u64; WINDOW],
    count: u64,
}

impl Forecast {
    fn add(&mut self, steps: u64) {
        self.count += 1;
        if self.count > COLD {
            self.last[(self.count % WINDOW as u64) as usize] = steps;
        }
    }

    fn most(&self) -> u64 {
        self.last.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with the tick of the question.
    struct Echo;

    impl PolicySource for Echo {
        fn reset(&mut self) {}

        fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
            out[0] = ask.tick as f32;
            Ok(())
        }
    }

    fn ask(tick: u64) -> Ask<'static> {
        Ask { tick, begin: true, obs: &[], previous: &[], committed: &[] }
    }

    #[test]
    fn a_delayed_answer_comes_at_its_tick_and_a_shorter_one_overtakes() {
        let mut planner = Planner::delayed(Box::new(Echo), "const:3ticks".parse().unwrap(), 0.002);
        planner.allocate(0, 1, 1);
        assert!(planner.ask(&ask(10), 1, 5));
        assert_eq!(planner.take(12), None);
        let answer = planner.take(13).unwrap();
        assert_eq!((answer.step, answer.values[0]), (5, 10.0));
        assert_eq!(planner.take(13), None);
        // One control tick is 2 ms: up to 10 ticks, in any order.
        let mut planner = Planner::delayed(Box::new(Echo), "uniform:0ms..20ms".parse().unwrap(), 0.002);
        planner.allocate(0, 1, 1);
        let (mut order, mut asked) = (Vec::new(), 0);
        for tick in 0..400 {
            asked += u64::from(planner.ask(&ask(tick), 1, tick));
            while let Some(answer) = planner.take(tick) {
                assert!(tick - answer.step <= 10);
                order.push(answer.step);
            }
        }
        assert_eq!(asked, 400);
        assert!(order.windows(2).any(|w| w[0] > w[1]), "some overtake");
        planner.reset();
        assert_eq!(planner.take(10_000), None, "a reset forgets what is under way");
    }

    #[test]
    fn dropped_answers_never_come() {
        let mut planner = Planner::delayed(Box::new(Echo), "drop:0.25".parse().unwrap(), 0.002);
        planner.allocate(0, 1, 1);
        let come = (0..4000)
            .filter(|&tick| {
                planner.ask(&ask(tick), 1, tick);
                planner.take(tick).is_some()
            })
            .count();
        assert!((2850..3150).contains(&come), "{come}");
    }

    #[test]
    fn the_forecast_is_the_largest_recent_delay_without_the_cold_start() {
        let mut planner = Planner::inline(Box::new(Echo));
        assert_eq!(planner.forecast(), 0);
        (0..5).for_each(|_| planner.delay(9));
        assert_eq!(planner.forecast(), 0);
        planner.delay(3);
        (0..31).for_each(|_| planner.delay(1));
        assert_eq!(planner.forecast(), 3);
        planner.delay(2);
        assert_eq!(planner.forecast(), 2, "the window has moved on");
    }
}
