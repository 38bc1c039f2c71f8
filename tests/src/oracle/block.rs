//! Address blocks as text, read by hand.

use std::net::IpAddr;

/// Whether an address is in a block (`10.0.0.0/8`; host bits do not count). An address of the other family never is,
/// and an invalid block contains none.
pub(super) fn contains(cidr: &str, addr: IpAddr) -> bool {
    let Some((first, last)) = range(cidr) else { return false };
    first.is_ipv4() == addr.is_ipv4() && (first..=last).contains(&addr)
}

/// First and last address of a block.
pub(super) fn range(cidr: &str) -> Option<(IpAddr, IpAddr)> {
    let (addr, len) = cidr.split_once('/')?;
    let (addr, len): (IpAddr, u32) = (addr.parse().ok()?, len.parse().ok()?);
    match addr {
        IpAddr::V4(v4) if len <= 32 => {
            let host = u32::MAX.checked_shr(len).unwrap_or(0);
            let bits = v4.to_bits();
            Some((IpAddr::V4((bits & !host).into()), IpAddr::V4((bits | host).into())))
        }
        IpAddr::V6(v6) if len <= 128 => {
            let host = u128::MAX.checked_shr(len).unwrap_or(0);
            let bits = v6.to_bits();
            Some((IpAddr::V6((bits & !host).into()), IpAddr::V6((bits | host).into())))
        }
        _ => None,
    }
}

/// The addresses at the edges of a block, inside and outside.
pub(super) fn edges(cidr: &str) -> Vec<IpAddr> {
    let Some((first, last)) = range(cidr) else { return Vec::new() };
    let before = match first {
        IpAddr::V4(a) => a.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(a) => a.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    };
    let after = match last {
        IpAddr::V4(a) => a.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(a) => a.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    };
    [before, Some(first), Some(last), after].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_edges_and_no_host_bits() {
        for (cidr, expected) in [
            ("10.1.2.3/8", vec!["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"]),
            ("0.0.0.0/0", vec!["0.0.0.0", "255.255.255.255"]),
            ("10.0.0.1/32", vec!["10.0.0.0", "10.0.0.1", "10.0.0.1", "10.0.0.2"]),
            ("fd00::7/126", vec!["fd00::3", "fd00::4", "fd00::7", "fd00::8"]),
            ("::/0", vec!["::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
            ("10.0.0.0", vec![]),
            ("10.0.0.0/33", vec![]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(edges(cidr), expected, "{cidr}");
        }
        assert!(!contains("::/0", "10.0.0.1".parse().unwrap()));
        assert!(!contains("0.0.0.0/0", "::1".parse().unwrap()));
        assert!(contains("10.0.0.9/30", "10.0.0.11".parse().unwrap()));
    }
}
