//! The parser: round trips, and what is refused, with the exact place and kind.

mod common;

use cadenza_stl::{Endpoint, Formula, Node, ParseError, ParseErrorKind as Kind, ParseOptions, parse_file};
use common::{Rng, random, text};

fn parse(text: &str) -> Formula {
    Formula::parse(text, &ParseOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str) -> ParseError {
    let o = ParseOptions { dt: Some(0.02), signals: Some(&["gap", "x", "y"]), ..Default::default() };
    Formula::parse(text, &o).err().unwrap_or_else(|| panic!("accepted: {text}"))
}

#[test]
fn random_trees_survive_printing() {
    let mut rng = Rng(11);
    for case in 0..3_000 {
        let f = parse(&text(&random(&mut rng, 1 + case % 6, true)));
        let printed = f.to_string();
        let again = parse(&printed);
        assert!(again == f, "{printed}\n{again}");
        assert_eq!(again.to_string(), printed);
        assert!(printed.is_ascii());
    }
}

#[test]
fn canonical_text() {
    let cases = [
        ("G[0,1] x>0 and y>0", "G[0,1] x > 0 and y > 0"),
        ("((x) > 0)", "x > 0"),
        ("87 <= p <= 87.5", "87 <= p and p <= 87.5"),
        ("a>0 & (b>0 && c>0)", "a > 0 and b > 0 and c > 0"),
        ("a>0 -> b>0 -> c>0", "a > 0 -> b > 0 -> c > 0"),
        ("(a>0 -> b>0) -> c>0", "(a > 0 -> b > 0) -> c > 0"),
        ("a>0 <-> b>0 xor c>0", "a > 0 iff b > 0 xor c > 0"),
        ("a>0 or b>0 and not c>0", "a > 0 or b > 0 and not c > 0"),
        ("always[0:5](eventually a>0)", "G[0,5] F a > 0"),
        ("a>0 until_incl[2,inf] b>0", "a > 0 Ui[2,inf] b > 0"),
        ("x - (y - z) * 2 / 4 - 1 > -(x)", "x - (y - z) * 2 / 4 - 1 > -x"),
        ("-2 * -x > - 3", "-2 * -x > -3"),
        ("`left/hip` > 1e-300", "`left/hip` > 1e-300"),
        ("`G` > 0 and q[2] > 0 and `x` > 0", "`G` > 0 and q[2] > 0 and x > 0"),
        ("norm(x, y) < $d # comment\n", "norm(x, y) < $d"),
        ("let near = x<1; // a name\n F near and near;", "F x < 1 and x < 1"),
        ("rise(x>0) or fall(y>0) or wX Y true", "rise(x > 0) or fall(y > 0) or wX Y true"),
    ];
    for (written, printed) in cases {
        assert_eq!(parse(written).to_string(), printed);
        assert!(parse(printed) == parse(written), "{written}");
    }
}

#[test]
fn options() {
    let inclusive = ParseOptions { until: Endpoint::Inclusive, ..Default::default() };
    let f =
        Formula::parse("(a>0 U b>0) and (a>0 R b>0) and (a>0 W b>0) and (a>0 S b>0)", &inclusive).unwrap();
    assert_eq!(f.to_string(), "a > 0 Ui b > 0 and a > 0 Ri b > 0 and a > 0 Wi b > 0 and a > 0 Si b > 0");
    let declared = ParseOptions { signals: Some(&["b", "a"]), ..Default::default() };
    assert_eq!(Formula::parse("a > 0", &declared).unwrap().signals(), ["b", "a"]);
    assert_eq!(parse("c > 0 and a > c + d").signals(), ["c", "a", "d"]);
    assert_eq!(parse("c > $k and a > $b").params(), ["k", "b"]);
}

#[test]
fn times_become_steps() {
    for (dt, text, steps) in [
        (0.1, "G[0,0.3s] x>0", "G[0,3] x > 0"),
        (0.02, "G[20ms,1min] x>0", "G[1,3000] x > 0"),
        (0.001, "G[0us,7000us] x>0", "G[0,7] x > 0"),
        (1e-9, "G[3ns,20steps] x>0", "G[3,20] x > 0"),
        (0.04, "F[0.04 s, inf] x>0", "F[1,inf] x > 0"),
    ] {
        let o = ParseOptions { dt: Some(dt), ..Default::default() };
        assert_eq!(Formula::parse(text, &o).unwrap().to_string(), steps);
    }
}

#[test]
fn horizon_history_conjuncts() {
    let f = parse("let safe = G[0,3] x>0; safe and F[1,4] X y>0 and H[2,9] Y x>0");
    assert_eq!((f.horizon(), f.history()), (Some(5), Some(10)));
    assert_eq!(f.conjuncts().len(), 3);
    assert_eq!(f.label(f.conjuncts()[0]), Some("safe"));
    assert_eq!(&f.text()[f.span(f.conjuncts()[1])], "F[1,4] X y>0");
    assert!(matches!(f.nodes()[f.root().index()], Node::And(_)));
    assert_eq!((parse("F x>0").horizon(), parse("O x>0").history()), (None, None));
}

#[test]
fn property_files() {
    let text = "# limits\nlet slow = speed < 2;\nspec fence: G[0,5] slow;\nspec soft: slow or gap > 1;\n";
    let specs = parse_file(text, &ParseOptions::default()).unwrap();
    let shown: Vec<_> = specs.iter().map(|(n, f)| format!("{n}: {f}")).collect();
    assert_eq!(shown, ["fence: G[0,5] speed < 2", "soft: speed < 2 or gap > 1"]);
    assert_eq!(parse_file("x > 0", &ParseOptions::default()).unwrap()[0].0, "");
    let twice = parse_file("spec a: x>0; spec a: x>1;", &ParseOptions::default()).unwrap_err();
    assert_eq!((twice.kind, twice.start, twice.end), (Kind::Syntax, 18, 19));
}

#[test]
fn caret() {
    let expected = "bound 0.25s is not a whole number of steps of 0.02s (12 steps = 0.24s, 13 steps = 0.26s)\n  \
                    G[0,0.25s](gap > 0.1)\n      ^^^^^";
    assert_eq!(refused("G[0,0.25s](gap > 0.1)").to_string(), expected);
    let second = refused("x > 0 and\n  gab > 0");
    assert_eq!((second.line, second.column), (2, 3));
    assert_eq!(second.to_string(), "line 2: no signal `gab`, did you mean `gap`?\n    gab > 0\n    ^^^");
}

#[test]
fn deep_nesting_is_an_error() {
    let n = 100_000;
    let cases = [
        format!("{}x > 0{}", "(".repeat(n), ")".repeat(n)),
        "not ".repeat(n) + "x > 0",
        "-".repeat(n) + "x > 0",
        "abs(".repeat(n) + "x",
        "x>0 -> ".repeat(n) + "x>0",
        "x>0 iff ".repeat(n) + "x>0",
        "G ".repeat(n) + "x>0",
        "rise(".repeat(n) + "x>0",
        "x*(1+".repeat(n) + "x",
    ];
    for text in cases {
        let text = text.clone();
        // A small stack, as a thread of a runtime may have.
        let worker = std::thread::Builder::new().stack_size(1 << 20);
        let error = worker.spawn(move || refused(&text)).unwrap().join().unwrap();
        assert_eq!(error.kind, Kind::TooDeep, "{error}");
    }
}
