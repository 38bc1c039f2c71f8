//! An nftables rule set of the shape that kube-proxy writes: one lookup of destination, protocol and port
//! leads to the chain of a Service port, a random number from there to the chain of an endpoint.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::process;
use crate::topology::{Bed, Node};

/// A Service port and its endpoints.
#[derive(Clone, Debug)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) endpoints: Vec<(Ipv4Addr, u16)>,
    /// Its NodePort, for clients from everywhere.
    pub(super) node_port: Option<u16>,
}

impl ServicePort {
    fn chain(&self) -> String {
        format!("service-{}/{}/p{}", self.name, self.protocol, self.port)
    }

    fn endpoint_chain(&self, (ip, port): (Ipv4Addr, u16)) -> String {
        format!("endpoint-{}/{}/p{}__{ip}/{port}", self.name, self.protocol, self.port)
    }

    /// The chain for traffic from outside of the cluster.
    fn external_chain(&self) -> String {
        format!("external-{}/{}/p{}", self.name, self.protocol, self.port)
    }
}

/// The part that does not depend on Services. Priorities as in kube-proxy: its filters run before its translation,
/// except the one of the host, which runs after it.
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

/// Services in one transaction. The kernel finds a new set by walking the whole transaction, so one transaction for
/// all Services takes minutes.
const CHUNK: usize = 250;

/// Loads the rule set into a node. `node_ips`: its addresses with NodePorts.
pub(super) fn load(bed: &Bed, node: &Node, services: &[ServicePort], node_ips: &[Ipv4Addr]) -> Result<()> {
    let path = bed.folder().join("rules.nft");
    for text in ruleset(services, node_ips) {
        std::fs::write(&path, text)?;
        process::run(node.ns.command("nft")?.arg("-f").arg(&path)).context("load the nftables rules")?;
    }
    Ok(())
}

/// Makes the transaction that kube-proxy makes when the endpoints of a Service port change, and returns how long `nft` took:
/// new endpoints' chains, the Service's chain anew, and former endpoints' chains gone.
pub(super) fn replace(bed: &Bed, node: &Node, before: &ServicePort, after: &ServicePort) -> Result<Duration> {
    let mut text = format!("add chain ip kube-proxy {}\n", after.chain());
    let _ = writeln!(text, "flush chain ip kube-proxy {}", after.chain());
    for endpoint in after.endpoints.iter().filter(|endpoint| before.endpoints.contains(endpoint)) {
        let _ = writeln!(text, "flush chain ip kube-proxy {}", after.endpoint_chain(*endpoint));
    }
    text.push_str("table ip kube-proxy {\n");
    add_chains(&mut text, after);
    text.push_str("}\n");
    for endpoint in before.endpoints.iter().filter(|endpoint| !after.endpoints.contains(endpoint)) {
        let _ = writeln!(text, "delete chain ip kube-proxy {}", before.endpoint_chain(*endpoint));
    }
    let path = bed.folder().join("change.nft");
    std::fs::write(&path, text)?;
    let begin = Instant::now();
    process::run(node.ns.command("nft")?.arg("-f").arg(&path)).context("change the nftables rules")?;
    Ok(begin.elapsed())
}

/// The rule set, as texts for `nft -f`, one after the other.
fn ruleset(services: &[ServicePort], node_ips: &[Ipv4Addr]) -> Vec<String> {
    let mut frame = format!(
        "table ip kube-proxy {{\n  set cluster-ips {{ type ipv4_addr; }}\n  map service-ips {{ type ipv4_addr . \
         inet_proto . inet_service : verdict; }}{FRAME}}}\n"
    );
    for ip in node_ips {
        let _ = writeln!(frame, "add element ip kube-proxy nodeport-ips {{ {ip} }}");
    }
    std::iter::once(frame).chain(services.chunks(CHUNK).map(transaction)).collect()
}

/// Adds some Services.
fn transaction(services: &[ServicePort]) -> String {
    let mut text = "table ip kube-proxy {\n".to_owned();
    for service in services {
        add_chains(&mut text, service);
    }
    text.push_str("}\n");
    let mut addresses: Vec<String> = services.iter().map(|s| s.address.to_string()).collect();
    addresses.dedup();
    let verdict =
        |s: &ServicePort| format!("{} . {} . {} : goto {}", s.address, s.protocol, s.port, s.chain());
    let verdicts: Vec<String> = services.iter().map(verdict).collect();
    let _ = writeln!(text, "add element ip kube-proxy cluster-ips {{ {} }}", addresses.join(", "));
    let _ = writeln!(text, "add element ip kube-proxy service-ips {{ {} }}", verdicts.join(", "));
    for (service, port) in services.iter().filter_map(|s| Some((s, s.node_port?))) {
        let (protocol, chain) = (service.protocol, service.external_chain());
        let _ = writeln!(
            text,
            "add element ip kube-proxy service-nodeports {{ {protocol} . {port} : goto {chain} }}"
        );
    }
    text
}

fn add_chains(text: &mut String, service: &ServicePort) {
    let (chain, protocol) = (service.chain(), service.protocol);
    let mut choice = Vec::new();
    for (number, (ip, port)) in service.endpoints.iter().enumerate() {
        let endpoint = service.endpoint_chain((*ip, *port));
        let _ = writeln!(
            text,
            "  chain {endpoint} {{\n    ip saddr {ip} jump mark-for-masquerade\n    meta l4proto {protocol} \
             dnat to {ip}:{port}\n  }}"
        );
        choice.push(format!("{number} : goto {endpoint}"));
    }
    let _ = writeln!(
        text,
        "  chain {chain} {{\n    ip daddr {} {protocol} dport {} ip saddr != 10.244.0.0/16 jump \
         mark-for-masquerade\n    numgen random mod {} vmap {{ {} }}\n  }}",
        service.address,
        service.port,
        choice.len(),
        choice.join(", ")
    );
    if service.node_port.is_some() {
        // The traffic policy `Cluster`: traffic to every endpoint is masqueraded.
        let external = service.external_chain();
        let _ = writeln!(text, "  chain {external} {{\n    jump mark-for-masquerade\n    goto {chain}\n  }}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_port_leads_to_the_service_by_way_of_masquerading() {
        let service = ServicePort {
            name: "default/web".to_owned(),
            address: Ipv4Addr::new(10, 96, 0, 10),
            protocol: "tcp",
            port: 80,
            endpoints: vec![(Ipv4Addr::new(10, 244, 1, 2), 8080)],
            node_port: Some(30_080),
        };
        let text = ruleset(std::slice::from_ref(&service), &[Ipv4Addr::new(172, 18, 0, 1)]).concat();
        assert!(text.contains("nodeport-ips { 172.18.0.1 }"), "{text}");
        assert!(
            text.contains("service-nodeports { tcp . 30080 : goto external-default/web/tcp/p80 }"),
            "{text}"
        );
        let chain = "  chain external-default/web/tcp/p80 {\n    jump mark-for-masquerade\n    goto \
                     service-default/web/tcp/p80\n  }";
        assert!(text.contains(chain), "{text}");
        let text = ruleset(&[ServicePort { node_port: None, ..service }], &[]).concat();
        assert!(
            !text.contains("chain external-") && !text.contains("add element ip kube-proxy nodeport"),
            "{text}"
        );
    }
}
