//! Replays the recorded vectors: does the engine compute what was computed in training?

use crate::bundle::Bundle;
use crate::manifest::ChunkMode;
use crate::policy::Policy;
use crate::session::ActError;
use crate::vectors::Vectors;

/// Most vectors of one function.
const VECTOR_CAP: usize = 65_536;

/// Why the vectors of a bundle cannot be replayed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParityError {
    /// No vectors. Such a bundle runs in simulation and replay only.
    #[error("the bundle has no parity vectors")]
    NoVectors,
    /// The file is not in order.
    #[error("parity.safetensors: {0}")]
    File(String),
    /// A tensor is missing.
    #[error("parity.safetensors: tensor {0:?} is missing")]
    Missing(String),
    /// A tensor has the wrong type, shape or value.
    #[error("parity.safetensors: tensor {tensor:?} {why}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        why: String,
    },
    /// The policy gave no action.
    #[error("sequence {sequence}, step {step}: {error}")]
    Act {
        /// Sequence.
        sequence: usize,
        /// Step in it.
        step: usize,
        /// What the policy says.
        error: ActError,
    },
}

/// Result of a replay.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ParityReport {
    /// Whether every number lies within `atol + rtol·|expected|`.
    pub passed: bool,
    /// Vectors compared.
    pub vectors: usize,
    /// Largest difference.
    pub measured: f64,
    /// The number that uses most of its tolerance, or exceeds it most.
    pub worst: Worst,
}

/// One compared number.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Worst {
    /// Sequence, from 0.
    pub sequence: usize,
    /// Step in it, from 0.
    pub step: usize,
    /// What was compared: `action`, `carry.<n>`, `<function>.<output>`.
    pub tensor: String,
    /// Element of it.
    pub output: usize,
    /// Recorded.
    pub expected: f32,
    /// Computed.
    pub got: f32,
    /// Largest difference allowed.
    pub allowed: f64,
}

impl std::fmt::Display for ParityReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.passed {
            return write!(f, "{} vectors, largest difference {:.2e}", self.vectors, self.measured);
        }
        let Worst { sequence, step, tensor, output, expected, got, allowed } = &self.worst;
        write!(
            f,
            "sequence {sequence}, step {step}: {tensor}[{output}] is {got}, recorded {expected}, allowed difference \
             {allowed:.2e}"
        )
    }
}

impl Policy {
    /// Replays the recorded vectors of `bundle` and compares. Afterwards the policy is reset. Allocates.
    ///
    /// # Errors
    /// Vectors that are missing, malformed or of the wrong shape; a policy that gives no action. A difference is no
    /// error but a report that has not `passed`.
    pub fn verify(&mut self, bundle: &Bundle) -> Result<ParityReport, ParityError> {
        let result = Replay::new(bundle).and_then(|replay| replay.run(self, bundle));
        self.reset();
        result
    }
}

/// Checks a number of vectors (`None` when it overflows), each of which costs a run.
fn vectors(tensor: &str, count: Option<usize>) -> Result<(), ParityError> {
    if count.is_some_and(|n| (1..=VECTOR_CAP).contains(&n)) {
        return Ok(());
    }
    let count = count.map_or_else(|| "too many".to_owned(), |n| n.to_string());
    let why = format!("holds {count} vectors, not 1 to {VECTOR_CAP}");
    Err(ParityError::Tensor { tensor: tensor.to_owned(), why })
}

struct Replay<'a> {
    file: Vectors<'a>,
    atol: f64,
    rtol: f64,
    vectors: usize,
    measured: f64,
    used: f64,
    worst: Worst,
}

impl<'a> Replay<'a> {
    fn new(bundle: &'a Bundle) -> Result<Self, ParityError> {
        let spec = bundle.manifest().parity.as_ref().ok_or(ParityError::NoVectors)?;
        let file = Vectors::open(bundle)?;
        let (atol, rtol) = (spec.atol, spec.rtol);
        Ok(Self { file, atol, rtol, vectors: 0, measured: 0.0, used: -1.0, worst: Worst::default() })
    }

    fn run(mut self, policy: &mut Policy, bundle: &Bundle) -> Result<ParityReport, ParityError> {
        self.sequences(policy, bundle)?;
        for name in bundle.manifest().functions.keys().filter(|n| !["step", "init"].contains(&n.as_str())) {
            self.function(policy, name)?;
        }
        if self.vectors == 0 {
            return Err(ParityError::NoVectors);
        }
        let passed = self.used <= 1.0;
        Ok(ParityReport { passed, vectors: self.vectors, measured: self.measured, worst: self.worst })
    }

    fn sequences(&mut self, policy: &mut Policy, bundle: &Bundle) -> Result<(), ParityError> {
        let n = policy.observation_len();
        let shape = self.file.tensor("obs")?.ok_or_else(|| ParityError::Missing("obs".into()))?.shape;
        let [count, steps, _] = shape[..] else {
            let why = format!("has the shape {shape:?}, not [sequences, steps, {n}]");
            return Err(ParityError::Tensor { tensor: "obs".into(), why });
        };
        vectors("obs", count.checked_mul(steps))?;
        let obs = self.file.shaped("obs", &[count, steps], n)?.data;
        let m = policy.previous_len();
        let prev = match self.file.tensor("previous_action")? {
            None if policy.takes_previous() => return Err(ParityError::Missing("previous_action".into())),
            None => vec![0.0; count * steps * m],
            Some(_) => self.file.shaped("previous_action", &[count, steps], m)?.data,
        };
        let expected = self.file.shaped("expected", &[count, steps], policy.action_len())?.data;
        let times =
            if policy.takes_time() { self.file.shaped("time", &[count, steps], 1)?.data } else { vec![] };
        let each = policy.noise_mut().len();
        let noise = if each > 0 { self.file.shaped("noise", &[count, steps], each)?.data } else { vec![] };
        let execute = bundle.manifest().chunk.execute;
        let mut out = vec![0.0; policy.action_len()];
        for s in 0..count {
            policy.reset();
            for k in 0..steps {
                let i = s * steps + k;
                if let Some(&seconds) = times.get(i) {
                    policy.set_time(seconds);
                }
                policy.noise_mut().copy_from_slice(&noise[i * each..(i + 1) * each]);
                let row = &obs[i * n..(i + 1) * n];
                let previous = &prev[i * m..(i + 1) * m];
                let result = if policy.mode() == ChunkMode::Lazy {
                    let begun = if k % execute == 0 { policy.begin(row) } else { Ok(()) };
                    begun.and_then(|()| policy.next(previous, &mut out))
                } else {
                    policy.act(row, previous, &mut out)
                };
                result.map_err(|error| ParityError::Act { sequence: s, step: k, error })?;
                self.compare("action", s, k, &expected[i * out.len()..(i + 1) * out.len()], &out);
                self.vectors += 1;
            }
            for (index, name) in bundle.manifest().carry.keys().enumerate() {
                let tensor = format!("carry.{name}");
                if self.file.tensor(&tensor)?.is_some() {
                    let each = policy.state(index).len();
                    let expected = self.file.shaped(&tensor, &[count], each)?.data;
                    self.compare(&tensor, s, steps, &expected[s * each..(s + 1) * each], policy.state(index));
                }
            }
        }
        Ok(())
    }

    /// Vectors `<function>.<input>` and `<function>.<output>`, one run for each leading index.
    fn function(&mut self, policy: &mut Policy, name: &str) -> Result<(), ParityError> {
        let Some(session) = policy.function(name) else { return Ok(()) };
        let tensor = |binding: &str| match binding {
            "observation" => format!("{name}.obs"),
            _ => format!("{name}.{binding}"),
        };
        let Some(first) = session.inputs().first() else { return Ok(()) };
        let Some(count) = self.file.tensor(&tensor(&first.binding))?.and_then(|v| v.shape.first().copied())
        else {
            return Ok(());
        };
        vectors(&tensor(&first.binding), Some(count))?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for port in session.inputs() {
            inputs.push(self.file.shaped(&tensor(&port.binding), &[count], port.len())?.data);
        }
        for port in session.outputs() {
            let label = tensor(&port.binding);
            outputs.push((self.file.shaped(&label, &[count], port.len())?.data, label));
        }
        for run in 0..count {
            for (i, data) in inputs.iter().enumerate() {
                let input = session.input_mut(i);
                let len = input.len();
                input.copy_from_slice(&data[run * len..(run + 1) * len]);
            }
            session.run().map_err(|error| ParityError::Act { sequence: run, step: 0, error })?;
            for (i, (data, label)) in outputs.iter().enumerate() {
                let got = session.output(i);
                self.compare(label, run, 0, &data[run * got.len()..(run + 1) * got.len()], got);
            }
            self.vectors += 1;
        }
        Ok(())
    }

    fn compare(&mut self, tensor: &str, sequence: usize, step: usize, expected: &[f32], got: &[f32]) {
        for (output, (&expected, &got)) in expected.iter().zip(got).enumerate() {
            let difference = (f64::from(expected) - f64::from(got)).abs();
            let allowed = self.atol + self.rtol * f64::from(expected).abs();
            // With a tolerance of 0, equal passes and anything else does not.
            let used = if difference == 0.0 { 0.0 } else { difference / allowed };
            self.measured = self.measured.max(difference);
            if used > self.used {
                self.used = used;
                self.worst =
                    Worst { sequence, step, tensor: tensor.to_owned(), output, expected, got, allowed };
            }
        }
    }
}
