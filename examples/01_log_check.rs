//! Check a log: does the arm keep its rules, by how much, and where is it closest to breaking them?
//!
//! Reads the CSV that `01_log_check.py` writes, one column for each signal, and evaluates two rules on it:
//! `cargo run -p cadenza-stl --example 01_log_check -- swing.csv 0.002`.

use std::error::Error;

use cadenza_stl::{Options, ParseOptions, Traces, Workspace, explain, parse_file, robustness};

const RULES: &str = "
let settled = abs(error) < 0.02;
spec fence:   G[0,2s] (height > 0.1);
spec settles: F[0,800ms] G[0,400ms] settled;
";

/// Names of the columns, and the numbers row by row.
type Table<'a> = (Vec<&'a str>, Vec<f64>);

fn table(text: &str) -> Result<Table<'_>, Box<dyn Error>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().ok_or("an empty file")?.split(',').collect();
    let mut numbers = Vec::new();
    for (row, line) in lines.enumerate() {
        let before = numbers.len();
        for cell in line.split(',') {
            numbers.push(cell.trim().parse().map_err(|_| format!("row {row}: {cell:?} is not a number"))?);
        }
        if numbers.len() - before != names.len() {
            return Err(format!("row {row}: {} columns of {}", numbers.len() - before, names.len()).into());
        }
    }
    Ok((names, numbers))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (path, dt) =
        args.next().zip(args.next()).ok_or("usage: 01_log_check FILE.csv SECONDS_OF_A_SAMPLE")?;
    let text = std::fs::read_to_string(path)?;
    let (names, data) = table(&text)?;
    let options = ParseOptions { dt: Some(dt.parse()?), signals: Some(&names), ..Default::default() };
    let log = Traces { data: &data, n: 1, t: data.len() / names.len(), d: names.len(), lengths: None };
    let mut room = Workspace::new();
    for (name, rule) in parse_file(RULES, &options)? {
        let mut rho = [0.0];
        robustness(&rule, log, &[], 0, &Options::default(), &mut room, &mut rho)?;
        let why = &explain(&rule, log, &[], 0, &Options::default(), &mut room)?[0];
        println!("{name}: {:.3}; {why}", rho[0]);
    }
    Ok(())
}
