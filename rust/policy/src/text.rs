//! Text from a file that is going to be shown.

/// Whether a terminal, or a reader's eye, may be led astray by `c`: control characters but tab and line feed, and the
/// marks that turn the direction of writing.
pub(crate) fn misleads(c: char) -> bool {
    (c.is_control() && !matches!(c, '\t' | '\n'))
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `text` with such characters written out as escapes.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if misleads(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes_reach_no_terminal() {
        assert_eq!(super::shown("a\u{1b}[2Jb\u{202e}\u{9b}c\n\tä"), "a\\u{1b}[2Jb\\u{202e}\\u{9b}c\n\tä");
    }
}
