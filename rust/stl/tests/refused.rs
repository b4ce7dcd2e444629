//! What the parser refuses: each text with the exact place (between « and ») and kind.

mod common;

use cadenza_stl::{Formula, ParseErrorKind as Kind, ParseOptions, parse_file};
use common::Rng;

const TABLE: &[(&str, Kind, &str)] = &[
    // Words and symbols.
    ("«»", Kind::Syntax, "expected a formula, found the end"),
    ("# only a comment«»", Kind::Syntax, "expected a formula"),
    ("x > «»", Kind::Syntax, "found the end"),
    ("x > 0 and «»", Kind::Syntax, "found the end"),
    ("«)»", Kind::Syntax, "found `)`"),
    ("(x > 0«»", Kind::Syntax, "expected `)`"),
    ("(x > 0«]»", Kind::Syntax, "expected `)`, found `]`"),
    ("x > 0«)»", Kind::Syntax, "found `)`"),
    ("x > 0 «y» > 0", Kind::Syntax, "found `y`"),
    ("x > 0; «y» > 0", Kind::Syntax, "found `y`"),
    ("x > 0 «=» 1", Kind::Syntax, "found `=`"),
    ("«and» x > 0", Kind::Syntax, "`and` is a word of the language"),
    ("x «%» 2 > 0", Kind::Syntax, "unexpected character `%`"),
    ("x > 0 «∧» y > 0", Kind::Syntax, "unexpected character"),
    ("«_»x > 0", Kind::Syntax, "unexpected character `_`"),
    ("«@»x > 0", Kind::Syntax, "unexpected character"),
    ("«`»x > 0", Kind::Syntax, "never closed"),
    ("«``» > 0", Kind::Syntax, "empty signal name"),
    ("x > «$» + 1", Kind::Syntax, "followed by a parameter name"),
    ("x > «$»1", Kind::Syntax, "followed by a parameter name"),
    ("x > 1«.» and y > 0", Kind::Syntax, "unexpected character `.`"),
    ("x > «1e999»", Kind::Syntax, "too large"),
    ("x > 1«e» ", Kind::Syntax, "found `e`"),
    ("«inf» > x", Kind::Syntax, "`inf` is a word of the language"),
    ("F «>» 0", Kind::Syntax, "expected a formula, found `>`"),
    ("«x»[1.5] > 0", Kind::Type, "write `x > 0`"),
    // Numbers and truth values.
    ("«3»", Kind::Type, "write `3 > 0`"),
    ("«x»", Kind::Type, "write `x > 0`"),
    ("not «x»", Kind::Type, "write `x > 0`"),
    ("G[0,3] «x»", Kind::Type, "write `x > 0`"),
    ("«x» and y > 0", Kind::Type, "write `x > 0`"),
    ("x > 0 U «x + y»", Kind::Type, "write `x + y > 0`"),
    ("x > 0 -> «$k»", Kind::Type, "write `$k > 0`"),
    ("rise(«x»)", Kind::Type, "write `x > 0`"),
    ("let a = «x + 1»; a", Kind::Type, "write `x + 1 > 0`"),
    ("«(x > 0)» + 1 > 0", Kind::Type, "a number is needed"),
    ("1 + «(x > 0)» > 0", Kind::Type, "a number is needed"),
    ("«(x > 0)» > 1", Kind::Type, "a number is needed"),
    ("x > «(y > 0)»", Kind::Type, "a number is needed"),
    ("abs(«x > 0») > 1", Kind::Type, "a number is needed"),
    ("-«(x > 0)» > 1", Kind::Type, "a number is needed"),
    ("x > «true»", Kind::Type, "a number is needed"),
    ("0 < x < 1 «<» y", Kind::Syntax, "needs parentheses"),
    ("«abs(x, y)» > 0", Kind::Type, "abs takes 1 argument, not 2"),
    ("«sqrt(x, y, 1)» > 0", Kind::Type, "sqrt takes 1 argument, not 3"),
    ("min(«)» > 0", Kind::Syntax, "found `)`"),
    // Names.
    ("«gab» > 0", Kind::UnknownSignal, "no signal `gab`, did you mean `gap`?"),
    ("gap > 0 and «speed» > 0", Kind::UnknownSignal, "no signal `speed`"),
    ("«x[3]» > 0", Kind::UnknownSignal, "no signal `x[3]`"),
    ("«`left/hip`» > 0", Kind::UnknownSignal, "no signal `left/hip`"),
    ("let near = x < 1; «neat»", Kind::UnknownSignal, "did you mean `near`?"),
    ("«nrm»(x, y) > 0", Kind::Syntax, "no function `nrm`, did you mean `norm`?"),
    ("«foo»(x > 0)", Kind::Syntax, "no function `foo`"),
    ("let «x» = y > 0; x", Kind::Syntax, "already a signal"),
    ("let a = x>0; let «a» = y>0; a", Kind::Syntax, "`a` is defined twice"),
    ("let «G» = x>0; G", Kind::Syntax, "expected the name of a definition"),
    ("let a «x» > 0", Kind::Syntax, "expected `=`"),
    ("let a = x > 0 «»", Kind::Syntax, "expected `;`"),
    ("«spec» a: x > 0;", Kind::Syntax, "parse_file"),
    // Bounds.
    ("G[«-1»,2] x>0", Kind::BadBound, "not negative"),
    ("G[0,«-inf»] x>0", Kind::Syntax, "expected a bound"),
    ("G[0,«1e999»] x>0", Kind::BadBound, "finite"),
    ("G[«inf»,2] x>0", Kind::BadBound, "first bound must be finite"),
    ("G«[5,2]» x>0", Kind::BadBound, "5 steps > 2 steps"),
    ("x>0 U«[1s,0.5s]» y>0", Kind::BadBound, "50 steps > 25 steps"),
    ("G[0,«2.5»] x>0", Kind::BadBound, "write 2.5s"),
    ("G[0,«2.5steps»] x>0", Kind::BadBound, "not a whole number of steps"),
    ("G[0,«2147483647»] x>0", Kind::BadBound, "the limit is 2147483646"),
    ("G[0,«99999999min»] x>0", Kind::BadBound, "the limit is 2147483646"),
    ("G[0,2 «sec»] x>0", Kind::BadBound, "no unit `sec`"),
    ("G[0,«0.25s»] x>0", Kind::NotMultipleOfDt, "12 steps = 0.24s, 13 steps = 0.26s"),
    ("G[«30ms»,1s] x>0", Kind::NotMultipleOfDt, "1 steps = 20ms, 2 steps = 40ms"),
    ("G[0,«1ns»] x>0", Kind::NotMultipleOfDt, "0 steps = 0ns, 1 steps = 2e7ns"),
    ("G[«x»,2] x>0", Kind::Syntax, "expected a bound"),
    ("G[0«;»2] x>0", Kind::Syntax, "expected `,`"),
    ("G[0,2«)» x>0", Kind::Syntax, "expected `]`"),
    ("G[0«]» x>0", Kind::Syntax, "expected `,`"),
    ("G[0,2«»", Kind::Syntax, "expected `]`"),
    ("X«[»0,1] x>0", Kind::Syntax, "found `[`"),
    // Associativity.
    ("x>0 U y>0 «U» x>1", Kind::Syntax, "add parentheses"),
    ("x>0 U y>0 «S» x>1", Kind::Syntax, "add parentheses"),
    ("rise «x» > 0", Kind::Syntax, "expected `(`"),
];

fn unmark(marked: &str) -> (String, std::ops::Range<usize>) {
    let start = marked.find('«').expect("a marked place");
    let end = marked.find('»').expect("a marked place") - '«'.len_utf8();
    (marked.replace(['«', '»'], ""), start..end)
}

fn options() -> ParseOptions<'static> {
    ParseOptions { dt: Some(0.02), signals: Some(&["gap", "x", "y"]), ..Default::default() }
}

#[test]
fn bad_input() {
    assert!(TABLE.len() >= 60);
    let mut wrong = Vec::new();
    for (marked, kind, message) in TABLE {
        let (text, span) = unmark(marked);
        let e = Formula::parse(&text, &options()).err().unwrap_or_else(|| panic!("accepted: {text}"));
        if (e.kind, e.start..e.end) != (*kind, span) || !e.message.contains(message) {
            wrong.push(format!("{marked}: {:?} {}..{}\n{e}", e.kind, e.start, e.end));
        }
        assert_eq!(e.column, text[..e.start].chars().count() + 1);
        assert!(e.to_string().lines().last().is_some_and(|l| l.trim_start().starts_with('^')), "{e}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_options_and_files() {
    let no_dt = Formula::parse("G[0,2s] x>0", &ParseOptions::default()).unwrap_err();
    assert_eq!((no_dt.kind, no_dt.start, no_dt.end), (Kind::NeedsDt, 4, 6));
    for dt in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let o = ParseOptions { dt: Some(dt), ..Default::default() };
        assert_eq!(Formula::parse("G[0,2s] x>0", &o).unwrap_err().kind, Kind::BadBound);
    }
    for (marked, kind) in [
        ("spec «and»: x>0;", Kind::Syntax),
        ("spec a «x» > 0;", Kind::Syntax),
        ("spec a: x > 0«»", Kind::Syntax),
        ("spec a: x > 0; «y» > 0;", Kind::Syntax),
        ("spec a: «x»;", Kind::Type),
        ("spec a: x>0; «let» b = x>0;", Kind::Syntax),
    ] {
        let (text, span) = unmark(marked);
        let e = parse_file(&text, &options()).unwrap_err();
        assert_eq!((e.kind, e.start..e.end), (kind, span), "{marked}\n{e}");
    }
}

#[test]
fn limits() {
    let refused = |text: &str| Formula::parse(text, &ParseOptions::default()).unwrap_err().kind;
    assert_eq!(refused(&" ".repeat((1 << 20) + 1)), Kind::TooLarge);
    assert_eq!(refused(&format!("{}x>0", "x>0 and ".repeat(40_000))), Kind::TooLarge);
    // Sharing makes this small in memory, but nobody could print it.
    let doubling: String = (0..30).map(|i| format!("let a{} = a{i} iff not a{i};", i + 1)).collect();
    assert_eq!(refused(&format!("let a0 = x>0;{doubling} a30")), Kind::TooLarge);
    assert_eq!(refused("G[0,2147483646] G[0,2147483646] G[0,2147483646] x>0"), Kind::TooLarge);
    // Each definition copies the one before it.
    let growing: String = (1..4_000).map(|i| format!("let a{i} = a{} and y{i}>0;", i - 1)).collect();
    assert_eq!(refused(&format!("let a0 = x>0;{growing} x>0")), Kind::TooLarge);
    // Many names take no quadratic time.
    let many: Vec<String> = (0..16_000).map(|i| format!("signal{i} > 0")).collect();
    let many = Formula::parse(&many.join(" and "), &ParseOptions::default()).unwrap();
    assert_eq!(many.signals().len(), 16_000);
    // Long chains are fine, however long.
    let sum = "x + ".repeat(5_000) + "x > 0";
    let f = Formula::parse(&sum, &ParseOptions::default()).unwrap();
    assert_eq!(f.to_string(), sum);
}

#[test]
fn no_text_panics() {
    const PIECES: &[&str] = &[
        "x>0", "x>0", "x>0", "x", "y", ">", "0", "(", ")", "[", "]", ",", "and", "U", "G", "F[0,2]", "not",
        "-", "`", "$k", "é", "\n", ";", "let", "=", "1e", ".", "min(", "rise(", "<->", "s", "inf", "#",
        "\u{0}", "[0,1s]",
    ];
    let mut rng = Rng(41);
    let mut accepted = 0;
    for _ in 0..20_000 {
        let len = 1 + rng.below(12);
        let text: String = (0..len).map(|_| rng.pick(PIECES).to_owned() + rng.pick(&["", " "])).collect();
        match Formula::parse(&text, &ParseOptions { dt: Some(0.1), ..Default::default() }) {
            Ok(f) => {
                accepted += 1;
                assert!(f.horizon().is_none_or(|h| h < 1000));
            }
            Err(e) => {
                assert!(
                    e.start <= e.end && text.is_char_boundary(e.start) && text.is_char_boundary(e.end),
                    "{e}"
                );
                assert!(!e.to_string().is_empty());
            }
        }
    }
    assert!(accepted > 20, "{accepted}");
}
