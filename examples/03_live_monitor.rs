//! Watch a rule sample by sample: it is known to be broken as soon as nothing can mend it.
//!
//! A button is pressed; from the next sample on, and for five samples, the machine must be slower than 0.8 m/s.
//! Its brake is too weak, and the monitor knows four samples before the time is up.

use std::error::Error;

use cadenza_stl::{At, Formula, Monitor, MonitorOptions, ParseOptions};

const RULE: &str = "button > 0.5 -> G[1,5] (speed < 0.8)";

fn main() -> Result<(), Box<dyn Error>> {
    let names = ["button", "speed"];
    let rule = Formula::parse(RULE, &ParseOptions { signals: Some(&names), ..Default::default() })?;
    // The button is 0 or 1 and the machine never exceeds 2 m/s: known ranges tighten the bounds.
    let ranges = vec![("button".to_owned(), 0.0, 1.0), ("speed".to_owned(), 0.0, 2.0)];
    // The only call that allocates; the control loop calls `update`.
    let options = MonitorOptions { at: At::Start, ranges, ..Default::default() };
    let mut monitor = Monitor::new(&rule, &options)?;
    let mut speed = 1.0;
    for step in 0..6 {
        let verdict = monitor.update(&[1.0, speed])?;
        if let Some(closed) = verdict.closed {
            println!("sample {step}: closed with {:+.2}", closed.robustness);
        } else if let Some(pending) = verdict.pending {
            let known = if pending.hi < 0.0 { ", broken whatever comes" } else { "" };
            println!("sample {step}: between {:+.2} and {:+.2}{known}", pending.lo, pending.hi);
        }
        speed *= 0.9;
    }
    Ok(())
}
