//! The table that is printed, a line as soon as it is measured.

use crate::figures::{Figures, Summary};
use crate::row::Row;

pub(crate) fn head(pairs: usize) {
    println!("{pairs} pairs each, A B A B; medians, in brackets the quartiles");
    println!(
        "{:<16} {:<26} {:<26} {:<22} {:<8} met",
        "row", "smartvm (A)", "floor (B)", "A/B", "target"
    );
}

pub(crate) fn line(row: &Row, figures: &Figures, met: bool) {
    let (ours, floor, ratio) = match figures {
        Figures::Ratio { ours, floor, ratio } => {
            (show(ours, "ms"), show(floor, "ms"), show(ratio, ""))
        }
        Figures::Amount { amount, unit } => (show(amount, unit), "-".into(), "-".into()),
    };
    let target = row
        .target
        .map_or_else(|| "-".into(), |target| format!("≤ {target}"));
    let met = match (row.target, met) {
        (None, _) => "-",
        (_, true) => "yes",
        (_, false) => "NO",
    };
    println!(
        "{:<16} {ours:<26} {floor:<26} {ratio:<22} {target:<8} {met}",
        row.name
    );
}

fn show(summary: &Summary, unit: &str) -> String {
    let Summary {
        lower,
        median,
        upper,
    } = summary;
    let unit = if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    };
    format!("{median:.2}{unit} [{lower:.2}–{upper:.2}]")
}
