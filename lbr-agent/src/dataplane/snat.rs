//! Source ports of the node for clients from outside whose backend is on another node, in the form that the programs
//! read.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Ranges of ports, and those among them that sockets of the node use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnatPorts {
    ranges: [[u16; 2]; 4],
    taken: BTreeSet<u16>,
}

impl SnatPorts {
    /// Takes the first four ranges; none of them may have port 0. `None` if no port is left.
    pub fn new(ranges: &[RangeInclusive<u16>], taken: BTreeSet<u16>) -> Option<Self> {
        let left = ranges.iter().flat_map(|range| range.clone()).any(|port| !taken.contains(&port));
        let mut all = [[0; 2]; 4];
        for (room, range) in all.iter_mut().zip(ranges.iter().filter(|range| !range.is_empty())) {
            // Without port 0 the count fits.
            *room = [*range.start(), range.end() - range.start() + 1];
        }
        left.then_some(Self { ranges: all, taken })
    }

    /// How many ports are usable.
    pub fn count(&self) -> usize {
        let all: usize = self.ranges.iter().map(|[_, count]| usize::from(*count)).sum();
        let is_inside = |port: &&u16| {
            self.ranges
                .iter()
                .any(|[first, count]| port.checked_sub(*first).is_some_and(|offset| offset < *count))
        };
        all - self.taken.iter().filter(is_inside).count()
    }

    /// Value of [`lbr_common::maps::config::SNAT_RANGES`].
    pub(super) fn ranges(&self) -> [[u16; 2]; 4] {
        self.ranges
    }

    /// Value of [`lbr_common::maps::config::SNAT_TAKEN`].
    pub(super) fn taken(&self) -> [u64; 1 << 10] {
        let mut bits = [0; 1 << 10];
        for port in &self.taken {
            if let Some(word) = bits.get_mut(usize::from(port >> 6)) {
                *word |= 1 << (port & 63);
            }
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_and_marked() {
        let ports = SnatPorts::new(&[10..=19, 100..=100], [12, 20, 100].into()).unwrap();
        assert_eq!(ports.ranges(), [[10, 10], [100, 1], [0, 0], [0, 0]]);
        assert_eq!(ports.count(), 9);
        let bits = ports.taken();
        assert_eq!((bits[0], bits[1]), (1 << 12 | 1 << 20, 1 << (100 - 64)));
        assert_eq!(SnatPorts::new(&[7..=7], [7].into()), None);
        assert_eq!(SnatPorts::new(&[], BTreeSet::new()), None);
    }
}
