//! Why the loop left its normal course: one table of reasons with their default levels.

use super::Level;
use crate::device::DeviceFault;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $level:ident;)*) => {
        /// Why the loop left its normal course. The number is stored in logs and never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Reason { $($(#[$doc])* $name = $code,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];
            /// Name in logs and reports.
            pub const fn name(self) -> &'static str { match self { $(Reason::$name => $text,)* } }
            /// Level that it asks for unless robot.toml or a monitor says otherwise.
            pub const fn level(self) -> Level { match self { $(Reason::$name => Level::$level,)* } }
            /// The reason with this number.
            pub const fn from_code(code: u16) -> Option<Self> { match code { $($code => Some(Reason::$name),)* _ => None } }
        }
    };
}

impl Reason {
    /// Whether the number of a fault's subject is that of a monitor, not of a joint.
    pub const fn is_about_monitors(self) -> bool {
        matches!(self, Reason::Monitor | Reason::MonitorSlowed)
    }
}

reasons! {
    /// The newest state is older than `stale_after`.
    StateStale = 1, "STATE_STALE", Hold;
    /// The newest state is older than `lost_after`.
    StateLost = 2, "STATE_LOST", Damp;
    /// A measured number is not finite.
    StateNotFinite = 3, "STATE_NOT_FINITE", Hold;
    /// Measured numbers were not finite three times in a row.
    StateNotFiniteRepeated = 4, "STATE_NOT_FINITE_REPEATED", Damp;
    /// An observation is not finite, or the network refused it: no inference on this tick.
    ObservationNotFinite = 5, "OBS_NOT_FINITE", Hold;
    /// The policy returned a number that is not finite.
    PolicyNotFinite = 6, "POLICY_NOT_FINITE", Hold;
    /// The policy did not answer in time.
    PolicyLate = 7, "POLICY_LATE", Hold;
    /// The action sequence ran out and the hold time is over.
    PolicyExhausted = 8, "POLICY_EXHAUSTED", SoftStop;
    /// A joint was measured outside its range.
    PositionMeasured = 9, "POSITION_MEASURED", SoftStop;
    /// A joint was measured faster than 1.2 times its limit for three ticks.
    VelocityMeasured = 10, "VELOCITY_MEASURED", Damp;
    /// A joint is too far from its command.
    Tracking = 11, "TRACKING", SoftStop;
    /// Gains were scaled down for torque longer than 200 ms.
    TorqueSaturated = 12, "TORQUE_SATURATED", SoftStop;
    /// A motor is too hot.
    Temperature = 13, "TEMPERATURE", SoftStop;
    /// The base tilts too far.
    Tilt = 14, "TILT", Damp;
    /// An emergency stop is pressed.
    Estop = 15, "ESTOP", Damp;
    /// A joint lost its replies.
    JointSilent = 16, "JOINT_SILENT", Damp;
    /// The bus does not answer.
    BusSilent = 17, "BUS_SILENT", Damp;
    /// Too many missed deadlines in a row.
    Deadline = 18, "DEADLINE", SoftStop;
    /// A monitor tripped.
    Monitor = 19, "MONITOR", Hold;
    /// A command that reached the gate broke a limit: a bug upstream.
    GateMismatch = 20, "GATE_MISMATCH", SoftStop;
    /// The control thread panicked.
    Panic = 21, "PANIC", Damp;
    /// A fault in the vendor's own numbering.
    Vendor = 22, "VENDOR", Damp;
    /// The operator asked to stop.
    OperatorStop = 23, "OPERATOR_STOP", SoftStop;
    /// The operator pressed the software emergency stop.
    OperatorEstop = 24, "OPERATOR_ESTOP", Damp;
    /// The policy returned an action of the wrong length.
    PolicyWrongLength = 25, "POLICY_WRONG_LENGTH", Hold;
    /// The device refused a command.
    WriteFailed = 26, "WRITE_FAILED", Damp;
    /// The simulated physics diverged.
    Diverged = 27, "SIMULATION_DIVERGED", Off;
    /// An answer of the policy came too late, out of order or for another episode; the plan goes on without it.
    ChunkRefused = 28, "CHUNK_REFUSED", Run;
    /// An answer did not repeat the actions that were already committed; those were kept.
    PrefixMismatch = 29, "PREFIX_MISMATCH", Run;
    /// Three answers in a row took so long that the sequences cannot cover their delay.
    HorizonTooShort = 30, "HORIZON_TOO_SHORT", SoftStop;
    /// Another bundle has taken over.
    BundleSwitched = 31, "BUNDLE_SWITCHED", Run;
    /// Another bundle was to take over and was refused; the one before goes on.
    BundleRefused = 32, "BUNDLE_REFUSED", Run;
    /// A monitor is stepped more rarely than its property asks for, to keep the monitors within their time.
    MonitorSlowed = 33, "MONITOR_SLOWED", Run;
}

/// The one table from device faults to reasons, with the joint, the value seen and the limit.
pub fn device_fault(fault: DeviceFault) -> (Reason, u16, f64, f64) {
    match fault {
        DeviceFault::JointSilent { joint, lost } => (Reason::JointSilent, joint, f64::from(lost), 0.0),
        DeviceFault::BusSilent { for_ms } => (Reason::BusSilent, u16::MAX, f64::from(for_ms), 0.0),
        DeviceFault::Overheated { joint, celsius, limit } => {
            (Reason::Temperature, joint, f64::from(celsius), f64::from(limit))
        }
        DeviceFault::Vendor { joint, code } => (Reason::Vendor, joint, f64::from(code), 0.0),
        DeviceFault::Refused { joint } => (Reason::WriteFailed, joint, 0.0, 0.0),
        DeviceFault::Diverged { joint } => (Reason::Diverged, joint, 0.0, 0.0),
    }
}
