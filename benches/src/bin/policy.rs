//! Inference of bundles: the engine, onnxruntime, and kernels that only read the same bytes, in interleaved blocks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cadenza_benches::ort::{Network, Ort};
use cadenza_benches::samples::{Block, Flush, sum, widen};
use cadenza_policy::manifest::Weights;
use cadenza_policy::{Bundle, Options, Policy};
use clap::Parser;
use serde::Serialize;

/// Largest difference between the two engines that is still the same network.
const AGREEMENT: f32 = 1e-3;
/// Observations that the calls go round.
const OBSERVATIONS: usize = 16;

#[derive(Parser)]
struct Args {
    /// libonnxruntime; without it, onnxruntime is left out.
    #[arg(long)]
    ort: Option<PathBuf>,
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Hot calls in a block.
    #[arg(long, default_value_t = 2500)]
    hot: usize,
    /// Cold calls in a block.
    #[arg(long, default_value_t = 40)]
    cold: usize,
    /// A bundle whose function `critic` is one matrix product, the floor of token networks.
    #[arg(long)]
    product: Option<PathBuf>,
    bundles: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Output {
    onnxruntime: Option<String>,
    profile: &'static str,
    product_macs: usize,
    nets: Vec<Net>,
}

#[derive(Serialize)]
struct Net {
    name: String,
    isa: String,
    weight_bytes: usize,
    macs: usize,
    /// Rounds × engines.
    rounds: Vec<Vec<Engine>>,
}

#[derive(Serialize)]
struct Engine {
    engine: &'static str,
    hot: Block,
    cold: Block,
}

/// Multiply-adds of a block: larger networks are called less often.
const BLOCK: usize = 100_000_000_000;

fn open(path: &Path) -> Result<(Bundle, Policy), String> {
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bundle = Bundle::open(path).map_err(|e| say(&e))?;
    let policy = Policy::load(&bundle, &Options::default()).map_err(|e| say(&e))?;
    Ok((bundle, policy))
}

fn net(
    path: &Path,
    ort: Option<&Ort>,
    product: Option<&mut Policy>,
    args: &Args,
    flush: &mut Flush,
) -> Result<Net, String> {
    let say = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let (bundle, mut policy) = open(path)?;
    let mut product = product.and_then(|p| p.function("critic"));
    let (inputs, outputs) = (policy.observation_len(), policy.action_len());
    let model = bundle.entry("step.onnx").ok_or("no step.onnx")?;
    let mut other = match ort {
        Some(ort) => Some({
            Network::new(ort, model, &[(c"obs", inputs)], &[(c"action", outputs)]).map_err(|e| say(&e))?
        }),
        None => None,
    };
    let observations: Vec<Vec<f32>> = (0..OBSERVATIONS)
        .map(|k| (0..inputs).map(|i| ((k * inputs + i) as f32 * 0.7).sin()).collect())
        .collect();
    let (mut action, mut theirs) = (vec![0.0; outputs], vec![0.0; outputs]);
    for obs in &observations {
        policy.act(obs, &[], &mut action).map_err(|e| say(&e))?;
        if let Some(other) = &mut other {
            other.run(&[obs], &mut [&mut theirs])?;
            if let Some((a, b)) = action.iter().zip(&theirs).find(|(a, b)| (*a - *b).abs() > AGREEMENT) {
                return Err(say(&format!("the engine answers {a}, onnxruntime {b}")));
            }
        }
    }
    let mut options = Options::default();
    options.weights = Some(Weights::Int8);
    let mut narrow = Policy::load(&bundle, &options).map_err(|e| say(&e))?;
    let footprint = policy.footprint();
    let weights = vec![1.0f32; footprint.weight_bytes / 4];
    let bytes = vec![1i8; narrow.footprint().weight_bytes];
    let hot = args.hot.min(BLOCK / footprint.macs.max(1));
    let mut rounds = Vec::with_capacity(args.rounds);
    for _ in 0..args.rounds {
        let mut engines = Vec::with_capacity(6);
        let mut time = |engine, flush: &mut Flush, call: &mut dyn FnMut(usize)| {
            (0..hot / 10 + 1).for_each(&mut *call);
            let hot = Block::measure(hot, || (), &mut *call);
            let cold = Block::measure(args.cold, || flush.touch(), &mut *call);
            engines.push(Engine { engine, hot, cold });
        };
        time("cadenza", flush, &mut |i| {
            // Finite observations were answered above; the same ones are now.
            let _ = policy.act(&observations[i % OBSERVATIONS], &[], &mut action);
        });
        time("int8", flush, &mut |i| {
            let _ = narrow.act(&observations[i % OBSERVATIONS], &[], &mut action);
        });
        if let Some(other) = &mut other {
            time("onnxruntime", flush, &mut |i| {
                let _ = other.run(&[&observations[i % OBSERVATIONS]], &mut [&mut theirs]);
            });
        }
        time("floor", flush, &mut |_| {
            std::hint::black_box(sum(std::hint::black_box(&weights)));
        });
        time("int8 floor", flush, &mut |_| {
            std::hint::black_box(widen(std::hint::black_box(&bytes)));
        });
        if let Some(product) = &mut product {
            let calls = (hot / 10).clamp(5, 50);
            let hot = Block::measure(calls, || (), |_| product.run().unwrap_or_default());
            engines.push(Engine { engine: "product", hot, cold: hot });
        }
        rounds.push(engines);
    }
    Ok(Net {
        name: bundle.manifest().name.clone(),
        isa: policy.isa().to_string(),
        weight_bytes: footprint.weight_bytes,
        macs: footprint.macs,
        rounds,
    })
}

fn run(args: &Args) -> Result<Output, String> {
    let ort = args.ort.as_deref().map(Ort::load).transpose()?;
    let mut flush = Flush::new();
    let mut product = args.product.as_deref().map(open).transpose()?.map(|(_, policy)| policy);
    // Two functions: a row of 1024 by 12, and the product of 96 rows.
    let product_macs = product.as_ref().map_or(0, |p| p.footprint().macs - 1024 * 12);
    let nets = args
        .bundles
        .iter()
        .map(|path| net(path, ort.as_ref(), product.as_mut(), args, &mut flush))
        .collect::<Result<_, _>>()?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    Ok(Output { onnxruntime: ort.map(|o| o.version().to_owned()), profile, product_macs, nets })
}

fn main() -> ExitCode {
    cadenza_benches::finish(run(&Args::parse()))
}
