use std::sync::atomic::Ordering;

use cadenza_runtime::device::replay::{Field, ReplayDevice};
use cadenza_runtime::device::{Device, Freshness, Stop, TimeSource};
use cadenza_runtime::safety::Level;
use cadenza_runtime::state::{Command, State};

use crate::support::{command, virtual_time};

type Change = fn(&mut Command);

/// A run of `ticks` ticks that started at tick 10 and was read 1 ms after each measurement.
fn recorded(ticks: u64) -> (Vec<(State, Freshness)>, Vec<Command>) {
    (10..10 + ticks)
        .map(|tick| {
            let mut s = State::new(2);
            s.tick = tick;
            s.q[1] = tick as f64 * 0.01;
            s.t_read_ns = 5_000_000_000 + tick as i64 * 2_000_000;
            (s.objects[0].stamp_ns, s.objects[0].valid) = (s.t_read_ns - 7_000_000, true);
            s.estop = tick == 11;
            let f = Freshness {
                sequence: tick,
                stamp_ns: s.t_read_ns - 1_000_000,
                stale_joints: tick & 1,
                finished: false,
            };
            let mut c = command(2, tick as f64 * 0.02, 0.1, 60.0, 6.0, 0.0);
            c.tick = tick;
            ((s, f), c)
        })
        .unzip()
}

fn device(states: &[(State, Freshness)], commands: &[Command]) -> ReplayDevice {
    ReplayDevice::new(states.to_vec(), commands.to_vec(), vec!["cup".into()], virtual_time().1).unwrap()
}

/// Reads every state and answers with `answer(k)`, to the end of the log.
fn run(device: &mut ReplayDevice, answer: impl Fn(usize) -> Option<Command>) {
    let mut state = State::new(2);
    for k in 0.. {
        if device.read(&mut state).unwrap().finished {
            break;
        }
        if let Some(c) = answer(k) {
            device.write(&c).unwrap();
        }
    }
}

#[test]
fn the_same_commands_are_no_difference() {
    let (states, commands) = recorded(50);
    let mut d = device(&states, &commands);
    run(&mut d, |k| Some(commands[k]));
    assert_eq!((d.difference(), d.compared()), (None, 50));
    assert!(!d.info().moves);
    assert_eq!(d.info().objects, ["cup"]);
    d.write(&Command::off(2)).unwrap();
    d.stop(Stop::Damp).unwrap();
    assert_eq!((d.difference(), d.compared()), (None, 50), "what follows the end is not compared");
}

#[test]
fn the_first_different_bit_is_named() {
    let (states, commands) = recorded(20);
    let changes: [(Field, Change); 9] = [
        (Field::Tick, |c| c.tick += 1),
        (Field::Epoch, |c| c.epoch = 1),
        (Field::Joints, |c| c.n = 1),
        (Field::Level, |c| c.level = Level::Hold),
        (Field::Position, |c| c.q[1] = c.q[1].next_up()),
        (Field::Velocity, |c| c.dq[1] = c.dq[1].next_down()),
        (Field::Kp, |c| c.kp[1] = f64::NAN),
        (Field::Kd, |c| c.kd[1] += 1.0),
        (Field::Effort, |c| c.tau[1] = -0.0),
    ];
    for (field, change) in changes {
        let mut ours = commands.clone();
        change(&mut ours[7]);
        ours[9].q[0] = 8.0; // a later difference does not replace the first
        let mut d = device(&states, &commands);
        run(&mut d, |k| Some(ours[k]));
        let found = d.difference().expect("a difference");
        let joint = if matches!(field, Field::Tick | Field::Epoch | Field::Joints | Field::Level) {
            u16::MAX
        } else {
            1
        };
        assert_eq!((found.tick, found.joint, found.field), (17, joint, field));
        assert_eq!(d.compared(), 20);
    }
}

#[test]
fn a_difference_reads_well() {
    let (states, commands) = recorded(3);
    let mut d = device(&states, &commands);
    let mut ours = commands.clone();
    ours[1].q[1] = 0.25;
    run(&mut d, |k| Some(ours[k]));
    assert_eq!(d.difference().unwrap().to_string(), "tick 11, joint 1: q recorded 0.22, ours 0.25");
}

#[test]
fn unused_joints_do_not_count() {
    let (states, commands) = recorded(3);
    let mut d = device(&states, &commands);
    let mut ours = commands.clone();
    ours[1].q[5] = 3.0;
    run(&mut d, |k| Some(ours[k]));
    assert_eq!(d.difference(), None);
}

#[test]
fn a_missing_or_an_extra_command_is_a_difference() {
    let (states, commands) = recorded(5);
    let mut d = device(&states, &commands);
    run(&mut d, |k| (k != 2).then_some(commands[k]));
    let found = d.difference().unwrap();
    assert_eq!((found.tick, found.field, found.recorded, found.ours), (12, Field::Presence, 1.0, 0.0));

    let mut d = device(&states, &commands);
    run(&mut d, |k| (k != 4).then_some(commands[k]));
    assert_eq!(d.difference().unwrap().tick, 14, "the last one too");

    let fewer: Vec<_> = commands.iter().copied().filter(|c| c.tick != 13).collect();
    let mut d = device(&states, &fewer);
    run(&mut d, |k| Some(commands[k]));
    let found = d.difference().unwrap();
    assert_eq!((found.tick, found.field, found.recorded, found.ours), (13, Field::Presence, 0.0, 1.0));
    assert_eq!(d.compared(), 4);
}

#[test]
fn ages_are_those_of_the_recording() {
    let (states, commands) = recorded(3);
    let (ns, time) = virtual_time();
    let mut d = ReplayDevice::new(states.clone(), commands.clone(), vec![], time).unwrap();
    let mut out = State::new(2);
    (out.tick, out.epoch, out.user[3]) = (77, 5, 0.5);
    for (k, (state, freshness)) in states.iter().enumerate() {
        let now = 1000 + k as i64 * 2_000_000;
        ns.store(now, Ordering::Release);
        let f = d.read(&mut out).unwrap();
        assert_eq!(now - f.stamp_ns, 1_000_000);
        assert_eq!(now - out.objects[0].stamp_ns, 7_000_000);
        assert_eq!(
            (f.sequence, f.stale_joints, f.finished),
            (freshness.sequence, freshness.stale_joints, false)
        );
        assert_eq!((out.q, out.estop), (state.q, state.estop));
        assert_eq!((out.tick, out.epoch, out.user[3]), (77, 5, 0.5), "the loop's own fields");
    }
    let last = d.read(&mut out).unwrap();
    assert_eq!((last.finished, last.sequence), (true, 12));
    assert!(d.read(&mut out).unwrap().finished);
}

#[test]
fn logs_that_cannot_be_replayed_are_refused() {
    let (states, commands) = recorded(30);
    let error = |states: Vec<(State, Freshness)>, commands: Vec<Command>| {
        ReplayDevice::new(states, commands, vec![], TimeSource::Monotonic).expect_err("refused").to_string()
    };
    assert!(error(vec![], vec![]).contains("no state"));
    let dropped: Vec<_> = states.iter().copied().filter(|(s, _)| !(15..=19).contains(&s.tick)).collect();
    assert!(error(dropped, commands.clone()).contains("lacks 5 states between ticks 15 and 19"));
    let mut twice = states.clone();
    twice[4].0.tick = 13;
    assert!(error(twice, commands.clone()).contains("state of tick 13 follows tick 13"));
    let mut back = commands.clone();
    back.swap(3, 4);
    assert!(error(states.clone(), back).contains("command of tick 13 follows tick 14"));
    let mut other = states;
    other[9].0.n = 3;
    assert!(error(other, commands).contains("3 joints at tick 19, 2 at tick 10"));
}
