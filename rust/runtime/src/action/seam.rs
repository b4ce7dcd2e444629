//! How a new action sequence takes over from the one that is being played.

use std::fmt;
use std::str::FromStr;

use cadenza_policy::manifest::ChunkSpec;
use serde::{Deserialize, Serialize};

use super::ActionError;

/// The rule; in text `replace`, `fade:4`, `ensemble:0.01`, `prefix`, each also without its number.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Seam {
    /// The new sequence from now on.
    Replace,
    /// From the old to the new one over this many policy steps; the bundle's number, else 4 or half the horizon, when absent.
    Fade(Option<usize>),
    /// The mean of every sequence that covers a step, each newer one weighted by e^(−k) of the one before it
    /// (ACT, Zhao et al. 2023, §IV).
    Ensemble(f64),
    /// The new one, whose first actions are the committed ones that its policy was given.
    Prefix,
}

/// The ensemble's usual k.
const ENSEMBLE: f64 = 0.01;

impl Seam {
    /// A bundle's rule.
    pub(super) fn of(chunk: &ChunkSpec) -> Self {
        use cadenza_policy::manifest::Seam as Written;
        match chunk.seam {
            Written::Replace => Self::Replace,
            Written::Fade => Self::Fade(None),
            Written::Prefix => Self::Prefix,
        }
    }

    /// Policy steps over which a new sequence fades in, and over which one does after the plan had run out.
    pub(super) fn fades(self, chunk: &ChunkSpec, horizon: usize) -> Result<(usize, usize), ActionError> {
        let usual = (horizon / 2).min(4);
        let asked = match self {
            Self::Fade(n) => n.or(Some(chunk.fade_ticks).filter(|&n| n > 0)).unwrap_or(usual),
            _ => return Ok((0, usual)),
        };
        if asked >= horizon.max(1) && asked > 0 {
            return Err(super::bad("fade", asked, "fewer steps than the horizon"));
        }
        Ok((asked, asked.max(usize::from(usual > 0))))
    }
}

/// What is not a seam rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seam {0:?}: expected replace, fade, fade:STEPS, ensemble, ensemble:K or prefix")]
pub struct NotASeam(String);

impl FromStr for Seam {
    type Err = NotASeam;

    fn from_str(text: &str) -> Result<Self, NotASeam> {
        let bad = || NotASeam(text.to_owned());
        match text.split_once(':') {
            None => match text {
                "replace" => Ok(Self::Replace),
                "fade" => Ok(Self::Fade(None)),
                "ensemble" => Ok(Self::Ensemble(ENSEMBLE)),
                "prefix" => Ok(Self::Prefix),
                _ => Err(bad()),
            },
            Some(("fade", n)) => Ok(Self::Fade(Some(n.parse().map_err(|_| bad())?))),
            Some(("ensemble", k)) => {
                let k: f64 = k.parse().map_err(|_| bad())?;
                if k.is_finite() && k >= 0.0 { Ok(Self::Ensemble(k)) } else { Err(bad()) }
            }
            Some(_) => Err(bad()),
        }
    }
}

impl TryFrom<String> for Seam {
    type Error = NotASeam;

    fn try_from(text: String) -> Result<Self, NotASeam> {
        text.parse()
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace => f.write_str("replace"),
            Self::Fade(None) => f.write_str("fade"),
            Self::Fade(Some(n)) => write!(f, "fade:{n}"),
            Self::Ensemble(k) => write!(f, "ensemble:{k}"),
            Self::Prefix => f.write_str("prefix"),
        }
    }
}

impl From<Seam> for String {
    fn from(seam: Seam) -> Self {
        seam.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in ["replace", "fade", "fade:3", "ensemble:0.25", "prefix"] {
            assert_eq!(text.parse::<Seam>().unwrap().to_string(), text);
        }
        assert_eq!("ensemble".parse(), Ok(Seam::Ensemble(0.01)));
        for text in ["", "blend", "fade:", "fade:-1", "fade:2.5", "ensemble:nan", "ensemble:-1", "replace:1"]
        {
            let error = text.parse::<Seam>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
