//! The page of a `bench latency`: how often a stage takes how long, and what the worst ticks spent their time on.

use std::fmt::Write;

use plotters::style::RGBColor;

use super::chart::{self, ink};
use super::parts::{CLOSE, HALF, WIDE, escape, key, open, stages};
use crate::log::LogError;
use crate::log::entry::Stage;
use crate::timing::measurement::{COLD, Measurement};
use crate::timing::summary::{BARE_WAKE, RawTick, SENSOR_TO_COMMAND, StageSummary};

/// Worst ticks in the picture, so that a bar stays a few pixels wide.
const BARS: usize = 128;

/// Rows of the first chart.
const SHOWN: [(&str, RGBColor, &str); 5] = [
    (BARE_WAKE, ink::GREY, "grey"),
    (Stage::Wake.name(), ink::BLUE, "blue"),
    (Stage::Infer.name(), ink::PURPLE, "purple"),
    (Stage::Total.name(), ink::GREEN, "green"),
    (SENSOR_TO_COMMAND, ink::ORANGE, "orange"),
];

/// The parts of a tick's bar, in the order of the tick.
const PARTS: [(Stage, RGBColor, &str); 10] = [
    (Stage::Wake, ink::GREY, "grey"),
    (Stage::Read, ink::ORANGE, "orange"),
    (Stage::Observe, ink::BLUE, "blue"),
    (Stage::Infer, ink::PURPLE, "purple"),
    (Stage::Sequence, ink::GREEN, "green"),
    (Stage::Limit, ink::TEAL, "teal"),
    (Stage::Monitor, ink::RED, "red"),
    (Stage::Gate, ink::PINK, "pink"),
    (Stage::Write, ink::YELLOW, "yellow"),
    (Stage::Record, ink::BROWN, "brown"),
];

/// The page of a measurement: one self-contained HTML file.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn html(measured: &Measurement) -> Result<String, LogError> {
    let config = measured.config.clone().unwrap_or_default();
    let title = format!("Latency · {} · {}", escape(&config.robot), escape(&config.bundle));
    let mut page = String::new();
    open(&mut page, &title);
    let _ = writeln!(page, "<h1>{title}</h1>\n<p class=\"soft\">{}</p>", escape(&header(measured)));
    if measured.stats.environment.build == "debug" {
        page += "<div class=\"card warn\">Debug build: its times say nothing about a release build.</div>\n";
    }
    tiles(&mut page, measured);
    survival(&mut page, measured)?;
    worst(&mut page, "Worst ticks", &measured.stats.worst)?;
    if let Some(cold) = &measured.cold {
        worst(&mut page, "Worst ticks on cold caches", &cold.worst)?;
    }
    page += "<h2>Stages</h2>\n<div class=\"card\">";
    stages(&mut page, &measured.stats.stages);
    page += "</div>\n";
    each(&mut page, measured)?;
    environment(&mut page, measured);
    page += CLOSE;
    Ok(page)
}

fn header(measured: &Measurement) -> String {
    let environment = &measured.stats.environment;
    let mut words = vec![environment.cpu.clone().unwrap_or_else(|| "unknown cpu".into())];
    words.push(format!("kernel {} {}", environment.rt.kernel, environment.rt.preempt));
    words.push(environment.rt.level());
    words.push(environment.build.clone());
    words.join(" · ")
}

fn tiles(page: &mut String, measured: &Measurement) {
    let counters = &measured.stats.counters;
    *page += "<div class=\"tiles\">\n";
    let mut tile = |value: String, name: &str, bad: bool| {
        let class = if bad { "tile bad" } else { "tile" };
        let _ = writeln!(page, "<div class=\"{class}\"><b>{value}</b><span>{name}</span></div>");
    };
    tile(counters.ticks.to_string(), "control ticks", false);
    tile(counters.missed.to_string(), "missed deadlines", counters.missed > 0);
    if let Some(cold) = &measured.cold {
        tile(cold.counters.missed.to_string(), "missed, cold", cold.counters.missed > 0);
    }
    for (name, words) in
        [(Stage::Total.name(), "whole tick, p99"), (SENSOR_TO_COMMAND, "sensor → command, p99")]
    {
        if let Some(row) = ran(measured, name) {
            tile(format!("{:.1} µs", row.p99 as f64 / 1e3), words, false);
        }
    }
    if let Some((p50, _)) = measured.wake_ratio() {
        tile(format!("{p50:.2} ×"), "wake / bare wake, p50", false);
    }
    if let Some((p50, _)) = measured.cold_ratio() {
        tile(format!("{p50:.2} ×"), "cold / hot tick, p50", false);
    }
    *page += "</div>\n";
}

/// A row with times in it.
fn ran<'a>(measured: &'a Measurement, name: &str) -> Option<&'a StageSummary> {
    measured.stats.stage(name).filter(|row| row.count > 0 && row.max > 0)
}

fn survival(page: &mut String, measured: &Measurement) -> Result<(), LogError> {
    *page += "<h2>How often above</h2>\n<div class=\"card\">\n";
    let rows: Vec<_> =
        SHOWN.into_iter().filter_map(|(name, color, css)| Some((ran(measured, name)?, color, css))).collect();
    let names: Vec<String> = rows.iter().map(|(row, ..)| escape(&row.name)).collect();
    let keys: Vec<(&str, &str)> =
        rows.iter().zip(&names).map(|((.., css), name)| (*css, name.as_str())).collect();
    key(page, &keys, "");
    let rows: Vec<(&StageSummary, RGBColor)> = rows.iter().map(|(row, color, _)| (*row, *color)).collect();
    *page += &chart::survival(WIDE, &rows)?;
    *page += "</div>\n";
    Ok(())
}

/// One chart for each stage that ran: warm caches, and cold ones where measured.
fn each(page: &mut String, measured: &Measurement) -> Result<(), LogError> {
    let keys = [("green", "warm"), ("red", "cold")];
    key(page, &keys[..if measured.cold.is_some() { 2 } else { 1 }], "");
    *page += "<div class=\"grid\">\n";
    for warm in measured.stats.stages.iter().filter(|row| !row.name.starts_with(COLD)) {
        let cold = ran(measured, &format!("{COLD}{}", warm.name));
        let rows: Vec<(&StageSummary, RGBColor)> = ran(measured, &warm.name)
            .map(|row| (row, ink::GREEN))
            .into_iter()
            .chain(cold.map(|row| (row, ink::RED)))
            .collect();
        if !rows.is_empty() {
            let _ = write!(page, "<div class=\"card\"><h3>{}</h3>", escape(&warm.name));
            *page += &chart::survival(HALF, &rows)?;
            *page += "</div>\n";
        }
    }
    *page += "</div>\n";
    Ok(())
}

fn worst(page: &mut String, title: &str, ticks: &[RawTick]) -> Result<(), LogError> {
    let ticks = &ticks[..ticks.len().min(BARS)];
    if ticks.is_empty() {
        return Ok(());
    }
    let _ = writeln!(page, "<h2>{title}</h2>\n<div class=\"card\">");
    let names = PARTS.map(|(stage, _, css)| (css, stage.name()));
    key(page, &names, "box");
    let bars: Vec<_> = ticks.iter().map(bar).collect();
    *page += &chart::stack(WIDE, &bars)?;
    *page += "</div>\n";
    Ok(())
}

/// The parts of one tick, µs. What lies between the stages is the clock's own and is not drawn.
fn bar(tick: &RawTick) -> Vec<(f64, RGBColor)> {
    let us = |stage: Stage| tick.stages.get(stage as usize).map_or(0.0, |&ns| f64::from(ns) / 1e3);
    PARTS.iter().map(|&(stage, color, _)| (us(stage), color)).collect()
}

fn environment(page: &mut String, measured: &Measurement) {
    let stats = &measured.stats;
    *page += "<h2>Details</h2>\n<div class=\"card\"><table>\n";
    let mut row = |name: &str, text: String| {
        let _ = writeln!(page, "<tr><td>{name}</td><td class=\"wrap\">{}</td></tr>", escape(&text));
    };
    if let Some(config) = &measured.config {
        row("device", config.device.clone());
        row("control rate", format!("{} Hz", config.control_hz));
        row("policy", config.placement.clone());
        row("busy threads", config.stress.to_string());
        row("memory touched between cold ticks", format!("{} bytes", config.evict_bytes));
        row("spin", format!("{} µs", config.spin_us));
    }
    row("runtime", format!("{} {}", stats.environment.version, stats.environment.build));
    row("commit", stats.environment.commit.clone().unwrap_or_else(|| "unknown".into()));
    if let Some(usage) = &stats.usage {
        row("used", usage.to_string());
    }
    row("level", stats.environment.rt.level());
    for failure in &stats.environment.rt.failures {
        row("refused", failure.to_string());
    }
    let load = |load: Option<f64>| load.map_or_else(|| "unknown".into(), |load| format!("{load:.2}"));
    row("load before, after", format!("{}, {}", load(measured.load_before), load(stats.environment.load)));
    *page += "</table></div>\n";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::measurement::{BenchConfig, ColdRun};
    use crate::timing::sched::RtReport;
    use crate::timing::stats::Stats;
    use crate::timing::stats::tests::tick;
    use crate::timing::summary::Environment;

    fn measured() -> Measurement {
        let mut stats = Stats::new(2_000_000);
        for i in 0..300 {
            stats.add(&tick(i, 18_000 + 10 * i as u32, 31_000));
        }
        let config = BenchConfig { robot: "<duo>".into(), bundle: "walk".into(), ..BenchConfig::default() };
        Measurement {
            stats: stats.summary(Environment::capture(RtReport::default())),
            config: Some(config),
            ..Measurement::default()
        }
    }

    #[test]
    fn the_page_is_whole_and_fetches_nothing() {
        let mut made = measured();
        let page = html(&made).expect("drawn");
        for words in ["&lt;duo&gt;", "How often above", "Worst ticks", "whole tick", "load before, after"] {
            assert!(page.contains(words), "{words}");
        }
        assert!(
            !page.contains("<script")
                && !page.contains("href=")
                && !page.contains("src=")
                && !page.contains("<duo>")
        );
        assert!(!page.contains("cold caches"));
        assert_eq!(page.contains("Debug build"), cfg!(debug_assertions));
        let charts = page.matches("<svg").count();
        made.cold = Some(ColdRun { worst: made.stats.worst.clone(), ..ColdRun::default() });
        let page = html(&made).expect("drawn");
        assert!(page.contains("Worst ticks on cold caches"));
        assert_eq!(page.matches("<svg").count(), charts + 1);
    }

    #[test]
    fn a_bar_is_as_high_as_its_stages() {
        let made = measured();
        let tick = &made.stats.worst[0];
        let height: f64 = bar(tick).iter().map(|part| part.0).sum();
        let stages: u32 = tick.stages[..Stage::Total as usize].iter().sum();
        assert!((height - f64::from(stages) / 1e3).abs() < 1e-9 && height > 0.0);
        assert!(bar(&RawTick { tick: 0, skipped: 0, stages: Vec::new() }).iter().all(|part| part.0 == 0.0));
    }

    #[test]
    fn a_measurement_without_times_has_a_page() {
        assert!(html(&Measurement::default()).expect("drawn").contains("Latency"));
    }
}
