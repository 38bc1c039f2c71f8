//! Rule sets: those of kube-proxy's modes, and those of other programs.

use std::fmt::Write as _;

use lbr_common::addr::Family;

/// Other programs in the tables of iptables: kubelet, a CNI plugin, kube-router, the operator.
pub(crate) const OTHERS: &str = "*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:KUBE-ROUTER-SERVICES - [0:0]
-A PREROUTING -m comment --comment \"CNI portfwd -j KUBE-SERVICES\" -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A CNI-HOSTPORT-DNAT -p tcp -m tcp --dport 8080 -j MARK --set-xmark 0x2000/0x2000
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
:KUBE-POD-FW-2GMJWGJ2MAUYJLYH - [0:0]
:DOCKER-USER - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A FORWARD -j KUBE-ROUTER-FORWARD
-A FORWARD -j DOCKER-USER
-A KUBE-FIREWALL -m comment --comment \"block incoming localnet connections\" -m mark --mark 0x1/0x1 -j DROP
-A KUBE-ROUTER-FORWARD -j KUBE-POD-FW-2GMJWGJ2MAUYJLYH
-A KUBE-POD-FW-2GMJWGJ2MAUYJLYH -j KUBE-NWPLCY-DEFAULT
-A DOCKER-USER -j RETURN
COMMIT
";

/// Other programs' tables; one has a chain whose name is kube-proxy's elsewhere.
pub(crate) const OTHER_TABLES: &str = "
table inet mine {
    set blocked { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 } }
    chain KUBE-SERVICES { tcp dport 22 accept; }
    chain input {
        type filter hook input priority 10; policy accept;
        ip saddr @blocked drop
        jump KUBE-SERVICES
    }
}
table ip kube-proxy-metrics {
    chain c { counter; }
}
";

/// The table of nftables mode.
pub(crate) const NFTABLES: &str = "
table FAMILY kube-proxy {
    comment \"rules for kube-proxy\"
    set cluster-ips { type ADDRESS; comment \"Active ClusterIPs\"; elements = { VIP } }
    map service-ips {
        type ADDRESS . inet_proto . inet_service : verdict
        elements = { VIP . tcp . 443 : goto service-2QRHZV4L-default/kubernetes/tcp/https }
    }
    chain filter-prerouting { type filter hook prerouting priority -110; policy accept; ct state new jump firewall-check; }
    chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
    chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
    chain firewall-check { }
    chain services { FAMILY daddr . meta l4proto . th dport vmap @service-ips; }
    chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }
    chain service-2QRHZV4L-default/kubernetes/tcp/https { numgen random mod 1 vmap { 0 : goto endpoint-X }; }
    chain endpoint-X { meta l4proto tcp counter; }
}
";

/// The table of nftables mode, of one family.
pub(crate) fn nftables(family: Family) -> String {
    let (family, address, vip) =
        if family.is_v6() { ("ip6", "ipv6_addr", "fd00:96::1") } else { ("ip", "ipv4_addr", "10.96.0.1") };
    // The chain of the endpoint is declared before the rule that jumps to it.
    let chain = format!(
        "table {family} kube-proxy {{ chain endpoint-X {{ }}; chain service-2QRHZV4L-default/kubernetes/tcp/https {{ }}; chain firewall-check {{ }}; chain services {{ }}; chain masquerading {{ }}; }}\n"
    );
    chain + &NFTABLES.replace("FAMILY", family).replace("ADDRESS", address).replace("VIP", vip)
}

/// iptables mode with this many Services of one endpoint, plus the chains of ipvs mode.
pub(crate) fn iptables(family: Family, services: usize) -> String {
    let (host, address) = if family.is_v6() { (128, "fd00:96::1") } else { (32, "10.96.0.1") };
    let backend = if family.is_v6() { "[fd00:1::1]:6443" } else { "10.0.0.1:6443" };
    let mut nat = String::from(
        "*mangle\n:KUBE-PROXY-CANARY - [0:0]\nCOMMIT\n*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         :KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n:KUBE-LOAD-BALANCER - [0:0]\n",
    );
    let hashes: Vec<String> = (0..services).map(hash).collect();
    for hash in &hashes {
        let _ = writeln!(nat, ":KUBE-SVC-{hash} - [0:0]\n:KUBE-SEP-{hash} - [0:0]\n:KUBE-EXT-{hash} - [0:0]");
    }
    nat.push_str(
        "-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         -A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ\n",
    );
    for hash in &hashes {
        let _ = writeln!(
            nat,
            "-A KUBE-SERVICES -d {address}/{host} -p tcp -m comment --comment \"default/s:p cluster IP\" -m tcp --dport 443 -j KUBE-SVC-{hash}\n\
             -A KUBE-NODEPORTS -p tcp -m tcp --dport 30000 -j KUBE-EXT-{hash}\n\
             -A KUBE-EXT-{hash} -j KUBE-MARK-MASQ\n\
             -A KUBE-EXT-{hash} -j KUBE-SVC-{hash}\n\
             -A KUBE-SVC-{hash} -m statistic --mode random --probability 0.5 -j KUBE-SEP-{hash}\n\
             -A KUBE-SEP-{hash} -s {address}/{host} -j KUBE-MARK-MASQ\n\
             -A KUBE-SEP-{hash} -p tcp -m tcp -j DNAT --to-destination {backend}"
        );
    }
    nat.push_str(
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n*filter\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-FORWARD - [0:0]\n\
         :KUBE-PROXY-FIREWALL - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n:KUBE-IPVS-FILTER - [0:0]\n\
         -I INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL\n\
         -I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
         -I OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS\n\
         -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
         -A INPUT -j KUBE-IPVS-FILTER\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\nCOMMIT\n",
    );
    nat
}

/// Sixteen letters of base32.
fn hash(number: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    (0..16).map(|i| char::from(LETTERS[(number >> (5 * i.min(3))) % 32])).collect()
}
