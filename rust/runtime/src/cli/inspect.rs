//! `inspect`: what a bundle holds.

use std::path::PathBuf;
use std::time::Instant;

use cadenza_policy::manifest::{
    ActionOffset, ChunkMode, ClipStage, Interleave, Manifest, NormalizerPlace, Numbers, Term,
};
use cadenza_policy::{ActError, Bundle, LoadError, Options, Policy, Vectors};

use super::output::Out;
use super::text::{bytes, columns, count, number, range, row, word};
use super::{Outcome, in_file, open_bundle};
use crate::timing::stats::Latency;

/// Inferences that are timed, after a tenth as many to warm up.
const TIMED: usize = 300;

/// Say what a bundle holds: joints, observation, action, networks, monitors, parity, size, speed.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  PROGRAM inspect walk.cadenza\n  PROGRAM inspect walk.cadenza --json")]
pub(super) struct Args {
    /// Bundle.
    bundle: PathBuf,
    /// Print JSON: the manifest, id and footprint.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Outcome {
    let bundle = open_bundle(&args.bundle)?;
    let policy = Policy::load(&bundle, &Options::default());
    if args.json {
        let policy = policy.map_err(in_file(&args.bundle))?;
        let f = policy.footprint();
        let json = serde_json::json!({
            "id": id(&bundle),
            "bytes": bundle.as_bytes().len(),
            "footprint": {
                "weight_bytes": f.weight_bytes,
                "arena_bytes": f.arena_bytes,
                "macs": f.macs,
                "kernels": f.kernels,
                "isa": policy.isa().to_string(),
            },
            "manifest": bundle.manifest(),
        });
        out.say(serde_json::to_string_pretty(&json)?);
        return Ok(0);
    }
    head(&bundle, out);
    observation(bundle.manifest(), out);
    action(bundle.manifest(), out);
    mission(&bundle, out);
    networks(&bundle, policy, out).map_err(in_file(&args.bundle))?;
    provenance(bundle.manifest(), out);
    Ok(0)
}

/// The bundle's id in hexadecimal.
pub(super) fn id(bundle: &Bundle) -> String {
    bundle.id().iter().map(|b| format!("{b:02x}")).collect()
}

fn head(bundle: &Bundle, out: &mut Out) {
    let m = bundle.manifest();
    out.say(row("name", &m.name));
    out.say(row("id", id(bundle)));
    out.say(row("robot", &m.robot.name));
    let steps = (m.rates.policy_dt / m.rates.control_dt).round();
    let rates = format!(
        "policy {} Hz, control {} Hz ({steps} control ticks in a policy step)",
        number(1.0 / m.rates.policy_dt),
        number(1.0 / m.rates.control_dt)
    );
    out.say(row("rates", rates));
    out.say(row("joints", m.joints.len()));
    let head = ["", "default", "kp", "kd", "position", "velocity", "effort"].map(str::to_owned).to_vec();
    let limit = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), number);
    let rows = m.joints.iter().map(|j| {
        let position = j.position.map_or_else(|| "-".to_owned(), range);
        let (velocity, effort) = (limit(j.velocity_max), limit(j.effort_max));
        vec![j.name.clone(), number(j.default), number(j.kp), number(j.kd), position, velocity, effort]
    });
    table(std::iter::once(head).chain(rows).collect(), out);
    if !m.frames.is_empty() {
        out.say(row("frames", list(m.frames.iter().map(|f| f.name.as_str()))));
    }
}

fn observation(m: &Manifest, out: &mut Out) {
    out.say(row("observation", count(m.observation.size, "number")));
    let head = ["", "source", "size", "offset", "scale", "clip", "history"].map(str::to_owned).to_vec();
    let rows = m.observation.terms.iter().map(|t| {
        let (offset, scale) = (numbers(&t.offset), numbers(&t.scale));
        vec![t.name.clone(), t.source.clone(), t.size.to_string(), offset, scale, clip(t), history(t)]
    });
    table(std::iter::once(head).chain(rows).collect(), out);
    let order = match m.observation.interleave {
        Interleave::Term => "term by term, each with its history",
        Interleave::Time => "frame by frame, each with all terms",
    };
    out.say(row("layout", order));
    for t in &m.observation.terms {
        for line in details(m, t) {
            out.say(row("", format!("{}: {line}", t.name)));
        }
    }
    let n = &m.normalizer;
    let clip = n.clip.map_or_else(String::new, |c| format!(", clipped to ±{}", number(c)));
    let text = match n.place {
        NormalizerPlace::None => "none".to_owned(),
        place => format!("in the {}: {}, eps {}{clip}", word(place), word(n.form), number(n.eps)),
    };
    out.say(row("normaliser", text));
}

fn numbers(numbers: &Numbers) -> String {
    match numbers {
        Numbers::All(x) => number(*x),
        Numbers::Each(each) => {
            let same = each.first().filter(|a| each.iter().all(|b| b == *a));
            same.map_or_else(|| "below".to_owned(), |x| number(*x))
        }
    }
}

/// What of a term does not fit into its line: joints in another order than the bundle's, numbers that differ, settings.
fn details(m: &Manifest, term: &Term) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(joints) = term.joints.as_ref().filter(|j| j.iter().ne(m.joints.iter().map(|j| &j.name))) {
        lines.push(format!("joints {}", joints.join(", ")));
    }
    for (key, numbers_) in [("offset", &term.offset), ("scale", &term.scale)] {
        if let (Numbers::Each(each), "below") = (numbers_, numbers(numbers_).as_str()) {
            lines.push(format!("{key} {}", list(each.iter().map(|x| number(*x)))));
        }
    }
    match serde_json::to_value(&term.params) {
        Ok(serde_json::Value::Object(settings)) if !settings.is_empty() => {
            lines.push(list(settings.iter().map(|(key, value)| format!("{key} {value}"))));
        }
        _ => {}
    }
    lines
}

fn clip(term: &Term) -> String {
    match (term.clip, term.clip_stage) {
        (None, _) => "-".into(),
        (Some(bounds), ClipStage::AfterScale) => range(bounds),
        (Some(bounds), ClipStage::BeforeScale) => format!("{} first", range(bounds)),
    }
}

fn history(term: &Term) -> String {
    match term.history.length {
        1 => "-".into(),
        n => format!("{n} {}, {}", word(term.history.order), word(term.history.fill)),
    }
}

fn action(m: &Manifest, out: &mut Out) {
    let a = &m.action;
    let leash = a.leash.map_or_else(String::new, |l| format!(", leash {} rad", number(l)));
    let raw = a.raw_clip.map_or_else(String::new, |r| format!(", network output clipped to {}", range(r)));
    out.say(row("action", format!("{}{leash}{raw}", word(a.kind))));
    let head = ["", "scale", "offset", "clip"].map(str::to_owned).to_vec();
    let rows = a.joints.iter().map(|joint| {
        let scale = by_joint(&a.scale, joint).map_or_else(|| "-".to_owned(), |x| number(*x));
        let offset = match &a.offset {
            ActionOffset::Word(w) => word(w),
            ActionOffset::Each(each) => number(by_joint(each, joint).copied().unwrap_or(0.0)),
        };
        let clip =
            a.clip.as_ref().and_then(|c| by_joint(c, joint)).map_or_else(|| "-".to_owned(), |r| range(*r));
        vec![joint.clone(), scale, offset, clip]
    });
    table(std::iter::once(head).chain(rows).collect(), out);
    let c = &m.chunk;
    let text = match c.mode {
        ChunkMode::None => "one action for each inference".to_owned(),
        mode => format!(
            "{}: {} future rows, {} past, {} executed, seam {}",
            word(mode),
            c.horizon,
            c.past,
            c.execute,
            word(c.seam)
        ),
    };
    out.say(row("chunk", format!("{text}; exhausted: {}", word(c.on_exhausted))));
}

/// The value of a joint, or that of `*`.
fn by_joint<'a, T>(map: &'a std::collections::BTreeMap<String, T>, joint: &str) -> Option<&'a T> {
    map.get(joint).or_else(|| map.get("*"))
}

fn mission(bundle: &Bundle, out: &mut Out) {
    let m = bundle.manifest();
    if !m.commands.is_empty() {
        out.say(row("commands", m.commands.len()));
        let head = ["", "range", "default"].map(str::to_owned).to_vec();
        let rows = m.commands.iter().map(|c| vec![c.name.clone(), range(c.range), number(c.default)]);
        table(std::iter::once(head).chain(rows).collect(), out);
    }
    out.say(row("monitors", m.monitors.len()));
    for monitor in &m.monitors {
        let margin = if monitor.margin == 0.0 {
            String::new()
        } else {
            format!(", margin {}", number(monitor.margin))
        };
        out.say(format_args!(
            "   {}: {} -> {}, every {} s{margin}",
            monitor.name,
            word(monitor.trip),
            word(monitor.action),
            number(monitor.dt)
        ));
    }
    for line in bundle.specification().unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
        out.say(format_args!("     {line}"));
    }
    parity(bundle, out);
}

/// What was recorded, by whom, and what it proves.
fn parity(bundle: &Bundle, out: &mut Out) {
    let Some(p) = &bundle.manifest().parity else {
        out.say(row("parity", "no vectors: runs in simulation, replay and dry runs only"));
        return;
    };
    let vectors = Vectors::open(bundle);
    let shape =
        |name: &str| vectors.as_ref().ok().and_then(|v| v.tensor(name).ok().flatten()).map(|t| t.shape);
    let count = match shape("obs").as_deref() {
        Some([sequences, steps, _]) => format!("{sequences} sequences of {steps} steps"),
        _ => "vectors".to_owned(),
    };
    let (atol, rtol) = (number(p.atol), number(p.rtol));
    let text = format!(
        "{count} from {}, tolerance {atol} + {rtol}·|y|, difference at export {:.1e}",
        p.source, p.measured
    );
    out.say(row("parity", text));
    if p.source.starts_with("onnxruntime") {
        out.say(row("", "made at import: they prove the engine, not the training code"));
    }
    let names = vectors.as_ref().map(Vectors::names).unwrap_or_default();
    let mut sensors: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("frame.")).collect();
    sensors.sort_unstable();
    let text = if sensors.is_empty() {
        "none recorded".to_owned()
    } else {
        format!("recorded: {}", sensors.join(", "))
    };
    out.say(row("sensors", text));
}

fn networks(bundle: &Bundle, policy: Result<Policy, LoadError>, out: &mut Out) -> Result<(), LoadError> {
    let m = bundle.manifest();
    out.say(row("functions", m.functions.len()));
    let mut policy = policy?;
    for (name, function) in &m.functions {
        let ports = policy.function(name).map_or_else(String::new, |session| {
            let ports = |ports: &[cadenza_policy::PortInfo]| {
                list(ports.iter().map(|p| format!("{} {:?}", p.binding, p.shape)))
            };
            format!("{} -> {}", ports(session.inputs()), ports(session.outputs()))
        });
        out.say(format_args!("   {name} ({}): {ports}", function.file));
    }
    for (name, carry) in &m.carry {
        out.say(format_args!("   state {name} {:?}, starts with {}", carry.shape, word(carry.init)));
    }
    let g = &m.in_graph;
    let inside = [
        (g.normalize, "normaliser"),
        (g.squash, "squash"),
        (g.action_scale, "action scale"),
        (g.action_offset, "action offset"),
    ];
    let inside = list(inside.into_iter().filter_map(|(is, what)| is.then_some(what)));
    out.say(row("in the graph", if inside.is_empty() { "the network alone".into() } else { inside }));
    let noise = match &m.noise {
        None => "none allowed".to_owned(),
        Some(noise) => word(noise),
    };
    out.say(row("noise", noise));
    let f = policy.footprint();
    out.say(row("operators", f.kernels.join(", ")));
    out.say(row("weights", format!("{}, {} packed", word(m.weights), bytes(f.weight_bytes))));
    let file = bytes(bundle.as_bytes().len());
    out.say(row("size", format!("file {file}, arena {}, {} multiply-adds", bytes(f.arena_bytes), f.macs)));
    let text = match time(&mut policy) {
        Ok(t) => {
            let share = t.p50 as f64 / (1e9 * m.rates.control_dt);
            let share = format!("{:.2} % of the control period", 100.0 * share);
            format!("p50 {:.1} us ({}), {share}{}", t.p50 as f64 / 1e3, policy.isa(), debug_build())
        }
        Err(error) => format!("cannot be measured: {error}"),
    };
    out.say(row("inference", text));
    Ok(())
}

/// What a debug build has to say about times.
pub(super) fn debug_build() -> &'static str {
    if cfg!(debug_assertions) { " (debug build: slower than a release build)" } else { "" }
}

/// Measured inference.
pub(super) struct Timing {
    /// Median, ns.
    pub(super) p50: u64,
    /// 99th percentile, ns.
    pub(super) p99: u64,
}

/// Times inferences on zeros.
pub(super) fn time(policy: &mut Policy) -> Result<Timing, ActError> {
    let obs = vec![0.0; policy.observation_len()];
    let previous = vec![0.0; policy.previous_len()];
    let mut out = vec![0.0; policy.action_len()];
    let mut latency = Latency::new();
    for i in 0..TIMED + TIMED / 10 {
        let start = Instant::now();
        if policy.mode() == ChunkMode::Lazy {
            policy.begin(&obs)?;
            policy.next(&previous, &mut out)?;
        } else {
            policy.act(&obs, &previous, &mut out)?;
        }
        if i >= TIMED / 10 {
            latency.record(start.elapsed().as_nanos() as u64);
        }
    }
    policy.reset();
    Ok(Timing { p50: latency.quantile(0.5), p99: latency.quantile(0.99) })
}

fn provenance(m: &Manifest, out: &mut Out) {
    let p = &m.provenance;
    let dirty = if p.dirty { " with changes" } else { "" };
    let words = [
        (!p.algorithm.is_empty()).then(|| p.algorithm.clone()),
        (!p.environment.is_empty()).then(|| p.environment.clone()),
        (p.steps > 0).then(|| format!("{} steps, seed {}", p.steps, p.seed)),
        (!p.created.is_empty()).then(|| p.created.clone()),
        (!p.cadenza.is_empty()).then(|| format!("cadenza {}", p.cadenza)),
        p.git.as_ref().map(|git| format!("commit {git}{dirty}")),
        p.mujoco.as_ref().map(|v| format!("mujoco {v}")),
        p.torch.as_ref().map(|v| format!("torch {v}")),
    ];
    out.say(row("provenance", list(words.into_iter().flatten())));
    if let Some(command) = &p.command {
        out.say(row("", command));
    }
}

fn list<S: Into<String>>(items: impl Iterator<Item = S>) -> String {
    items.map(Into::into).collect::<Vec<_>>().join(", ")
}

fn table(rows: Vec<Vec<String>>, out: &mut Out) {
    columns(&rows).iter().for_each(|line| out.say(line));
}
