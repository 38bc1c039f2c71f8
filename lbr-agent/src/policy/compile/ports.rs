//! From the ports of all rules of a set, in one direction, to port classes.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::id::PortClassId;
use lbr_common::policy::OTHER_PORTS;

use super::terms::TermId;

/// Ports that one rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Allowed {
    /// Which rule, in the order of the set.
    pub(super) rule: usize,
    /// IP protocol number.
    pub(super) proto: u8,
    /// First port.
    pub(super) first: u16,
    /// Last port.
    pub(super) last: u16,
    /// Only for peers with this term.
    pub(super) only: Option<TermId>,
}

/// Rules, each with the term that its peers need besides, if any.
pub(super) type Covering = BTreeSet<(usize, Option<TermId>)>;

/// Ports by the rules that allow them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PortClasses {
    /// Protocol, port, number of its significant bits → class, counted from 1.
    pub(super) prefixes: BTreeMap<(u8, u16, u32), PortClassId>,
    /// The rules that allow the ports of each class.
    pub(super) classes: BTreeMap<PortClassId, Covering>,
}

/// Groups the ports that all rules treat alike. Ports in no rule have no prefix.
pub(super) fn classify(allowed: &[Allowed]) -> PortClasses {
    let mut by_proto: BTreeMap<u8, Vec<&Allowed>> = BTreeMap::new();
    for one in allowed {
        by_proto.entry(one.proto).or_default().push(one);
    }
    let mut ports = PortClasses::default();
    let mut numbers: BTreeMap<Covering, PortClassId> = BTreeMap::new();
    let mut number = |covering: &Covering| {
        let next = OTHER_PORTS.id + 1 + u32::try_from(numbers.len()).unwrap_or(u32::MAX - 1);
        *numbers.entry(covering.clone()).or_insert(PortClassId { id: next })
    };
    for (proto, allowed) in by_proto {
        let whole = allowed.iter().filter(|a| (a.first, a.last) == (0, u16::MAX));
        let whole: Covering = whole.map(|a| (a.rule, a.only)).collect();
        for (first, last, covering) in intervals(&allowed) {
            let class = number(&covering);
            if covering == whole {
                // The shortest prefix. Longer ones match before it.
                ports.prefixes.insert((proto, 0, 0), class);
            } else {
                let prefixes = prefixes(first, last).into_iter();
                ports.prefixes.extend(prefixes.map(|(port, bits)| ((proto, port, bits), class)));
            }
            ports.classes.insert(class, covering);
        }
    }
    ports
}

/// The intervals between all first and last ports, each with the rules that cover it. Leaves out uncovered intervals.
fn intervals(allowed: &[&Allowed]) -> Vec<(u16, u16, Covering)> {
    // Two entries of one rule can cover a port.
    let mut edges: BTreeMap<u32, Vec<(usize, Option<TermId>, i32)>> = BTreeMap::new();
    for a in allowed {
        edges.entry(a.first.into()).or_default().push((a.rule, a.only, 1));
        edges.entry(u32::from(a.last) + 1).or_default().push((a.rule, a.only, -1));
    }
    let mut depth: BTreeMap<(usize, Option<TermId>), i32> = BTreeMap::new();
    let mut intervals = Vec::new();
    let mut starts = edges.into_iter().peekable();
    while let Some((start, here)) = starts.next() {
        for (rule, only, step) in here {
            *depth.entry((rule, only)).or_default() += step;
        }
        depth.retain(|_, covered| *covered != 0);
        let Some(&(end, _)) = starts.peek() else { break };
        if depth.is_empty() {
            continue;
        }
        if let (Ok(first), Ok(last)) = (u16::try_from(start), u16::try_from(end - 1)) {
            intervals.push((first, last, depth.keys().copied().collect()));
        }
    }
    intervals
}

/// The fewest prefixes that cover an interval: at most 30.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let mut prefixes = Vec::new();
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    while next < end {
        // The largest power of two that starts here and does not reach too far.
        let mut size = 1;
        while size < 0x1_0000 && next % (size * 2) == 0 && next + size * 2 <= end {
            size *= 2;
        }
        prefixes.push((u16::try_from(next).unwrap_or(u16::MAX), 16 - size.trailing_zeros()));
        next += size;
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rule: usize, proto: u8, first: u16, last: u16) -> Allowed {
        Allowed { rule, proto, first, last, only: None }
    }

    fn find(ports: &PortClasses, proto: u8, port: u16) -> Vec<usize> {
        let longest = (0..=16).rev().find_map(|bits| {
            let mask = u16::try_from(!(0xffff_u32 >> bits) & 0xffff).unwrap();
            ports.prefixes.get(&(proto, port & mask, bits))
        });
        longest.map(|class| ports.classes[class].iter().map(|(rule, _)| *rule).collect()).unwrap_or_default()
    }

    #[test]
    fn a_range_is_made_of_few_prefixes() {
        for (first, last, count) in [
            (0, u16::MAX, 1),
            (80, 80, 1),
            (1024, u16::MAX, 6),
            (1, u16::MAX, 16),
            (1, u16::MAX - 1, 30),
            (0, 0, 1),
            (u16::MAX, u16::MAX, 1),
        ] {
            assert_eq!(prefixes(first, last).len(), count, "{first}-{last}");
        }
    }

    #[test]
    fn each_port_finds_all_rules_that_name_it() {
        let all = [
            allowed(0, 6, 80, 90),
            allowed(1, 6, 85, 85),
            allowed(2, 6, 0, u16::MAX),
            allowed(3, 6, 86, 100),
            allowed(0, 6, 88, 89),
            allowed(4, 17, 53, 53),
            allowed(5, 132, 1, u16::MAX),
        ];
        let ports = classify(&all);
        for proto in [6, 17, 132, 1] {
            for port in 0..=u16::MAX {
                let mut expected: Vec<usize> = all
                    .iter()
                    .filter(|a| a.proto == proto && (a.first..=a.last).contains(&port))
                    .map(|a| a.rule)
                    .collect();
                expected.dedup();
                expected.sort_unstable();
                expected.dedup();
                assert_eq!(find(&ports, proto, port), expected, "{proto} {port}");
            }
        }
    }

    #[test]
    fn ports_that_the_same_rules_name_are_one_class() {
        let ports = classify(&[allowed(0, 6, 80, 80), allowed(0, 6, 443, 443), allowed(0, 17, 53, 53)]);
        assert_eq!((ports.prefixes.len(), ports.classes.len()), (3, 1));
    }

    #[test]
    fn what_holds_for_all_ports_is_not_cut_in_pieces() {
        let ports = classify(&[allowed(0, 6, 0, u16::MAX), allowed(1, 6, 80, 80)]);
        assert_eq!((ports.prefixes.len(), ports.classes.len()), (2, 2));
    }
}
