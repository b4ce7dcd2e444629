//! Runs of elementwise steps on one long buffer, walked tile by tile, so that what one step wrote is still in the nearest
//! cache when the next one reads it: one pass over memory instead of one for each step.

use crate::kernels::elementwise::Repeat;
use crate::memory::Span;
use crate::plan::{Source, Step};

/// Floats of a tile, about. Shorter buffers stay in the nearest cache anyway.
const TILE: usize = 2048;

/// Joins runs of steps that work in place on the same buffer.
pub(crate) fn join(steps: Vec<Step>) -> Vec<Step> {
    let mut joined = Vec::with_capacity(steps.len());
    let mut run = Run { steps: vec![], unit: 1 };
    for step in steps {
        if let Some(unit) = run.unit_with(&step) {
            run.unit = unit;
        } else {
            run.close(&mut joined);
            run.unit = unit(&step).unwrap_or(1);
        }
        run.steps.push(step);
    }
    run.close(&mut joined);
    joined
}

/// Steps that share their tiles.
struct Run {
    steps: Vec<Step>,
    unit: usize,
}

impl Run {
    /// The unit of the run with `step` in it; `None` when it does not belong there.
    fn unit_with(&self, step: &Step) -> Option<usize> {
        let last = self.steps.last()?;
        unit(last)?;
        let both = lcm(self.unit, unit(step)?);
        (target(last) == target(step) && both <= TILE).then_some(both)
    }

    fn close(&mut self, joined: &mut Vec<Step>) {
        match self.steps.first().and_then(target) {
            Some(y) if self.steps.len() > 1 && y.len > TILE => {
                let tile = TILE / self.unit * self.unit;
                joined.push(Step::Tiled { steps: std::mem::take(&mut self.steps).into(), tile, y });
            }
            _ => joined.append(&mut self.steps),
        }
    }
}

/// Where an elementwise step works.
fn target(step: &Step) -> Option<Span> {
    match *step {
        Step::Map { y, .. } | Step::Zip { y, .. } | Step::Select { y, .. } => Some(y),
        _ => None,
    }
}

/// Neighbours that a step cannot part; `None` for steps that are not elementwise.
fn unit(step: &Step) -> Option<usize> {
    match *step {
        Step::Map { .. } | Step::Select { .. } => Some(1),
        Step::Zip { b, repeat, y, .. } => Some(match (repeat, length(b)) {
            (_, 1) => 1,
            (_, n) if n == y.len => 1,
            (Repeat::Rows, n) => n,
            (Repeat::Each(n), _) => n,
        }),
        _ => None,
    }
}

fn length(source: Source) -> usize {
    match source {
        Source::Arena(span) | Source::Weights(span) => span.len,
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// The part of an elementwise step on `len` elements from `from` on.
pub(crate) fn part(step: &Step, from: usize, len: usize) -> Step {
    let cut = |s: Span, from: usize, len: usize| Span { start: s.start + from, len };
    let source = |s: Source, from: usize, len: usize| match s {
        Source::Arena(s) => Source::Arena(cut(s, from, len)),
        Source::Weights(s) => Source::Weights(cut(s, from, len)),
    };
    match *step {
        Step::Map { f, y } => Step::Map { f, y: cut(y, from, len) },
        Step::Select { c, b, y } => {
            Step::Select { c: source(c, from, len), b: source(b, from, len), y: cut(y, from, len) }
        }
        Step::Zip { f, b, repeat, swapped, y } => {
            let (b, repeat) = match (repeat, length(b)) {
                (_, n) if n == y.len => (source(b, from, len), Repeat::Rows),
                (_, 1) => (b, Repeat::Each(len)),
                (Repeat::Rows, _) => (b, Repeat::Rows),
                (Repeat::Each(n), _) => (source(b, from / n, len / n), repeat),
            };
            Step::Zip { f, b, repeat, swapped, y: cut(y, from, len) }
        }
        // Only the three above are joined.
        ref other => unreachable!("{other:?} is not elementwise"),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Model, session};

    /// Broadcasts of every kind in a run longer than a tile, and one that cannot be parted.
    #[test]
    fn tiled_runs_compute_the_same() {
        let (rows, width) = (70usize, 90usize);
        let count = rows * width;
        let x: Vec<f32> = (0..count).map(|i| (i % 97) as f32 / 16.0 - 3.0).collect();
        let row: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 / 64.0).collect();
        let column: Vec<f32> = (0..rows).map(|i| 1.0 - i as f32 / 32.0).collect();
        let full: Vec<f32> = (0..count).map(|i| (i % 13) as f32 - 6.0).collect();
        let m = Model::new(18, &[rows as i64, width as i64])
            .floats("row", &[width as i64], &row)
            .floats("column", &[rows as i64, 1], &column)
            .floats("one", &[], &[0.25])
            .floats("full", &[rows as i64, width as i64], &full)
            .node("Sub", "row x -> a", vec![])
            .node("Tanh", "a -> b", vec![])
            .node("Mul", "b one -> c", vec![])
            .node("Add", "full c -> d", vec![])
            .node("Greater", "x one -> g", vec![])
            .node("Where", "g d full -> e", vec![])
            .node("Mul", "e column -> y", vec![]);
        let expected: Vec<f64> = (0..count)
            .map(|i| {
                let (x, f) = (f64::from(x[i]), f64::from(full[i]));
                let d = f + (f64::from(row[i % width]) - x).tanh() * 0.25;
                (if x > 0.25 { d } else { f }) * f64::from(column[i / width])
            })
            .collect();
        m.gives(&x, &expected, 1e-5);
        let kernels = session(m.build().unwrap(), crate::isa::Level::best()).kernels();
        assert!(kernels.iter().any(|k| k.starts_with("tiled(")), "{kernels:?}");
    }

    #[test]
    fn short_runs_stay_single_steps() {
        let m = Model::new(18, &[1, 64]).node("Exp", "x -> a", vec![]).node("Neg", "a -> y", vec![]);
        let kernels = session(m.build().unwrap(), crate::isa::Level::best()).kernels();
        assert_eq!(kernels, ["copy 64", "exp 64", "neg 64"]);
    }
}
