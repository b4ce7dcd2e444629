//! Whatever is asked in whatever order.

use cadenza_runtime::safety::{Level, Phase, Reason};
use proptest::prelude::*;

use crate::fault;
use crate::safety_support::*;
use Level::{Damp, Hold, Off, Run, SoftStop};

#[derive(Clone, Copy, Debug)]
enum Ask {
    Arm,
    Enable,
    Disarm,
    Reset,
    Stop,
    Estop,
    Press(bool),
    Fault(Level),
    Answered,
    Ticks(u8),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Arm),
        Just(Ask::Enable),
        Just(Ask::Disarm),
        Just(Ask::Reset),
        Just(Ask::Stop),
        Just(Ask::Estop),
        any::<bool>().prop_map(Ask::Press),
        prop::sample::select(vec![Run, Hold, SoftStop, Damp, Off]).prop_map(Ask::Fault),
        Just(Ask::Answered),
        (1u8..70).prop_map(Ask::Ticks),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever is asked in whatever order: once a latched level was reached, the robot runs again only after a reset,
    /// an arm and an enable that were all granted, in this order.
    #[test]
    fn no_request_leads_back_to_run_without_reset_arm_enable(asks in prop::collection::vec(ask(), 1..60)) {
        let mut rig = Rig::running(&robot(1));
        // How much of reset, arm, enable has been granted since the last latched level.
        let mut granted = 3;
        for ask in asks {
            match ask {
                Ask::Arm => if rig.gate.arm().is_ok() && granted == 1 { granted = 2 },
                Ask::Enable => {
                    let ready = rig.gate.armable(&rig.state).is_ok();
                    if ready && rig.enable().is_ok() && granted == 2 { granted = 3 }
                }
                Ask::Disarm => { rig.gate.disarm(); granted = granted.min(1) }
                Ask::Reset => if rig.gate.reset().is_ok() { granted = 1 },
                Ask::Stop => rig.gate.stop(),
                Ask::Estop => rig.gate.estop(),
                Ask::Press(pressed) => rig.state.estop = pressed,
                Ask::Fault(level) => rig.gate.report(fault(&rig, Reason::Monitor, level)),
                Ask::Answered => rig.gate.policy_answered(),
                Ask::Ticks(count) => (0..count).for_each(|_| { rig.tick(); }),
            }
            if rig.gate.first_fault().is_some() {
                granted = 0;
            } else if granted == 2 && rig.gate.phase() == Phase::Disarmed {
                granted = 1;
            }
            let level = rig.tick();
            if rig.gate.first_fault().is_some() {
                granted = 0;
            }
            prop_assert!(level >= SoftStop || granted == 3, "{ask:?} led to {level:?} with {granted} granted");
            prop_assert_eq!(rig.gate.phase() == Phase::Armed || level == Off, true);
        }
    }
}
