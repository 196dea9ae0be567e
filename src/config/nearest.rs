//! Finds the known name that a misspelt one most likely meant.

/// Returns the name that takes the fewest changes; of two as near the one that begins more alike, then the first.
///
/// A change adds, removes or replaces one character, or swaps two neighbours. `tail` cuts a name to the part that
/// counts when only the rest is wrong: the right key in the wrong section costs one change.
pub(super) fn nearest<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str>,
    tail: impl Fn(&str) -> &str,
) -> Option<&'a str> {
    known.min_by_key(|candidate| {
        let changes = distance(name, candidate).min(1 + distance(tail(name), tail(candidate)));
        let alike = name.bytes().zip(candidate.bytes()).take_while(|(one, other)| one == other).count();
        (changes, std::cmp::Reverse(alike))
    })
}

/// Counts the changes between two names (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut rows = vec![vec![0; right.len() + 1]; left.len() + 1];
    rows[0] = (0..=right.len()).collect();
    for i in 1..=left.len() {
        rows[i][0] = i;
        for j in 1..=right.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
            rows[i][j] = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                rows[i][j] = rows[i][j].min(rows[i - 2][j - 2] + 1);
            }
        }
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted() {
        let cases =
            [("", "", 0), ("abc", "abc", 0), ("abc", "abd", 1), ("abc", "ab", 1), ("abc", "acb", 1), ("", "abc", 3)];

        for (left, right, changes) in cases {
            assert_eq!(distance(left, right), changes, "{left} {right}");
            assert_eq!(distance(right, left), changes, "{right} {left}");
        }
    }
}
