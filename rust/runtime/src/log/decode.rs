//! Message structs → the records of the loop. Logs come from outside: every length and number is checked.

use prost::Message;

use super::entry::{BundleEntry, Request, Stage, TickEntry, VerdictEntry};
use super::header::MonitorHeader;
use super::read::{BundleRecord, ChunkRecord, ObsRecord, RequestRecord};
use super::schema;
use crate::action::Flow;
use crate::safety::{Fault, Level, Phase, Reason};
use crate::state::{Command, MAX_JOINTS, MAX_OBJECTS, MAX_USER, State};

/// A record that a topic holds.
pub(super) trait Decode: Sized {
    /// Reads one message; the error says what is wrong with it.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
}

fn message<M: Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}

/// Copies `from` to the start of `to`.
fn fill<T: Copy>(field: &str, to: &mut [T], from: &[T]) -> Result<(), String> {
    let most = to.len();
    to.get_mut(..from.len())
        .ok_or_else(|| format!("{field} has {} numbers, at most {most}", from.len()))?
        .copy_from_slice(from);
    Ok(())
}

/// Copies `from` to `to`, which must be as long.
fn exact<T: Copy>(field: &str, to: &mut [T], from: &[T]) -> Result<(), String> {
    if from.len() != to.len() {
        return Err(format!("{field} has {} numbers, not {}", from.len(), to.len()));
    }
    to.copy_from_slice(from);
    Ok(())
}

fn joints(n: usize) -> Result<usize, String> {
    if n <= MAX_JOINTS { Ok(n) } else { Err(format!("{n} joints, at most {MAX_JOINTS}")) }
}

fn level(number: i32) -> Result<Level, String> {
    const ALL: [Level; 5] = [Level::Run, Level::Hold, Level::SoftStop, Level::Damp, Level::Off];
    pick("level", &ALL, number)
}

fn pick<T: Copy>(what: &str, all: &[T], number: i32) -> Result<T, String> {
    usize::try_from(number)
        .ok()
        .and_then(|i| all.get(i))
        .copied()
        .ok_or_else(|| format!("no {what} has number {number}"))
}

fn small(field: &str, number: u32) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| format!("{field} is {number}, at most {}", u16::MAX))
}

impl Decode for State {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::State = message(bytes)?;
        let n = joints(m.q.len())?;
        let mut state = State::new(n);
        (state.tick, state.epoch, state.estop) = (m.tick, m.epoch, m.estop);
        (state.t_sensor_ns, state.t_read_ns) = (m.t_sensor_ns, m.t_read_ns);
        exact("q", &mut state.q[..n], &m.q)?;
        exact("dq", &mut state.dq[..n], &m.dq)?;
        exact("tau", &mut state.tau[..n], &m.tau)?;
        exact("temp", &mut state.temp[..n], &m.temp)?;
        if let Some(imu) = m.imu {
            exact("imu.quat", &mut state.imu.quat, &imu.quat)?;
            exact("imu.gyro", &mut state.imu.gyro, &imu.gyro)?;
            exact("imu.acc", &mut state.imu.acc, &imu.acc)?;
            state.imu.valid = imu.valid;
        }
        if let Some(base) = m.base {
            exact("base.pos", &mut state.base.pos, &base.pos)?;
            exact("base.vel", &mut state.base.vel, &base.vel)?;
            state.base.valid = base.valid;
        }
        debug_assert_eq!(state.user.len(), MAX_USER);
        fill("user", &mut state.user, &m.user)?;
        if m.objects.len() > MAX_OBJECTS {
            return Err(format!("{} objects, at most {MAX_OBJECTS}", m.objects.len()));
        }
        for (to, from) in state.objects.iter_mut().zip(&m.objects) {
            exact("objects.pos", &mut to.pos, &from.pos)?;
            exact("objects.quat", &mut to.quat, &from.quat)?;
            (to.stamp_ns, to.valid) = (from.stamp_ns, from.valid);
        }
        Ok(state)
    }
}

impl Decode for Command {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Command = message(bytes)?;
        let n = joints(m.q.len())?;
        let mut command = Command::off(n);
        (command.tick, command.epoch, command.level) = (m.tick, m.epoch, level(m.level)?);
        exact("q", &mut command.q[..n], &m.q)?;
        exact("dq", &mut command.dq[..n], &m.dq)?;
        exact("kp", &mut command.kp[..n], &m.kp)?;
        exact("kd", &mut command.kd[..n], &m.kd)?;
        exact("tau", &mut command.tau[..n], &m.tau)?;
        Ok(command)
    }
}

impl Decode for TickEntry {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Tick = message(bytes)?;
        let s = m.stages.unwrap_or_default();
        let stage_ns: [u32; Stage::COUNT] = [
            s.wake, s.read, s.observe, s.infer, s.sequence, s.limit, s.monitor, s.gate, s.write, s.record,
            s.total,
        ];
        Ok(TickEntry {
            tick: m.tick,
            deadline_ns: m.deadline_ns,
            stage_ns,
            skipped: m.skipped,
            inferred: m.inferred,
            flow: pick("flow", &[Flow::Run, Flow::Hold, Flow::Exhausted], m.flow)?,
            level: level(m.level)?,
            phase: pick("phase", &[Phase::Disarmed, Phase::Arming, Phase::Armed], m.phase)?,
            clamped: m.clamped,
            authority: m.authority,
            age_ns: m.age_ns,
        })
    }
}

impl Decode for ObsRecord {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Obs = message(bytes)?;
        Ok(Self { tick: m.tick, values: m.values })
    }
}

impl Decode for ChunkRecord {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Chunk = message(bytes)?;
        Ok(Self { tick: m.tick, id: m.id, step: m.step, prefix: m.prefix, values: m.values })
    }
}

impl Decode for VerdictEntry {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Verdict = message(bytes)?;
        let monitor = small("monitor", m.monitor)?;
        Ok(Self { tick: m.tick, monitor, step: m.step, closed: m.closed, lo: m.lo, hi: m.hi })
    }
}

impl Decode for Fault {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Event = message(bytes)?;
        let reason = u16::try_from(m.reason).ok().and_then(Reason::from_code);
        Ok(Self {
            tick: m.tick,
            reason: reason.ok_or_else(|| format!("no reason has number {}", m.reason))?,
            joint: small("joint", m.joint)?,
            value: m.value,
            limit: m.limit,
            level: level(m.level)?,
        })
    }
}

impl Decode for RequestRecord {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Request = message(bytes)?;
        let command = Request::Command { slot: small("slot", m.slot)?, value: m.value };
        let all = [
            Request::Arm,
            Request::Stop,
            Request::Estop,
            Request::Disarm,
            Request::Reset,
            command,
            Request::Switch,
        ];
        Ok(Self { tick: m.tick, request: pick("request", &all, m.kind)? })
    }
}

impl Decode for BundleRecord {
    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let m: schema::Bundle = message(bytes)?;
        let schema::Bundle { tick, name, sha256, manifest_json, spec_stl, late, fallback, monitors } = m;
        let header = |schema::Monitor { name, dt, formula }| MonitorHeader { name, dt, formula };
        let monitors = monitors.into_iter().map(header).collect();
        Ok(Self {
            tick,
            bundle: BundleEntry { name, sha256, manifest_json, spec_stl, late, fallback, monitors },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::encode::{Bytes, InUse, encode};
    use crate::log::entry::Entry;
    use proptest::prelude::*;

    fn bytes(entry: Entry<'_>) -> Vec<u8> {
        let mut out = Bytes::with_capacity(1 << 16);
        encode(&entry, InUse { user: MAX_USER, objects: MAX_OBJECTS }, &mut out);
        out.get().expect("fits").to_vec()
    }

    fn joint_values(seed: u64, n: usize) -> [f64; MAX_JOINTS] {
        // Any bit pattern but those that are not numbers, −0.0 among them.
        std::array::from_fn(|i| {
            if i >= n {
                return 0.0;
            }
            let x = f64::from_bits(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32));
            if x.is_nan() { -0.0 } else { x }
        })
    }

    proptest! {
        #[test]
        fn states_and_commands_come_back_exactly(seed in any::<u64>(), n in 0usize..=MAX_JOINTS, t in any::<i64>(), level in 0i32..5) {
            let mut state = State::new(n);
            (state.tick, state.epoch, state.t_sensor_ns, state.t_read_ns) = (seed, seed as u32, t, !t);
            (state.q, state.dq, state.tau) = (joint_values(seed, n), joint_values(!seed, n), joint_values(seed ^ 7, n));
            state.temp[..n].fill(31.5);
            state.imu.quat = [-0.0, 1e-310, seed as f64, 1.0];
            (state.imu.valid, state.base.valid, state.estop) = (seed.is_multiple_of(2), seed.is_multiple_of(3), seed.is_multiple_of(5));
            state.base.pos[2] = -1.25;
            state.user[MAX_USER - 1] = f64::INFINITY;
            state.objects[3].stamp_ns = t;
            state.objects[15].pos[0] = 0.1;
            let back = <State as Decode>::decode(&bytes(Entry::State(&state))).expect("own bytes");
            prop_assert_eq!(back.q.map(f64::to_bits), state.q.map(f64::to_bits));
            prop_assert_eq!(back, state);

            let mut command = Command::off(n);
            (command.tick, command.epoch, command.level) = (seed, 3, super::level(level).expect("level"));
            (command.q, command.kp) = (state.q, state.dq);
            let back = <Command as Decode>::decode(&bytes(Entry::Command(&command))).expect("own bytes");
            prop_assert_eq!(back, command);
        }

        #[test]
        fn small_entries_come_back(tick in any::<u64>(), number in any::<u32>(), t in any::<i64>(), x in any::<f64>(), some in any::<bool>()) {
            prop_assume!(!x.is_nan());
            let mut stage_ns = [0; Stage::COUNT];
            stage_ns.iter_mut().zip(0..).for_each(|(ns, i)| *ns = number.rotate_left(i));
            let entry = TickEntry { tick, deadline_ns: t, stage_ns, skipped: number, inferred: some, flow: Flow::Hold,
                level: Level::Damp, phase: Phase::Arming, clamped: !tick, authority: x, age_ns: -t.max(i64::MIN + 1) };
            prop_assert_eq!(<TickEntry as Decode>::decode(&bytes(Entry::Tick(&entry))), Ok(entry));
            let verdict = VerdictEntry { tick, monitor: number as u16, step: !tick, closed: some.then_some(x), lo: -x, hi: x };
            prop_assert_eq!(<VerdictEntry as Decode>::decode(&bytes(Entry::Verdict(&verdict))), Ok(verdict));
            for &reason in Reason::ALL {
                let fault = Fault { tick, reason, joint: number as u16, value: x, limit: -x, level: reason.level() };
                prop_assert_eq!(<Fault as Decode>::decode(&bytes(Entry::Event(&fault))), Ok(fault));
            }
            for request in [Request::Arm, Request::Stop, Request::Estop, Request::Disarm, Request::Reset,
                Request::Switch, Request::Command { slot: number as u16, value: x }] {
                let back = <RequestRecord as Decode>::decode(&bytes(Entry::Request { tick, request }));
                prop_assert_eq!(back, Ok(RequestRecord { tick, request }));
            }
            let bundle = BundleEntry { name: "walk".into(), sha256: "ab".into(), manifest_json: format!("{{{number}}}"),
                spec_stl: "é".repeat(200), late: some, fallback: !some, monitors: [0, 1, 127, 128, 20_000].map(|n| MonitorHeader {
                    name: "upright".into(), dt: x, formula: "x".repeat(n) }).into() };
            let back = <BundleRecord as Decode>::decode(&bytes(Entry::Bundle { tick, bundle: &bundle }));
            prop_assert_eq!(back, Ok(BundleRecord { tick, bundle }));
            let values = [x as f32; 9];
            let back = <ChunkRecord as Decode>::decode(&bytes(Entry::Chunk { tick, id: 4, step: !tick, prefix: number, values: &values }));
            prop_assert_eq!(back, Ok(ChunkRecord { tick, id: 4, step: !tick, prefix: number, values: values.to_vec() }));
            let back = <ObsRecord as Decode>::decode(&bytes(Entry::Obs { tick, values: &values }));
            prop_assert_eq!(back, Ok(ObsRecord { tick, values: values.to_vec() }));
        }

        #[test]
        fn hostile_bytes_are_an_error(junk in prop::collection::vec(any::<u8>(), 0..300)) {
            // Any outcome but a panic.
            let _ = <State as Decode>::decode(&junk);
            let _ = <Command as Decode>::decode(&junk);
            let _ = <TickEntry as Decode>::decode(&junk);
            let _ = <VerdictEntry as Decode>::decode(&junk);
            let _ = <Fault as Decode>::decode(&junk);
            let _ = <RequestRecord as Decode>::decode(&junk);
            let _ = <BundleRecord as Decode>::decode(&junk);
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_named() {
        let event = schema::Event { reason: 999, ..Default::default() }.encode_to_vec();
        assert_eq!(<Fault as Decode>::decode(&event), Err("no reason has number 999".into()));
        let command = schema::Command { level: -1, ..Default::default() }.encode_to_vec();
        assert_eq!(<Command as Decode>::decode(&command), Err("no level has number -1".into()));
        let state = schema::State { q: vec![0.0; 65], ..Default::default() }.encode_to_vec();
        assert_eq!(<State as Decode>::decode(&state), Err("65 joints, at most 64".into()));
        let state = schema::State { q: vec![0.0; 2], dq: vec![0.0; 3], ..Default::default() }.encode_to_vec();
        assert_eq!(<State as Decode>::decode(&state), Err("dq has 3 numbers, not 2".into()));
    }

    #[test]
    fn an_entry_that_does_not_fit_says_so() {
        let mut out = Bytes::with_capacity(64);
        encode(&Entry::Obs { tick: 1, values: &[0.0; 100] }, InUse { user: 0, objects: 0 }, &mut out);
        assert!(out.get().is_none());
        out.clear();
        encode(&Entry::Obs { tick: 1, values: &[0.0; 10] }, InUse { user: 0, objects: 0 }, &mut out);
        assert!(out.get().is_some());
    }
}
