//! Injected latency: how long an answer of the policy is held back under the virtual clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::action::mix;

/// A law of delays; in text `const:30ms`, `const:5ticks`, `uniform:10ms..60ms`, `pareto:20ms,1.5` (smallest delay, shape) or
/// `drop:0.05` (share of answers that never come). Ticks are control ticks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Latency {
    /// Always the same.
    Constant(Span),
    /// Equally likely between two.
    Uniform(Span, Span),
    /// Heavy-tailed: smallest delay and shape.
    Pareto(Span, f64),
    /// No delay, but this share of the answers is lost.
    Drop(f64),
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Span {
    /// Control ticks.
    Ticks(u64),
    /// Milliseconds.
    Milliseconds(f64),
}

/// Nothing is held back for longer, s: a minute.
const LONGEST: f64 = 60.0;

impl Latency {
    /// Delay of question `number` in control ticks of `period` seconds; `None` when its answer is lost. The same for the same
    /// number.
    pub(super) fn ticks(&self, number: u64, period: f64) -> Option<u64> {
        let random = (mix(number) >> 11) as f64 / (1u64 << 53) as f64;
        let ticks = |seconds: f64| (seconds.min(LONGEST) / period).round() as u64;
        match *self {
            Self::Constant(span) => Some(ticks(span.seconds(period))),
            Self::Uniform(lo, hi) => {
                let (lo, hi) = (lo.seconds(period), hi.seconds(period));
                Some(ticks(lo + (hi - lo) * random))
            }
            Self::Pareto(scale, shape) => {
                Some(ticks(scale.seconds(period) * (1.0 - random).powf(-1.0 / shape)))
            }
            Self::Drop(share) => (random >= share).then_some(0),
        }
    }
}

impl Span {
    fn seconds(self, period: f64) -> f64 {
        match self {
            Self::Ticks(n) => n as f64 * period,
            Self::Milliseconds(ms) => 1e-3 * ms,
        }
    }
}

/// What is not a law of delays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "latency {0:?}: expected const:30ms, const:5ticks, uniform:10ms..60ms, pareto:20ms,1.5 or drop:0.05 (at most a minute)"
)]
pub struct NotALatency(String);

impl FromStr for Span {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(n) = text.strip_suffix("ticks") {
            return n.parse().map(Self::Ticks).map_err(|_| ());
        }
        let ms: f64 = text.strip_suffix("ms").ok_or(())?.parse().map_err(|_| ())?;
        if (0.0..=1e3 * LONGEST).contains(&ms) { Ok(Self::Milliseconds(ms)) } else { Err(()) }
    }
}

impl FromStr for Latency {
    type Err = NotALatency;

    fn from_str(text: &str) -> Result<Self, NotALatency> {
        let bad = || NotALatency(text.to_owned());
        let span = |text: &str| text.parse::<Span>().map_err(|()| bad());
        let (kind, rest) = text.split_once(':').ok_or_else(bad)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(bad);
        match kind {
            "const" => Ok(Self::Constant(span(rest)?)),
            "uniform" => {
                let (lo, hi) = rest.split_once("..").ok_or_else(bad)?;
                let (lo, hi) = (span(lo)?, span(hi)?);
                let ordered = match (lo, hi) {
                    (Span::Ticks(a), Span::Ticks(b)) => a <= b,
                    (Span::Milliseconds(a), Span::Milliseconds(b)) => a <= b,
                    _ => false,
                };
                if ordered { Ok(Self::Uniform(lo, hi)) } else { Err(bad()) }
            }
            "pareto" => {
                let (scale, shape) = rest.split_once(',').ok_or_else(bad)?;
                let shape = number(shape)?;
                if shape > 0.0 { Ok(Self::Pareto(span(scale)?, shape)) } else { Err(bad()) }
            }
            "drop" => Some(number(rest)?).filter(|p| (0.0..=1.0).contains(p)).map(Self::Drop).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ticks(n) => write!(f, "{n}ticks"),
            Self::Milliseconds(ms) => write!(f, "{ms}ms"),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(span) => write!(f, "const:{span}"),
            Self::Uniform(lo, hi) => write!(f, "uniform:{lo}..{hi}"),
            Self::Pareto(scale, shape) => write!(f, "pareto:{scale},{shape}"),
            Self::Drop(share) => write!(f, "drop:{share}"),
        }
    }
}

impl TryFrom<String> for Latency {
    type Error = NotALatency;

    fn try_from(text: String) -> Result<Self, NotALatency> {
        text.parse()
    }
}

impl From<Latency> for String {
    fn from(latency: Latency) -> Self {
        latency.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_law_is_read_as_it_is_written() {
        for text in ["const:30ms", "const:5ticks", "uniform:10ms..60ms", "pareto:20ms,1.5", "drop:0.05"] {
            assert_eq!(text.parse::<Latency>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "30ms",
            "const",
            "const:30",
            "const:-1ms",
            "const:nanms",
            "const:90000ms",
            "uniform:10ms",
            "uniform:9ms..1ms",
            "uniform:1ms..9ticks",
            "pareto:20ms",
            "pareto:20ms,0",
            "drop:1.5",
            "drop:x",
            "normal:3ms",
        ] {
            assert!(
                text.parse::<Latency>().unwrap_err().to_string().contains(&format!("{text:?}")),
                "{text}"
            );
        }
    }

    #[test]
    fn delays_follow_their_law_and_only_the_number() {
        let all = |text: &str| -> Vec<u64> {
            let latency: Latency = text.parse().unwrap();
            (0..4000).map(|i| latency.ticks(i, 0.002).unwrap()).collect()
        };
        assert!(all("const:30ms").iter().all(|&t| t == 15) && all("const:5ticks").iter().all(|&t| t == 5));
        let uniform = all("uniform:10ms..60ms");
        assert_eq!((uniform.iter().min(), uniform.iter().max()), (Some(&5), Some(&30)));
        let mean = uniform.iter().sum::<u64>() as f64 / 4000.0;
        assert!((mean - 17.5).abs() < 0.4, "{mean}");
        let pareto = all("pareto:20ms,1.5");
        let beyond = pareto.iter().filter(|&&t| t > 20).count() as f64 / 4000.0;
        // P(more than twice the smallest) = 2^−1.5.
        assert!(*pareto.iter().min().unwrap() == 10 && (beyond - 0.33).abs() < 0.04, "{beyond}");
        assert_eq!(all("pareto:20ms,0.001").iter().max(), Some(&30_000), "nothing waits for ever");
    }
}
