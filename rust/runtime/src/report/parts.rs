//! What both pages are made of: their frame, legends, tables of times.

use std::fmt::Write;

use crate::timing::summary::StageSummary;

/// Charts over the whole width, and in a column of two; twice their size on the page.
pub(super) const WIDE: (u32, u32) = (2200, 480);
/// See [`WIDE`].
pub(super) const HALF: (u32, u32) = (1040, 400);

/// The page up to its content; `title` is HTML.
pub(super) fn open(page: &mut String, title: &str) {
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<main>\n",
        include_str!("style.css")
    );
}

/// The page after its content.
pub(super) const CLOSE: &str = "</main>\n</body>\n</html>\n";

/// A legend: colour variable, words.
pub(super) fn key(page: &mut String, items: &[(&str, &str)], class: &str) {
    *page += "<div class=\"key\">";
    for (color, words) in items {
        let _ =
            write!(page, "<span><i class=\"{class}\" style=\"background:var(--{color})\"></i>{words}</span>");
    }
    *page += "</div>\n";
}

/// One row for each stage that ran, µs.
pub(super) fn stages(page: &mut String, rows: &[StageSummary]) {
    *page += "<table>\n<tr><th>µs</th><th>count</th><th>min</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th>\
              <th>max</th><th>mean</th></tr>\n";
    for row in rows.iter().filter(|row| row.count > 0) {
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", escape(&row.name), row.count);
        for ns in [row.min, row.p50, row.p90, row.p99, row.p99_9, row.max] {
            let _ = write!(page, "<td>{:.1}</td>", ns as f64 / 1e3);
        }
        let _ = writeln!(page, "<td>{:.1}</td></tr>", row.mean / 1e3);
    }
    *page += "</table>\n";
}

/// Text as HTML: names come from files.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::chart::ink;
    use super::*;

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn every_colour_is_in_the_style_sheet() {
        let style = include_str!("style.css");
        for c in ink::ALL {
            let hex = format!("\"#{:02X}{:02X}{:02X}\"", c.0, c.1, c.2);
            assert!(style.contains(&hex), "{hex}");
        }
    }
}
