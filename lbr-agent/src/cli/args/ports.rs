//! `--snat-ports`: source ports of the node for clients from outside whose backend is on another node.
//!
//! A port is in use for one (backend, protocol) only, so a few ports carry many connections; more ports allow more
//! connections to one backend. They must not overlap with the ports that sockets of the node send from: the backend
//! could not distinguish the two connections.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail, ensure};

use crate::dataplane::SnatPorts;

/// The ephemeral ports, which the kernel gives to sockets that ask for none.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Ports that an administrator reserves: the kernel does not give them out.
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
/// Sockets of this network namespace.
const SOCKETS: [&str; 4] =
    ["/proc/self/net/tcp", "/proc/self/net/tcp6", "/proc/self/net/udp", "/proc/self/net/udp6"];
/// Ports below are for well-known services.
const FIRST: u16 = 1_024;
/// The API server's default `--service-node-port-range`.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// Which ports replace clients' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnatChoice {
    /// All ports that nothing else on the node uses.
    Auto,
    /// First and last port.
    Range(u16, u16),
}

impl SnatChoice {
    /// The ports. Fails if a given range overlaps with the ephemeral ports of this network namespace
    /// ([`ephemeral_ports`]).
    pub fn resolve(self, ephemeral: &RangeInclusive<u16>) -> anyhow::Result<SnatPorts> {
        let read = |path: &'static str| std::fs::read_to_string(Path::new(path)).context(path);
        // Absent where a family is disabled.
        let sockets: Vec<String> = SOCKETS.iter().filter_map(|path| read(path).ok()).collect();
        let mut taken = BTreeSet::new();
        for table in &sockets {
            taken.extend(bound_ports(table));
        }
        taken.extend(parse_reserved(&read(RESERVED).unwrap_or_default()));
        self.choose(ephemeral, &taken)
    }

    fn choose(self, ephemeral: &RangeInclusive<u16>, taken: &BTreeSet<u16>) -> anyhow::Result<SnatPorts> {
        let ranges = match self {
            Self::Auto => without(without(vec![FIRST..=u16::MAX], &NODE_PORTS), ephemeral),
            Self::Range(first, last) => {
                ensure!(
                    last < *ephemeral.start() || *ephemeral.end() < first,
                    "--snat-ports={self} overlaps with the ports that the kernel gives to sockets ({}-{}): give a \
                     range outside of these, or shrink net.ipv4.ip_local_port_range",
                    ephemeral.start(),
                    ephemeral.end()
                );
                vec![first..=last]
            }
        };
        SnatPorts::new(&ranges, taken.clone()).with_context(|| {
            format!(
                "--snat-ports={self}: no port is left that the node does not use itself; shrink \
                 net.ipv4.ip_local_port_range, or give another range"
            )
        })
    }
}

/// The ephemeral ports of this network namespace, which the kernel gives to sockets that ask for none.
pub fn ephemeral_ports() -> anyhow::Result<RangeInclusive<u16>> {
    parse_ephemeral(&std::fs::read_to_string(EPHEMERAL).context(EPHEMERAL)?)
}

/// Ranges without the ports of another one.
fn without(ranges: Vec<RangeInclusive<u16>>, other: &RangeInclusive<u16>) -> Vec<RangeInclusive<u16>> {
    let cut = |range: RangeInclusive<u16>| {
        let below = other.start().checked_sub(1).map(|last| *range.start()..=last.min(*range.end()));
        let above = other.end().checked_add(1).map(|first| first.max(*range.start())..=*range.end());
        [below, above].into_iter().flatten().filter(|part| !part.is_empty())
    };
    ranges.into_iter().flat_map(cut).collect()
}

fn parse_ephemeral(text: &str) -> anyhow::Result<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
        bail!("{EPHEMERAL}: {:?} is not a range of ports", text.trim());
    };
    Ok(first..=last)
}

/// `8080,9000-9010`. Skips parts that it cannot read.
fn parse_reserved(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Local ports of a table of sockets (`proc_net_tcp.rst` of the kernel): listening TCP sockets, unconnected UDP
/// sockets.
fn bound_ports(table: &str) -> Vec<u16> {
    const LISTEN: &str = "0A";
    const UDP_BOUND: &str = "07";
    let port = |line: &str| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let is_bound = state == LISTEN || state == UDP_BOUND;
        let (_, port) = local.rsplit_once(':')?;
        u16::from_str_radix(port, 16).ok().filter(|_| is_bound)
    };
    table.lines().skip(1).filter_map(port).collect()
}

impl FromStr for SnatChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let wrong = || {
            "write auto, or FIRST-LAST, such as 50000-59999: two ports from 1 to 65535, the lower one first"
                .to_owned()
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse().ok().filter(|&port: &u16| port != 0).ok_or_else(wrong);
        let (first, last) = (port(first)?, port(last)?);
        if first > last { Err(wrong()) } else { Ok(Self::Range(first, last)) }
    }
}

impl fmt::Display for SnatChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Range(first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(ports: &str, ephemeral: &str, taken: &[u16]) -> anyhow::Result<SnatPorts> {
        let ports: SnatChoice = ports.parse().map_err(anyhow::Error::msg)?;
        ports.choose(&parse_ephemeral(ephemeral)?, &taken.iter().copied().collect())
    }

    #[test]
    fn by_default_there_are_more_than_30_000() {
        let ports = choose("auto", "32768\t60999\n", &[10_250, 65_000]).unwrap();
        assert_eq!(ports.count(), (29_999 - 1_024 + 1) + (65_535 - 61_000 + 1) - 2);
        assert!(ports.count() > 30_000);
        let expected = SnatPorts::new(&[1_024..=29_999, 61_000..=65_535], [10_250, 65_000].into());
        assert_eq!(Some(ports), expected);
    }

    #[test]
    fn ranges_are_cut() {
        for (range, other, expected) in [
            (10..=20, 12..=14, vec![10..=11, 15..=20]),
            (10..=20, 5..=14, vec![15..=20]),
            (10..=20, 15..=u16::MAX, vec![10..=14]),
            (10..=20, 30..=40, vec![10..=20]),
            (10..=20, 0..=5, vec![10..=20]),
            (10..=20, 10..=20, vec![]),
        ] {
            assert_eq!(without(vec![range], &other), expected, "{other:?}");
        }
    }

    #[test]
    fn a_range_is_taken_as_it_is_but_for_sockets() {
        let ports = choose("61000-61003", "32768 60999", &[61_001]).unwrap();
        assert_eq!(Some(ports), SnatPorts::new(&[61_000..=61_003], [61_001].into()));
        assert_eq!(choose("30000-30001", "32768 60999", &[]).unwrap().count(), 2);
        let error = choose("7-7", "32768 60999", &[7]).unwrap_err().to_string();
        assert!(error.contains("--snat-ports=7-7") && error.contains("no port is left"), "{error}");
    }

    #[test]
    fn words_that_are_no_range() {
        for wrong in ["", "1", "0-5", "5-1", "1-65536", "a-b", "1-2-3", "Auto"] {
            assert!(wrong.parse::<SnatChoice>().is_err(), "{wrong}");
        }
        for right in ["auto", "1-65535"] {
            assert_eq!(right.parse::<SnatChoice>().unwrap().to_string(), right);
        }
    }

    #[test]
    fn the_kernels_own_ports_are_left_alone() {
        for ephemeral in ["32768\t61000", "1024\t65535", "62000 63000", "65535 65535"] {
            let error = choose("61000-65535", ephemeral, &[]).unwrap_err().to_string();
            assert!(
                error.contains("--snat-ports=61000-65535") && error.contains("ip_local_port_range"),
                "{error}"
            );
        }
        assert!(choose("auto", "nonsense", &[]).is_err());
        let error = choose("auto", "1024 65535", &[]).unwrap_err().to_string();
        assert!(error.contains("no port is left"), "{error}");
    }

    #[test]
    fn sockets_of_the_node_are_found() {
        let tcp = "  sl  local_address rem_address   st tx_queue\n   0: 0100007F:0277 00000000:0000 0A 0\n   \
                   1: 0100007F:1F90 0100007F:8000 01 0\n   2: 00000000000000000000000000000000:280A 0:0 0A 0\n";
        assert_eq!(bound_ports(tcp), [631, 10_250]);
        assert_eq!(bound_ports("  sl  local_address\n  9: 00000000:2118 00000000:0000 07 0\n"), [8_472]);
        assert_eq!(bound_ports("nonsense\nmore of it\n"), [0; 0]);
        assert_eq!(parse_reserved("8080,9000-9002\n"), [8_080, 9_000, 9_001, 9_002]);
        assert_eq!(parse_reserved("\n"), [0; 0]);
    }
}
