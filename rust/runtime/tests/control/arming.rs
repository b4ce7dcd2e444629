//! How the motors come on and go off: refusals, requests, dry runs, episodes.

use std::sync::{Arc, Mutex};

use cadenza_runtime::control::{Controller, Planner, Refusal, Request};
use cadenza_runtime::device::fault::Trouble;
use cadenza_runtime::device::{Device, DeviceError, DeviceFault, DeviceInfo, Freshness, Stop};
use cadenza_runtime::safety::{Level, Phase, Reason};
use cadenza_runtime::state::{Command, State};

use crate::rig::{ARMED, Act, Parts, REST, Rig, faulty, injection, sway};
use Level::{Damp, Off, Run, SoftStop};

/// What a device was asked for.
#[derive(Debug, Default, PartialEq)]
struct Calls {
    enabled: u64,
    written: u64,
    stopped: Vec<Stop>,
}

/// Counts calls, and refuses to enable when it is told to.
struct Counting<D> {
    inner: D,
    calls: Arc<Mutex<Calls>>,
    refuse: bool,
}

impl<D: Device> Device for Counting<D> {
    fn info(&self) -> &DeviceInfo {
        self.inner.info()
    }
    fn connect(&mut self) -> Result<(), DeviceError> {
        self.inner.connect()
    }
    fn enable(&mut self, hold: &Command) -> Result<(), DeviceError> {
        self.calls.lock().unwrap().enabled += 1;
        if self.refuse {
            return Err(DeviceError::Io { device: "null", what: "motor 2 does not answer".into() });
        }
        self.inner.enable(hold)
    }
    fn read(&mut self, out: &mut State) -> Result<Freshness, DeviceFault> {
        self.inner.read(out)
    }
    fn write(&mut self, command: &Command) -> Result<(), DeviceFault> {
        self.calls.lock().unwrap().written += 1;
        self.inner.write(command)
    }
    fn stop(&mut self, how: Stop) -> Result<(), DeviceFault> {
        self.calls.lock().unwrap().stopped.push(how);
        self.inner.stop(how)
    }
}

fn counted(
    parts: &Parts,
    refuse: bool,
    requests: &[(u64, Request)],
) -> (Rig<impl Device + use<>>, Arc<Mutex<Calls>>) {
    let (now, calls) = (Arc::default(), Arc::<Mutex<Calls>>::default());
    let device = Counting { inner: faulty(&parts.robot(), &now, &[]), calls: calls.clone(), refuse };
    (Rig::around(parts, device, now, requests, Act(sway(0.3))), calls)
}

fn why(refusal: &Refusal) -> String {
    refusal.describe(&["pan", "lift", "wrist"].map(str::to_owned))
}

#[test]
fn a_joint_outside_its_range_keeps_the_motors_off_and_is_named() {
    let outside = Trouble::Jump { joint: 1, by: 1.5 };
    let mut rig =
        Rig::new(&Parts::default(), &[injection(0, 60, outside)], &[(100, Request::Arm)], Act(sway(0.1)));
    assert_eq!(rig.levels(100), [(0, Off)]);
    assert_eq!(rig.controller.gate().phase(), Phase::Disarmed);
    let text = why(rig.controller.refusal().unwrap());
    assert!(text.contains("lift") && text.contains("1.6 rad"), "{text}");
    // Once it stands inside, the next request works and the old refusal is forgotten.
    assert_eq!(rig.levels(100), [(100, Off), (109, Run)]);
    assert!(rig.controller.refusal().is_none());
}

#[test]
fn the_newest_refusal_is_the_one_that_is_told() {
    let troubles = [
        injection(0, 50, Trouble::Jump { joint: 1, by: 1.5 }),
        injection(50, 100, Trouble::Jump { joint: 2, by: -2.0 }),
    ];
    let mut rig = Rig::new(&Parts::default(), &troubles, &[(60, Request::Arm)], Act(sway(0.1)));
    rig.levels(50);
    assert!(why(rig.controller.refusal().unwrap()).contains("lift"));
    rig.levels(50);
    assert!(why(rig.controller.refusal().unwrap()).contains("wrist"), "{:?}", rig.controller.refusal());
}

#[test]
fn a_device_that_refuses_to_enable_is_a_refusal_and_nothing_is_on() {
    let (mut rig, calls) = counted(&Parts::default(), true, &[]);
    assert_eq!(rig.levels(50), [(0, Off)]);
    assert_eq!((rig.controller.gate().phase(), rig.controller.state().epoch), (Phase::Disarmed, 0));
    let text = why(rig.controller.refusal().expect("a refusal"));
    assert!(text.contains("motor 2 does not answer"), "{text}");
    assert_eq!(calls.lock().unwrap().enabled, 1, "asked once for each request");
}

#[test]
fn a_device_that_never_answers_is_a_refusal() {
    let silent = Trouble::Read(DeviceFault::BusSilent { for_ms: 50 });
    let mut rig = Rig::new(&Parts::default(), &[injection(0, u64::MAX, silent)], &[], Act(sway(0.1)));
    assert_eq!(rig.levels(100), [(0, Off)]);
    let text = why(rig.controller.refusal().expect("a refusal"));
    assert!(text.contains("BUS_SILENT") && text.contains("50"), "{text}");
}

/// Neither good states in a row nor anything that stands: only time can say no.
#[test]
fn measurements_that_are_bad_now_and_then_are_a_refusal_in_the_end() {
    let every_other: Vec<_> =
        (0..1200).map(|i| injection(2 * i, 1, Trouble::NotFinite { joint: 2 })).collect();
    let mut rig = Rig::new(&Parts::default(), &every_other, &[(2500, Request::Arm)], Act(sway(0.1)));
    assert_eq!(rig.levels(1000), [(0, Off)]);
    assert!(rig.controller.refusal().is_none() && rig.controller.gate().phase() == Phase::Arming);
    rig.tick();
    let text = why(rig.controller.refusal().expect("a refusal after two seconds"));
    assert!(text.contains("fresh finite states in a row, 10 needed"), "{text}");
    assert_eq!(rig.controller.gate().phase(), Phase::Disarmed);
    assert_eq!(rig.levels(1600).last(), Some(&(2509, Run)), "and the next request has its own time");
}

#[test]
fn asking_twice_is_no_refusal() {
    let mut rig = Rig::new(&Parts::default(), &[], &[(3, Request::Arm), (50, Request::Arm)], Act(sway(0.1)));
    assert_eq!(rig.levels(100), [(0, Off), (ARMED, Run)]);
    assert!(rig.controller.refusal().is_none(), "{:?}", rig.controller.refusal());
}

#[test]
fn a_dry_run_runs_everything_and_touches_nothing() {
    let mut parts = Parts::default();
    let requests = [(300, Request::Disarm), (310, Request::Arm), (600, Request::Stop)];
    let (mut wet, wet_calls) = counted(&parts, false, &requests);
    parts.config.dry_run = true;
    let (mut dry, calls) = counted(&parts, false, &requests);
    let levels = dry.levels(1000);
    assert_eq!(levels[..4], [(0, Off), (ARMED, Run), (300, Off), (319, Run)]);
    assert_eq!(*calls.lock().unwrap(), Calls::default());
    wet.levels(1000);
    let wet = wet_calls.lock().unwrap();
    assert_eq!((wet.enabled, wet.written, &wet.stopped[..]), (2, 1000, &[Stop::Off][..]));
}

#[test]
fn stop_brakes_holds_and_damps() {
    let mut rig = Rig::new(&Parts::default(), &[], &[(500, Request::Stop)], Act(sway(0.3)));
    let levels = rig.levels(1000);
    assert_eq!(levels[..3], [(0, Off), (ARMED, Run), (500, SoftStop)]);
    let (tick, level) = levels[3];
    // A sway of 0.3 rad is slow: it rests within a few ticks, and 9 more for the bound on the jerk.
    assert!(level == Damp && (500 + REST..500 + REST + 19).contains(&tick), "{levels:?}");
    assert!(rig.controller.stopping());
    assert_eq!(rig.controller.gate().first_fault().unwrap().reason, Reason::OperatorStop);
}

#[test]
fn estop_damps_and_only_reset_and_arm_lead_back_to_a_new_epoch() {
    let requests = [
        (200, Request::Estop),
        (250, Request::Arm),
        (300, Request::Reset),
        (350, Request::Arm),
        (500, Request::Disarm),
        (510, Request::Arm),
    ];
    let mut rig = Rig::new(&Parts::default(), &[], &requests, Act(sway(0.3)));
    let mut epochs = vec![rig.controller.state().epoch];
    let mut levels = Vec::new();
    for _ in 0..6 {
        levels.extend(rig.levels(100));
        epochs.push(rig.controller.state().epoch);
    }
    levels.dedup_by_key(|(_, level)| *level);
    let expected = [(0, Off), (ARMED, Run), (200, Damp), (300, Off), (359, Run), (500, Off), (519, Run)];
    assert_eq!(levels, expected);
    assert_eq!(epochs, [0, 1, 1, 1, 2, 2, 3]);
    assert!(rig.controller.refusal().is_none());
}

#[test]
fn a_latch_is_not_reset_while_its_cause_stands() {
    let pressed = injection(200, 150, Trouble::Estop);
    let requests = [(300, Request::Reset), (400, Request::Reset), (410, Request::Arm)];
    let mut rig = Rig::new(&Parts::default(), &[pressed], &requests, Act(sway(0.3)));
    let expected = [(0, Off), (ARMED, Run), (200, Damp), (400, Off), (419, Run)];
    assert_eq!(rig.levels(500), expected);
}

#[test]
fn operator_commands_reach_the_policy_and_bad_ones_do_not() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let policy = {
        let seen = seen.clone();
        Act(move |tick: u64, obs: &[f32], out: &mut [f32]| {
            seen.lock().unwrap().push((tick, obs[9]));
            sway(0.1)(tick, obs, out)
        })
    };
    let command = |slot, value| Request::Command { slot, value };
    let requests =
        [(29, command(0, -0.5)), (40, command(0, f64::NAN)), (40, command(99, 1.0)), (45, command(0, 1.0))];
    let mut rig = Rig::new(&Parts::default(), &[], &requests, policy);
    rig.levels(60);
    assert_eq!(*seen.lock().unwrap(), [(9, 0.25), (19, 0.25), (29, -0.5), (39, -0.5), (49, 1.0), (59, 1.0)]);
}

#[test]
fn a_trigger_that_does_not_fit_is_refused_before_anything_moves() {
    let mut parts = Parts::default();
    parts.manifest.chunk.execute = 4;
    let planner = Planner::inline(Box::new(Act(sway(0.1))));
    let (robot, device) = (parts.robot(), DeviceInfo::default());
    let refused = Controller::new(&parts.manifest, None, &robot, &device, planner, &parts.config);
    let text = refused.err().expect("refused").to_string();
    assert!(text.starts_with("trigger = every:4: every:1"), "{text}");
}
