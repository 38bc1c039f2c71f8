//! Interfaces to the outside.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbr_common::addr::Addr;
use serde::Serialize;

use crate::dataplane::XdpMode;
use crate::desired::Desired;

/// An uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct UplinkRow {
    pub(in crate::cli) ifindex: u32,
    pub(in crate::cli) name: String,
    /// The node's address as the source of connections that it sends on by this uplink for others (SNAT); empty: it
    /// sends on nothing of this family.
    pub(in crate::cli) ipv4: String,
    pub(in crate::cli) ipv6: String,
    /// `native`, `generic`, or `off`.
    pub(in crate::cli) xdp: &'static str,
}

/// Uplinks in order of their index.
pub(in crate::cli) fn uplinks(
    tables: &Desired,
    xdp: &BTreeMap<u32, XdpMode>,
    link_name: impl Fn(u32) -> String,
) -> Vec<UplinkRow> {
    let text = |addr: Addr| match addr == Addr::UNSPECIFIED {
        true => String::new(),
        false => IpAddr::from(addr).to_string(),
    };
    let row = |(&ifindex, uplink): (&u32, &lbr_common::link::Uplink)| UplinkRow {
        ifindex,
        name: link_name(ifindex),
        ipv4: text(uplink.v4),
        ipv6: text(uplink.v6),
        xdp: xdp.get(&ifindex).map_or("off", |mode| mode.name()),
    };
    tables.uplinks.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use lbr_common::link::Uplink;

    use super::*;

    #[test]
    fn a_family_without_an_address_is_empty() {
        let mut tables = Desired::default();
        let uplink = Uplink { v4: Addr::v4([192, 0, 2, 1]), ..Uplink::default() };
        tables.uplinks.insert(2, uplink);
        tables.uplinks.insert(3, Uplink::default());
        let rows = uplinks(&tables, &[(2, XdpMode::Native)].into(), |index| format!("eth{index}"));
        let short = rows.iter().map(|r| (r.name.as_str(), r.ipv4.as_str(), r.ipv6.as_str(), r.xdp));
        let short: Vec<_> = short.collect();
        assert_eq!(short, [("eth2", "192.0.2.1", "", "native"), ("eth3", "", "", "off")]);
    }
}
