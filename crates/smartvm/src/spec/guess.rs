//! What a misspelt name was meant to be.

/// The candidate that `name` was probably meant to be.
pub(super) fn closest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = folded(name);
    let limit = 1 + wanted.len() / 4;
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &folded(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Without what tells `vcpu_count` from `vcpuCount`; bounded, since the distance is quadratic.
fn folded(name: &str) -> Vec<char> {
    name.chars()
        .filter(|letter| !matches!(letter, '_' | '-'))
        .flat_map(char::to_lowercase)
        .take(64)
        .collect()
}

/// Number of letters to insert, remove or replace (Levenshtein).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_fetched() {
        let names = ["vcpuCount", "memSizeMib", "smt"];
        assert_eq!(closest("vcpu_count", names), Some("vcpuCount"));
        assert_eq!(closest("memSizeMb", names), Some("memSizeMib"));
        assert_eq!(closest("kernel", names), None);
        assert_eq!(closest("", ["a", ""]), Some(""));
    }
}
