//! The policy's own thread: the newest question in, answers out, and the control thread never waits.
//!
//! Questions go through a latest-value buffer: a policy that is slower than they come answers the newest. Answers are boxes
//! that travel through a ring and come back through another one, so that nothing is copied or allocated on either side. The
//! control thread wakes nobody: the policy's thread sleeps until a question may come, then looks every 50 µs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::latest::{Reader, Writer, latest};
use super::planner::Answer;
use super::policy::{Ask, PolicySource};

/// Answers in circulation.
const BOXES: usize = 4;
/// Sleep between two looks at the buffer.
const LOOK: Duration = Duration::from_micros(50);
/// Part of the time between two questions that is slept in one piece.
const ASLEEP: f64 = 0.8;
/// How long the end of a run waits for a policy that is still computing.
const PATIENCE: Duration = Duration::from_millis(500);
/// Inferences before the first question.
const WARM_UP: usize = 100;

/// A question, as it travels.
#[derive(Clone, Debug, Default)]
struct Question {
    epoch: u32,
    step: u64,
    tick: u64,
    begin: bool,
    obs: Vec<f32>,
    previous: Vec<f32>,
    committed: Vec<f32>,
    committed_len: usize,
}

/// The control thread's end.
pub(super) struct Worker {
    /// Until the thread starts.
    policy: Option<Box<dyn PolicySource>>,
    every: Duration,
    running: Option<Running>,
}

struct Running {
    questions: Writer<Question>,
    answers: rtrb::Consumer<Box<Answer>>,
    emptied: rtrb::Producer<Box<Answer>>,
    current: Option<Box<Answer>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// A policy that is asked every `every` seconds or so.
    pub(super) fn new(policy: Box<dyn PolicySource>, every: f64) -> Self {
        Self { policy: Some(policy), every: Duration::from_secs_f64(every), running: None }
    }

    /// Starts the thread, with room for questions and answers of these sizes.
    pub(super) fn start(&mut self, observation: usize, actions: usize, answer: usize) {
        let Some(policy) = self.policy.take() else { return };
        let blank = Question {
            obs: vec![0.0; observation],
            previous: vec![0.0; actions],
            committed: vec![0.0; answer],
            ..Question::default()
        };
        let (questions, reader) = latest(blank.clone());
        let (filled, answers) = rtrb::RingBuffer::new(BOXES);
        let (mut emptied, boxes) = rtrb::RingBuffer::new(BOXES);
        for _ in 0..BOXES {
            // The ring has room for all of them.
            let _ = emptied.push(Box::new(Answer::empty(answer)));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let thinker =
            Thinker { policy, questions: reader, filled, boxes, stop: stop.clone(), every: self.every };
        let thread = std::thread::Builder::new()
            .name("cadenza-policy".into())
            .spawn(move || thinker.run(&blank, answer))
            .expect("the operating system starts a thread");
        self.running =
            Some(Running { questions, answers, emptied, current: None, stop, thread: Some(thread) });
    }

    /// Publishes a question.
    pub(super) fn ask(&mut self, ask: &Ask<'_>, epoch: u32, step: u64) {
        let Some(running) = &mut self.running else { return };
        running.questions.publish_with(|question| {
            (question.epoch, question.step) = (epoch, step);
            (question.tick, question.begin) = (ask.tick, ask.begin);
            question.obs.copy_from_slice(ask.obs);
            question.previous.copy_from_slice(ask.previous);
            let len = ask.committed.len().min(question.committed.len());
            question.committed[..len].copy_from_slice(&ask.committed[..len]);
            question.committed_len = len;
        });
    }

    /// The next answer, if one has come.
    pub(super) fn take(&mut self) -> Option<&Answer> {
        let running = self.running.as_mut()?;
        let answer = running.answers.pop().ok()?;
        if let Some(empty) = running.current.replace(answer) {
            // There are no more boxes than places.
            let _ = running.emptied.push(empty);
        }
        running.current.as_deref()
    }
}

impl Drop for Running {
    /// A policy that never comes back must not keep the robot's program from ending: its thread is left behind.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let until = Instant::now() + PATIENCE;
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The policy thread's end.
struct Thinker {
    policy: Box<dyn PolicySource>,
    questions: Reader<Question>,
    filled: rtrb::Producer<Box<Answer>>,
    boxes: rtrb::Consumer<Box<Answer>>,
    stop: Arc<AtomicBool>,
    every: Duration,
}

impl Thinker {
    fn run(mut self, blank: &Question, answer: usize) {
        self.warm_up(blank, answer);
        let mut epoch = 0;
        while !self.stop.load(Ordering::Relaxed) {
            if !self.questions.is_fresh() {
                std::thread::sleep(LOOK);
                continue;
            }
            let heard = Instant::now();
            // A policy that panics answers no more; the loop holds and stops as for any policy that falls silent.
            let done = catch_unwind(AssertUnwindSafe(|| self.answer(&mut epoch)));
            if done.is_err() {
                return;
            }
            let asleep = self.every.mul_f64(ASLEEP).saturating_sub(heard.elapsed());
            if !asleep.is_zero() {
                std::thread::sleep(asleep);
            }
        }
    }

    fn warm_up(&mut self, blank: &Question, answer: usize) {
        let mut answer = Answer::empty(answer);
        for _ in 0..WARM_UP {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            // Zeros are a finite observation; what the policy says to them does not matter.
            let _ = self.policy.act(&blank.ask(), &mut answer.values);
        }
        self.policy.reset();
    }

    fn answer(&mut self, epoch: &mut u32) {
        // All boxes under way: the control thread is not taking answers, so none is missed.
        let Ok(mut answer) = self.boxes.pop() else { return std::thread::sleep(LOOK) };
        let question = self.questions.read();
        if std::mem::replace(epoch, question.epoch) != question.epoch {
            self.policy.reset();
        }
        answer.fill(self.policy.as_mut(), &question.ask(), question.epoch, question.step);
        // There are no more boxes than places.
        let _ = self.filled.push(answer);
    }
}

impl Question {
    fn ask(&self) -> Ask<'_> {
        Ask {
            tick: self.tick,
            begin: self.begin,
            obs: &self.obs,
            previous: &self.previous,
            committed: &self.committed[..self.committed_len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::PolicyError;

    /// Doubles the observation, after `slow`; panics at 13.
    struct Double {
        slow: Duration,
        resets: u32,
    }

    impl PolicySource for Double {
        fn reset(&mut self) {
            self.resets += 1;
        }

        fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
            std::thread::sleep(self.slow);
            assert!(ask.obs[0] != 13.0, "unlucky");
            out[0] = 2.0 * ask.obs[0];
            out[1] = self.resets as f32;
            Ok(())
        }
    }

    fn worker(slow: Duration) -> Worker {
        let mut worker = Worker::new(Box::new(Double { slow, resets: 0 }), 1e-3);
        worker.start(1, 1, 2);
        worker
    }

    fn ask(obs: &[f32]) -> Ask<'_> {
        Ask { tick: 0, begin: true, obs, previous: &[0.0], committed: &[] }
    }

    /// The next answer to a question of `epoch`, within five seconds.
    fn wait(worker: &mut Worker, epoch: u32) -> Option<(u64, [f32; 2])> {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if let Some(answer) = worker.take().filter(|a| a.epoch == epoch) {
                return Some((answer.step, [answer.values[0], answer.values[1]]));
            }
            std::thread::sleep(LOOK);
        }
        None
    }

    #[test]
    fn every_question_is_answered_when_there_is_time_and_an_epoch_resets_the_policy() {
        let mut worker = worker(Duration::ZERO);
        for step in 0..12 {
            worker.ask(&ask(&[step as f32]), 1, step);
            assert_eq!(wait(&mut worker, 1).unwrap(), (step, [2.0 * step as f32, 2.0]));
        }
        worker.ask(&ask(&[1.0]), 2, 0);
        assert_eq!(wait(&mut worker, 2).unwrap(), (0, [2.0, 3.0]));
    }

    #[test]
    fn a_slow_policy_answers_the_newest_question() {
        let mut worker = worker(Duration::from_millis(1));
        let mut last = 0;
        for step in 1..200 {
            worker.ask(&ask(&[1.0]), 1, step);
            std::thread::sleep(Duration::from_micros(100));
            while let Some(answer) = worker.take() {
                assert!(answer.step > last);
                last = last.max(answer.step);
            }
        }
        worker.ask(&ask(&[4.0]), 1, 200);
        while last < 200 {
            last = wait(&mut worker, 1).expect("the newest is answered").0;
        }
    }

    #[test]
    fn a_policy_that_panics_or_hangs_is_silent_and_does_not_hold_up_the_end() {
        let mut silent = worker(Duration::ZERO);
        silent.ask(&ask(&[13.0]), 1, 0);
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            assert!(silent.take().is_none());
        }
        let hanging = worker(Duration::from_secs(3600));
        let begun = Instant::now();
        drop(hanging);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
