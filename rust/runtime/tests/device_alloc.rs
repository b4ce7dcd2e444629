//! `read` and `write` of the inline devices do not touch the heap.

mod counting;

use cadenza_runtime::device::fault::{Faulty, Injection, Trouble};
use cadenza_runtime::device::null::NullDevice;
use cadenza_runtime::device::replay::ReplayDevice;
use cadenza_runtime::device::{Device, DeviceFault, Freshness, Stop, TimeSource};
use cadenza_runtime::state::{Command, State};
use counting::calls_of;
use support::{Rig, command, robot};

#[allow(dead_code, reason = "the other test binary uses the rest")]
#[path = "devices/support.rs"]
mod support;

/// Heap calls of 1,000 ticks and a stop.
fn heap_calls(device: &mut dyn Device, commands: &[Command]) -> u64 {
    let mut state = State::new(0);
    calls_of(|| {
        for c in commands {
            // Faults are an answer too: they must not allocate either.
            let _ = device.read(&mut state);
            let _ = device.write(c);
        }
        let _ = device.read(&mut state);
        let _ = device.stop(Stop::Hold);
    })
}

fn commands() -> Vec<Command> {
    (0..1000)
        .map(|tick| {
            let mut c = command(3, 0.2, 0.1, 60.0, 6.0, 0.0);
            c.tick = tick;
            c
        })
        .collect()
}

#[test]
fn the_counter_counts() {
    assert_eq!(calls_of(|| drop(std::hint::black_box(Box::new(1)))), 2);
}

#[test]
fn inline_devices_do_not_allocate() {
    let commands = commands();
    let mut hold = command(3, 0.0, 0.0, 60.0, 6.0, 0.0);
    hold.q[..3].copy_from_slice(&[0.1, 0.2, 0.3]);

    let mut null = NullDevice::new(&robot(3), TimeSource::Monotonic).unwrap();
    null.enable(&hold).unwrap();
    assert_eq!(heap_calls(&mut null, &commands), 0, "null");

    let mut rig = Rig::with_imu(3);
    rig.device.enable(&hold).unwrap();
    assert_eq!(heap_calls(&mut rig.device, &commands), 0, "sim");
    assert_eq!(rig.physics().steps, 4000);
    rig.device.enable(&command(3, 0.2, 0.0, 0.0, 0.0, 0.0)).unwrap();
    rig.physics_mut().qpos[8] = f64::NAN;
    assert_eq!(heap_calls(&mut rig.device, &commands), 0, "sim, diverged");

    let state = |c: &Command| {
        let mut s = State::new(3);
        s.tick = c.tick;
        (s, Freshness::default())
    };
    let states: Vec<_> = commands.iter().map(state).collect();
    let mut ours = commands.clone();
    ours[500].q[2] = 1.0;
    let mut replay = ReplayDevice::new(states, commands, vec![], TimeSource::Monotonic).unwrap();
    assert_eq!(heap_calls(&mut replay, &ours), 0, "replay");
    assert_eq!((replay.compared(), replay.difference().map(|d| d.tick)), (1000, Some(500)));

    let troubles = [
        Trouble::NotFinite { joint: 0 },
        Trouble::Silent { joint: 1 },
        Trouble::Frozen,
        Trouble::Delayed { by: 4 },
        Trouble::Read(DeviceFault::BusSilent { for_ms: 1 }),
    ];
    let injections =
        troubles.iter().zip(0..).map(|(&trouble, k)| Injection { from: 100 * k + 50, ticks: 60, trouble });
    let mut faulty =
        Faulty::new(NullDevice::new(&robot(3), TimeSource::Monotonic).unwrap(), injections.collect());
    assert_eq!(heap_calls(&mut faulty, &ours), 0, "faulty");
}
