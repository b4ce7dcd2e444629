//! The cross-field rules of a manifest.

use std::collections::BTreeMap;

use super::rules::{
    Checked, DIMENSION_CAP, at_least_zero, finite, known, length, not_empty, ordered, positive, range,
    sha256, unique, unit, whole,
};
use super::{
    Action, ActionKind, ActionOffset, CarryInit, ChunkMode, DefaultWord, FORMAT, Frame, Manifest,
    ManifestError, Noise, NormalizerForm, NormalizerPlace, Seam, terms,
};

/// Files that a function may come from, in the order of the bundle.
const FUNCTIONS: [&str; 5] = ["step", "init", "critic", "model", "fallback"];

/// Functions that a tick does not run: they may take several rows at once.
const BATCHED: [&str; 2] = ["critic", "model"];

/// Input bindings without a name behind a dot.
const INPUTS: [&str; 7] = ["observation", "previous_action", "time", "noise", "state", "control", "params"];

/// Output bindings without a name behind a dot.
const OUTPUTS: [&str; 6] = ["action", "actions", "presquash", "value", "next_state", "signals"];

impl Manifest {
    /// Checks every rule between the fields.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn validate(&self) -> Checked {
        if self.format != FORMAT {
            return Err(ManifestError::NewerFormat { found: self.format.to_string(), supported: FORMAT });
        }
        not_empty("name", &self.name)?;
        not_empty("robot.name", &self.robot.name)?;
        if let Some(hash) = &self.robot.model_sha256 {
            sha256("robot.model_sha256", hash)?;
        }
        for (name, entry) in &self.files {
            sha256(&format!("files.{name}.sha256"), &entry.sha256)?;
        }
        self.check_rates()?;
        self.check_joints()?;
        self.check_frames()?;
        terms::check(self)?;
        self.check_normalizer()?;
        self.check_action()?;
        self.check_chunk()?;
        self.check_functions()?;
        self.check_carry()?;
        self.check_noise()?;
        self.check_commands()?;
        self.check_monitors()?;
        if let Some(parity) = &self.parity {
            for (field, x) in [
                ("atol", parity.atol),
                ("rtol", parity.rtol),
                ("measured", parity.measured),
                ("quantization_error", parity.quantization_error),
            ] {
                at_least_zero(&format!("parity.{field}"), x)?;
            }
        }
        Ok(())
    }

    fn check_rates(&self) -> Checked {
        let rates = &self.rates;
        positive("rates.policy_dt", rates.policy_dt)?;
        positive("rates.control_dt", rates.control_dt)?;
        if let Some(dt) = rates.physics_dt {
            positive("rates.physics_dt", dt)?;
        }
        whole("rates.policy_dt", rates.policy_dt, rates.control_dt)
    }

    fn check_joints(&self) -> Checked {
        unique("joints", self.joints.iter().map(|j| j.name.as_str()))?;
        for joint in &self.joints {
            let at = |field: &str| format!("joints.{}.{field}", joint.name);
            not_empty("joints.name", &joint.name)?;
            finite(&at("default"), joint.default)?;
            at_least_zero(&at("kp"), joint.kp)?;
            at_least_zero(&at("kd"), joint.kd)?;
            if let Some(range) = joint.position {
                ordered(&at("position"), range, true)?;
            }
            for (field, bound) in [("velocity_max", joint.velocity_max), ("effort_max", joint.effort_max)] {
                if let Some(x) = bound {
                    positive(&at(field), x)?;
                }
            }
        }
        Ok(())
    }

    fn check_frames(&self) -> Checked {
        unique("frames", self.frames.iter().map(|f| f.name.as_str()))?;
        self.frames.iter().try_for_each(|frame| self.check_frame(frame))
    }

    fn check_frame(&self, frame: &Frame) -> Checked {
        not_empty("frames.name", &frame.name)?;
        for (i, link) in frame.chain.iter().enumerate() {
            let at = |field: &str| format!("frames.{}.chain.{i}.{field}", frame.name);
            link.pos.iter().try_for_each(|&x| finite(&at("pos"), x))?;
            finite(&at("zero"), link.zero)?;
            unit(&at("quat"), &link.quat)?;
            if let Some(joint) = &link.joint {
                known(&at("joint"), joint, self.joint_names())?;
                unit(&at("axis"), &link.axis)?;
            }
        }
        Ok(())
    }

    fn check_normalizer(&self) -> Checked {
        let n = &self.normalizer;
        if (n.place == NormalizerPlace::Graph) != self.in_graph.normalize {
            return Err(ManifestError::Contradiction {
                at: "normalizer.where".into(),
                why: format!("{:?}, but in_graph.normalize is {}", n.place, self.in_graph.normalize),
            });
        }
        if n.place == NormalizerPlace::Runtime || !n.mean.is_empty() || !n.spread.is_empty() {
            length("normalizer.mean", self.observation.size, n.mean.len())?;
            length("normalizer.spread", self.observation.size, n.spread.len())?;
        }
        at_least_zero("normalizer.eps", n.eps)?;
        for (i, (&mean, &spread)) in n.mean.iter().zip(&n.spread).enumerate() {
            range(
                &format!("normalizer.mean.{i}"),
                mean,
                (mean as f32).is_finite(),
                "is beyond 32-bit floats",
            )?;
            at_least_zero(&format!("normalizer.spread.{i}"), spread)?;
            let divisor = match n.form {
                NormalizerForm::SqrtVarPlusEps => (spread + n.eps).sqrt(),
                NormalizerForm::StdPlusEps => spread + n.eps,
            };
            if !(divisor as f32).is_normal() {
                let (at, rule) =
                    (format!("normalizer.spread.{i}"), "with eps is no divisor for a 32-bit float");
                return Err(ManifestError::Range { at, value: spread, rule });
            }
        }
        n.clip.map_or(Ok(()), |clip| positive("normalizer.clip", clip))
    }

    fn check_action(&self) -> Checked {
        let a = &self.action;
        let joints = || a.joints.iter().map(String::as_str);
        if a.joints.is_empty() {
            return Err(ManifestError::Size { at: "action.joints".into(), expected: 1, got: 0 });
        }
        unique("action.joints", joints())?;
        joints().try_for_each(|j| known("action.joints", j, self.joint_names()))?;
        a.channels.keys().try_for_each(|k| known("action.channels", k, joints()))?;
        if let Some(range) = a.raw_clip {
            ordered("action.raw_clip", range, true)?;
        }
        for (joint, &range) in a.clip.iter().flatten() {
            known("action.clip", joint, joints())?;
            ordered(&format!("action.clip.{joint}"), range, true)?;
        }
        if let Some(reset) = &a.reset {
            length("action.reset", a.joints.len(), reset.len())?;
            reset.iter().try_for_each(|&x| finite("action.reset", x))?;
        }
        self.check_scale(a)?;
        self.check_offset(a)?;
        match (a.kind, a.leash) {
            (ActionKind::PositionIncrement, Some(leash)) => positive("action.leash", leash),
            (_, None) => Ok(()),
            (kind, Some(leash)) => Err(ManifestError::Contradiction {
                at: "action.leash".into(),
                why: format!("{leash} rad, but only position_increment has a leash, not {kind:?}"),
            }),
        }
    }

    fn check_scale(&self, a: &Action) -> Checked {
        if self.in_graph.action_scale {
            return absent("action.scale", a.scale.is_empty(), "action_scale");
        }
        by_joint("action.scale", &a.scale, a)?;
        for joint in &a.joints {
            if !a.scale.contains_key(joint) && !a.scale.contains_key("*") {
                let known = a.scale.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(ManifestError::Unknown { at: "action.scale".into(), name: joint.clone(), known });
            }
        }
        Ok(())
    }

    fn check_offset(&self, a: &Action) -> Checked {
        let contradiction =
            |why: String| Err(ManifestError::Contradiction { at: "action.offset".into(), why });
        match (&a.offset, a.kind) {
            (ActionOffset::Each(map), _) if self.in_graph.action_offset => {
                absent("action.offset", map.is_empty(), "action_offset")
            }
            (ActionOffset::Word(_), _) if self.in_graph.action_offset => {
                absent("action.offset", false, "action_offset")
            }
            (ActionOffset::Word(DefaultWord::Default), ActionKind::Position | ActionKind::PositionOffset) => {
                Ok(())
            }
            (ActionOffset::Word(_), kind) => {
                contradiction(format!("the default positions are no offset of {kind:?}"))
            }
            (ActionOffset::Each(map), ActionKind::PositionOffset) if !map.is_empty() => contradiction(
                "position_offset takes the joints' defaults; use position for other offsets".into(),
            ),
            (ActionOffset::Each(map), _) => by_joint("action.offset", map, a),
        }
    }

    fn check_chunk(&self) -> Checked {
        let c = &self.chunk;
        for (field, x, least) in [
            ("horizon", c.horizon, 1),
            ("execute", c.execute, 1),
            ("past", c.past, 0),
            ("fade_ticks", c.fade_ticks, 0),
        ] {
            if x < least || x > DIMENSION_CAP {
                let (at, rule) = (format!("chunk.{field}"), "is not a length between 1 and 65536");
                return Err(ManifestError::Range { at, value: x as f64, rule });
            }
        }
        let why = if c.execute > c.horizon {
            format!("execute {} is longer than the horizon {}", c.execute, c.horizon)
        } else if c.mode == ChunkMode::None && (c.horizon, c.past) != (1, 0) {
            format!("mode none has one action, not a horizon of {} and {} past rows", c.horizon, c.past)
        } else if c.mode == ChunkMode::Lazy && c.past != 0 {
            format!("mode lazy has no past rows, found {}", c.past)
        } else if c.seam == Seam::Fade && !(1..=c.horizon).contains(&c.fade_ticks) {
            format!("a fade of {} ticks does not fit the horizon {}", c.fade_ticks, c.horizon)
        } else {
            return Ok(());
        };
        Err(ManifestError::Contradiction { at: "chunk".into(), why })
    }

    fn check_functions(&self) -> Checked {
        if !self.functions.contains_key("step") {
            let known = self.functions.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(ManifestError::Unknown { at: "functions".into(), name: "step".into(), known });
        }
        for (name, f) in &self.functions {
            known("functions", name, FUNCTIONS.into_iter())?;
            let at = format!("functions.{name}");
            if f.file != format!("{name}.onnx") {
                let why = format!("{:?}, but the function comes from {name}.onnx", f.file);
                return Err(ManifestError::Contradiction { at: format!("{at}.file"), why });
            }
            if f.batch == 0 || f.batch > DIMENSION_CAP {
                let (at, rule) = (format!("{at}.batch"), "is not between 1 and 65536");
                return Err(ManifestError::Range { at, value: f.batch as f64, rule });
            }
            if f.batch != 1 && !BATCHED.contains(&name.as_str()) {
                let why = format!("{}, but only {} run on several rows", f.batch, BATCHED.join(" and "));
                return Err(ManifestError::Contradiction { at: format!("{at}.batch"), why });
            }
            let carries = || self.carry.keys().map(String::as_str);
            let sources = || self.observation.terms.iter().map(|t| t.source.as_str());
            for binding in f.inputs.values() {
                match binding.split_once('.') {
                    Some(("carry", n)) => known(&format!("{at}.inputs"), n, carries())?,
                    Some(("source", s)) => known(&format!("{at}.inputs"), s, sources())?,
                    _ => known(&format!("{at}.inputs"), binding, INPUTS.into_iter())?,
                }
            }
            for binding in f.outputs.values() {
                match binding.split_once('.') {
                    Some(("carry", n)) => known(&format!("{at}.outputs"), n, carries())?,
                    Some(("aux", n)) => not_empty(&format!("{at}.outputs"), n)?,
                    _ => known(&format!("{at}.outputs"), binding, OUTPUTS.into_iter())?,
                }
            }
            unique(&format!("{at}.inputs"), f.inputs.values().map(String::as_str))?;
            unique(&format!("{at}.outputs"), f.outputs.values().map(String::as_str))?;
        }
        let needed = if self.chunk.mode == ChunkMode::Open { "actions" } else { "action" };
        self.must_output("step", needed, "chunk.mode")?;
        if self.chunk.mode == ChunkMode::Lazy {
            self.must_output("init", "", "chunk.mode")?;
        }
        Ok(())
    }

    /// The function exists and gives `binding` (any when empty), because `at` says so.
    fn must_output(&self, function: &str, binding: &str, at: &str) -> Checked {
        let f = self.functions.get(function);
        if f.is_some_and(|f| binding.is_empty() || f.outputs.values().any(|b| b == binding)) {
            return Ok(());
        }
        let why = match f {
            None => format!("needs the function {function:?}"),
            Some(_) => format!("needs the output {binding:?} of the function {function:?}"),
        };
        Err(ManifestError::Contradiction { at: at.into(), why })
    }

    fn check_carry(&self) -> Checked {
        for (name, carry) in &self.carry {
            let at = format!("carry.{name}");
            not_empty("carry", name)?;
            let count = carry.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
            if carry.shape.len() > 6 || !count.is_some_and(|n| (1..=DIMENSION_CAP).contains(&n)) {
                let (rank, start) = (carry.shape.len(), &carry.shape[..carry.shape.len().min(6)]);
                let why =
                    format!("{start:?} ({rank} dimensions) is no shape of up to 6 with 1 to 65536 numbers");
                return Err(ManifestError::Contradiction { at: format!("{at}.shape"), why });
            }
            self.must_output("step", &format!("carry.{name}"), &at)?;
            if carry.init == CarryInit::Init {
                self.must_output("init", &format!("carry.{name}"), &format!("{at}.init"))?;
            }
        }
        Ok(())
    }

    fn check_noise(&self) -> Checked {
        match &self.noise {
            None => Ok(()),
            Some(Noise::ClippedGaussianPreTanh { std, clip }) => {
                positive("noise.std", *std)?;
                positive("noise.clip", *clip)?;
                self.must_output("step", "presquash", "noise")
            }
            Some(Noise::Bounded { amplitude, rate, .. }) => {
                for (field, map) in [("amplitude", amplitude), ("rate", rate)] {
                    by_joint(&format!("noise.{field}"), map, &self.action)?;
                    map.iter().try_for_each(|(k, &x)| at_least_zero(&format!("noise.{field}.{k}"), x))?;
                }
                amplitude.keys().try_for_each(|k| known("noise.rate", k, rate.keys().map(String::as_str)))
            }
        }
    }

    fn check_commands(&self) -> Checked {
        unique("commands", self.commands.iter().map(|c| c.name.as_str()))?;
        for c in &self.commands {
            not_empty("commands.name", &c.name)?;
            ordered(&format!("commands.{}.range", c.name), c.range, false)?;
            if !(c.range[0] <= c.default && c.default <= c.range[1]) {
                let at = format!("commands.{}.default", c.name);
                return Err(ManifestError::Range {
                    at,
                    value: c.default,
                    rule: "lies outside the slot's range",
                });
            }
        }
        Ok(())
    }

    fn check_monitors(&self) -> Checked {
        unique("monitors", self.monitors.iter().map(|m| m.name.as_str()))?;
        for m in &self.monitors {
            let at = |field: &str| format!("monitors.{}.{field}", m.name);
            not_empty("monitors.name", &m.name)?;
            positive(&at("dt"), m.dt)?;
            whole(&at("dt"), m.dt, self.rates.control_dt)?;
            at_least_zero(&at("margin"), m.margin)?;
            m.params.iter().try_for_each(|(k, &x)| finite(&at(&format!("params.{k}")), x))?;
        }
        Ok(())
    }

    /// Names of all joints.
    pub(super) fn joint_names(&self) -> impl Iterator<Item = &str> {
        self.joints.iter().map(|j| j.name.as_str())
    }
}

/// Keys of a map over joints: the action's joints or `*`, with finite numbers.
fn by_joint(at: &str, map: &BTreeMap<String, f64>, action: &Action) -> Checked {
    for (joint, &x) in map {
        if joint != "*" {
            known(at, joint, action.joints.iter().map(String::as_str))?;
        }
        finite(&format!("{at}.{joint}"), x)?;
    }
    Ok(())
}

fn absent(at: &str, is_absent: bool, flag: &str) -> Checked {
    if is_absent {
        return Ok(());
    }
    let why = format!("the graph already does this (in_graph.{flag}), so it must be empty");
    Err(ManifestError::Contradiction { at: at.into(), why })
}
