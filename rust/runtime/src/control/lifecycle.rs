//! From a bundle, a robot and a device to a running loop, and back to rest.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cadenza_policy::manifest::CommandSlot;
use cadenza_policy::{Bundle, ParityReport};

use super::RunError;
use super::estop::Estops;
use super::latest::{Reader, Writer, latest};
use super::load::{Loaded, Loader, WARM_UP};
use super::placement::Placement;
use super::report::{Ending, Report};
use super::request::{Inbox, Request, SignalGuard, catch_signals};
use super::snapshot::Snapshot;
use super::switch::{Port, Successor, SwitchRefusal, Switcher, switcher};
use super::tick::{Controller, Due};
use crate::config::RunConfig;
use crate::device::{Device, Stop, TimeSource};
use crate::log::header::LogHeader;
use crate::log::record::Recorder;
use crate::robot::Robot;
use crate::safety::{Level, Phase, Reason};
use crate::timing::clock::{Clock, MonotonicClock, VirtualClock, next_deadline};
use crate::timing::sched::{self, RtReport, RtRequest};
use crate::timing::stats::Stats;
use crate::timing::summary::{Environment, StatsSummary};
use crate::timing::usage::Usage;

/// Requests that a handle may have under way.
const REQUESTS: usize = 64;

/// A run whose parts fit each other; nothing has moved yet.
pub struct Prepared {
    controller: Controller,
    device: Box<dyn Device>,
    time: TimeSource,
    config: RunConfig,
    robot: Robot,
    header: LogHeader,
    commands: Vec<CommandSlot>,
    parity: Option<ParityReport>,
    placement: Placement,
    loader: Loader,
    /// Kept for its thread.
    estops: Option<Estops>,
}

impl Prepared {
    /// Checks bundle, robot, device and configuration against each other, replays the bundle's vectors and rebuilds
    /// observations from its recorded sensors.
    ///
    /// # Errors
    /// [`RunError`] naming what does not fit. A device that moves needs a bundle whose vectors pass.
    pub fn new(
        bundle: &Bundle,
        robot: &Robot,
        mut device: Box<dyn Device>,
        time: TimeSource,
        config: &RunConfig,
    ) -> Result<Self, RunError> {
        config.check()?;
        device.connect()?;
        let loader = Loader::new(robot, device.info(), config);
        let Loaded { skill, entry, parity, placement } = loader.check(bundle)?;
        let fallback = loader.fallback(&skill)?;
        let estops = Estops::open(&robot.safety.estop)?;
        let mut controller = Controller::around(Box::new(skill), robot, config);
        if let Some(fallback) = fallback {
            controller.fall_back_on(fallback);
        }
        if let Some(estops) = &estops {
            controller.obey_button(estops.button());
        }
        let manifest = bundle.manifest();
        let header = LogHeader {
            policy_hz: 1.0 / manifest.rates.policy_dt,
            commands: manifest.commands.iter().map(|c| c.name.clone()).collect(),
            frames: manifest.frames.iter().map(|f| f.name.clone()).collect(),
            actions: manifest.action.joints.clone(),
            monitors: entry.monitors,
            objects: device.info().objects.clone(),
            bundle: entry.name,
            bundle_sha256: entry.sha256,
            manifest_json: entry.manifest_json,
            spec_stl: entry.spec_stl,
            ..LogHeader::new(
                robot,
                &RunConfig { mode: placement.mode(), ..config.clone() },
                &RtReport::default(),
            )
        };
        Ok(Self {
            controller,
            device,
            time,
            config: config.clone(),
            robot: robot.clone(),
            header,
            commands: manifest.commands.clone(),
            parity,
            placement,
            loader,
            estops,
        })
    }

    /// What loads other bundles for this run.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Other bundles come through `port`.
    pub fn switch_by(&mut self, port: Port) {
        self.controller.switch_by(port);
    }

    /// What replaying the bundle's vectors gave.
    pub fn parity(&self) -> Option<&ParityReport> {
        self.parity.as_ref()
    }

    /// Where the policy runs.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// How long the bound on the jerk delays a command, s.
    pub fn limiter_delay(&self) -> f64 {
        self.controller.skill.path.limiter.delay()
    }

    /// The request that sets an operator command.
    ///
    /// # Errors
    /// [`RunError::UnknownCommand`] listing the names, [`RunError::CommandRange`].
    pub fn command(&self, name: &str, value: f64) -> Result<Request, RunError> {
        command(&self.commands, name, value)
    }

    /// Control tick of a time since the start of the loop, s.
    pub fn tick_at(&self, seconds: f64) -> u64 {
        (seconds * self.robot.control_hz).round().max(0.0) as u64
    }

    /// Runs on a thread of its own until the end, which comes by itself: after `seconds`, a stop, or a fault. SIGINT
    /// and SIGTERM stop softly, a second one damps.
    pub fn run(self, inbox: Inbox) -> Report {
        let (writer, _reader) = latest(Snapshot::new(self.robot.joints.len()));
        let signals = catch_signals();
        join(self.spawn(inbox, writer, true, Some(signals)))
    }

    /// The same on the calling thread and on `clock`, which the device must be stamped by.
    pub fn run_on(self, clock: &mut dyn Clock, inbox: Inbox) -> Report {
        let (writer, _reader) = latest(Snapshot::new(self.robot.joints.len()));
        let signals = catch_signals();
        self.control(clock, inbox, writer, true, Some(signals))
    }

    /// Starts on a thread of its own. A fault does not end such a run, [`Request::Stop`] does.
    pub fn start(mut self) -> Handle {
        let (switcher, port) = switcher();
        self.switch_by(port);
        let loader = self.loader.clone();
        let (requests, inbox) = rtrb::RingBuffer::new(REQUESTS);
        let (writer, snapshots) = latest(Snapshot::new(self.robot.joints.len()));
        let commands = self.commands.clone();
        let thread = self.spawn(Inbox::Ring(inbox), writer, false, None);
        Handle {
            requests,
            snapshots,
            commands,
            switched_at: 0,
            offered: VecDeque::new(),
            switcher,
            loader,
            thread: Some(thread),
        }
    }

    fn spawn(
        self,
        inbox: Inbox,
        snapshots: Writer<Snapshot>,
        end_on_fault: bool,
        signals: Option<SignalGuard>,
    ) -> JoinHandle<Report> {
        std::thread::Builder::new()
            .name("cadenza-control".into())
            .spawn(move || {
                let mut clock: Box<dyn Clock> = match &self.time {
                    TimeSource::Monotonic => Box::new(MonotonicClock::new(self.config.spin_us)),
                    TimeSource::Virtual(now) => Box::new(VirtualClock::new(now.clone())),
                };
                self.control(clock.as_mut(), inbox, snapshots, end_on_fault, signals)
            })
            .expect("the operating system starts a thread")
    }

    /// The control thread from start to end.
    fn control(
        mut self,
        clock: &mut dyn Clock,
        mut inbox: Inbox,
        snapshots: Writer<Snapshot>,
        end_on_fault: bool,
        signals: Option<SignalGuard>,
    ) -> Report {
        self.controller.warm_up(WARM_UP);
        let period_ns = self.robot.control_period_ns();
        let mut stats = Stats::new(period_ns);
        let guard = (!self.config.virtual_clock).then(|| sched::enter(&RtRequest::from(&self.config)));
        let rt = guard.as_ref().map_or_else(RtReport::default, |g| g.report().clone());
        if self.config.require_rt && rt.degraded() {
            let why = rt.failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Report::not_started(format!("real-time set-up degraded: {why}"), rt);
        }
        let header = LogHeader { rt: rt.clone(), ..self.header.clone() };
        let mut log = match &self.config.record {
            Some(path) => Recorder::start(path, header),
            None => Recorder::off(),
        };
        log.stamp(clock.now_ns(), clock.now_ns());
        if self.config.arm {
            self.controller.obey(Request::Arm, self.device.as_mut(), &mut log);
        }
        let before = Usage::of_this_thread().filter(|_| !self.config.virtual_clock);
        let mut turn = Turn { snapshots, signals, end_on_fault, seconds: self.config.seconds };
        let (controller, device) = (&mut self.controller, self.device.as_mut());
        // A panic is a bug of ours; the motors must not pay for it.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            turn.run(controller, device, clock, &mut inbox, &mut log, &mut stats, period_ns)
        }));
        let usage = before.and_then(|before| Some(Usage::of_this_thread()?.since(&before)));
        let how = if outcome.is_ok() { self.robot.device.on_exit } else { Stop::Damp };
        // Motors that a dry run never switched on are not its to switch off.
        if !self.config.dry_run {
            // The run is over either way; a device that does not stop has its own watchdog.
            let _ = self.device.stop(how);
        }
        if outcome.is_err() {
            self.controller.panicked(&mut log);
        }
        let level = self.controller.gate().level();
        drop(guard);
        drop(self.estops.take());
        let ending = outcome.unwrap_or(Ending::Panic);
        let environment = if self.config.virtual_clock {
            Environment::without_load(rt.clone())
        } else {
            Environment::capture(rt.clone())
        };
        let answers = self.controller.answers;
        let summary = StatsSummary { answers, usage, ..stats.summary(environment) };
        let record = log.finish(&summary);
        Report::new(ending, level, &self.controller, summary, rt, record, &self.header)
    }
}

/// Waits for the control thread.
fn join(thread: JoinHandle<Report>) -> Report {
    thread.join().unwrap_or_else(|_| Report::panicked())
}

/// What the control thread looks at between two ticks.
struct Turn {
    snapshots: Writer<Snapshot>,
    signals: Option<SignalGuard>,
    end_on_fault: bool,
    seconds: Option<f64>,
}

impl Turn {
    #[expect(clippy::too_many_arguments, reason = "the parts of one loop, borrowed apart")]
    fn run(
        &mut self,
        controller: &mut Controller,
        device: &mut dyn Device,
        clock: &mut dyn Clock,
        inbox: &mut Inbox,
        log: &mut Recorder,
        stats: &mut Stats,
        period_ns: i64,
    ) -> Ending {
        let mut due = Due { deadline_ns: clock.now_ns() + period_ns, skipped: 0 };
        let mut heard = 0;
        let mut timed_out = false;
        loop {
            clock.sleep_until(due.deadline_ns);
            let entry = controller.tick(due, device, clock, inbox, log);
            stats.add(&entry);
            self.snapshots.publish_with(|snapshot| snapshot.take(controller));
            (due.deadline_ns, due.skipped) = next_deadline(due.deadline_ns, clock.now_ns(), period_ns);

            let signals = self.signals.as_ref().map_or(0, SignalGuard::count);
            while heard < signals {
                heard += 1;
                let request = if heard == 1 { Request::Stop } else { Request::Estop };
                controller.obey(request, device, log);
            }
            let over = self.seconds.is_some_and(|s| controller.armed_seconds() >= s);
            if over && !controller.stopping() {
                timed_out = true;
                controller.obey(Request::Stop, device, log);
            }
            // A stop that somebody asked for is no fault, but one that a fault has made before is.
            let fault = controller.gate().first_fault().is_some_and(|f| f.reason != Reason::OperatorStop);
            let ending = |quiet| if fault { Ending::Fault } else { quiet };
            if controller.finished() {
                return ending(Ending::Finished);
            }
            let (phase, level) = (controller.gate().phase(), controller.gate().level());
            if phase == Phase::Armed && level < Level::Damp {
                continue;
            }
            if controller.stopping() {
                return ending(if timed_out { Ending::Finished } else { Ending::Stopped });
            }
            if self.end_on_fault && (fault || controller.refusal().is_some()) {
                return ending(Ending::Refused);
            }
            if phase == Phase::Disarmed && inbox.is_over() {
                return ending(Ending::Disarmed);
            }
        }
    }
}

/// A running loop: requests in, snapshots out. Dropping it stops the loop softly and waits.
pub struct Handle {
    requests: rtrb::Producer<Request>,
    snapshots: Reader<Snapshot>,
    commands: Vec<CommandSlot>,
    /// Tick at which the bundle took over whose commands these are.
    switched_at: u64,
    /// Commands of the bundles that are under way.
    offered: VecDeque<Vec<CommandSlot>>,
    switcher: Switcher,
    loader: Loader,
    thread: Option<JoinHandle<Report>>,
}

/// The loop does not take more requests, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{REQUESTS} requests are under way: the loop has ended or hangs")]
pub struct Busy;

impl Handle {
    /// Asks the loop for something; it obeys at its next tick.
    ///
    /// # Errors
    /// [`Busy`]
    pub fn request(&mut self, request: Request) -> Result<(), Busy> {
        self.requests.push(request).map_err(|_| Busy)
    }

    /// The request that sets an operator command.
    ///
    /// # Errors
    /// [`RunError::UnknownCommand`] listing the names, [`RunError::CommandRange`], [`RunError::FallenBack`].
    pub fn command(&mut self, name: &str, value: f64) -> Result<Request, RunError> {
        // A snapshot of before the last take-over says nothing of who has the robot since.
        let Snapshot { fallback, tick, .. } = *self.snapshots.read();
        if fallback && tick > self.switched_at {
            return Err(RunError::FallenBack);
        }
        command(&self.commands, name, value)
    }

    /// What loads other bundles for this run.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Offers a bundle, which takes over at the next policy step (or at once while the motors are off).
    /// [`switched`](Self::switched) says what became of it.
    ///
    /// # Errors
    /// [`Busy`]
    pub fn switch(&mut self, successor: Successor) -> Result<(), Busy> {
        // The request must find room once the bundle is on its way.
        if self.requests.slots() == 0 {
            return Err(Busy);
        }
        let commands = successor.skill.commands.clone();
        self.switcher.offer(successor).map_err(|_| Busy)?;
        self.offered.push_back(commands);
        self.request(Request::Switch)
    }

    /// What became of the oldest bundle that was offered: the tick at which it took over, or why the one before goes on;
    /// `None` while that is not known. From a take-over on, [`command`](Self::command) knows the newcomer's commands.
    pub fn switched(&mut self) -> Option<Result<u64, SwitchRefusal>> {
        let outcome = self.switcher.outcome()?;
        if let (Some(commands), Ok(tick)) = (self.offered.pop_front(), outcome) {
            (self.commands, self.switched_at) = (commands, tick);
        }
        Some(outcome)
    }

    /// Bundles that were offered and of which nothing is known yet.
    pub fn under_way(&self) -> usize {
        self.offered.len()
    }

    /// The newest tick. Never makes the loop wait.
    pub fn snapshot(&mut self) -> Snapshot {
        *self.snapshots.read()
    }

    /// Waits for the end; `None` when it has not come within `timeout`, or was given out before.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Option<Report> {
        // A time beyond the clock is no end at all.
        let until = timeout.and_then(|t| Instant::now().checked_add(t));
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            if until.is_some_and(|until| Instant::now() >= until) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.thread.take().map(join)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A full ring empties at four requests a tick; the motors are never left on because of it.
        while self.thread.as_ref().is_some_and(|t| !t.is_finished()) && self.request(Request::Stop).is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.wait(None);
    }
}

fn command(commands: &[CommandSlot], name: &str, value: f64) -> Result<Request, RunError> {
    let Some(slot) = commands.iter().position(|c| c.name == name) else {
        let known = commands.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(RunError::UnknownCommand { name: name.into(), known });
    };
    let [lo, hi] = commands[slot].range;
    if !(lo..=hi).contains(&value) {
        return Err(RunError::CommandRange { name: name.into(), value, lo, hi });
    }
    Ok(Request::Command { slot: slot as u16, value })
}
