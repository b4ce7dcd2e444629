//! Text to tokens, one at a time.

use std::ops::Range;

use crate::error::{ParseError, ParseErrorKind};
use crate::expr::Func;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A word: keyword, function, signal or let name.
    Word(String),
    /// A signal in backticks or with an index.
    Signal(String),
    /// `$name`
    Param(String),
    Number(f64),
    Symbol(&'static str),
    End,
}

/// Words with a meaning of their own; as signals they need backticks.
const RESERVED: &[&str] = &[
    "let",
    "spec",
    "iff",
    "xor",
    "implies",
    "or",
    "and",
    "not",
    "U",
    "until",
    "Ui",
    "until_incl",
    "W",
    "unless",
    "weak_until",
    "Wi",
    "R",
    "release",
    "Ri",
    "S",
    "since",
    "Si",
    "since_incl",
    "G",
    "always",
    "globally",
    "F",
    "eventually",
    "H",
    "historically",
    "O",
    "once",
    "X",
    "next",
    "s_next",
    "wX",
    "wnext",
    "Y",
    "prev",
    "s_prev",
    "wY",
    "wprev",
    "rise",
    "fall",
    "true",
    "false",
    "inf",
];

pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// True if a signal name can be written without backticks.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let stem = match name.strip_suffix(']').and_then(|n| n.split_once('[')) {
        Some((stem, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => stem,
        Some(_) => return false,
        None => name,
    };
    stem.starts_with(is_word_start)
        && stem.chars().all(is_word)
        && !is_reserved(stem)
        && Func::from_name(stem).is_none()
}

const SYMBOLS: &[&str] = &[
    "<->", "->", "<=", ">=", "==", "!=", "&&", "||", "<", ">", "!", "~", "&", "|", "+", "-", "*", "/", "(",
    ")", "[", "]", ",", ":", ";", "=",
];

/// The token at or after byte `at`, and where it stands.
pub(crate) fn token(text: &str, mut at: usize) -> Result<(Token, Range<usize>), ParseError> {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with('#') || trimmed.starts_with("//") {
            at = trimmed.find('\n').map_or(text.len(), |i| at + i);
        } else {
            break;
        }
    }
    let rest = &text[at..];
    let syntax =
        |message: String, len: usize| ParseError::new(ParseErrorKind::Syntax, message, text, at..at + len);
    let Some(first) = rest.chars().next() else { return Ok((Token::End, at..at)) };
    if is_word_start(first) {
        let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let word = &rest[..len];
        if !is_reserved(word)
            && let Some(index) = index_suffix(&rest[len..])
        {
            return Ok((Token::Signal(rest[..len + index].to_owned()), at..at + len + index));
        }
        return Ok((Token::Word(word.to_owned()), at..at + len));
    }
    if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
        let len = number_len(rest.as_bytes());
        let value =
            rest[..len].parse().map_err(|_| syntax(format!("`{}` is not a number", &rest[..len]), len))?;
        return Ok((Token::Number(value), at..at + len));
    }
    if first == '`' {
        let Some(close) = rest[1..].find(['`', '\n']).filter(|i| rest[1 + i..].starts_with('`')) else {
            return Err(syntax("this backtick is never closed".into(), 1));
        };
        if close == 0 {
            return Err(syntax("empty signal name".into(), 2));
        }
        return Ok((Token::Signal(rest[1..=close].to_owned()), at..at + close + 2));
    }
    if first == '$' {
        let name = &rest[1..];
        let len = name.find(|c| !is_word(c)).unwrap_or(name.len());
        if !name.starts_with(is_word_start) {
            return Err(syntax("`$` must be followed by a parameter name".into(), 1));
        }
        return Ok((Token::Param(name[..len].to_owned()), at..at + 1 + len));
    }
    match SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
        Some(s) => Ok((Token::Symbol(s), at..at + s.len())),
        None => Err(syntax(format!("unexpected character `{}`", first.escape_debug()), first.len_utf8())),
    }
}

/// Length of `[digits]` at the start of `rest`.
fn index_suffix(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('[')?;
    let digits = inner.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0 && inner[digits..].starts_with(']')).then_some(digits + 2)
}

/// Length of `digits [. digits] [e [sign] digits]`.
fn number_len(b: &[u8]) -> usize {
    let digits = |from: usize| b[from.min(b.len())..].iter().take_while(|c| c.is_ascii_digit()).count();
    let mut len = digits(0);
    if b.get(len) == Some(&b'.') && digits(len + 1) > 0 {
        len += 1 + digits(len + 1);
    }
    if matches!(b.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(b.get(len + 1), Some(b'+' | b'-')));
        let exponent = digits(len + 1 + sign);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    len
}
