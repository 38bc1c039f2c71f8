//! Addresses that are not ClusterIPs: the node's, a load balancer's, and those that no Service has.

use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{SourceRange, frontend_flags, scope, set};

use super::*;

/// `default/web` at port 30080 of the node, and at an address of a load balancer for clients in 10.0.0.0/31 only.
pub(super) fn outside() -> (Desired, Addr) {
    let mut tables = example::tables();
    let balancer = Addr::v4([203, 0, 113, 1]);
    let web = |flags| Frontend { service: 1.into(), count: 1, flags, ..Frontend::default() };
    let whole = |flags| Frontend { flags: flags | frontend_flags::WILDCARD, ..Frontend::default() };
    let key = |addr, port, scope| {
        let proto = if port == 0 { 0 } else { proto::TCP };
        FrontendKey { addr, port, proto, scope, ..FrontendKey::default() }
    };
    let local = Frontend { set: set::LOCAL, count: 0, ..web(frontend_flags::LOCAL_ONLY) };
    tables.frontends.extend([
        (key(NODE, 0, scope::ANY), whole(frontend_flags::PASS_UNMATCHED | frontend_flags::HOST)),
        (key(NODE, 30_080, scope::ANY), web(frontend_flags::EXTERNAL_DIFFERS)),
        (key(NODE, 30_080, scope::EXTERNAL), local),
        (
            key(Addr::v4([127, 0, 0, 1]), 0, scope::HOST_LOCAL),
            whole(frontend_flags::PASS_UNMATCHED | frontend_flags::HOST),
        ),
        (key(Addr::v4([127, 0, 0, 1]), 30_080, scope::HOST_LOCAL), web(0)),
        (key(balancer, 0, scope::ANY), whole(frontend_flags::PASS_UNMATCHED)),
        (key(balancer, 80, scope::ANY), web(frontend_flags::RANGES)),
    ]);
    let data = SourceRange { service: 1.into(), client: addr(0).bytes };
    tables.source_ranges.insert(Prefix { data, len: SourceRange::FULL - 1 }, 0);
    (tables, balancer)
}

#[test]
fn a_node_port_is_its_service_and_other_ports_of_the_node_are_the_nodes() {
    let (tables, _) = outside();
    let node = NODE.to_string();
    let why = ask_in(&tables, "default/client", &node, Some("30080"), None).unwrap();
    assert!(why.allowed);
    assert_eq!((why.services[0].service.as_str(), why.services[0].endpoints), ("default/web", 1));
    let ssh = ask_in(&tables, "default/client", &node, Some("22"), None).unwrap();
    assert!(ssh.allowed && ssh.services.is_empty());
    // Clients outside reach other endpoints.
    let why = ask_in(&tables, "198.51.100.9", &node, Some("30080"), None).unwrap();
    assert!(why.services[0].refused.contains("Local traffic policy"), "{}", why.summary);
}

/// Its other ports are those of the host that has the address: another node's, with some load balancers.
#[test]
fn a_load_balancers_address_is_its_services_by_its_ports_only() {
    let (tables, balancer) = outside();
    let balancer = balancer.to_string();
    for (port, services) in [(Some("80"), 1), (None, 1), (Some("6443"), 0)] {
        let why = ask_in(&tables, "default/client", &balancer, port, None).unwrap();
        assert!(why.allowed, "{}", why.summary);
        assert_eq!(why.services.len(), services, "{port:?}");
    }
}

#[test]
fn an_address_that_no_service_has_is_refused() {
    let mut tables = example::tables();
    let block = Block::of(&Addr::v4([10, 96, 0, 0]));
    tables.service_cidrs.insert(Prefix { data: block, len: Block::FAMILY_BITS + 96 + 12 }, 0);
    for port in [None, Some("80")] {
        let why = ask_in(&tables, "default/client", "10.96.0.99", port, None).unwrap();
        assert!(!why.allowed && why.summary.contains("no Service has this address"), "{}", why.summary);
    }
}

/// As programs do with packets: a port of another protocol is the host's, not a refusal by the Service.
#[test]
fn another_protocol_at_a_node_or_a_load_balancer_is_the_hosts() {
    let (tables, balancer) = outside();
    for (to, port, proto) in
        [(NODE, Some("30080"), Proto::Udp), (balancer, Some("80"), Proto::Udp), (balancer, None, Proto::Icmp)]
    {
        let why = ask_in(&tables, "default/client", &to.to_string(), port, Some(proto)).unwrap();
        assert!(why.allowed && why.services.is_empty(), "{to} {proto:?}: {}", why.summary);
    }
}

#[test]
fn a_service_is_answered_for_where_no_pod_is_known() {
    let (mut tables, balancer) = outside();
    tables.endpoints.remove(&WEB);
    tables.pod_names.remove(&WEB);
    tables.source_ranges.clear();
    tables.frontends.values_mut().for_each(|frontend| frontend.flags &= !frontend_flags::RANGES);
    let why = ask_in(&tables, "198.51.100.9", &balancer.to_string(), Some("80"), None).unwrap();
    assert!(why.allowed && why.connections[0].ingress == Opinion::NoPod, "{}", why.summary);
}

#[test]
fn no_packet_comes_from_an_address_of_services() {
    let (tables, balancer) = outside();
    let why = ask_in(&tables, "10.96.0.10", "default/web-0", Some("8080"), None).unwrap();
    let reason =
        "denied: 10.96.0.10 is an address of Services, and packets from it are dropped (counter martian)";
    assert_eq!((why.allowed, why.summary.as_str()), (false, reason));
    assert!(render(&why).starts_with(reason));
    // It may be a host's, too.
    let why = ask_in(&tables, &balancer.to_string(), "default/stranger", Some("8080"), None).unwrap();
    assert_eq!(why.spoofed, None);
}

#[test]
fn processes_of_the_node_reach_services_by_their_sockets() {
    let (tables, _) = outside();
    for from in [NODE.to_string(), "127.0.0.1".to_owned()] {
        let why = ask_in(&tables, &from, "127.0.0.1", Some("30080"), None).unwrap();
        assert_eq!((why.allowed, why.services[0].endpoints), (true, 1), "{}", why.summary);
        let why = ask_in(&tables, &from, "10.96.0.10", None, Some(Proto::Icmp)).unwrap();
        assert_eq!((why.allowed, why.services[0].counter), (false, "unanswerable"), "{}", why.summary);
    }
    let why = ask_in(&tables, "127.0.0.1", "127.0.0.1", Some("22"), None).unwrap();
    assert!(why.allowed && why.services.is_empty());
}

#[test]
fn a_service_by_name_is_asked_at_its_own_addresses() {
    let (tables, balancer) = outside();
    let why = ask_in(&tables, "default/client", "default/web", None, None).unwrap();
    let addresses: Vec<_> = why.services.iter().map(|s| s.address.as_str()).collect();
    assert_eq!(addresses, ["10.96.0.10", balancer.to_string().as_str()]);
    assert!(why.allowed, "{}", why.summary);
    let why = ask_in(&tables, "default/stranger", "203.0.113.1", None, None).unwrap();
    assert!(!why.allowed && why.summary.contains("loadBalancerSourceRanges"), "{}", why.summary);
}
