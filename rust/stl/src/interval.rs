//! `[a,b]`: bounds in steps or in units of time.

use crate::error::ParseErrorKind as Kind;
use crate::formula::Bounds;
use crate::lex::Token;
use crate::parse::{Parser, Res};
use crate::print::number_text;

/// Largest bound in steps.
const MAX_BOUND: u32 = i32::MAX as u32 - 1;

/// Units: name, how many make a second (or how many seconds make one, where `per_second` is false).
const UNITS: [(&str, f64, bool); 5] =
    [("s", 1.0, true), ("ms", 1e3, true), ("us", 1e6, true), ("ns", 1e9, true), ("min", 60.0, false)];

pub(crate) fn parse(p: &mut Parser) -> Res<Bounds> {
    let start = p.span.start;
    p.expect("[")?;
    let Some(a) = bound(p)? else {
        return Err(p.error(Kind::BadBound, "the first bound must be finite"));
    };
    if !p.eat(",")? && !p.eat(":")? {
        p.expect(",")?;
    }
    let b = bound(p)?;
    if b.is_none() {
        p.advance()?;
    }
    let end = p.span.end;
    p.expect("]")?;
    if let Some(b) = b
        && a > b
    {
        let message = format!("the interval is empty: {a} steps > {b} steps");
        return Err(p.error_at(Kind::BadBound, message, start..end));
    }
    Ok(Bounds { a, b })
}

/// One bound in steps; `None`, and nothing passed, at `inf`.
fn bound(p: &mut Parser) -> Res<Option<u32>> {
    let start = p.span.start;
    let negative = p.eat("-")?;
    let value = match &p.token {
        Token::Number(value) => *value,
        Token::Word(w) if w == "inf" && !negative => return Ok(None),
        _ => {
            let end = p.span.end;
            return Err(p.error_at(
                Kind::Syntax,
                "expected a bound: a number of steps, a time or `inf`",
                start..end,
            ));
        }
    };
    let mut span = start..p.span.end;
    p.advance()?;
    let mut unit = None;
    if let Token::Word(word) = &p.token {
        span.end = p.span.end;
        if word != "steps" {
            unit = UNITS.into_iter().find(|(name, ..)| name == word);
            if unit.is_none() {
                let message = format!("no unit `{word}`; use s, ms, us, ns, min or steps");
                return Err(p.error(Kind::BadBound, message));
            }
        }
        p.advance()?;
    }
    let text = p.text[span.clone()].to_owned();
    if negative || !value.is_finite() {
        return Err(p.error_at(Kind::BadBound, "a bound must be finite and not negative", span));
    }
    let steps = match unit {
        None if value.fract() != 0.0 => {
            let message = format!("{value} is not a whole number of steps; for seconds write {value}s");
            return Err(p.error_at(Kind::BadBound, message, span));
        }
        None => value,
        Some((name, factor, per_second)) => {
            let Some(dt) = p.o.dt else {
                let message = format!("bound {text} needs dt, the seconds per step");
                return Err(p.error_at(Kind::NeedsDt, message, span));
            };
            if !(dt.is_finite() && dt > 0.0) {
                return Err(p.error_at(Kind::BadBound, format!("dt must be positive, got {dt}"), span));
            }
            let in_unit = |seconds: f64| if per_second { seconds * factor } else { seconds / factor };
            let exact = if per_second { value / factor } else { value * factor } / dt;
            let steps = exact.round();
            if (exact - steps).abs() > 1e-9 * steps.max(1.0) {
                let near = [exact.floor(), exact.ceil()]
                    .map(|n| format!("{n} steps = {}{name}", short(in_unit(n * dt))))
                    .join(", ");
                let message =
                    format!("bound {text} is not a whole number of steps of {}s ({near})", short(dt));
                return Err(p.error_at(Kind::NotMultipleOfDt, message, span));
            }
            steps
        }
    };
    if steps > f64::from(MAX_BOUND) {
        let message = format!("a bound of {steps} steps is too large, the limit is {MAX_BOUND}");
        return Err(p.error_at(Kind::BadBound, message, span));
    }
    Ok(Some(steps as u32))
}

/// Nine significant digits, so that 3 · 0.1 reads 0.3.
fn short(x: f64) -> String {
    format!("{x:.8e}").parse().map_or_else(|_| x.to_string(), number_text)
}
