//! Labels: bounded, and safe to print.

use std::collections::BTreeMap;

use super::report::{Report, quoted};
use crate::spec::load::join;

const MAX_LABELS: usize = 64;

pub(super) fn check(labels: &BTreeMap<String, String>, report: &mut Report) {
    report.demand(
        labels.len() <= MAX_LABELS,
        "labels",
        || format!("are {}", labels.len()),
        "at most 64 labels",
    );
    for (key, value) in labels {
        let path = join("labels", key);
        let sound = (1..=63).contains(&key.len())
            && key
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"-_./".contains(&it));
        report.demand(
            sound,
            &path,
            || format!("{} isn't a label's key", quoted(key)),
            "1 to 63 ASCII letters, digits, `-`, `_`, `.` and `/`",
        );
        report.demand(
            value.len() <= 255 && !value.chars().any(char::is_control),
            &path,
            || format!("{} isn't a label's value", quoted(value)),
            "at most 255 bytes without control characters",
        );
    }
}
