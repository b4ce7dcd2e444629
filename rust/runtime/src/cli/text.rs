//! Numbers and aligned columns for people.

use std::fmt::Display;

/// A label and its text.
pub(super) fn row(label: &str, text: impl Display) -> String {
    format!(" {label:13}{text}")
}

/// Columns as wide as their widest cell, the first one to the left, the others to the right; one string for each row.
pub(super) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let mut text = String::from("  ");
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match i {
                0 => text += &format!(" {cell:<width$}"),
                _ => text += &format!("  {cell:>width$}"),
            }
        }
        text.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A number as short as it reads back.
pub(super) fn number(x: f64) -> String {
    if x != 0.0 && !(1e-4..1e6).contains(&x.abs()) { format!("{x:e}") } else { x.to_string() }
}

/// A range.
pub(super) fn range([lo, hi]: [f64; 2]) -> String {
    format!("[{}, {}]", number(lo), number(hi))
}

/// Bytes.
pub(super) fn bytes(n: usize) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.1} MiB", n as f64 / 1_048_576.0),
    }
}

/// `1 joint`, `2 joints`.
pub(super) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The word that a value of the manifest has in the file.
pub(super) fn word(value: impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(value) => value.to_string(),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact() {
        let all = [0.0, 0.1, 500.0, 1e-6, -2.5e7, 1.0 / 3.0].map(number);
        assert_eq!(all, ["0", "0.1", "500", "1e-6", "-2.5e7", "0.3333333333333333"]);
        assert_eq!([bytes(1023), bytes(1536), bytes(3 << 20)], ["1023 B", "1.5 KiB", "3.0 MiB"]);
        assert_eq!((count(1, "joint"), count(2, "joint")), ("1 joint".into(), "2 joints".into()));
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["joint".into(), "kp".into()], vec!["x".into(), "100".into()]];
        assert_eq!(columns(&rows), ["   joint   kp", "   x      100"]);
    }
}
