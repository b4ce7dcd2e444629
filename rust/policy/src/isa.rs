//! Instruction sets: which exist, which one this machine has, and how a kernel is instantiated for each.

use std::fmt;

/// Instruction set that the kernels use. Results are bit-identical from run to run on one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isa {
    /// What every machine has, without fused multiply-add.
    Scalar,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// aarch64.
    Neon,
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
        })
    }
}

/// An instruction set that this machine is known to have: the only way to make one is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level(Isa);

impl Level {
    /// The best that this machine has.
    pub(crate) fn best() -> Self {
        [Isa::Avx2, Isa::Neon].into_iter().find_map(Self::of).unwrap_or(Self(Isa::Scalar))
    }

    /// `isa`, if this machine has it.
    pub(crate) fn of(isa: Isa) -> Option<Self> {
        let has = match isa {
            Isa::Scalar => true,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            Isa::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
            }
            Isa::Neon => cfg!(all(target_arch = "aarch64", not(miri))),
            #[allow(unreachable_patterns)]
            _ => false,
        };
        has.then_some(Self(isa))
    }

    /// Which one it is.
    pub(crate) fn isa(self) -> Isa {
        self.0
    }
}

/// `a·b + c`, fused where the instruction set does that in one instruction. Without one it would be a library call.
#[inline(always)]
pub(crate) fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a kernel from a generic body `fn body<const FUSED: bool>(…)`, which must be `#[inline(always)]`: the
/// compiler then writes it once for each instruction set.
macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident = $body:ident($($arg:ident: $ty:ty),* $(,)?)) => {
        $(#[$doc])*
        pub(crate) fn $name(level: crate::isa::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn wide($($arg: $ty),*) {
                $body::<true>($($arg),*)
            }
            match level.isa() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` of AVX2 is only made on a machine that reports AVX2 and FMA.
                crate::isa::Isa::Avx2 => unsafe { wide($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                crate::isa::Isa::Neon => $body::<true>($($arg),*),
                _ => $body::<false>($($arg),*),
            }
        }
    };
}
pub(crate) use kernel;
