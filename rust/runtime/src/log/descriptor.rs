//! The FileDescriptorSet that travels in each log, so that any protobuf reader decodes it without our code.

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, OneofDescriptorProto,
};

use crate::safety::Reason;

/// Kind of a field.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    One(Type),
    /// A scalar whose absence is told apart from 0.
    Maybe(Type),
    Many(Type),
    Sub(&'static str),
    Subs(&'static str),
    Enum(&'static str),
}
use Kind::{Enum, Many, Maybe, One, Sub, Subs};

/// Fields in the order of their numbers, which start at 1.
type Fields = &'static [(&'static str, Kind)];

const MESSAGES: &[(&str, Fields)] = &[
    (
        "State",
        &[
            ("tick", One(Type::Uint64)),
            ("epoch", One(Type::Uint32)),
            ("t_sensor_ns", One(Type::Int64)),
            ("t_read_ns", One(Type::Int64)),
            ("q", Many(Type::Double)),
            ("dq", Many(Type::Double)),
            ("tau", Many(Type::Double)),
            ("temp", Many(Type::Float)),
            ("imu", Sub("Imu")),
            ("base", Sub("Base")),
            ("user", Many(Type::Double)),
            ("objects", Subs("Object")),
            ("estop", One(Type::Bool)),
        ],
    ),
    (
        "Imu",
        &[
            ("quat", Many(Type::Double)),
            ("gyro", Many(Type::Double)),
            ("acc", Many(Type::Double)),
            ("valid", One(Type::Bool)),
        ],
    ),
    ("Base", &[("pos", Many(Type::Double)), ("vel", Many(Type::Double)), ("valid", One(Type::Bool))]),
    (
        "Object",
        &[
            ("pos", Many(Type::Double)),
            ("quat", Many(Type::Double)),
            ("stamp_ns", One(Type::Int64)),
            ("valid", One(Type::Bool)),
        ],
    ),
    (
        "Command",
        &[
            ("tick", One(Type::Uint64)),
            ("epoch", One(Type::Uint32)),
            ("level", Enum("Level")),
            ("q", Many(Type::Double)),
            ("dq", Many(Type::Double)),
            ("kp", Many(Type::Double)),
            ("kd", Many(Type::Double)),
            ("tau", Many(Type::Double)),
        ],
    ),
    (
        "Tick",
        &[
            ("tick", One(Type::Uint64)),
            ("deadline_ns", One(Type::Int64)),
            ("stages", Sub("Stages")),
            ("skipped", One(Type::Uint32)),
            ("inferred", One(Type::Bool)),
            ("flow", Enum("Flow")),
            ("level", Enum("Level")),
            ("phase", Enum("Phase")),
            ("clamped", One(Type::Uint64)),
            ("authority", One(Type::Double)),
            ("age_ns", One(Type::Int64)),
        ],
    ),
    (
        "Stages",
        &[
            ("wake", One(Type::Uint32)),
            ("read", One(Type::Uint32)),
            ("observe", One(Type::Uint32)),
            ("infer", One(Type::Uint32)),
            ("sequence", One(Type::Uint32)),
            ("limit", One(Type::Uint32)),
            ("monitor", One(Type::Uint32)),
            ("gate", One(Type::Uint32)),
            ("write", One(Type::Uint32)),
            ("record", One(Type::Uint32)),
            ("total", One(Type::Uint32)),
        ],
    ),
    ("Obs", &[("tick", One(Type::Uint64)), ("values", Many(Type::Float))]),
    (
        "Chunk",
        &[
            ("tick", One(Type::Uint64)),
            ("id", One(Type::Uint64)),
            ("values", Many(Type::Float)),
            ("step", One(Type::Uint64)),
            ("prefix", One(Type::Uint32)),
        ],
    ),
    (
        "Verdict",
        &[
            ("tick", One(Type::Uint64)),
            ("monitor", One(Type::Uint32)),
            ("step", One(Type::Uint64)),
            ("closed", Maybe(Type::Double)),
            ("lo", One(Type::Double)),
            ("hi", One(Type::Double)),
        ],
    ),
    (
        "Event",
        &[
            ("tick", One(Type::Uint64)),
            ("reason", Enum("Reason")),
            ("joint", One(Type::Uint32)),
            ("value", One(Type::Double)),
            ("limit", One(Type::Double)),
            ("level", Enum("Level")),
        ],
    ),
    (
        "Request",
        &[
            ("tick", One(Type::Uint64)),
            ("kind", Enum("Kind")),
            ("slot", One(Type::Uint32)),
            ("value", One(Type::Double)),
        ],
    ),
    (
        "Bundle",
        &[
            ("tick", One(Type::Uint64)),
            ("name", One(Type::String)),
            ("sha256", One(Type::String)),
            ("manifest_json", One(Type::String)),
            ("spec_stl", One(Type::String)),
            ("late", One(Type::Bool)),
            ("fallback", One(Type::Bool)),
            ("monitors", Subs("Monitor")),
        ],
    ),
    ("Monitor", &[("name", One(Type::String)), ("dt", One(Type::Double)), ("formula", One(Type::String))]),
];

/// Names in the order of their numbers, which start at 0.
const ENUMS: &[(&str, &[&str])] = &[
    ("Level", &["RUN", "HOLD", "SOFT_STOP", "DAMP", "OFF"]),
    ("Flow", &["RUN", "HOLD", "EXHAUSTED"]),
    ("Phase", &["DISARMED", "ARMING", "ARMED"]),
    ("Kind", &["ARM", "STOP", "ESTOP", "DISARM", "RESET", "COMMAND", "SWITCH"]),
];

/// The encoded set: one file, `cadenza.proto`, package `cadenza`, proto3.
pub(super) fn file_descriptor_set() -> Vec<u8> {
    let mut enums: Vec<EnumDescriptorProto> = ENUMS
        .iter()
        .map(|(name, values)| {
            enumeration(name, values.iter().zip(0..).map(|(&value, number)| (value, number)))
        })
        .collect();
    let reasons = Reason::ALL.iter().map(|&reason| (reason.name(), reason as i32));
    enums.push(enumeration("Reason", [("NONE", 0)].into_iter().chain(reasons)));
    let file = FileDescriptorProto {
        name: Some("cadenza.proto".into()),
        package: Some("cadenza".into()),
        syntax: Some("proto3".into()),
        message_type: MESSAGES.iter().map(|(name, fields)| message(name, fields)).collect(),
        enum_type: enums,
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

/// Values carry the name of their enumeration in front, because they share one scope.
fn enumeration<'a>(name: &str, values: impl Iterator<Item = (&'a str, i32)>) -> EnumDescriptorProto {
    let value = values.map(|(value, number)| EnumValueDescriptorProto {
        name: Some(format!("{}_{value}", name.to_uppercase())),
        number: Some(number),
        options: None,
    });
    EnumDescriptorProto { name: Some(name.into()), value: value.collect(), ..EnumDescriptorProto::default() }
}

fn message(name: &str, fields: Fields) -> DescriptorProto {
    let optional: Vec<&str> = fields.iter().filter(|(_, k)| matches!(k, Maybe(_))).map(|(n, _)| *n).collect();
    let field = fields.iter().zip(1..).map(|(&(field, kind), number)| {
        let (ty, type_name) = match kind {
            One(ty) | Maybe(ty) | Many(ty) => (ty, None),
            Sub(name) | Subs(name) => (Type::Message, Some(format!(".cadenza.{name}"))),
            Enum(name) => (Type::Enum, Some(format!(".cadenza.{name}"))),
        };
        let label = if matches!(kind, Many(_) | Subs(_)) { Label::Repeated } else { Label::Optional };
        // proto3 says "optional" by a oneof with this field alone.
        let oneof = optional.iter().position(|&name| name == field);
        FieldDescriptorProto {
            name: Some(field.into()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(ty.into()),
            type_name,
            oneof_index: oneof.map(|index| index as i32),
            proto3_optional: oneof.map(|_| true),
            ..FieldDescriptorProto::default()
        }
    });
    let oneofs = optional.iter().map(|n| OneofDescriptorProto { name: Some(format!("_{n}")), options: None });
    DescriptorProto {
        name: Some(name.into()),
        field: field.collect(),
        oneof_decl: oneofs.collect(),
        ..DescriptorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::schema::{self, Topic};

    /// Field numbers and wire types in an encoded message.
    fn wire(mut bytes: &[u8]) -> Vec<(u32, u8)> {
        let mut found = Vec::new();
        let varint = |bytes: &mut &[u8]| {
            let (mut value, mut shift) = (0u64, 0);
            loop {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let skip = match key & 7 {
                0 => {
                    varint(&mut bytes);
                    0
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                wire => panic!("wire type {wire}"),
            };
            bytes = &bytes[skip..];
            found.push(((key >> 3) as u32, (key & 7) as u8));
        }
        found
    }

    fn expected(message: &str) -> Vec<(u32, u8)> {
        let (_, fields) = MESSAGES.iter().find(|(name, _)| *name == message).expect("message");
        let wire = |kind: Kind| match kind {
            One(Type::String) => 2,
            One(Type::Double) | Maybe(Type::Double) => 1,
            One(_) | Maybe(_) | Enum(_) => 0,
            Many(_) | Sub(_) | Subs(_) => 2,
        };
        fields.iter().zip(1..).map(|((_, kind), number)| (number, wire(*kind))).collect()
    }

    #[test]
    fn the_descriptors_say_what_the_messages_hold() {
        let (d, f) = (vec![1.5], vec![1.5f32]);
        let imu = schema::Imu { quat: d.clone(), gyro: d.clone(), acc: d.clone(), valid: true };
        let base = schema::Base { pos: d.clone(), vel: d.clone(), valid: true };
        let object = schema::Object { pos: d.clone(), quat: d.clone(), stamp_ns: 1, valid: true };
        let stages = schema::Stages {
            wake: 1,
            read: 1,
            observe: 1,
            infer: 1,
            sequence: 1,
            limit: 1,
            monitor: 1,
            gate: 1,
            write: 1,
            record: 1,
            total: 1,
        };
        let state = schema::State {
            tick: 1,
            epoch: 1,
            t_sensor_ns: 1,
            t_read_ns: 1,
            q: d.clone(),
            dq: d.clone(),
            tau: d.clone(),
            temp: f.clone(),
            imu: Some(imu.clone()),
            base: Some(base.clone()),
            user: d.clone(),
            objects: vec![object.clone()],
            estop: true,
        };
        let command = schema::Command {
            tick: 1,
            epoch: 1,
            level: 1,
            q: d.clone(),
            dq: d.clone(),
            kp: d.clone(),
            kd: d.clone(),
            tau: d.clone(),
        };
        let tick = schema::Tick {
            tick: 1,
            deadline_ns: 1,
            stages: Some(stages.clone()),
            skipped: 1,
            inferred: true,
            flow: 1,
            level: 1,
            phase: 1,
            clamped: 1,
            authority: 1.0,
            age_ns: 1,
        };
        let verdict = schema::Verdict { tick: 1, monitor: 1, step: 1, closed: Some(1.0), lo: 1.0, hi: 1.0 };
        let event = schema::Event { tick: 1, reason: 1, joint: 1, value: 1.0, limit: 1.0, level: 1 };
        let text = || "x".to_owned();
        let monitor = schema::Monitor { name: text(), dt: 1.0, formula: text() };
        let bundle = schema::Bundle {
            tick: 1,
            name: text(),
            sha256: text(),
            manifest_json: text(),
            spec_stl: text(),
            late: true,
            fallback: true,
            monitors: vec![monitor.clone()],
        };
        for (name, bytes) in [
            ("State", state.encode_to_vec()),
            ("Imu", imu.encode_to_vec()),
            ("Base", base.encode_to_vec()),
            ("Object", object.encode_to_vec()),
            ("Command", command.encode_to_vec()),
            ("Tick", tick.encode_to_vec()),
            ("Stages", stages.encode_to_vec()),
            ("Obs", schema::Obs { tick: 1, values: f.clone() }.encode_to_vec()),
            ("Chunk", schema::Chunk { tick: 1, id: 1, values: f, step: 1, prefix: 1 }.encode_to_vec()),
            ("Verdict", verdict.encode_to_vec()),
            ("Event", event.encode_to_vec()),
            ("Request", schema::Request { tick: 1, kind: 1, slot: 1, value: 1.0 }.encode_to_vec()),
            ("Bundle", bundle.encode_to_vec()),
            ("Monitor", monitor.encode_to_vec()),
        ] {
            assert_eq!(wire(&bytes), expected(name), "{name}");
        }
        assert_eq!(MESSAGES.len(), 14);
    }

    #[test]
    fn every_topic_has_a_message() {
        let set = FileDescriptorSet::decode(file_descriptor_set().as_slice()).expect("own bytes");
        let names: Vec<_> =
            set.file[0].message_type.iter().map(|m| format!("cadenza.{}", m.name())).collect();
        for topic in Topic::ALL {
            assert!(names.iter().any(|name| name == topic.message()), "{}", topic.message());
            assert_eq!(Topic::from_name(topic.name()), Some(topic));
        }
        let reasons = set.file[0].enum_type.iter().find(|e| e.name() == "Reason").expect("reasons");
        assert_eq!(reasons.value.len(), Reason::ALL.len() + 1);
    }
}
