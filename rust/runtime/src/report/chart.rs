//! The charts: plain SVG by `plotters`, in the few colours that the page's style sheet knows for light and dark.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use super::series::{Curve, Stretch};
use crate::log::LogError;
use crate::timing::summary::StageSummary;

/// Colours, the same as in the style sheet, which replaces them in dark mode.
pub(super) mod ink {
    use plotters::style::RGBColor;

    pub(in super::super) const BLUE: RGBColor = RGBColor(0x2f, 0x6d, 0xb5);
    pub(in super::super) const ORANGE: RGBColor = RGBColor(0xd9, 0x7b, 0x29);
    pub(in super::super) const GREEN: RGBColor = RGBColor(0x2f, 0x8f, 0x6b);
    pub(in super::super) const PURPLE: RGBColor = RGBColor(0x7d, 0x5b, 0xb0);
    pub(in super::super) const RED: RGBColor = RGBColor(0xc2, 0x45, 0x4b);
    pub(in super::super) const GREY: RGBColor = RGBColor(0x9a, 0xa3, 0xad);
    pub(in super::super) const TEAL: RGBColor = RGBColor(0x3a, 0xa6, 0xb9);
    pub(in super::super) const PINK: RGBColor = RGBColor(0xd0, 0x6c, 0xa4);
    pub(in super::super) const YELLOW: RGBColor = RGBColor(0xc9, 0xa2, 0x27);
    pub(in super::super) const BROWN: RGBColor = RGBColor(0x8c, 0x6a, 0x4f);
    pub(in super::super) const GRID: RGBColor = RGBColor(0xe4, 0xe8, 0xec);
    pub(in super::super) const TEXT: RGBColor = RGBColor(0x5b, 0x65, 0x70);
    /// Everything that the style sheet replaces by attribute.
    #[cfg(test)]
    pub(in super::super) const ALL: [RGBColor; 11] =
        [BLUE, ORANGE, GREEN, PURPLE, RED, GREY, TEAL, PINK, YELLOW, BROWN, GRID];
}

/// A curve with its colour; its width is in half pixels of the page.
pub(super) struct Line<'a> {
    pub(super) points: &'a Curve,
    pub(super) color: RGBColor,
    pub(super) width: u32,
}

/// Charts are drawn at twice their size on the page, because the coordinates of the SVG are whole numbers.
const FONT: u32 = 24;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn failed<E: std::error::Error + Send + Sync>(error: DrawingAreaErrorKind<E>) -> LogError {
    LogError::Chart(error.to_string())
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<(), LogError>) -> Result<String, LogError> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(text)
}

/// Curves over time with horizontal lines at `levels`, where the curves come near them.
pub(super) fn over_time(
    size: (u32, u32),
    seconds: f64,
    unit: &str,
    lines: &[Line<'_>],
    levels: &[(f64, RGBColor)],
) -> Result<String, LogError> {
    let (lo, hi) = range(lines, levels);
    let seen = || levels.iter().filter(|(y, _)| (lo..=hi).contains(y));
    svg(size, |area| {
        let mut chart =
            axes(area, 0.0..seconds.max(1e-9), lo..hi, "time, s", unit, &|t| number(*t, seconds), &|y| {
                number(*y, hi - lo)
            })?;
        let flat =
            seen().map(|&(y, color)| PathElement::new(vec![(0.0, y), (seconds, y)], color.stroke_width(2)));
        chart.draw_series(flat).map_err(failed)?;
        let curves = lines
            .iter()
            .map(|line| PathElement::new(line.points.clone(), line.color.stroke_width(line.width)));
        chart.draw_series(curves).map_err(failed)?;
        Ok(())
    })
}

/// The share of ticks that took longer, over the time: both axes logarithmic.
pub(super) fn survival(size: (u32, u32), rows: &[(&StageSummary, RGBColor)]) -> Result<String, LogError> {
    let curves: Vec<(Curve, RGBColor)> = rows.iter().map(|(row, color)| (survivors(row), *color)).collect();
    let points = || curves.iter().flat_map(|(curve, _)| curve.iter());
    let least = points().map(|p| p.0).fold(f64::INFINITY, f64::min);
    let most = points().map(|p| p.0).fold(0.0, f64::max);
    let rare = points().map(|p| p.1).fold(1.0, f64::min);
    if !least.is_finite() {
        return Ok(String::new());
    }
    svg(size, |area| {
        let (x, y) = ((least * 0.8..most * 1.25).log_scale(), (rare * 0.5..1.2).log_scale());
        let mut chart = axes(area, x, y, "µs", "ticks above", &|x| short(*x), &|y| percent(*y))?;
        let lines =
            curves.iter().map(|(curve, color)| PathElement::new(curve.clone(), color.stroke_width(4)));
        chart.draw_series(lines).map_err(failed)?;
        Ok(())
    })
}

/// Steps of 1 − F, µs. The largest time itself has no share above it, so the curve ends where one tick is left.
fn survivors(row: &StageSummary) -> Curve {
    let total = row.count as f64;
    let mut left = row.count;
    let mut curve = vec![(row.min.max(1) as f64 / 1e3, 1.0)];
    for &(edge, count) in &row.buckets {
        let x = edge.clamp(1, row.max.max(1)) as f64 / 1e3;
        curve.push((x, left as f64 / total));
        left = left.saturating_sub(count);
        if left == 0 {
            break;
        }
        curve.push((x, left as f64 / total));
    }
    if row.count == 0 { Curve::new() } else { decimate(curve) }
}

/// Drops steps that are closer than a pixel on either axis.
fn decimate(curve: Curve) -> Curve {
    let mut kept: Curve = Vec::new();
    let last = curve.len().saturating_sub(1);
    for (i, point) in curve.into_iter().enumerate() {
        let near =
            kept.last().is_some_and(|old| (point.0 / old.0).ln() < 2e-3 && (old.1 / point.1).ln() < 4e-3);
        if !near || i == last {
            kept.push(point);
        }
    }
    kept
}

/// One bar for each tick, its parts on top of each other, µs.
pub(super) fn stack(size: (u32, u32), bars: &[Vec<(f64, RGBColor)>]) -> Result<String, LogError> {
    let tallest = bars.iter().map(|bar| bar.iter().map(|part| part.0).sum()).fold(1e-3, f64::max);
    svg(size, |area| {
        let (x, y) = (0.0..bars.len().max(1) as f64, 0.0..1.05 * tallest);
        let mut chart =
            axes(area, x, y, "worst ticks, the worst first", "µs", &|x| short(x.round()), &|y| {
                number(*y, tallest)
            })?;
        for (i, bar) in bars.iter().enumerate() {
            let mut from = 0.0;
            let parts = bar.iter().filter(|part| part.0 > 0.0).map(|&(height, color)| {
                let to = from + height;
                let part = Rectangle::new([(i as f64 + 0.06, from), (i as f64 + 0.94, to)], color.filled());
                from = to;
                part
            });
            chart.draw_series(parts).map_err(failed)?;
        }
        Ok(())
    })
}

/// A band of coloured stretches under a time axis.
pub(super) fn band<T: Copy>(
    size: (u32, u32),
    seconds: f64,
    stretches: &[Stretch<T>],
    color: impl Fn(T) -> RGBColor,
) -> Result<String, LogError> {
    svg(size, |area| {
        let end = seconds.max(1e-9);
        let mut chart = axes(area, 0.0..end, 0.0..1.0, "", "", &|t| number(*t, end), &|_| String::new())?;
        let least = end / f64::from(size.0);
        let bars = stretches.iter().map(|s| {
            // A level of one tick is still one pixel wide.
            Rectangle::new([(s.from, 0.12), (s.to.max(s.from + least), 0.88)], color(s.what).filled())
        });
        chart.draw_series(bars).map_err(failed)?;
        Ok(())
    })
}

type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

#[allow(clippy::too_many_arguments)]
fn axes<'a, X, Y>(
    area: &Area<'a>,
    x: X,
    y: Y,
    x_unit: &str,
    y_unit: &str,
    x_label: &dyn Fn(&f64) -> String,
    y_label: &dyn Fn(&f64) -> String,
) -> Result<Chart<'a, X::CoordDescType, Y::CoordDescType>, LogError>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let font = ("sans-serif", FONT).into_font().color(&ink::TEXT);
    let left = if y_unit.is_empty() { 24 } else { 110 };
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(30)
        .x_label_area_size(if y_unit.is_empty() { 56 } else { 76 })
        .y_label_area_size(left)
        .build_cartesian_2d(x, y)
        .map_err(failed)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(ink::GRID.stroke_width(2))
        .axis_style(ink::GRID.stroke_width(2))
        .label_style(font.clone())
        .axis_desc_style(font)
        .x_labels(8)
        .y_labels(if y_unit.is_empty() { 0 } else { 5 })
        .x_label_formatter(x_label)
        .y_label_formatter(y_label);
    if !y_unit.is_empty() {
        mesh.x_desc(x_unit).y_desc(y_unit);
    }
    mesh.draw().map_err(failed)?;
    Ok(chart)
}

/// Range of all curves with a margin, widened to the levels that lie within a third of it. A flat curve gets a range of
/// its own.
fn range(lines: &[Line<'_>], levels: &[(f64, RGBColor)]) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| line.points.iter().map(|p| p.1));
    let (lo, hi) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if lo > hi {
        return (-1.0, 1.0);
    }
    let near = (hi - lo) / 3.0;
    let seen = levels.iter().map(|level| level.0).filter(|y| (lo - near..=hi + near).contains(y));
    let (lo, hi) = seen.fold((lo, hi), |(lo, hi), y| (lo.min(y), hi.max(y)));
    let pad = (0.08 * (hi - lo)).max(1e-3 * lo.abs().max(hi.abs())).max(1e-6);
    (lo - pad, hi + pad)
}

/// A number with as many digits as an axis of this length needs.
pub(super) fn number(value: f64, span: f64) -> String {
    let digits = (1.0 - span.abs().max(1e-9).log10().floor()).clamp(0.0, 6.0) as usize;
    let text = format!("{value:.digits$}");
    if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
        text.replace('-', "")
    } else {
        text
    }
}

/// A share in percent, without trailing zeros.
fn percent(share: f64) -> String {
    let digits = (-2.0 - share.log10()).ceil().max(0.0) as usize;
    format!("{:.digits$} %", 100.0 * share)
}

fn short(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survivors_fall_from_one_to_one_tick() {
        let row = StageSummary {
            count: 10,
            min: 1000,
            max: 4000,
            buckets: vec![(1000, 7), (2000, 2), (4003, 1)],
            ..StageSummary::default()
        };
        let curve = survivors(&row);
        assert_eq!(curve.first(), Some(&(1.0, 1.0)));
        assert_eq!(curve.last(), Some(&(4.0, 0.1)));
        assert!(curve.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 >= w[1].1), "{curve:?}");
        assert!(curve.iter().any(|&(x, y)| x == 1.0 && (y - 0.3).abs() < 1e-12), "{curve:?}");
        assert!(survivors(&StageSummary::default()).is_empty());
    }

    #[test]
    fn numbers_fit_their_axis() {
        assert_eq!(number(-0.000_01, 2.0), "0.0");
        assert_eq!(number(0.25, 0.6), "0.25");
        assert_eq!(number(12.0, 30.0), "12");
        assert_eq!([1.0, 0.1, 0.01, 1e-3, 1e-5].map(percent), ["100 %", "10 %", "1 %", "0.1 %", "0.001 %"]);
    }

    #[test]
    fn ranges() {
        assert_eq!(range(&[], &[]), (-1.0, 1.0));
        let flat = vec![(0.0, 2.0), (1.0, 2.0)];
        let (lo, hi) = range(&[Line { points: &flat, color: ink::BLUE, width: 2 }], &[]);
        assert!(lo < 2.0 && hi > 2.0);
        let slope = vec![(0.0, 0.0), (1.0, 3.0)];
        let line = Line { points: &slope, color: ink::BLUE, width: 2 };
        let (lo, hi) = range(&[line], &[(3.9, ink::RED), (-2.0, ink::RED)]);
        assert!(lo > -1.0 && hi > 3.9, "{lo} {hi}");
    }
}
