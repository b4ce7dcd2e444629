//! From a formula to a plan: which region to reach when, and what to hold in between.
//!
//! Fetch from one of two shelves, then deliver, and never enter the lane. Every branch is one way to do it; its
//! free times are put in the middle of their ranges, a path through the goals is interpolated, and the formula
//! itself has the last word.

use std::error::Error;

use cadenza_stl::{
    DecomposeOptions, Formula, Options, ParseOptions, Traces, Workspace, decompose, robustness,
};

const RULE: &str = "(F[5,20] (norm(x - 1, y) < 0.2) or F[5,20] (norm(x + 1, y) < 0.2))
    and F[25,40] (norm(x, y - 1) < 0.2) and G[0,40] (y > -0.5)";
const CENTRES: [(&str, [f64; 2]); 3] = [
    ("norm(x - 1, y) < 0.2", [1.0, 0.0]),
    ("norm(x + 1, y) < 0.2", [-1.0, 0.0]),
    ("norm(x, y - 1) < 0.2", [0.0, 1.0]),
];

/// Straight lines from point to point, each at its time, up to instant `end`; the last point stays.
fn path(stops: &[(u32, [f64; 2])], end: u32) -> Vec<f64> {
    (0..=end)
        .flat_map(|t| {
            let after = stops.iter().position(|s| s.0 >= t).unwrap_or(stops.len() - 1);
            let ((from, a), (to, b)) = (stops[after.saturating_sub(1)], stops[after]);
            let share = if from < to { f64::from(t.min(to) - from) / f64::from(to - from) } else { 1.0 };
            [0, 1].map(|axis| a[axis] + share * (b[axis] - a[axis]))
        })
        .collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let names = ["x", "y"];
    let rule = Formula::parse(RULE, &ParseOptions { signals: Some(&names), ..Default::default() })?;
    let end = rule.horizon().ok_or("the formula has no horizon")?;
    for branch in decompose(&rule, &DecomposeOptions::default())? {
        let allocation = branch.sample(|choices| choices / 2);
        let mut stops = vec![(0, [0.0, 0.0])];
        let mut visits = Vec::new();
        for goal in &allocation.goals {
            // Each region of this rule is one predicate.
            let region = rule.node_text(goal.region.any[0].0);
            let centre = CENTRES.iter().find(|c| c.0 == region).ok_or("a region without a centre")?;
            stops.push((goal.from, centre.1));
            visits.push(format!("{region} at {}", goal.from));
        }
        println!("{} allocations, the one in the middle: {}", branch.count(), visits.join(", "));
        let path = path(&stops, end);
        let trace = Traces { data: &path, n: 1, t: path.len() / 2, d: 2, lengths: None };
        let mut rho = [0.0];
        robustness(&rule, trace, &[], 0, &Options::default(), &mut Workspace::new(), &mut rho)?;
        println!("  met: {}; robustness {:.2}", allocation.check(&rule, &path, &[])?, rho[0]);
    }
    Ok(())
}
