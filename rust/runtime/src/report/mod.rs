//! `report.html`: what happened in a run, from its log alone; and the page of a `bench latency`.
//!
//! One file without scripts or links: charts are inline SVG, dark mode is the reader's own. Curves keep the smallest and
//! the largest value of every pixel column, so a spike of one tick stays visible in an hour's run.

mod bench;
mod chart;
mod page;
mod parts;
mod series;

pub use bench::html as bench_html;
pub use page::html;
