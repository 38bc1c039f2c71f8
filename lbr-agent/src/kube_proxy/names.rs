//! Which chains and tables are kube-proxy's.
//!
//! Not every `KUBE-` chain is: kubelet has some in 1.36 (`KUBE-FIREWALL`, `KUBE-KUBELET-CANARY` and
//! `KUBE-IPTABLES-HINT`, before 1.28 also `KUBE-MARK-DROP`), and other projects borrow the prefix (kube-router's
//! `KUBE-ROUTER-*`, `KUBE-NWPLCY-*` and `KUBE-POD-FW-*`). So lbr compares whole names, as all modes of kube-proxy have
//! used them, and the form of hashed ones.

/// Table of nftables mode, in `ip` and in `ip6`.
pub(super) const NFT_TABLE: &str = "kube-proxy";

/// Tables of iptables and ipvs mode.
pub(super) const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

const NAT: [&str; 8] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-PROXY-CANARY",
    // ipvs
    "KUBE-NODE-PORT",
    "KUBE-LOAD-BALANCER",
    "KUBE-FIRE-WALL",
];

const FILTER: [&str; 10] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    // ipvs
    "KUBE-NODE-PORT",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];

const MANGLE: [&str; 1] = ["KUBE-PROXY-CANARY"];

/// One chain for each Service port, endpoint and so on.
const HASHED: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-", "KUBE-FW-", "KUBE-XLB-"];
/// Length of the hash in base32.
const HASH: usize = 16;

/// Whether kube-proxy makes this chain in this table.
pub(super) fn is_chain(table: &str, chain: &str) -> bool {
    match table {
        "nat" => NAT.contains(&chain) || is_hashed(chain),
        "filter" => FILTER.contains(&chain),
        "mangle" => MANGLE.contains(&chain),
        _ => false,
    }
}

/// Whether chains of others jump to it as well: others have long used `KUBE-MARK-MASQ` as an interface.
pub(super) fn is_borrowed(chain: &str) -> bool {
    chain == "KUBE-MARK-MASQ"
}

fn is_hashed(chain: &str) -> bool {
    let is_letter = |c: u8| c.is_ascii_uppercase() || (b'2'..=b'7').contains(&c);
    HASHED.iter().any(|prefix| {
        chain.strip_prefix(prefix).is_some_and(|hash| hash.len() == HASH && hash.bytes().all(is_letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kube_proxys_chains() {
        for chain in
            ["KUBE-SERVICES", "KUBE-SEP-2GMJWGJ2MAUYJLYH", "KUBE-XLB-CG5I4G2RS3ZVWGLK", "KUBE-MARK-MASQ"]
        {
            assert!(is_chain("nat", chain), "{chain}");
            assert!(!is_chain("mangle", chain) && !is_chain("raw", chain), "{chain}");
        }
        assert!(is_chain("filter", "KUBE-FORWARD") && is_chain("mangle", "KUBE-PROXY-CANARY"));
        for chain in [
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "KUBE-IPTABLES-HINT",
            "KUBE-MARK-DROP",
            "KUBE-ROUTER-FORWARD",
            "KUBE-NWPLCY-DEFAULT",
            "KUBE-POD-FW-2GMJWGJ2MAUYJLYH",
            "KUBE-FW-WHITELIST",
            "KUBE-SVC-",
            "KUBE-SVC-2gmjwgj2mauyjlyh",
            "KUBE-SVC-2GMJWGJ2MAUYJLYH0",
            "PREROUTING",
            "CNI-HOSTPORT-DNAT",
        ] {
            assert!(TABLES.iter().all(|table| !is_chain(table, chain)), "{chain}");
        }
    }
}
