//! One property out of spec.stl: each is read with its own step, so that the bounds of one need not be whole steps of
//! another. Everything else is blanked and not cut, so that an error still names its place in the file.

use std::ops::Range;

/// Names of the properties in `text`, in order.
pub(super) fn properties(text: &str) -> Vec<&str> {
    statements(text).into_iter().filter_map(|range| property_name(&text[range])).collect()
}

/// `text` with every property but `name` blanked.
pub(super) fn only(text: &str, name: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for range in statements(text) {
        let statement = &text[range];
        if property_name(statement).is_none_or(|n| n == name) {
            out.push_str(statement);
        } else {
            out.extend(statement.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
    }
    out
}

/// The statements of `text`, each with the space and comments before it and its semicolon.
fn statements(text: &str) -> Vec<Range<usize>> {
    let (mut all, mut start) = (Vec::new(), 0);
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            '#' => skip(&mut rest, '\n'),
            '/' if rest.peek().is_some_and(|(_, next)| *next == '/') => skip(&mut rest, '\n'),
            '`' => skip(&mut rest, '`'),
            ';' => {
                all.push(start..at + 1);
                start = at + 1;
            }
            _ => {}
        }
    }
    all.push(start..text.len());
    all
}

fn skip(rest: &mut impl Iterator<Item = (usize, char)>, end: char) {
    let _ = rest.find(|(_, c)| *c == end);
}

/// `NAME` of a statement `spec NAME: …`.
fn property_name(statement: &str) -> Option<&str> {
    let after = uncommented(statement).strip_prefix("spec")?;
    let name = uncommented(after);
    if name.len() == after.len() {
        return None;
    }
    if let Some(quoted) = name.strip_prefix('`') {
        return quoted.split('`').next();
    }
    let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(name.len());
    (end > 0).then(|| &name[..end])
}

/// `text` without leading space and comments.
fn uncommented(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        if !(text.starts_with('#') || text.starts_with("//")) {
            return text;
        }
        text = text.split_once('\n').map_or("", |(_, rest)| rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# spec no: x > 0;\nlet far = a > 1; // ;\nspec near: a < 2;\n\nspec `odd;name`: `b;c` > 0;\n# end\nspec last: far";

    #[test]
    fn properties_are_found_outside_comments_and_quotes() {
        assert_eq!(properties(TEXT), ["near", "odd;name", "last"]);
        assert_eq!(properties("x > 0"), [""; 0]);
        assert_eq!(properties("specimen > 0; spec"), [""; 0]);
    }

    #[test]
    fn the_others_are_blanked_in_place() {
        let near = only(TEXT, "near");
        assert_eq!(near.len(), TEXT.len());
        assert_eq!(near.lines().count(), TEXT.lines().count());
        assert_eq!(near.find("spec near"), TEXT.find("spec near"));
        assert!(near.contains("let far") && !near.contains("odd") && !near.contains("spec last"));
        assert_eq!(properties(&near), ["near"]);
    }
}
