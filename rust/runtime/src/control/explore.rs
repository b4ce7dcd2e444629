//! Symphony's exploration on the robot: a clipped normal before the network's last tanh.
//!
//! ```text
//! a = tanh(u + share · N),   N = std · clamp(z, −clip, clip),   z normal
//! ```
//!
//! Off unless the run asks for a share of it. It is white in time: what makes a motion of it is the limiter, whose bounds
//! every robot.toml sets. z comes from two counter uniforms of the tick and the joint's name and of nothing else, so that
//! equal runs explore equally, and a robot with its joints in another order gets the same noise by joint. The distribution is
//! that of training, the stream is not.

use std::f64::consts::TAU;

use cadenza_policy::Policy;
use cadenza_policy::manifest::{ChunkMode, Manifest, Noise};

use super::RunError;
use super::policy::{Ask, PolicyError, PolicySource};
use crate::action::{fnv1a, mix};
use crate::config::RunConfig;

/// What gives an action and what that was before its last tanh.
trait Squashed: PolicySource {
    /// One number for each action, of the newest answer.
    fn presquash(&self) -> &[f32];
}

impl Squashed for Policy {
    fn presquash(&self) -> &[f32] {
        Policy::presquash(self).unwrap_or(&[])
    }
}

/// A policy that explores.
struct Explorer<P> {
    policy: P,
    normal: Normal,
    share: f64,
    /// One for each action.
    names: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Normal {
    std: f64,
    clip: f64,
}

/// The policy of a bundle, with the noise before the squash that the bundle has and the run asks for.
///
/// # Errors
/// [`RunError::Config`] for a share of such noise outside 0 … 1, or in a bundle of sequences.
pub fn exploring(
    policy: Policy,
    manifest: &Manifest,
    config: &RunConfig,
) -> Result<Box<dyn PolicySource>, RunError> {
    let (Some(Noise::ClippedGaussianPreTanh { std, clip }), true) = (&manifest.noise, config.noise != 0.0)
    else {
        return Ok(Box::new(policy));
    };
    let refuse = |expected| Err(RunError::Config { key: "noise", value: config.noise.to_string(), expected });
    if !(0.0..=1.0).contains(&config.noise) {
        return refuse("a share of the bundle's noise, 0 to 1");
    }
    if manifest.chunk.mode != ChunkMode::None {
        return refuse("0: noise before the squash is for bundles of single actions");
    }
    let normal = Normal { std: *std, clip: *clip };
    Ok(Box::new(Explorer::new(policy, normal, config.noise, &manifest.action.joints)))
}

impl<P: Squashed> Explorer<P> {
    fn new(policy: P, normal: Normal, share: f64, joints: &[String]) -> Self {
        Self { policy, normal, share, names: joints.iter().map(|name| fnv1a(name)).collect() }
    }
}

impl<P: Squashed> PolicySource for Explorer<P> {
    fn reset(&mut self) {
        self.policy.reset();
    }

    fn act(&mut self, ask: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
        self.policy.act(ask, out)?;
        let key = mix(ask.tick);
        let squash = out.iter_mut().zip(self.policy.presquash());
        for (index, ((action, u), name)) in squash.zip(&self.names).enumerate() {
            if !u.is_finite() {
                return Err(PolicyError::NotFinite { what: "action", index });
            }
            *action = (f64::from(*u) + self.share * self.normal.at(key, *name)).tanh() as f32;
        }
        Ok(())
    }
}

impl Normal {
    /// N of the joint with this hash at the tick with this key, by Box and Muller.
    fn at(self, key: u64, name: u64) -> f64 {
        // In (0, 1): the logarithm of neither end is taken.
        let uniform = |i| ((mix(key ^ name.wrapping_add(i)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let z = (-2.0 * uniform(0).ln()).sqrt() * (TAU * uniform(1)).cos();
        self.std * z.clamp(-self.clip, self.clip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: Normal = Normal { std: 1.0 / std::f64::consts::E, clip: std::f64::consts::E };

    /// Answers its tanh; says what that was before.
    struct Plain([f32; 2]);

    impl PolicySource for Plain {
        fn reset(&mut self) {}

        fn act(&mut self, _: &Ask<'_>, out: &mut [f32]) -> Result<(), PolicyError> {
            out.copy_from_slice(&self.0.map(f32::tanh));
            Ok(())
        }
    }

    impl Squashed for Plain {
        fn presquash(&self) -> &[f32] {
            &self.0
        }
    }

    fn act(policy: &mut impl PolicySource, tick: u64) -> Result<[f32; 2], PolicyError> {
        let mut out = [9.0; 2];
        policy
            .act(&Ask { tick, begin: true, obs: &[], previous: &[], committed: &[] }, &mut out)
            .map(|()| out)
    }

    /// The golden figures of the clipped normal with std 1/e and clip e, and of its tanh.
    #[test]
    fn the_noise_is_distributed_as_in_training() {
        let count = 400_000u64;
        let all: Vec<f64> = (0..count).map(|tick| E.at(mix(tick), fnv1a("left_knee"))).collect();
        let mean = |f: &dyn Fn(f64) -> f64| all.iter().map(|&n| f(n)).sum::<f64>() / count as f64;
        // Six standard errors of each.
        assert!(mean(&|n| n).abs() < 6.0 * 0.366 / (count as f64).sqrt());
        assert!((mean(&|n| n * n).sqrt() - 0.36566731).abs() < 2.5e-3);
        let clipped = mean(&|n| f64::from(u8::from(n.abs() >= 1.0 - 1e-12)));
        assert!((clipped - 0.00656219).abs() < 7.7e-4, "{clipped}");
        assert!((mean(&|n| n.tanh().powi(2)).sqrt() - 0.32848273).abs() < 2e-3);
        assert!((mean(&|n| n.tanh().abs()) - 0.27117444).abs() < 1.8e-3);
        assert!((mean(&|n| f64::from(u8::from(n.tanh().abs() > 0.4))) - 0.24948664).abs() < 4.2e-3);
        assert!(all.iter().all(|n| n.tanh().abs() <= 0.7616));
        // White in time.
        let change =
            all.windows(2).map(|w| (w[1].tanh() - w[0].tanh()).abs()).sum::<f64>() / (count - 1) as f64;
        assert!((change - 0.3759).abs() < 3e-3, "{change}");
    }

    #[test]
    fn the_share_scales_what_is_added_before_the_squash() {
        let names = ["a", "b"].map(str::to_owned);
        let u = [0.7f32, -1.2];
        for share in [0.25, 1.0] {
            let mut explorer = Explorer::new(Plain(u), E, share, &names);
            for tick in 0..50 {
                let out = act(&mut explorer, tick).unwrap();
                for (i, name) in names.iter().enumerate() {
                    let expected = (f64::from(u[i]) + share * E.at(mix(tick), fnv1a(name))).tanh();
                    assert!((f64::from(out[i]) - expected).abs() < 1e-7);
                }
                assert_eq!(act(&mut explorer, tick), Ok(out), "the same again");
            }
        }
        let mut turned = Explorer::new(Plain([u[1], u[0]]), E, 1.0, &["b", "a"].map(str::to_owned));
        let mut explorer = Explorer::new(Plain(u), E, 1.0, &names);
        let ([b, a], [a2, b2]) = (act(&mut turned, 7).unwrap(), act(&mut explorer, 7).unwrap());
        assert_eq!((a, b), (a2, b2));
    }

    #[test]
    fn what_is_not_a_number_is_not_explored() {
        let mut explorer = Explorer::new(Plain([0.0, f32::NAN]), E, 1.0, &["a", "b"].map(str::to_owned));
        assert_eq!(act(&mut explorer, 0), Err(PolicyError::NotFinite { what: "action", index: 1 }));
    }
}
