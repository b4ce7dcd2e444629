//! Joins a graph's inputs and outputs to what the manifest says they mean, and checks every size.

use crate::manifest::{CarryInit, ChunkMode, Interleave, Manifest, NormalizerForm};
use crate::op::{Run, runs};
use crate::policy::LoadError;
use crate::session::{PortInfo, Session};
use crate::text::shown;

/// What feeds an input of a network.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    /// Parts of the observation.
    Observation(Box<[Run]>),
    /// The previous action.
    Previous,
    /// A recurrent state.
    State(usize),
    /// Seconds since the start of the episode.
    Time,
    /// Unit normals.
    Noise,
}

/// What the inputs are fed from.
pub(crate) struct Supply<'a> {
    pub(crate) observation: &'a [f32],
    pub(crate) previous: &'a [f32],
    pub(crate) states: &'a [State],
    pub(crate) time: f32,
    pub(crate) noise: &'a [f32],
}

/// A recurrent state.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Its value.
    pub(crate) now: Vec<f32>,
    /// Its value after a reset.
    pub(crate) reset: Vec<f32>,
    /// Output of `step` that holds its next value.
    pub(crate) step: usize,
    /// Output of `init` that holds its first value.
    pub(crate) init: Option<usize>,
}

/// Normaliser that runs before the graph.
#[derive(Clone, Debug)]
pub(crate) struct Normalizer {
    mean: Vec<f32>,
    divisor: Vec<f32>,
    clip: f32,
}

impl Normalizer {
    pub(crate) fn new(m: &Manifest) -> Self {
        let n = &m.normalizer;
        let divisor = |&spread: &f64| match n.form {
            NormalizerForm::SqrtVarPlusEps => (spread + n.eps).sqrt() as f32,
            NormalizerForm::StdPlusEps => (spread + n.eps) as f32,
        };
        Self {
            mean: n.mean.iter().map(|&x| x as f32).collect(),
            divisor: n.spread.iter().map(divisor).collect(),
            clip: n.clip.map_or(f32::INFINITY, |c| c as f32),
        }
    }

    /// Normalises in place.
    pub(crate) fn apply(&self, x: &mut [f32]) {
        for ((x, mean), divisor) in x.iter_mut().zip(&self.mean).zip(&self.divisor) {
            *x = ((*x - mean) / divisor).clamp(-self.clip, self.clip);
        }
    }
}

/// Checks names and sizes of a function's inputs and outputs.
pub(crate) fn check(m: &Manifest, function: &str, s: &Session) -> Result<(), LoadError> {
    let f = &m.functions[function];
    for (kind, ports, bindings) in [("input", s.inputs(), &f.inputs), ("output", s.outputs(), &f.outputs)] {
        let fail = |name: &str, why: &'static str| LoadError::Binding {
            function: function.to_owned(),
            kind,
            name: name.to_owned(),
            why,
            graph: ports
                .iter()
                .map(|p| format!("{} {:?}", shown(&p.name), p.shape))
                .collect::<Vec<_>>()
                .join(", "),
        };
        if let Some(name) = bindings.keys().find(|name| ports.iter().all(|p| p.name != **name)) {
            return Err(fail(name, "of the manifest is not in the graph"));
        }
        if let Some(port) = ports.iter().find(|p| !bindings.contains_key(&p.name)) {
            return Err(fail(&port.name, "of the graph is not bound in the manifest"));
        }
        for port in ports {
            let expected = match port.binding.as_str() {
                // A row for each of the batch; the next state is as long as the state.
                "state" | "control" | "params" | "signals" => port.len().next_multiple_of(f.batch),
                "next_state" => s.input_index("state").map_or(port.len(), |i| s.inputs()[i].len()),
                _ => expected(m, f.batch, port).unwrap_or(port.len()),
            };
            if port.len() != expected {
                return Err(LoadError::Size {
                    function: function.to_owned(),
                    binding: port.binding.clone(),
                    got: port.len(),
                    shape: port.shape.clone(),
                    expected,
                });
            }
        }
    }
    Ok(())
}

/// Number of elements that the manifest implies for a port; `None` when it says nothing.
fn expected(m: &Manifest, batch: usize, port: &PortInfo) -> Option<usize> {
    let n = m.action.joints.len();
    match port.binding.split_once('.') {
        Some(("carry", name)) => m.carry.get(name).map(|c| c.shape.iter().product()),
        Some(("source", source)) => Some(batch * source_elements(m, source).len()),
        Some(_) => None,
        None => match port.binding.as_str() {
            "observation" => Some(batch * m.observation.size),
            "previous_action" | "action" | "presquash" => Some(batch * n),
            "actions" => Some(batch * n * if m.chunk.mode == ChunkMode::Open { rows(m) } else { 1 }),
            "value" | "time" => Some(batch),
            _ => None,
        },
    }
}

/// Rows of one inference.
pub(crate) fn rows(m: &Manifest) -> usize {
    if m.chunk.mode == ChunkMode::Open { m.chunk.past + m.chunk.horizon } else { 1 }
}

/// Elements of the observation that come from `source`, in their order there.
fn source_elements(m: &Manifest, source: &str) -> Vec<usize> {
    let o = &m.observation;
    let frame: usize = o.terms.iter().map(|t| t.size).sum();
    let (mut elements, mut before) = (Vec::new(), 0);
    for t in &o.terms {
        let length = t.history.length;
        if t.source == source {
            match o.interleave {
                Interleave::Term => elements.extend(before..before + t.size * length),
                Interleave::Time => {
                    elements
                        .extend((0..length).flat_map(|k| k * frame + before..k * frame + before + t.size));
                }
            }
        }
        before += if o.interleave == Interleave::Term { t.size * length } else { t.size };
    }
    elements
}

/// What feeds each input of `step` or `init`.
pub(crate) fn feeds(m: &Manifest, function: &str, s: &Session) -> Result<Vec<Feed>, LoadError> {
    let refuse = |port: &PortInfo, why| LoadError::Binding {
        function: function.to_owned(),
        kind: "input",
        name: port.name.clone(),
        why,
        graph: s.inputs().iter().map(|p| format!("{} {:?}", p.name, p.shape)).collect::<Vec<_>>().join(", "),
    };
    let feed = |port: &PortInfo| match port.binding.split_once('.') {
        Some(("carry", name)) => Ok(Feed::State(m.carry.keys().position(|k| k == name).unwrap_or(0))),
        Some(("source", source)) => Ok(Feed::Observation(runs(source_elements(m, source), 0).into())),
        _ => match port.binding.as_str() {
            "observation" => Ok(Feed::Observation(runs(0..m.observation.size, 0).into())),
            // `begin` is given an observation and nothing else.
            "previous_action" if function == "init" && m.chunk.mode == ChunkMode::Lazy => Err(refuse(
                port,
                "is bound to the previous action, which init does not get in chunk mode lazy",
            )),
            "previous_action" => Ok(Feed::Previous),
            "time" => Ok(Feed::Time),
            "noise" => Ok(Feed::Noise),
            _ => Err(refuse(port, "is bound to what only the function model is given")),
        },
    };
    s.inputs().iter().map(feed).collect()
}

/// Recurrent states, in the order of the manifest.
pub(crate) fn states(m: &Manifest, step: &Session, init: Option<&Session>) -> Result<Vec<State>, LoadError> {
    let state = |(name, carry): (&String, &crate::manifest::Carry)| {
        let binding = format!("carry.{name}");
        let zeros = vec![0.0; carry.shape.iter().product()];
        Ok(State {
            now: zeros.clone(),
            reset: zeros,
            step: step.output_index(&binding).ok_or_else(|| LoadError::Missing(binding.clone()))?,
            init: init.filter(|_| carry.init == CarryInit::Init).and_then(|i| i.output_index(&binding)),
        })
    };
    m.carry.iter().map(state).collect()
}

/// Writes the inputs of a network.
pub(crate) fn write(s: &mut Session, feeds: &[Feed], from: &Supply<'_>) {
    for (i, feed) in feeds.iter().enumerate() {
        let input = s.input_mut(i);
        match feed {
            Feed::Observation(runs) => crate::kernels::shape::rearrange(runs, from.observation, input),
            Feed::Previous => input.copy_from_slice(from.previous),
            Feed::State(k) => input.copy_from_slice(&from.states[*k].now),
            Feed::Time => input.fill(from.time),
            Feed::Noise => input.copy_from_slice(from.noise),
        }
    }
}

/// Numbers of noise that the functions read: the same for all of them.
pub(crate) fn noise(sessions: &[Option<&Session>]) -> Result<usize, LoadError> {
    let mut length = None;
    for session in sessions.iter().flatten() {
        let Some(port) = session.input_index("noise").map(|i| &session.inputs()[i]) else { continue };
        let expected = *length.get_or_insert(port.len());
        if port.len() != expected {
            return Err(LoadError::Size {
                function: "init".into(),
                binding: port.binding.clone(),
                got: port.len(),
                shape: port.shape.clone(),
                expected,
            });
        }
    }
    Ok(length.unwrap_or(0))
}

/// Takes over a new state. Magnitudes below 1e-30 become 0: subnormal numbers would slow the decay to rest.
pub(crate) fn keep(state: &mut [f32], new: &[f32]) {
    for (s, &x) in state.iter_mut().zip(new) {
        *s = if x.abs() < 1e-30 { 0.0 } else { x };
    }
}
