//! An nftables rule set of the shape that kube-proxy writes: one lookup of destination, protocol and port
//! leads to the chain of a Service port, a random number from there to the chain of an endpoint.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

/// A Service port and its endpoints.
#[derive(Clone, Debug)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) endpoints: Vec<(Ipv4Addr, u16)>,
}

impl ServicePort {
    fn chain(&self) -> String {
        format!("service-{}/{}/p{}", self.name, self.protocol, self.port)
    }
}

/// What is the same whatever the Services are. Priorities as in kube-proxy: its filters run before its
/// translation, except the one of the host that runs after it.
const FRAME: &str = "
  set nodeport-ips { type ipv4_addr; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
  chain masquerading {
    meta mark & 0x4000 == 0 return
    meta mark set meta mark ^ 0x4000
    masquerade fully-random
  }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain nodeport-endpoints-check {
    ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
  }
  chain cluster-ips-check {
    ip daddr @cluster-ips reject
    ip daddr 10.96.0.0/12 drop
  }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain filter-prerouting {
    type filter hook prerouting priority -110;
    ct state new jump firewall-check
  }
  chain filter-input {
    type filter hook input priority -110;
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority -110;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority -110;
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
  }
  chain filter-output-post-dnat {
    type filter hook output priority -90;
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting {
    type nat hook prerouting priority -100;
    jump services
  }
  chain nat-output {
    type nat hook output priority -100;
    jump services
  }
  chain nat-postrouting {
    type nat hook postrouting priority 100;
    jump masquerading
  }
";

/// The rule set, for `nft -f`.
pub(super) fn ruleset(services: &[ServicePort]) -> String {
    let mut chains = String::new();
    let mut addresses: Vec<IpAddr> = services.iter().map(|s| s.address.into()).collect();
    addresses.dedup();
    let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let elements: Vec<String> = services
        .iter()
        .map(|s| format!("{} . {} . {} : goto {}", s.address, s.protocol, s.port, s.chain()))
        .collect();
    for service in services {
        let (chain, protocol) = (service.chain(), service.protocol);
        let mut choice = Vec::new();
        for (number, (ip, port)) in service.endpoints.iter().enumerate() {
            let endpoint = format!("endpoint-{}__{ip}/{port}", chain.trim_start_matches("service-"));
            let _ = writeln!(
                chains,
                "  chain {endpoint} {{\n    ip saddr {ip} jump mark-for-masquerade\n    meta l4proto \
                 {protocol} dnat to {ip}:{port}\n  }}"
            );
            choice.push(format!("{number} : goto {endpoint}"));
        }
        let _ = writeln!(
            chains,
            "  chain {chain} {{\n    ip daddr {} {protocol} dport {} ip saddr != 10.244.0.0/16 jump \
             mark-for-masquerade\n    numgen random mod {} vmap {{ {} }}\n  }}",
            service.address,
            service.port,
            choice.len(),
            choice.join(", ")
        );
    }
    // Chains before the map that names them.
    format!(
        "table ip kube-proxy {{\n  set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}\n  \
         chain mark-for-masquerade {{ }}\n{chains}  map service-ips {{ type ipv4_addr . inet_proto . \
         inet_service : verdict; elements = {{ {} }}; }}\n{FRAME}}}\n",
        elements.join(", ")
    )
}
