//! `--snat-ports`: ports that nothing else on the node may use.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, ensure};

/// Where the kernel says which ports it gives to sockets that ask for none.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// First and last port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All ports of the range.
    pub fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// The first port, and how many there are.
    pub fn first_and_count(self) -> (u16, u16) {
        // Port 0 is in no range, so this fits.
        (self.first, self.last - self.first + 1)
    }

    /// An error if the kernel gives such ports to sockets of this network namespace: answers to them would be taken
    /// for answers to lbr's clients.
    pub fn check(self) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(Path::new(EPHEMERAL)).context(EPHEMERAL)?;
        self.check_against(&text)
    }

    fn check_against(self, ephemeral: &str) -> anyhow::Result<()> {
        let mut numbers = ephemeral.split_whitespace().map(str::parse::<u16>);
        let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
            anyhow::bail!("{EPHEMERAL}: {:?} is not a range of ports", ephemeral.trim());
        };
        ensure!(
            self.last < first || last < self.first,
            "--snat-ports={self} overlaps with the ports that the kernel gives to sockets ({first}-{last}): give a \
             range outside of these, or shrink net.ipv4.ip_local_port_range"
        );
        Ok(())
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write it as FIRST-LAST, two ports from 1 to 65535".to_owned();
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let port = |text: &str| text.trim().parse().ok().filter(|&port: &u16| port != 0).ok_or_else(wrong);
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let range: PortRange = "61000-65535".parse().unwrap();
        assert_eq!((range.ports(), range.first_and_count()), (61_000..=65_535, (61_000, 4_536)));
        assert_eq!("1-65535".parse::<PortRange>().unwrap().first_and_count(), (1, 65_535));
        assert_eq!("7-7".parse::<PortRange>().unwrap().first_and_count(), (7, 1));
        for wrong in ["", "1", "0-5", "5-1", "1-65536", "a-b", "1-2-3"] {
            assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_kernels_own_ports_are_left_alone() {
        let range: PortRange = "61000-65535".parse().unwrap();
        assert!(range.check_against("32768\t60999\n").is_ok());
        for ephemeral in ["32768\t61000", "1024\t65535", "62000 63000", "65535 65535"] {
            let error = range.check_against(ephemeral).unwrap_err().to_string();
            assert!(
                error.contains("--snat-ports=61000-65535") && error.contains("ip_local_port_range"),
                "{error}"
            );
        }
        assert!(range.check_against("nonsense").is_err());
    }
}
