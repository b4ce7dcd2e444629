//! Entry → protobuf bytes, without an allocation: what the control thread does instead of filling message structs.
//!
//! Every field is written, zeros too: an encoded −0.0 stays −0.0, and the length depends on the entry's kind alone.

use super::entry::{Entry, Request, Stage, TickEntry, VerdictEntry};
use super::header::MonitorHeader;
use crate::safety::Fault;
use crate::state::{Command, Object, State};

/// How much of a state is in use beside its joints.
#[derive(Clone, Copy, Debug)]
pub(super) struct InUse {
    /// Operator command slots.
    pub(super) user: usize,
    /// Objects.
    pub(super) objects: usize,
}

/// A buffer that never grows: what does not fit sets `overflow` instead.
pub(super) struct Bytes {
    data: Vec<u8>,
    overflow: bool,
}

impl Bytes {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let mut data = vec![0xff; capacity];
        data.clear();
        Self { data, overflow: false }
    }

    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.overflow = false;
    }

    /// The bytes, or nothing when they did not fit.
    pub(super) fn get(&self) -> Option<&[u8]> {
        (!self.overflow).then_some(&self.data)
    }

    /// Overwrites bytes that are there already.
    pub(super) fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.data.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        if self.data.capacity() - self.data.len() < bytes.len() {
            self.overflow = true;
        } else {
            self.data.extend_from_slice(bytes);
        }
    }

    fn varint(&mut self, mut value: u64) {
        let (mut bytes, mut n) = ([0u8; 10], 0);
        while value >= 0x80 {
            bytes[n] = value as u8 | 0x80;
            value >>= 7;
            n += 1;
        }
        bytes[n] = value as u8;
        self.raw(&bytes[..=n]);
    }

    fn uint(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    fn int(&mut self, field: u32, value: i64) {
        self.uint(field, value as u64);
    }

    fn double(&mut self, field: u32, value: f64) {
        self.varint(u64::from(field) << 3 | 1);
        self.raw(&value.to_le_bytes());
    }

    fn length(&mut self, field: u32, bytes: usize) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes as u64);
    }

    fn text(&mut self, field: u32, text: &str) {
        self.length(field, text.len());
        self.raw(text.as_bytes());
    }

    fn doubles(&mut self, field: u32, values: &[f64]) {
        self.length(field, values.len() * 8);
        values.iter().for_each(|value| self.raw(&value.to_le_bytes()));
    }

    fn floats(&mut self, field: u32, values: &[f32]) {
        self.length(field, values.len() * 4);
        values.iter().for_each(|value| self.raw(&value.to_le_bytes()));
    }

    /// A message inside, at most 16 KiB long: its length is filled in afterwards, as a varint of two bytes.
    fn nested(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        self.varint(u64::from(field) << 3 | 2);
        let at = self.data.len();
        self.raw(&[0x80, 0]);
        fill(self);
        if !self.overflow {
            let len = self.data.len() - at - 2;
            self.data[at] = len as u8 | 0x80;
            self.data[at + 1] = (len >> 7) as u8;
        }
    }
}

/// Bytes of [`Bytes::text`] with a field below 16.
fn text_size(text: &str) -> usize {
    let digits = (usize::BITS - text.len().leading_zeros()).max(1);
    1 + digits.div_ceil(7) as usize + text.len()
}

/// Appends the message of `entry`.
pub(super) fn encode(entry: &Entry<'_>, in_use: InUse, out: &mut Bytes) {
    match *entry {
        Entry::State(state) => encode_state(state, in_use, out),
        Entry::Command(command) => encode_command(command, out),
        Entry::Tick(tick) => encode_tick(tick, out),
        Entry::Obs { tick, values } => {
            out.uint(1, tick);
            out.floats(2, values);
        }
        Entry::Chunk { tick, id, step, prefix, values } => {
            out.uint(1, tick);
            out.uint(2, id);
            out.floats(3, values);
            out.uint(4, step);
            out.uint(5, u64::from(prefix));
        }
        Entry::Verdict(verdict) => encode_verdict(verdict, out),
        Entry::Event(fault) => encode_fault(fault, out),
        Entry::Request { tick, request } => encode_request(tick, request, out),
        Entry::Bundle { tick, bundle } => {
            out.uint(1, tick);
            let texts = [&bundle.name, &bundle.sha256, &bundle.manifest_json, &bundle.spec_stl];
            for (field, text) in (2..).zip(texts) {
                out.text(field, text);
            }
            out.uint(6, bundle.late.into());
            out.uint(7, bundle.fallback.into());
            for MonitorHeader { name, dt, formula } in &bundle.monitors {
                // Formulas may be longer than what `nested` has room for.
                out.length(8, text_size(name) + 9 + text_size(formula));
                out.text(1, name);
                out.double(2, *dt);
                out.text(3, formula);
            }
        }
    }
}

fn encode_state(state: &State, in_use: InUse, out: &mut Bytes) {
    let n = state.joints();
    out.uint(1, state.tick);
    out.uint(2, state.epoch.into());
    out.int(3, state.t_sensor_ns);
    out.int(4, state.t_read_ns);
    out.doubles(5, &state.q[..n]);
    out.doubles(6, &state.dq[..n]);
    out.doubles(7, &state.tau[..n]);
    out.floats(8, &state.temp[..n]);
    out.nested(9, |out| {
        out.doubles(1, &state.imu.quat);
        out.doubles(2, &state.imu.gyro);
        out.doubles(3, &state.imu.acc);
        out.uint(4, state.imu.valid.into());
    });
    out.nested(10, |out| {
        out.doubles(1, &state.base.pos);
        out.doubles(2, &state.base.vel);
        out.uint(3, state.base.valid.into());
    });
    out.doubles(11, &state.user[..in_use.user]);
    for object in &state.objects[..in_use.objects] {
        out.nested(12, |out| encode_object(object, out));
    }
    out.uint(13, state.estop.into());
}

fn encode_object(object: &Object, out: &mut Bytes) {
    out.doubles(1, &object.pos);
    out.doubles(2, &object.quat);
    out.int(3, object.stamp_ns);
    out.uint(4, object.valid.into());
}

fn encode_command(command: &Command, out: &mut Bytes) {
    let n = command.joints();
    out.uint(1, command.tick);
    out.uint(2, command.epoch.into());
    out.uint(3, command.level as u64);
    for (field, values) in (4..).zip([&command.q, &command.dq, &command.kp, &command.kd, &command.tau]) {
        out.doubles(field, &values[..n]);
    }
}

fn encode_tick(tick: &TickEntry, out: &mut Bytes) {
    out.uint(1, tick.tick);
    out.int(2, tick.deadline_ns);
    out.nested(3, |out| {
        for (field, stage) in (1..).zip(Stage::ALL) {
            out.uint(field, tick.stage_ns[stage as usize].into());
        }
    });
    out.uint(4, tick.skipped.into());
    out.uint(5, tick.inferred.into());
    out.uint(6, tick.flow as u64);
    out.uint(7, tick.level as u64);
    out.uint(8, tick.phase as u64);
    out.uint(9, tick.clamped);
    out.double(10, tick.authority);
    out.int(11, tick.age_ns);
}

fn encode_verdict(verdict: &VerdictEntry, out: &mut Bytes) {
    out.uint(1, verdict.tick);
    out.uint(2, verdict.monitor.into());
    out.uint(3, verdict.step);
    if let Some(closed) = verdict.closed {
        out.double(4, closed);
    }
    out.double(5, verdict.lo);
    out.double(6, verdict.hi);
}

fn encode_fault(fault: &Fault, out: &mut Bytes) {
    out.uint(1, fault.tick);
    out.uint(2, fault.reason as u64);
    out.uint(3, fault.joint.into());
    out.double(4, fault.value);
    out.double(5, fault.limit);
    out.uint(6, fault.level as u64);
}

fn encode_request(tick: u64, request: Request, out: &mut Bytes) {
    let (kind, slot, value) = match request {
        Request::Arm => (0, 0, 0.0),
        Request::Stop => (1, 0, 0.0),
        Request::Estop => (2, 0, 0.0),
        Request::Disarm => (3, 0, 0.0),
        Request::Reset => (4, 0, 0.0),
        Request::Command { slot, value } => (5, slot, value),
        Request::Switch => (6, 0, 0.0),
    };
    out.uint(1, tick);
    out.uint(2, kind);
    out.uint(3, slot.into());
    out.double(4, value);
}
