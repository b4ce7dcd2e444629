use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::robot::tests::{bundle, two_joints};

/// A sequence for two joints, five control ticks for each policy tick.
fn configured(horizon: usize, hold_ticks: u32, config: &RunConfig) -> Sequence {
    let manifest = bundle(|b| {
        b["chunk"] = json!({ "mode": "open", "horizon": horizon, "execute": 1, "on_exhausted": "hold",
                             "seam": "replace" });
    });
    let mut robot = two_joints();
    robot.safety.hold_ticks = hold_ticks;
    Sequence::new(&manifest, &robot, config).unwrap()
}

fn sequence(horizon: usize, seam: &str, hold_ticks: u32, upsample: Upsample) -> Sequence {
    let config =
        RunConfig { upsample: Some(upsample), seam: Some(seam.parse().unwrap()), ..RunConfig::default() };
    configured(horizon, hold_ticks, &config)
}

/// A chunk whose first joint holds `values`, the second one their negatives.
fn rows(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    values.into_iter().flat_map(|x| [x, -x]).collect()
}

fn chunk(id: u64, obs_tick: u64, values: &[f64]) -> Chunk<'_> {
    Chunk { id, epoch: 0, obs_tick, first_tick: obs_tick, rows: values.len() / 2, prefix: 0, values }
}

fn assert_plays(s: &mut Sequence, from: u64, expected: &[f64]) {
    for (tick, &value) in (from..).zip(expected) {
        let target = s.target(5 * tick);
        assert_eq!(target.flow, Flow::Run, "tick {tick}");
        assert!((target.q[0] - value).abs() < 5e-7, "tick {tick}: {} {value}", target.q[0]);
        assert_eq!(target.q[1], -target.q[0]);
    }
}

#[test]
fn seams_have_their_golden_values() {
    let a = rows((0..8).map(f64::from));
    let b = rows((100..108).map(f64::from));
    for (seam, freeze, golden) in [
        ("replace", 0, [103.0, 104.0, 105.0]),
        ("fade:2", 0, [38.333333, 71.666667, 105.0]),
        ("ensemble:0.01", 0, [54.25750202, 55.25750202, 105.0]),
        ("replace", 1, [6.0, 104.0, 105.0]),
    ] {
        let config = RunConfig {
            upsample: Some(Upsample::Hold),
            seam: Some(seam.parse().unwrap()),
            freeze,
            ..RunConfig::default()
        };
        let mut s = configured(8, 25, &config);
        s.reset(0, &[9.0; MAX_JOINTS]);
        assert_eq!(s.accept(&chunk(0, 0, &a), 0), Ok(Accepted::default()));
        assert_plays(&mut s, 0, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(s.accept(&chunk(1, 3, &b), 6), Ok(Accepted { expired: 3, mismatch: None }));
        assert_plays(&mut s, 6, &golden);
        assert_plays(&mut s, 9, &[106.0, 107.0]);
        let after = s.target(55);
        assert_eq!((after.flow, after.q[0], after.dq[0]), (Flow::Hold, 107.0, 0.0));
    }
}

#[test]
fn an_ensemble_is_the_weighted_mean_of_all_that_cover_a_step_and_zero_counts() {
    for (values, golden) in [([1.0, 2.0, 4.0], 2.323339055), ([0.0, 2.0, 4.0], 1.986666889)] {
        let mut s = sequence(4, "ensemble:0.01", 25, Upsample::Hold);
        for (now, value) in (0..).zip(values) {
            s.accept(&chunk(now, now, &rows([value; 4])), now).unwrap();
        }
        let target = s.target(5 * 2);
        assert!((target.q[0] - golden).abs() < 1e-8, "{}", target.q[0]);
        assert_plays(&mut s, 5, &[4.0]);
    }
    // A shorter newer one does not end the older one's plan.
    let mut s = sequence(6, "ensemble:0", 25, Upsample::Hold);
    s.accept(&chunk(0, 0, &rows([1.0; 6])), 0).unwrap();
    s.accept(&chunk(1, 1, &rows([3.0; 2])), 1).unwrap();
    assert_plays(&mut s, 0, &[1.0, 2.0, 2.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_prefix_repeats_what_is_committed_or_says_what_differs() {
    let mut s = sequence(6, "prefix", 25, Upsample::Hold);
    s.accept(&chunk(0, 0, &rows([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])), 0).unwrap();
    let mut committed = [0.0; 6];
    s.committed(2, &mut committed);
    assert_eq!(committed, [0.2, -0.2, 0.3, -0.3, 0.4, -0.4]);
    let good = rows([0.2, 0.3, 0.9, 0.9]);
    assert_eq!(s.accept(&Chunk { prefix: 2, ..chunk(1, 2, &good) }, 2), Ok(Accepted::default()));
    assert_plays(&mut s, 2, &[0.2, 0.3, 0.9, 0.9]);
    // 1e-4 of a joint's range of a few rad may differ.
    let bad = rows([0.9, 0.901, 0.0, 0.0]);
    let accepted = s.accept(&Chunk { prefix: 2, ..chunk(2, 4, &bad) }, 4).unwrap();
    let mismatch = accepted.mismatch.unwrap();
    assert_eq!((mismatch.row, mismatch.joint), (1, 0));
    assert!((mismatch.error - 0.001).abs() < 1e-9);
    assert_plays(&mut s, 4, &[0.9, 0.9, 0.0, 0.0]);
    s.committed(6, &mut committed);
    assert_eq!(committed, [0.0, -0.0, 0.0, -0.0, 0.0, -0.0], "the last two rows, the last one repeated");
    assert_eq!((s.remaining(6), s.remaining(8), s.remaining(20)), (2, 0, 0));
}

#[test]
fn a_sequence_that_comes_too_late_is_dropped_or_gives_the_hold_its_last_action() {
    for (late, held) in [(Late::Drop, 0.0), (Late::Last, 7.0)] {
        let mut s = configured(3, 25, &RunConfig { late, ..RunConfig::default() });
        s.reset(0, &[0.0; MAX_JOINTS]);
        let accepted = s.accept(&chunk(0, 0, &rows([5.0, 6.0, 7.0])), 9);
        assert_eq!(accepted.is_ok(), late == Late::Last);
        let target = s.target(45);
        assert_eq!((target.flow, target.q[0]), (Flow::Hold, held));
        // While something newer is played, nothing changes.
        s.accept(&chunk(1, 10, &rows([1.0, 1.0, 1.0])), 10).unwrap();
        assert!(s.accept(&chunk(2, 4, &rows([5.0; 3])), 10).is_err());
        assert_eq!(s.target(50).flow, Flow::Run);
    }
}

#[test]
fn angles_take_the_shorter_way_round() {
    let manifest = bundle(|b| {
        b["chunk"] =
            json!({ "mode": "open", "horizon": 4, "execute": 1, "on_exhausted": "hold", "seam": "fade" });
        b["action"]["channels"] = json!({ "wrist": "angle" });
    });
    let mut s = Sequence::new(&manifest, &two_joints(), &RunConfig::default()).unwrap();
    s.accept(&chunk(0, 0, &rows([-3.0, -3.2, -3.2, -3.2])), 0).unwrap();
    let half = s.target(2);
    assert!((half.q[1] - 3.08).abs() < 1e-12 && (half.q[0] + 3.08).abs() < 1e-12);
    // From 3.2 to −3.0 is 0.083 rad further, not 6.2 back.
    s.accept(&chunk(1, 1, &rows([3.0; 4])), 1).unwrap();
    let q = s.target(5).q[1];
    assert!((q - (3.2 + (TAU - 6.2) / 3.0)).abs() < 1e-12, "{q}");
}

#[test]
fn cubic_meets_the_actions_and_is_smooth_between_them() {
    let mut s = sequence(4, "replace", 25, Upsample::Cubic);
    s.accept(&chunk(0, 0, &rows([0.0, 1.0, 4.0, 9.0])), 0).unwrap();
    for (tick, q) in [(0, 0.0), (5, 1.0), (10, 4.0), (15, 9.0)] {
        assert!((s.target(tick).q[0] - q).abs() < 1e-12);
    }
    let mut s = sequence(4, "replace", 25, Upsample::Cubic);
    s.accept(&chunk(0, 0, &rows([0.0, 1.0, 4.0, 9.0])), 0).unwrap();
    // At an action the velocity is the harmonic mean of the two beside it: steps of 1, 3 and 5 rad in 20 ms.
    for (tick, dq) in [(0, 50.0), (5, 75.0), (10, 187.5), (15, 0.0)] {
        let target = s.target(tick);
        assert!((target.dq[0] - dq).abs() < 1e-9, "tick {tick}: {}", target.dq[0]);
    }
}

#[test]
fn the_usual_fade_is_four_steps_or_half_the_horizon() {
    for (horizon, golden) in
        [(8, vec![20.0, 40.0, 60.0, 80.0, 100.0]), (4, vec![33.333333, 66.666667, 100.0])]
    {
        let mut s = sequence(horizon, "fade", 25, Upsample::Hold);
        s.accept(&chunk(0, 0, &rows(vec![0.0; horizon])), 0).unwrap();
        s.accept(&chunk(1, 0, &rows(vec![100.0; horizon])), 0).unwrap();
        assert_plays(&mut s, 0, &golden);
    }
}

#[test]
fn a_sequence_that_runs_out_holds_then_gives_up_then_recovers() {
    let mut s = sequence(4, "replace", 7, Upsample::Hold);
    s.reset(0, &[5.0; MAX_JOINTS]);
    let flow = |s: &mut Sequence, tick| (s.target(tick).flow, s.target(tick).q[0]);
    assert_eq!(flow(&mut s, 0), (Flow::Hold, 5.0), "nothing has arrived yet");
    s.accept(&chunk(0, 1, &rows([1.0, 2.0, 3.0, 4.0])), 1).unwrap();
    assert_eq!(flow(&mut s, 5), (Flow::Run, 1.0), "the first chunk takes over at once");
    assert_eq!(flow(&mut s, 24), (Flow::Run, 4.0));
    for tick in 25..32 {
        assert_eq!(flow(&mut s, tick), (Flow::Hold, 4.0), "{tick}");
    }
    for tick in 32..40 {
        assert_eq!(flow(&mut s, tick), (Flow::Exhausted, 4.0), "{tick}");
    }
    s.accept(&chunk(1, 8, &rows([10.0; 4])), 8).unwrap();
    assert_plays(&mut s, 8, &[6.0, 8.0, 10.0, 10.0]);
    assert_eq!(flow(&mut s, 60), (Flow::Hold, 10.0), "the hold time starts anew");
}

#[test]
fn linear_follows_the_line_with_its_velocity() {
    let mut s = sequence(3, "replace", 25, Upsample::Linear);
    s.accept(&chunk(0, 0, &rows([1.0, 2.0, 4.0])), 0).unwrap();
    for (tick, q, dq) in
        [(0, 1.0, 50.0), (3, 1.6, 50.0), (5, 2.0, 100.0), (9, 3.6, 100.0), (10, 4.0, 0.0), (14, 4.0, 0.0)]
    {
        let target = s.target(tick);
        assert!((target.q[0] - q).abs() < 1e-12 && (target.dq[0] - dq).abs() < 1e-9, "{tick}: {target:?}");
    }
}

#[test]
fn discrete_channels_are_never_between_two_values() {
    let manifest = bundle(|b| {
        b["chunk"] =
            json!({ "mode": "open", "horizon": 4, "execute": 1, "on_exhausted": "hold", "seam": "fade" });
        b["action"]["channels"] = json!({ "wrist": "discrete" });
    });
    let mut s = Sequence::new(&manifest, &two_joints(), &RunConfig::default()).unwrap();
    s.accept(&chunk(0, 0, &rows([0.0, 1.0, 2.0, 3.0])), 0).unwrap();
    let target = s.target(2);
    assert_eq!((target.q[0], target.q[1], target.dq[1]), (0.4, -0.0, 0.0));
    s.accept(&chunk(1, 1, &rows([10.0; 4])), 1).unwrap();
    assert_eq!(s.target(5).q[1], -10.0);
    assert_eq!(s.target(5).q[0], 4.0);
}

#[test]
fn refusals_name_their_reason_and_change_nothing() {
    let mut s = sequence(4, "replace", 25, Upsample::Hold);
    s.reset(3, &[0.0; MAX_JOINTS]);
    let good = rows([1.0, 2.0, 3.0, 4.0]);
    let chunk = |id, obs_tick, values| Chunk { epoch: 3, ..chunk(id, obs_tick, values) };
    s.accept(&chunk(5, 10, &good), 10).unwrap();
    let before = format!("{s:?}");
    let nan = rows([1.0, f64::NAN]);
    let refused = [
        (Chunk { epoch: 2, ..chunk(6, 11, &good) }, Refusal::StaleEpoch { got: 2, want: 3 }),
        (chunk(6, 9, &good), Refusal::OutOfOrder { obs_tick: 9, newest: 10 }),
        (chunk(5, 10, &good), Refusal::OutOfOrder { obs_tick: 10, newest: 10 }),
        (Chunk { rows: 3, ..chunk(6, 11, &good) }, Refusal::WrongLength { got: 8, want: 6 }),
        (Chunk { rows: 0, ..chunk(6, 11, &[]) }, Refusal::WrongLength { got: 0, want: 8 }),
        (Chunk { rows: 5, ..chunk(6, 11, &good) }, Refusal::WrongLength { got: 10, want: 8 }),
        (chunk(6, 11, &nan), Refusal::NotFinite { row: 1, joint: 0 }),
        (Chunk { first_tick: 2, ..chunk(6, 11, &good) }, Refusal::Expired { last: 5, now: 12 }),
        (chunk(6, 13, &good), Refusal::FromFuture { tick: 13, now: 12 }),
        (Chunk { first_tick: 17, ..chunk(6, 11, &good) }, Refusal::FromFuture { tick: 17, now: 12 }),
        (
            Chunk { first_tick: u64::MAX, ..chunk(6, 11, &good) },
            Refusal::FromFuture { tick: u64::MAX, now: 12 },
        ),
    ];
    for (chunk, reason) in refused {
        assert_eq!(s.accept(&chunk, 12), Err(reason));
        assert_eq!(format!("{s:?}"), before);
    }
    s.reset(4, &[7.0; MAX_JOINTS]);
    let target = s.target(60);
    assert_eq!((target.flow, target.q[0]), (Flow::Hold, 7.0), "a reset drops the plan");
}

#[test]
fn what_cannot_work_is_refused_at_load() {
    let make = |chunk: serde_json::Value, channels: serde_json::Value, how| {
        let manifest = bundle(|b| {
            for (key, value) in chunk.as_object().unwrap() {
                b["chunk"][key] = value.clone();
            }
            b["action"]["channels"] = channels;
        });
        let config = RunConfig { upsample: Some(how), ..RunConfig::default() };
        Sequence::new(&manifest, &two_joints(), &config)
    };
    let open = |horizon: usize| json!({ "mode": "open", "horizon": horizon });
    assert!(make(open(2), json!({}), Upsample::Linear).is_ok());
    for (chunk, channels, how, text) in [
        (open(0), json!({}), Upsample::Hold, "chunk.horizon = 0"),
        (open(1), json!({}), Upsample::Linear, "horizon = 1"),
        (open(1), json!({}), Upsample::Cubic, "horizon = 1"),
        (json!({ "seam": "fade", "fade_ticks": 1 }), json!({}), Upsample::Hold, "fade = 1"),
        (open(4), json!({ "knee": "linear" }), Upsample::Hold, "no joint knee"),
    ] {
        let error = make(chunk, channels, how).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

/// The same rules, written down a second time over an unbounded map of one joint.
struct Reference {
    horizon: u64,
    fade: u64,
    recovery: u64,
    hold_ticks: u64,
    plan: BTreeMap<u64, f64>,
    started: bool,
    newest: Option<(u64, u64)>,
    held: f64,
    idle: Option<u64>,
}

impl Reference {
    fn accept(&mut self, id: u64, epoch: u32, obs: u64, first: u64, values: &[f64], now: u64) -> bool {
        if values.is_empty() {
            return false;
        }
        let fits = values.len() as u64 <= self.horizon;
        let last = first + values.len() as u64 - 1;
        let timely = obs <= now && first <= now + self.horizon && last >= now;
        let newer = self.newest.is_none_or(|n| n < (obs, id));
        if epoch != 0 || !fits || !timely || !newer || values.iter().any(|x| !x.is_finite()) {
            return false;
        }
        let n = match (self.started, self.idle) {
            (false, _) => 0,
            (true, Some(_)) => self.recovery,
            (true, None) => self.fade,
        };
        let extended = match self.idle {
            Some(_) => self.held,
            None => self.plan.last_key_value().map_or(self.held, |(_, &x)| x),
        };
        let old = std::mem::take(&mut self.plan);
        self.plan = old.range(..now.max(first)).map(|(&t, &x)| (t, x)).collect();
        for (i, tick) in (now.max(first)..=last).enumerate() {
            let new = values[(tick - first) as usize];
            let old = old.get(&tick).copied().unwrap_or(extended);
            let weight = if (i as u64) < n { (i + 1) as f64 / (n + 1) as f64 } else { 1.0 };
            self.plan.insert(tick, if weight < 1.0 { old + (new - old) * weight } else { new });
        }
        (self.started, self.newest) = (true, Some((obs, id)));
        true
    }

    fn target(&mut self, tick: u64) -> (Flow, f64) {
        match self.plan.get(&(tick / 5)) {
            Some(&x) => {
                (self.held, self.idle) = (x, None);
                (Flow::Run, x)
            }
            None => {
                let since = *self.idle.get_or_insert(tick);
                (if tick - since < self.hold_ticks { Flow::Hold } else { Flow::Exhausted }, self.held)
            }
        }
    }
}

/// One thing that may happen at a control tick: a chunk, as (lateness, lead, rows, kind), or nothing.
type Happening = Option<(u64, u64, usize, u8)>;

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop::option::weighted(0.25, (0u64..9, 0u64..12, 0usize..10, 0u8..12));
    prop::collection::vec(one, 1..400)
}

proptest! {
    /// Late, duplicate, reordered, broken and missing chunks: the ring plays exactly what the map plays.
    #[test]
    fn the_ring_plays_what_the_reference_plays(
        happenings in happenings(), horizon in 1usize..9, fading: bool, hold_ticks in 0u32..40,
    ) {
        let seam = if fading { "fade" } else { "replace" };
        let mut s = sequence(horizon, seam, hold_ticks, Upsample::Hold);
        s.reset(0, &[0.5; MAX_JOINTS]);
        let usual = (horizon as u64 / 2).min(4);
        let mut reference = Reference {
            horizon: horizon as u64,
            fade: if fading { usual } else { 0 },
            recovery: usual,
            hold_ticks: u64::from(hold_ticks),
            plan: BTreeMap::new(),
            started: false,
            newest: None,
            held: 0.5,
            idle: None,
        };
        for (tick, happening) in happenings.into_iter().enumerate() {
            let (tick, now) = (tick as u64, tick as u64 / 5);
            if let Some((late, lead, count, kind)) = happening {
                let obs = (now + u64::from(kind == 0)).saturating_sub(late);
                let first = if kind == 1 { obs + lead } else { obs };
                let epoch = u32::from(kind == 2);
                let mut values: Vec<f64> = (0..count).map(|i| (tick * 10 + i as u64) as f64).collect();
                if kind == 3 && count > 0 {
                    values[count / 2] = f64::NAN;
                }
                let id = if kind == 4 { tick / 2 } else { tick };
                let both = rows(values.iter().copied());
                let chunk = Chunk { id, epoch, obs_tick: obs, first_tick: first, rows: count, prefix: 0, values: &both };
                let accepted = s.accept(&chunk, now);
                let expected = reference.accept(id, epoch, obs, first, &values, now);
                prop_assert_eq!(accepted.is_ok(), expected, "{:?}", accepted);
            }
            let target = s.target(tick);
            let (flow, q) = reference.target(tick);
            prop_assert_eq!((target.flow, target.q[0]), (flow, q), "tick {}", tick);
            prop_assert!(target.q.iter().chain(&target.dq).all(|x| x.is_finite()));
        }
    }

    /// Chunks that say their own absolute tick: whatever the latency, the value played is the tick, so none is
    /// repeated, skipped or played backwards while the plan lasts.
    #[test]
    fn no_tick_is_repeated_or_goes_back(latencies in prop::collection::vec(0u64..6, 40), horizon in 6usize..12) {
        let mut s = sequence(horizon, "replace", 25, Upsample::Hold);
        for now in 0..40u64 {
            let late = latencies[now as usize];
            if let Some(obs) = now.checked_sub(late) {
                let values = rows((0..horizon as u64).map(|i| (obs + i) as f64));
                // Out of order arrivals are refused, which must not disturb the plan either.
                let _ = s.accept(&chunk(now, obs, &values), now);
            }
            for tick in 5 * now..5 * now + 5 {
                let target = s.target(tick);
                if target.flow == Flow::Run {
                    prop_assert_eq!(target.q[0], now as f64);
                }
            }
        }
    }
}
