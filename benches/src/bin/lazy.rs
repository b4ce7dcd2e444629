//! Lazy decoding of one action sequence: each tick of it, all of it in one tick, and its two networks against
//! onnxruntime, in interleaved blocks.

use std::ffi::CStr;
use std::path::PathBuf;
use std::process::ExitCode;

use cadenza_benches::ort::{Network, Ort};
use cadenza_benches::samples::{Block, Flush};
use cadenza_policy::{ActError, Bundle, Options, Policy};
use clap::Parser;
use serde::Serialize;

/// Largest difference between the two engines that is still the same network.
const AGREEMENT: f32 = 1e-4;
/// Sequences that the calls go round.
const OBSERVATIONS: usize = 16;

#[derive(Parser)]
struct Args {
    /// libonnxruntime; without it, onnxruntime is left out.
    #[arg(long)]
    ort: Option<PathBuf>,
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Sequences in a block.
    #[arg(long, default_value_t = 300)]
    sequences: usize,
    /// A lazy bundle: `init` from `obs` to `h_out`, `step` from `previous` and `h_in` to `action` and `h_out`.
    bundle: PathBuf,
}

#[derive(Serialize)]
struct Output {
    macs: usize,
    weight_bytes: usize,
    actions: usize,
    rounds: Vec<Round>,
}

/// One block of each, hot; the worst tick and the eager decode also cold.
#[derive(Serialize)]
struct Round {
    init: Block,
    step: Block,
    worst: Block,
    eager: Block,
    worst_cold: Block,
    eager_cold: Block,
    /// onnxruntime's.
    peer: Option<Peer>,
}

#[derive(Serialize)]
struct Peer {
    init: Block,
    step: Block,
}

/// The policy, and the sequence that it plays.
struct Decoder {
    policy: Policy,
    observations: Vec<Vec<f32>>,
    actions: usize,
    previous: Vec<f32>,
    action: Vec<f32>,
}

impl Decoder {
    fn begin(&mut self, sequence: usize) -> Result<(), ActError> {
        self.previous.fill(0.0);
        self.policy.begin(&self.observations[sequence % OBSERVATIONS])
    }

    fn next(&mut self) -> Result<(), ActError> {
        self.policy.next(&self.previous, &mut self.action)?;
        std::mem::swap(&mut self.previous, &mut self.action);
        Ok(())
    }

    /// What a tick of the sequence does: the first one also begins it.
    fn tick(&mut self, tick: usize) -> Result<(), ActError> {
        if tick.is_multiple_of(self.actions) {
            self.begin(tick / self.actions)?;
        }
        self.next()
    }

    fn eager(&mut self, sequence: usize) -> Result<(), ActError> {
        (0..self.actions).try_for_each(|k| self.tick(sequence * self.actions + k))
    }

    /// The slowest of the sequence's ticks, by the median of each; `before` runs unmeasured before each tick.
    fn worst(&mut self, sequences: usize, mut before: impl FnMut()) -> Block {
        let mut times = vec![Vec::with_capacity(sequences); self.actions];
        for tick in 0..sequences * self.actions {
            before();
            let start = std::time::Instant::now();
            let _ = self.tick(tick);
            times[tick % self.actions].push(start.elapsed().as_nanos() as u64);
        }
        let blocks = times.iter_mut().map(|t| Block::of(t));
        blocks.max_by(|a, b| a.p50.total_cmp(&b.p50)).expect("a sequence has actions")
    }
}

/// onnxruntime's two sessions.
struct Other<'a> {
    init: Network<'a>,
    step: Network<'a>,
    /// `h` of now and of the step after.
    states: [Vec<f32>; 2],
}

impl<'a> Other<'a> {
    fn new(ort: &'a Ort, bundle: &Bundle, decoder: &mut Decoder) -> Result<Self, String> {
        let h = decoder.policy.function("init").ok_or("no function init")?.output(0).len();
        let entry = |name: &str| bundle.entry(name).ok_or_else(|| format!("no {name}"));
        let load = |file: &str, inputs: &[(&CStr, usize)], outputs: &[(&CStr, usize)]| {
            Network::new(ort, entry(file)?, inputs, outputs)
        };
        let (obs, action) = (decoder.observations[0].len(), decoder.action.len());
        Ok(Self {
            init: load("init.onnx", &[(c"obs", obs)], &[(c"h_out", h)])?,
            step: load(
                "step.onnx",
                &[(c"previous", action), (c"h_in", h)],
                &[(c"action", action), (c"h_out", h)],
            )?,
            states: [vec![0.0; h], vec![0.0; h]],
        })
    }

    fn begin(&mut self, obs: &[f32]) -> Result<(), String> {
        self.init.run(&[obs], &mut [&mut self.states[0]])
    }

    fn next(&mut self, previous: &[f32], action: &mut [f32]) -> Result<(), String> {
        let [now, after] = &mut self.states;
        self.step.run(&[previous, now], &mut [action, after])?;
        self.states.swap(0, 1);
        Ok(())
    }
}

/// Both decode every sequence to the same actions.
fn agree(decoder: &mut Decoder, other: &mut Other<'_>) -> Result<(), String> {
    for sequence in 0..OBSERVATIONS {
        other.begin(&decoder.observations[sequence])?;
        let mut theirs = vec![0.0; decoder.action.len()];
        for k in 0..decoder.actions {
            let previous = if k == 0 { vec![0.0; theirs.len()] } else { decoder.previous.clone() };
            decoder.tick(sequence * decoder.actions + k).map_err(|e| e.to_string())?;
            other.next(&previous, &mut theirs)?;
            let differ = decoder.previous.iter().zip(&theirs).find(|(a, b)| (*a - *b).abs() > AGREEMENT);
            if let Some((a, b)) = differ {
                return Err(format!("action {k}: the engine answers {a}, onnxruntime {b}"));
            }
        }
    }
    Ok(())
}

fn round(decoder: &mut Decoder, other: Option<&mut Other<'_>>, sequences: usize, flush: &mut Flush) -> Round {
    let calls = sequences * decoder.actions;
    let cold = sequences / 8 + 1;
    // Every call of the block was answered once above, with the same finite numbers.
    let _ = decoder.eager(0);
    let step = Block::measure(calls, || (), |_| _ = decoder.next());
    let peer = other.map(|other| {
        let obs = decoder.observations[0].clone();
        let mut action = decoder.action.clone();
        let step = Block::measure(calls, || (), |_| _ = other.next(&decoder.previous, &mut action));
        Peer { step, init: Block::measure(calls, || (), |_| _ = other.begin(&obs)) }
    });
    Round {
        init: Block::measure(calls, || (), |i| _ = decoder.begin(i)),
        step,
        worst: decoder.worst(sequences, || ()),
        eager: Block::measure(sequences, || (), |i| _ = decoder.eager(i)),
        worst_cold: decoder.worst(cold, || flush.touch()),
        eager_cold: Block::measure(cold, || flush.touch(), |i| _ = decoder.eager(i)),
        peer,
    }
}

fn run(args: &Args) -> Result<Output, String> {
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", args.bundle.display());
    let bundle = Bundle::open(&args.bundle).map_err(|e| say(&e))?;
    let policy = Policy::load(&bundle, &Options::default()).map_err(|e| say(&e))?;
    let (inputs, joints) = (policy.observation_len(), policy.action_len());
    let observations = (0..OBSERVATIONS)
        .map(|k| (0..inputs).map(|i| ((k * inputs + i) as f32 * 0.7).sin()).collect())
        .collect();
    let actions = bundle.manifest().chunk.execute;
    let (previous, action) = (vec![0.0; joints], vec![0.0; joints]);
    let mut decoder = Decoder { policy, observations, actions, previous, action };
    let ort = args.ort.as_deref().map(Ort::load).transpose()?;
    let mut other = ort.as_ref().map(|ort| Other::new(ort, &bundle, &mut decoder)).transpose()?;
    if let Some(other) = &mut other {
        agree(&mut decoder, other).map_err(|e| say(&e))?;
    }
    (0..OBSERVATIONS).try_for_each(|i| decoder.eager(i)).map_err(|e| say(&e))?;
    let mut flush = Flush::new();
    let rounds =
        (0..args.rounds).map(|_| round(&mut decoder, other.as_mut(), args.sequences, &mut flush)).collect();
    let footprint = decoder.policy.footprint();
    Ok(Output { macs: footprint.macs, weight_bytes: footprint.weight_bytes, actions, rounds })
}

fn main() -> ExitCode {
    cadenza_benches::finish(run(&Args::parse()))
}
