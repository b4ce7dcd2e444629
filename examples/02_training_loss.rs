//! Robustness as a loss: bend a path until it keeps a rule.
//!
//! The path of a point, 41 positions in the plane, has to stay at the goal, avoid the pillar and keep its steps
//! short. Gradient ascent on the smooth robustness, sharper and sharper; the exact robustness has the last word.

use std::error::Error;

use cadenza_stl::{
    Formula, Instants, Options, ParseOptions, Semantics, Traces, Workspace, gradient, robustness,
};

const RULE: &str = "F[0,40] G[0,3] (norm(x - 1, y - 1) < 0.15)
    and G[0,40] (norm(x - 0.5, y - 0.5) > 0.25)
    and G[0,39] (norm(vx, vy) < 0.08)";
const STEPS: usize = 41;

type Path = [[f64; 2]; STEPS];

/// Positions and steps, `[41, 4]`; the last step is none.
fn samples(path: &Path) -> Vec<f64> {
    (0..STEPS)
        .flat_map(|i| {
            let ([x, y], [next_x, next_y]) = (path[i], path[(i + 1).min(STEPS - 1)]);
            [x, y, next_x - x, next_y - y]
        })
        .collect()
}

/// From the derivatives of the samples to those of the positions; the start is given.
fn pulled_back(dx: &[f64]) -> Path {
    let mut path = [[0.0; 2]; STEPS];
    for i in 1..STEPS {
        for axis in 0..2 {
            let leaving = if i + 1 < STEPS { dx[4 * i + 2 + axis] } else { 0.0 };
            path[i][axis] = dx[4 * i + axis] + dx[4 * (i - 1) + 2 + axis] - leaving;
        }
    }
    path
}

/// Adam, upwards.
struct Adam {
    step: i32,
    mean: Path,
    square: Path,
}

impl Adam {
    fn ascend(&mut self, path: &mut Path, slope: &Path, rate: f64) {
        self.step += 1;
        let (seen, seen_square) = (1.0 - 0.9f64.powi(self.step), 1.0 - 0.999f64.powi(self.step));
        for i in 0..STEPS {
            for axis in 0..2 {
                let (m, v, g) = (&mut self.mean[i][axis], &mut self.square[i][axis], slope[i][axis]);
                *m = 0.9 * *m + 0.1 * g;
                *v = 0.999 * *v + 0.001 * g * g;
                path[i][axis] += rate * (*m / seen) / ((*v / seen_square).sqrt() + 1e-8);
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let names = ["x", "y", "vx", "vy"];
    let rule = Formula::parse(RULE, &ParseOptions { signals: Some(&names), ..Default::default() })?;
    let mut room = Workspace::new();
    let mut exact = |path: &Path| -> Result<f64, Box<dyn Error>> {
        let (data, mut rho) = (samples(path), [0.0]);
        let trace = Traces { data: &data, n: 1, t: STEPS, d: 4, lengths: None };
        robustness(&rule, trace, &[], 0, &Options::default(), &mut room, &mut rho)?;
        Ok(rho[0])
    };
    let mut path: Path = std::array::from_fn(|i| {
        let along = i as f64 / (STEPS - 1) as f64;
        [along, 0.9 * along]
    });
    println!("straight line: {:.3}", exact(&path)?);
    let mut adam = Adam { step: 0, mean: [[0.0; 2]; STEPS], square: [[0.0; 2]; STEPS] };
    let (mut smooth_room, mut dx) = (Workspace::new(), vec![0.0; 4 * STEPS]);
    for step in 0..600 {
        let semantics = Semantics::Softmax { beta: 20.0 + 0.5 * f64::from(step) };
        let options = Options { semantics, ..Default::default() };
        let data = samples(&path);
        let trace = Traces { data: &data, n: 1, t: STEPS, d: 4, lengths: None };
        gradient(&rule, trace, &[], Instants::At(0), &[1.0], &options, &mut smooth_room, &mut dx, &mut [])?;
        adam.ascend(&mut path, &pulled_back(&dx), 0.01);
    }
    println!("after training: {:.3}", exact(&path)?);
    Ok(())
}
