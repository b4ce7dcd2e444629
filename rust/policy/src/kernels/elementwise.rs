//! Functions of two numbers, `y = f(y, b)` in place, with `b` repeated as broadcasting says.

use crate::isa::kernel;
use crate::op::Binary;

/// How `b` lies against `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// One for one, or, when `b` is shorter, row after row.
    Rows,
    /// Each element of `b` for so many neighbours of `y`.
    Each(usize),
}

impl Repeat {
    /// How an operand of shape `from` lies against a result of shape `to`; `None` when no loop of ours does that.
    pub(crate) fn of(from: &[usize], to: &[usize]) -> Option<Self> {
        let own: Vec<usize> =
            std::iter::repeat_n(1, to.len().saturating_sub(from.len())).chain(from.iter().copied()).collect();
        let count: usize = own.iter().product();
        let total: usize = to.iter().product();
        if count == 1 {
            return Some(Self::Each(total));
        }
        let trailing = own.iter().zip(to).skip_while(|(d, _)| **d == 1).all(|(a, b)| a == b);
        if trailing {
            return Some(Self::Rows);
        }
        let leading = own.iter().zip(to).rev().skip_while(|(d, _)| **d == 1).all(|(a, b)| a == b);
        leading.then(|| Self::Each(total / count))
    }
}

kernel! {
    /// `y = f(y, b)`, or `f(b, y)` when `swapped`.
    zip = zip_body(f: Binary, y: &mut [f32], b: &[f32], repeat: Repeat, swapped: bool)
}

kernel! {
    /// `y = c ? y : b`, element for element.
    select = select_body(c: &[f32], y: &mut [f32], b: &[f32])
}

#[inline(always)]
fn truth(b: bool) -> f32 {
    if b { 1.0 } else { 0.0 }
}

#[inline(always)]
fn zip_body<const F: bool>(f: Binary, y: &mut [f32], b: &[f32], repeat: Repeat, swapped: bool) {
    match f {
        Binary::Add => walk(y, b, repeat, swapped, |a, b| a + b),
        Binary::Sub => walk(y, b, repeat, swapped, |a, b| a - b),
        Binary::Mul => walk(y, b, repeat, swapped, |a, b| a * b),
        Binary::Div => walk(y, b, repeat, swapped, |a, b| a / b),
        Binary::Pow => walk(y, b, repeat, swapped, f32::powf),
        Binary::Fmod => walk(y, b, repeat, swapped, |a, b| a % b),
        Binary::Modulo => walk(y, b, repeat, swapped, |a, b| a - b * (a / b).floor()),
        Binary::Min => walk(y, b, repeat, swapped, |a, b| if a < b || a.is_nan() { a } else { b }),
        Binary::Max => walk(y, b, repeat, swapped, |a, b| if a > b || a.is_nan() { a } else { b }),
        Binary::Greater => walk(y, b, repeat, swapped, |a, b| truth(a > b)),
        Binary::Less => walk(y, b, repeat, swapped, |a, b| truth(a < b)),
        Binary::GreaterOrEqual => walk(y, b, repeat, swapped, |a, b| truth(a >= b)),
        Binary::LessOrEqual => walk(y, b, repeat, swapped, |a, b| truth(a <= b)),
        Binary::Equal => walk(y, b, repeat, swapped, |a, b| truth(a == b)),
        Binary::And => walk(y, b, repeat, swapped, |a, b| truth(a != 0.0 && b != 0.0)),
        Binary::Or => walk(y, b, repeat, swapped, |a, b| truth(a != 0.0 || b != 0.0)),
        Binary::PRelu => walk(y, b, repeat, swapped, |a, b| if a < 0.0 { a * b } else { a }),
    }
}

#[inline(always)]
fn walk(y: &mut [f32], b: &[f32], repeat: Repeat, swapped: bool, f: impl Fn(f32, f32) -> f32) {
    if swapped { rows(y, b, repeat, |a, b| f(b, a)) } else { rows(y, b, repeat, f) }
}

#[inline(always)]
fn rows(y: &mut [f32], b: &[f32], repeat: Repeat, f: impl Fn(f32, f32) -> f32) {
    match repeat {
        Repeat::Rows => {
            for row in y.chunks_exact_mut(b.len()) {
                for (a, &b) in row.iter_mut().zip(b) {
                    *a = f(*a, b);
                }
            }
        }
        Repeat::Each(n) => {
            for (chunk, &b) in y.chunks_exact_mut(n).zip(b) {
                for a in chunk {
                    *a = f(*a, b);
                }
            }
        }
    }
}

#[inline(always)]
fn select_body<const F: bool>(c: &[f32], y: &mut [f32], b: &[f32]) {
    for ((y, &c), &b) in y.iter_mut().zip(c).zip(b) {
        *y = if c != 0.0 { *y } else { b };
    }
}
