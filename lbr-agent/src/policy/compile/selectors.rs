//! Label selectors: whether one matches, and which ones of many match.

use std::collections::BTreeMap;

use crate::model::{Labels, Requirement, Selector};

/// Borrowed labels; often only those that a selector mentions.
pub(super) type View<'a> = BTreeMap<&'a str, &'a str>;

pub(super) fn view(labels: &Labels) -> View<'_> {
    labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Whether all requirements hold (B6: an absent key satisfies `NotIn` and `DoesNotExist`). `value_of`: of a label.
pub(super) fn matches<'a>(selector: &Selector, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
    selector.requirements.iter().all(|requirement| match requirement {
        Requirement::In(key, values) => value_of(key).is_some_and(|value| values.contains(value)),
        Requirement::NotIn(key, values) => !value_of(key).is_some_and(|value| values.contains(value)),
        Requirement::Exists(key) => value_of(key).is_some(),
        Requirement::DoesNotExist(key) => value_of(key).is_none(),
    })
}

/// The same with the labels of an object.
pub(super) fn selects(selector: &Selector, labels: &Labels) -> bool {
    matches(selector, |key| labels.get(key).map(String::as_str))
}

/// The label that a requirement is about.
pub(super) fn key(requirement: &Requirement) -> &str {
    match requirement {
        Requirement::In(key, _)
        | Requirement::NotIn(key, _)
        | Requirement::Exists(key)
        | Requirement::DoesNotExist(key) => key,
    }
}

/// Many selectors, indexed by one label that they need. Only selectors that need no particular label are tried each
/// time.
#[derive(Debug)]
pub(super) struct SelectorIndex<'a, T> {
    by_value: BTreeMap<(&'a str, &'a str), Vec<(&'a Selector, T)>>,
    by_key: BTreeMap<&'a str, Vec<(&'a Selector, T)>>,
    others: Vec<(&'a Selector, T)>,
}

impl<T> Default for SelectorIndex<'_, T> {
    fn default() -> Self {
        Self { by_value: BTreeMap::new(), by_key: BTreeMap::new(), others: Vec::new() }
    }
}

impl<'a, T: Copy> SelectorIndex<'a, T> {
    pub(super) fn add(&mut self, selector: &'a Selector, item: T) {
        let listed = selector.requirements.iter().filter_map(|requirement| match requirement {
            Requirement::In(key, values) => Some((key, values)),
            _ => None,
        });
        let needed = selector.requirements.iter().find_map(|requirement| match requirement {
            Requirement::Exists(key) => Some(key),
            _ => None,
        });
        if let Some((key, values)) = listed.min_by_key(|(_, values)| values.len()) {
            // Under each of its values: a pod has at most one of them.
            for value in values {
                self.by_value.entry((key, value)).or_default().push((selector, item));
            }
        } else if let Some(key) = needed {
            self.by_key.entry(key).or_default().push((selector, item));
        } else {
            self.others.push((selector, item));
        }
    }

    /// Calls `found` once for each selector that matches.
    pub(super) fn find(&self, labels: &View<'_>, mut found: impl FnMut(T)) {
        let by_value = labels.iter().filter_map(|(&key, &value)| self.by_value.get(&(key, value)));
        let by_key = labels.keys().filter_map(|&key| self.by_key.get(key));
        for (selector, item) in by_value.chain(by_key).flatten().chain(&self.others) {
            if matches(selector, |key| labels.get(key).copied()) {
                found(*item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::random::{Random, selects as expected_of};
    use super::*;

    #[test]
    fn the_index_finds_what_trying_each_finds() {
        let mut random = Random(7);
        let selectors: Vec<Selector> = (0..300).map(|_| random.selector()).collect();
        let mut index = SelectorIndex::default();
        for (number, selector) in selectors.iter().enumerate() {
            index.add(selector, number);
        }
        for _ in 0..200 {
            let labels = random.labels();
            let mut found = Vec::new();
            index.find(&view(&labels), |number| found.push(number));
            found.sort_unstable();
            let all = selectors.iter().enumerate();
            let expected: Vec<usize> = all.filter(|(_, s)| expected_of(s, &labels)).map(|(n, _)| n).collect();
            assert_eq!(found, expected, "{labels:?}");
        }
    }
}
