//! The page around the charts.

use std::fmt::Write;

use plotters::style::RGBColor;

use super::chart::{self, Line, ink, number};
use super::parts::{CLOSE, HALF, WIDE, escape, key, open, stages};
use super::series::{JointCurves, MonitorCurves, Run};
use crate::action::Flow;
use crate::log::entry::Stage;
use crate::log::header::{JointHeader, MonitorHeader};
use crate::log::{Log, LogError, Watched};
use crate::safety::{Fault, Level};
use crate::timing::summary::{SENSOR_TO_COMMAND, StageSummary};

/// Bands over the whole width, at twice their size on the page.
const BAND: (u32, u32) = (2200, 120);
/// Most points of all joints' curves together, which bounds the page to about 1.5 MB.
const POINTS: usize = 100_000;
/// Events shown before the rest is only counted.
const EVENTS: usize = 200;
/// Charts of monitors shown before the rest is only counted: each bundle that takes over brings its own.
const MONITORS: usize = 64;

/// The report of a run: one self-contained HTML page.
///
/// # Errors
/// A message of the log that its topic cannot hold.
pub fn html(log: &Log) -> Result<String, LogError> {
    let header = log.header();
    let columns = (POINTS / (8 * header.joints.len().max(1))).clamp(60, 500);
    let run = Run::read(log, columns)?;
    let mut page = String::new();
    let title = format!("{} · {}", escape(&header.robot), escape(&header.bundle));
    open(&mut page, &title);
    let _ = write!(
        page,
        "<h1>{title}</h1>\n<p class=\"soft\">{} Hz control · {} Hz policy · {}</p>\n",
        header.control_hz,
        header.policy_hz,
        escape(&header.rt.level())
    );
    tiles(&mut page, log, &run);
    for damage in log.damage() {
        let _ = writeln!(page, "<div class=\"card warn\">{}</div>", escape(damage));
    }
    levels(&mut page, log, &run)?;
    robustness(&mut page, &run)?;
    timing(&mut page, &run)?;
    joints(&mut page, log, &run)?;
    details(&mut page, log);
    page += CLOSE;
    Ok(page)
}

fn tiles(page: &mut String, log: &Log, run: &Run) {
    let counters = &run.stats.counters;
    let dropped: u64 = log.dropped().iter().map(|(_, n)| n).sum();
    let worst = run.monitors.iter().filter_map(|m| m.worst).fold(f64::INFINITY, f64::min);
    *page += "<div class=\"tiles\">\n";
    let mut tile = |value: String, name: &str, bad: bool| {
        let class = if bad { "tile bad" } else { "tile" };
        let _ = writeln!(page, "<div class=\"{class}\"><b>{value}</b><span>{name}</span></div>");
    };
    tile(format!("{:.2} s", run.seconds), "recorded", false);
    tile(counters.ticks.to_string(), "control ticks", false);
    tile(counters.missed.to_string(), "missed deadlines", counters.missed > 0);
    tile(run.events.len().to_string(), "events", !run.events.is_empty());
    if worst.is_finite() {
        tile(format!("{worst:.3}"), "worst robustness", worst < 0.0);
    }
    if let Some(row) = run.stats.stage(Stage::Total.name()).filter(|row| row.count > 0) {
        tile(format!("{:.1} µs", row.p99 as f64 / 1e3), "whole tick, p99", false);
    }
    tile(dropped.to_string(), "records dropped", dropped > 0);
    *page += "</div>\n";
}

fn level_color(level: Level) -> RGBColor {
    match level {
        Level::Run => ink::GREEN,
        Level::Hold => ink::BLUE,
        Level::SoftStop => ink::ORANGE,
        Level::Damp => ink::RED,
        Level::Off => ink::GREY,
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Run => "run",
        Level::Hold => "hold",
        Level::SoftStop => "soft stop",
        Level::Damp => "damp",
        Level::Off => "off",
    }
}

fn flow_color(flow: Flow) -> RGBColor {
    match flow {
        Flow::Run => ink::GREEN,
        Flow::Hold => ink::BLUE,
        Flow::Exhausted => ink::RED,
    }
}

fn levels(page: &mut String, log: &Log, run: &Run) -> Result<(), LogError> {
    *page += "<h2>Levels and events</h2>\n<div class=\"card\">\n<h3>Safety level</h3>\n";
    let names =
        [("green", "run"), ("blue", "hold"), ("orange", "soft stop"), ("red", "damp"), ("grey", "off")];
    key(page, &names, "box");
    *page += &chart::band(BAND, run.seconds, &run.levels, level_color)?;
    *page += "<h3>Action sequence</h3>\n";
    key(page, &[("green", "run"), ("blue", "hold"), ("red", "exhausted")], "box");
    *page += &chart::band(BAND, run.seconds, &run.flows, flow_color)?;
    *page += "</div>\n";
    if run.events.is_empty() {
        *page += "<p class=\"soft\">No events.</p>\n";
        return Ok(());
    }
    let watched = log.watched()?;
    *page += "<div class=\"card\"><table>\n<tr><th>time, s</th><th>tick</th><th class=\"text\">reason</th>\
              <th class=\"text\">where</th><th>seen</th><th>allowed</th><th class=\"text\">asks for</th></tr>\n";
    for (t, fault) in run.events.iter().take(EVENTS) {
        let _ = writeln!(
            page,
            "<tr><td>{t:.3}</td><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td><td>{}</td>\
             <td class=\"text\">{}</td></tr>",
            fault.tick,
            fault.reason.name(),
            escape(&place(log, fault, &watched)),
            value(fault.value),
            value(fault.limit),
            level_name(fault.level)
        );
    }
    *page += "</table>";
    if run.events.len() > EVENTS {
        let _ = write!(page, "<p class=\"soft small\">and {} more</p>", run.events.len() - EVENTS);
    }
    *page += "</div>\n";
    Ok(())
}

/// Name of the joint or monitor that a fault is about.
fn place(log: &Log, fault: &Fault, watched: &[Watched]) -> String {
    let index = usize::from(fault.joint);
    let name = if fault.reason.is_about_monitors() {
        let watched = watched.iter().find(|watched| watched.holds(fault.tick));
        watched.and_then(|watched| watched.monitors.get(index)).map(|monitor| &monitor.name)
    } else {
        log.header().joints.get(index).map(|joint| &joint.name)
    };
    match name {
        Some(name) => name.clone(),
        None if fault.joint == u16::MAX => "–".into(),
        None => index.to_string(),
    }
}

fn value(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e9 { format!("{value:.0}") } else { format!("{value:.4}") }
}

fn robustness(page: &mut String, run: &Run) -> Result<(), LogError> {
    if run.monitors.is_empty() {
        return Ok(());
    }
    *page += "<h2>Specification</h2>\n";
    key(
        page,
        &[
            ("green", "robustness, final"),
            ("grey", "bounds of the pending instant"),
            ("red", "0: violated below"),
        ],
        "",
    );
    *page += "<div class=\"grid\">\n";
    for curves in run.monitors.iter().take(MONITORS) {
        monitor_card(page, run.seconds, curves)?;
    }
    *page += "</div>\n";
    if let Some(more) = run.monitors.len().checked_sub(MONITORS).filter(|&n| n > 0) {
        let _ = writeln!(page, "<p class=\"soft small\">and {more} more</p>");
    }
    Ok(())
}

fn monitor_card(page: &mut String, seconds: f64, curves: &MonitorCurves) -> Result<(), LogError> {
    let MonitorHeader { name, formula, .. } = &curves.header;
    let worst = match curves.worst {
        Some(rho) if rho < 0.0 => format!("violated, worst {rho:.4}"),
        Some(rho) => format!("held, worst {rho:.4}"),
        None => "no final verdict".into(),
    };
    let _ = write!(
        page,
        "<div class=\"card\"><h3>{}</h3><p class=\"soft small\">{}{} · {worst}</p>",
        escape(name),
        curves
            .bundle
            .as_ref()
            .map_or_else(String::new, |(bundle, t)| format!("{} from {t:.2} s · ", escape(bundle))),
        escape(formula)
    );
    let lines = [
        Line { points: &curves.lo, color: ink::GREY, width: 2 },
        Line { points: &curves.hi, color: ink::GREY, width: 2 },
        Line { points: &curves.closed, color: ink::GREEN, width: 4 },
    ];
    *page += &chart::over_time(HALF, seconds, "robustness", &lines, &[(0.0, ink::RED)])?;
    *page += "</div>\n";
    Ok(())
}

fn timing(page: &mut String, run: &Run) -> Result<(), LogError> {
    let shown = [
        (Stage::Wake.name(), ink::BLUE, "blue"),
        (Stage::Infer.name(), ink::PURPLE, "purple"),
        (Stage::Total.name(), ink::GREEN, "green"),
        (SENSOR_TO_COMMAND, ink::ORANGE, "orange"),
    ];
    let row = |name: &str| run.stats.stage(name).filter(|row| row.count > 0 && row.max > 0);
    let rows: Vec<(&StageSummary, RGBColor)> =
        shown.iter().filter_map(|&(name, color, _)| Some((row(name)?, color))).collect();
    *page += "<h2>Timing</h2>\n<div class=\"card\">\n";
    if rows.is_empty() {
        *page += "<p class=\"soft\">No times: the run was on the virtual clock, or kept no ticks.</p>\n";
    } else {
        let keys: Vec<(&str, String)> = shown
            .iter()
            .filter(|(name, ..)| row(name).is_some())
            .map(|&(name, _, color)| (color, escape(name)))
            .collect();
        let keys: Vec<(&str, &str)> = keys.iter().map(|(color, name)| (*color, name.as_str())).collect();
        key(page, &keys, "");
        *page += &chart::survival(WIDE, &rows)?;
    }
    *page += "</div>\n<div class=\"card\">";
    stages(page, &run.stats.stages);
    let counters = &run.stats.counters;
    let _ = writeln!(
        page,
        "<p class=\"soft small\">{} of {} ticks came after a missed deadline; {} periods were skipped.</p></div>",
        counters.missed, counters.ticks, counters.skipped
    );
    Ok(())
}

fn joints(page: &mut String, log: &Log, run: &Run) -> Result<(), LogError> {
    *page += "<h2>Joints</h2>\n";
    key(page, &[("blue", "measured"), ("orange", "commanded"), ("red", "limit")], "");
    *page += "<div class=\"grid\">\n";
    let clamps = &run.stats.counters.clamps;
    for (index, (joint, curves)) in log.header().joints.iter().zip(&run.joints).enumerate() {
        joint_card(page, run.seconds, joint, curves, clamps.get(index).copied().unwrap_or(0))?;
    }
    *page += "</div>\n";
    Ok(())
}

fn joint_card(
    page: &mut String,
    seconds: f64,
    joint: &JointHeader,
    curves: &JointCurves,
    clamps: u64,
) -> Result<(), LogError> {
    let range = match joint.position {
        Some([lo, hi]) => format!("range {} … {} rad", number(lo, hi - lo), number(hi, hi - lo)),
        None => "turns without end".into(),
    };
    let fastest = curves.dq.iter().map(|p| p.1.abs()).fold(0.0, f64::max);
    let _ = write!(
        page,
        "<div class=\"card\"><h3>{}</h3><p class=\"soft small\">{range} · fastest {fastest:.2} of {} rad/s · \
         limiter acted on {clamps} ticks</p>",
        escape(&joint.name),
        value(joint.velocity)
    );
    // The command lies under the measurement and is wider, so that both show where they agree.
    let pair = |measured, commanded| {
        [
            Line { points: commanded, color: ink::ORANGE, width: 7 },
            Line { points: measured, color: ink::BLUE, width: 3 },
        ]
    };
    let limits: Vec<(f64, RGBColor)> =
        joint.position.iter().flatten().map(|&limit| (limit, ink::RED)).collect();
    *page += &chart::over_time(HALF, seconds, "rad", &pair(&curves.q, &curves.q_command), &limits)?;
    let limits = [(-joint.velocity, ink::RED), (joint.velocity, ink::RED)];
    *page += &chart::over_time(HALF, seconds, "rad/s", &pair(&curves.dq, &curves.dq_command), &limits)?;
    *page += "</div>\n";
    Ok(())
}

fn details(page: &mut String, log: &Log) {
    let header = log.header();
    *page += "<h2>Details</h2>\n<div class=\"card\"><table>\n";
    let mut row = |name: &str, text: &str| {
        let _ = writeln!(page, "<tr><td>{name}</td><td class=\"wrap\">{}</td></tr>", escape(text));
    };
    row("robot", &header.robot);
    row("bundle", &header.bundle);
    row("bundle SHA-256", &header.bundle_sha256);
    row("runtime", &format!("{} {}", header.version, header.build));
    row("level", &header.rt.level());
    row("kernel", &format!("{} {}", header.rt.kernel, header.rt.preempt));
    for failure in &header.rt.failures {
        row("refused", &failure.to_string());
    }
    for (topic, n) in log.dropped() {
        row("dropped", &format!("{n} × {}", topic.name()));
    }
    for (name, names) in
        [("commands", &header.commands), ("objects", &header.objects), ("frames", &header.frames)]
    {
        if !names.is_empty() {
            row(name, &names.join(", "));
        }
    }
    if header.run.virtual_clock {
        row("clock", "virtual: one period for each tick");
    }
    *page += "</table>\n";
    for (name, text) in [("robot.toml", &header.robot_toml), ("spec.stl", &header.spec_stl)] {
        if !text.is_empty() {
            let _ = writeln!(page, "<details><summary>{name}</summary><pre>{}</pre></details>", escape(text));
        }
    }
    *page += "</div>\n";
}
