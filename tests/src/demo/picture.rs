//! A spread over backends, as bars.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Cells of the longest bar.
const WIDTH: usize = 40;

/// One line for each of `names`, also for those without answers.
pub(super) fn bars(names: &[&str], spread: &BTreeMap<String, usize>) -> String {
    let count = |name: &&str| spread.get(*name).copied().unwrap_or(0);
    let most = names.iter().map(count).max().unwrap_or(0).max(1);
    let mut text = String::new();
    for name in names {
        let cells = (count(name) * WIDTH).div_ceil(most);
        let _ = writeln!(text, "     {name:<10} {:<WIDTH$} {:>5}", "█".repeat(cells), count(name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_backend_has_no_bar() {
        let spread = BTreeMap::from([("a".to_owned(), 40), ("b".to_owned(), 10)]);
        let text = bars(&["a", "b", "c"], &spread);
        let cells: Vec<usize> = text.lines().map(|line| line.matches('█').count()).collect();
        assert_eq!(cells, [40, 10, 0]);
        assert!(text.lines().all(|line| line.chars().count() == 62), "{text}");
    }
}
