use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::Addr;
use lbr_common::policy::Block;
use lbr_common::service::{peer_flags, scope, set};

use super::*;
use crate::model::{Node, ServiceCidr, SourceRanges};
use crate::node::NodePortAddress;
use crate::node::Settings;
use crate::node::links::LocalLinks;
use crate::node::links::LocalUplink;

/// Flags of an address whose other ports pass.
const OPEN: u32 = frontend_flags::WILDCARD | frontend_flags::PASS_UNMATCHED;

const TCP: u8 = proto::TCP;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A node with the addresses 192.0.2.1 and 2001:db8::1 outside, and 10.0.0.1 on another interface.
pub(super) fn node() -> NodeView {
    let uplink = LocalUplink {
        name: "eth0".to_owned(),
        v4: Some([192, 0, 2, 1].into()),
        v6: Some("2001:db8::1".parse().unwrap()),
    };
    let links = LocalLinks {
        uplinks: [(2, uplink)].into(),
        node_addresses: ips(&["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1"]).into_iter().collect(),
        ..LocalLinks::default()
    };
    NodeView { name: "here".to_owned(), links, ..NodeView::default() }
}

pub(super) fn on(node: &NodeView, services: Vec<Service>) -> Desired {
    let slices = services.iter().map(|s| s.name.name.clone()).collect::<Vec<_>>();
    let away = Endpoint { node: "there".into(), ..endpoint("10.244.1.2") };
    let slices = slices.iter().map(|of| slice(of, 8080, vec![endpoint("10.244.0.2"), away.clone()]));
    compile(&state(services, slices.collect()), node, &mut Ids::new())
}

pub(super) fn node_port(number: u16) -> Service {
    Service { ports: vec![ServicePort { node_port: Some(number), ..web().ports[0].clone() }], ..web() }
}

fn at(desired: &Desired, addr: &str, port: u16, scope: u8) -> Option<Frontend> {
    let proto = if port == 0 { 0 } else { TCP };
    let key = FrontendKey { addr: ip(addr).into(), port, proto, scope, ..FrontendKey::default() };
    desired.frontends.get(&key).copied()
}

/// Addresses at which a port is served, with their scope.
fn served(desired: &Desired, port: u16) -> Vec<String> {
    let keys = desired.frontends.keys().filter(|key| key.port == port);
    keys.map(|key| format!("{} {}", key.addr, key.scope)).collect()
}

pub(super) fn rejected(desired: &Desired) -> Vec<String> {
    desired
        .rejected
        .values()
        .map(|r| format!("{} {}: {}", r.object.as_str(), r.field.as_str(), r.reason.as_str()))
        .collect()
}

#[test]
fn a_node_port_is_served_on_the_nodes_addresses_and_to_its_sockets() {
    let d = on(&node(), vec![node_port(30080)]);
    assert_eq!(served(&d, 30080), ["0.0.0.0 2", "127.0.0.1 2", "192.0.2.1 0"]);
    let cluster_ip = at(&d, "10.96.0.10", 80, scope::ANY).unwrap();
    for (addr, scope) in
        [("192.0.2.1", scope::ANY), ("127.0.0.1", scope::HOST_LOCAL), ("0.0.0.0", scope::HOST_LOCAL)]
    {
        assert_eq!(at(&d, addr, 30080, scope), Some(cluster_ip), "one Service port, whatever its address");
        assert_eq!(at(&d, addr, 0, scope).unwrap().flags, OPEN | frontend_flags::HOST, "{addr}");
    }
    assert_eq!(at(&d, "10.96.0.10", 0, scope::ANY).unwrap().flags, frontend_flags::WILDCARD);
    assert_eq!(d.services.len(), 1);

    let dual = Service { cluster_ips: ips(&["10.96.0.10", "fd00::10"]), ..node_port(30080) };
    let d = on(&node(), vec![dual]);
    assert_eq!(
        served(&d, 30080),
        [":: 2", "::1 2", "0.0.0.0 2", "127.0.0.1 2", "192.0.2.1 0", "2001:db8::1 0"]
    );
    assert!(at(&d, "::1", 0, scope::HOST_LOCAL).is_some());
}

#[test]
fn a_node_port_may_be_left_out_at_loopback_addresses() {
    let dual = || Service { cluster_ips: ips(&["10.96.0.10", "fd00::10"]), ..node_port(30080) };
    let mut node = node();
    node.settings.without_localhost_nodeports = true;
    let d = on(&node, vec![dual()]);
    assert_eq!(served(&d, 30080), [":: 2", "0.0.0.0 2", "192.0.2.1 0", "2001:db8::1 0"]);
    for any in ["::", "0.0.0.0"] {
        let flags = at(&d, any, 30080, scope::HOST_LOCAL).unwrap().flags;
        assert_eq!(flags, frontend_flags::BIND_ONLY, "{any}: `bind` to all addresses finds it");
    }
    assert_eq!(at(&d, "192.0.2.1", 30080, scope::ANY).unwrap().flags, 0);
}

#[test]
fn an_external_policy_local_tells_the_wire_apart() {
    let local = Service { external_policy: TrafficPolicy::Local, ..node_port(30080) };
    let d = on(&node(), vec![local.clone()]);
    let any = at(&d, "192.0.2.1", 30080, scope::ANY).unwrap();
    let wire = at(&d, "192.0.2.1", 30080, scope::EXTERNAL).unwrap();
    assert_eq!((any.count, any.set, any.flags), (2, set::CLUSTER, frontend_flags::EXTERNAL_DIFFERS));
    assert_eq!((wire.count, wire.set, wire.flags), (1, set::LOCAL, frontend_flags::LOCAL_ONLY));
    assert_eq!(at(&d, "127.0.0.1", 30080, scope::HOST_LOCAL).unwrap().flags, 0, "no packet comes in for it");
    assert_eq!(at(&d, "127.0.0.1", 30080, scope::EXTERNAL), None);
    assert_eq!(at(&d, "10.96.0.10", 80, scope::ANY).unwrap().flags, 0, "not external");

    let with = |endpoints| {
        let state = state(vec![local.clone()], vec![slice("web", 8080, endpoints)]);
        let d = compile(&state, &node(), &mut Ids::new());
        let wire = at(&d, "192.0.2.1", 30080, scope::EXTERNAL).unwrap();
        (wire.count, wire.flags)
    };
    let away = Endpoint { node: "there".into(), ..endpoint("10.244.1.2") };
    assert_eq!(with(vec![away]), (0, frontend_flags::LOCAL_ONLY), "dropped: the other node serves it");
    assert_eq!(with(vec![]), (0, 0), "refused: no node serves it");
}

#[test]
fn node_ports_are_on_the_addresses_that_are_asked_for() {
    let object =
        |addresses: &[&str]| Node { name: "here".to_owned(), addresses: ips(addresses), ..Node::default() };
    let addresses = |settings: Settings, object: Option<Node>| {
        let service = Service { cluster_ips: ips(&["10.96.0.10", "fd00::10"]), ..node_port(30080) };
        let nodes = object.into_iter().map(|node| (ObjectName::cluster("here"), node)).collect();
        let state = ClusterState { nodes, ..state(vec![service], vec![]) };
        let d = compile(&state, &NodeView { settings, ..node() }, &mut Ids::new());
        let keys = d.frontends.keys().filter(|key| key.port == 30080 && key.scope == scope::ANY);
        keys.map(|key| key.addr.to_string()).collect::<Vec<_>>()
    };
    let blocks =
        |wanted: Vec<NodePortAddress>| Settings { nodeport_addresses: wanted, ..Settings::default() };
    let block = |text| NodePortAddress::Block(net(text));
    assert_eq!(
        addresses(Settings::default(), None),
        ["192.0.2.1", "2001:db8::1"],
        "without a Node object: the uplinks'"
    );
    let reported = object(&["198.51.100.7", "198.51.100.8", "2001:db8::7"]);
    assert_eq!(addresses(Settings::default(), Some(reported.clone())), ["198.51.100.7", "2001:db8::7"]);
    assert_eq!(addresses(Settings::default(), Some(object(&["127.0.0.1"]))), [""; 0]);
    let node_ip = Settings { node_ip: Some(ip("10.0.0.1")), ..Settings::default() };
    // kubeadm writes this for `--bind-address`; it names no address.
    let any = Settings { node_ip: Some(ip("0.0.0.0")), ..Settings::default() };
    assert_eq!(addresses(any, None), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(addresses(node_ip.clone(), Some(reported.clone())), ["10.0.0.1", "2001:db8::7"]);
    assert_eq!(addresses(node_ip, None), ["10.0.0.1", "2001:db8::1"]);
    assert_eq!(addresses(blocks(vec![block("10.0.0.0/8")]), None), ["10.0.0.1"]);
    assert_eq!(
        addresses(blocks(vec![block("0.0.0.0/0"), block("::/0")]), None),
        ["10.0.0.1", "192.0.2.1", "2001:db8::1"]
    );
    let both = blocks(vec![block("10.0.0.0/8"), NodePortAddress::Primary]);
    assert_eq!(addresses(both, Some(reported)), ["10.0.0.1", "198.51.100.7", "2001:db8::7"]);
}

#[test]
fn a_load_balancers_address_is_a_services_by_its_ports_only() {
    let service = Service { load_balancer_ips: ips(&["203.0.113.1", "192.0.2.1"]), ..web() };
    let d = on(&node(), vec![service]);
    assert_eq!(served(&d, 80), ["10.96.0.10 0", "192.0.2.1 0", "203.0.113.1 0"]);
    // It may be another node's, as with k3s' ServiceLB.
    assert_eq!(at(&d, "203.0.113.1", 0, scope::ANY).unwrap().flags, OPEN);
    assert_eq!(at(&d, "192.0.2.1", 0, scope::ANY).unwrap().flags, OPEN | frontend_flags::HOST);

    let local =
        Service { load_balancer_ips: ips(&["203.0.113.1"]), external_policy: TrafficPolicy::Local, ..web() };
    let d = on(&node(), vec![local]);
    assert_eq!(served(&d, 80), ["10.96.0.10 0", "203.0.113.1 0", "203.0.113.1 1"]);
}

#[test]
fn a_cluster_ip_is_closed_even_on_an_interface_of_the_node() {
    let mut node = node();
    node.links.node_addresses.insert(ip("10.96.0.10"));
    let blocks = vec![NodePortAddress::Block(net("10.0.0.0/8"))];
    node.settings.nodeport_addresses = blocks;
    let d = on(&node, vec![node_port(30080)]);
    assert_eq!(at(&d, "10.96.0.10", 0, scope::ANY).unwrap().flags, frontend_flags::WILDCARD);
    assert!(at(&d, "10.96.0.10", 30080, scope::ANY).is_some());
}

#[test]
fn source_ranges_are_for_load_balancers_only() {
    let ranged = |ranges: &[&str]| Service {
        load_balancer_ips: ips(&["203.0.113.1"]),
        external_ips: vec![(0, ip("198.51.100.1"))],
        source_ranges: SourceRanges { v4: Some(ranges.iter().map(|r| net(r)).collect()), v6: None },
        external_policy: TrafficPolicy::Local,
        ..node_port(30080)
    };
    let settings = Settings { external_ips: vec![net("198.51.100.0/24")], ..Settings::default() };
    let node = NodeView { settings, ..node() };
    let ranges = |d: &Desired| {
        let range = |p: &lbr_common::policy::Prefix<lbr_common::service::SourceRange>| {
            assert_eq!(p.data.service.id, 1);
            let client = lbr_common::addr::Addr { bytes: p.data.client };
            format!("{client}/{}", p.len - lbr_common::service::SourceRange::FIXED_BITS - 96)
        };
        d.source_ranges.keys().map(range).collect::<Vec<_>>()
    };
    let d = on(&node, vec![ranged(&["10.9.0.0/16"])]);
    let flags = |d: &Desired, addr, port, scope| {
        at(d, addr, port, scope).unwrap().flags & (frontend_flags::RANGES | frontend_flags::HOST_IN_RANGES)
    };
    for scope in [scope::ANY, scope::EXTERNAL] {
        assert_eq!(flags(&d, "203.0.113.1", 80, scope), frontend_flags::RANGES);
        assert_eq!(flags(&d, "198.51.100.1", 80, scope), 0);
        assert_eq!(flags(&d, "192.0.2.1", 30080, scope), 0);
    }
    assert_eq!(ranges(&d), ["10.9.0.0/16"]);

    let d = on(&node, vec![ranged(&["10.9.0.0/16", "192.0.2.0/24"])]);
    let both = frontend_flags::RANGES | frontend_flags::HOST_IN_RANGES;
    assert_eq!(flags(&d, "203.0.113.1", 80, scope::ANY), both);
    assert_eq!(ranges(&d), ["10.9.0.0/16", "192.0.2.0/24", "203.0.113.1/32"]);

    let d = on(&node, vec![ranged(&[])]);
    assert_eq!(
        (flags(&d, "203.0.113.1", 80, scope::ANY), ranges(&d)),
        (frontend_flags::RANGES, vec![]),
        "closed"
    );
    let unaddressed = Service { load_balancer_ips: vec![], ..ranged(&["10.9.0.0/16"]) };
    assert_eq!(ranges(&on(&node, vec![unaddressed])), [""; 0]);
}

#[test]
fn external_ips_have_to_be_allowed() {
    let service = Service { external_ips: vec![(0, ip("198.51.100.1")), (2, ip("8.8.8.8"))], ..web() };
    let settings = Settings { external_ips: vec![net("198.51.100.0/24")], ..Settings::default() };
    let d = on(&NodeView { settings, ..node() }, vec![service.clone()]);
    assert_eq!(served(&d, 80), ["10.96.0.10 0", "198.51.100.1 0"]);
    assert_eq!(at(&d, "198.51.100.1", 0, scope::ANY).unwrap().flags, OPEN);
    let said = rejected(&d);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with("Service default/web spec.externalIPs[2]: 8.8.8.8 is in no block"),
        "{said:?}"
    );
    assert!(said[0].contains("--external-ips=CIDR") && said[0].contains("CVE-2020-8554"), "{said:?}");
    let d = on(&node(), vec![service]);
    assert_eq!(served(&d, 80), ["10.96.0.10 0"]);
    assert_eq!(rejected(&d).len(), 2);
}

#[test]
fn affinity_holds_at_every_address() {
    let service = Service { affinity: 10_800, external_policy: TrafficPolicy::Local, ..node_port(30080) };
    let d = on(&node(), vec![service]);
    let ports = d.frontends.values().filter(|f| f.flags & frontend_flags::WILDCARD == 0);
    assert!(ports.clone().count() == 5 && ports.clone().all(|f| f.affinity == 10_800));
}

#[test]
fn allocated_addresses_go_before_those_written_by_users() {
    let settings = Settings { external_ips: vec![net("0.0.0.0/0")], ..Settings::default() };
    let mut thief =
        Service { external_ips: vec![(0, ip("10.96.0.10"))], cluster_ips: ips(&["10.96.0.66"]), ..web() };
    thief.name = name("aaa");
    let d = on(&NodeView { settings, ..node() }, vec![thief, web()]);
    let id = at(&d, "10.96.0.10", 80, scope::ANY).unwrap().service;
    assert_eq!(d.services[&id].name.as_str(), "web");
    assert_eq!(
        rejected(&d),
        ["Service default/aaa spec.ports[0]: 10.96.0.10:80/TCP already belongs to Service default/web"]
    );

    let other = Service { name: name("zoo"), cluster_ips: ips(&["10.96.0.11"]), ..node_port(30080) };
    let d = on(&node(), vec![other, node_port(30080)]);
    assert_eq!(
        rejected(&d),
        ["Service default/zoo spec.ports[0].nodePort: 30080/TCP already belongs to Service default/web"]
    );
    assert!(at(&d, "10.96.0.11", 80, scope::ANY).is_some(), "the rest is served");
}

#[test]
fn a_service_that_lost_its_cluster_ip_keeps_its_node_port_and_number() {
    let zoo = Service { name: name("zoo"), ..node_port(30080) };
    let state = state(vec![web(), zoo], vec![slice("zoo", 8080, vec![endpoint("10.244.0.2")])]);
    let d = compile(&state, &node(), &mut Ids::new());
    assert_eq!(at(&d, "192.0.2.1", 30080, scope::ANY).unwrap().count, 1);
    assert_eq!(compile(&state, &node(), &mut Ids::restore(&d)), d);
}

/// Written even while no Service asks for it: connections outlive annotations.
#[test]
fn the_addresses_of_other_nodes_are_known() {
    let named = |name: &str, addresses: &[&str]| {
        let addresses = ips(addresses);
        (ObjectName::cluster(name), Node { name: name.to_owned(), addresses, ..Node::default() })
    };
    let nodes =
        [named("here", &["192.0.2.1", "198.51.100.7"]), named("there", &["192.0.2.2", "2001:db8::2"])];
    let d =
        compile(&ClusterState { nodes: nodes.into(), ..ClusterState::default() }, &node(), &mut Ids::new());
    let known =
        d.peers.iter().map(|(block, flags)| (Addr { bytes: block.data.addr }.to_string(), block.len, *flags));
    let known: Vec<_> = known.collect();
    let there = ["192.0.2.2", "2001:db8::2"].map(|ip| (ip.to_owned(), Block::FULL, peer_flags::NODE));
    assert_eq!(known, there);
}

#[test]
fn uplinks_have_an_address_of_each_family() {
    let mut node = node();
    let bare = LocalUplink { name: "wg0".to_owned(), ..LocalUplink::default() };
    node.links.uplinks.insert(5, bare);
    let d = compile(&ClusterState::default(), &node, &mut Ids::new());
    assert_eq!(d.uplinks[&2], d.uplinks[&5], "that of the first uplink");
    let object = Node { name: "here".to_owned(), addresses: ips(&["198.51.100.7"]), ..Node::default() };
    let state =
        ClusterState { nodes: [(ObjectName::cluster("here"), object)].into(), ..ClusterState::default() };
    let d = compile(&state, &node, &mut Ids::new());
    assert_eq!(d.uplinks[&5].v4.to_string(), "198.51.100.7");
    assert_eq!(d.uplinks[&2].node_v4.to_string(), "198.51.100.7", "as others know it");
    assert_eq!(
        (d.uplinks[&5].v6.to_string(), d.uplinks[&2].v4.to_string()),
        ("2001:db8::1".to_owned(), "192.0.2.1".to_owned())
    );
}

#[test]
fn service_cidrs_are_written() {
    let object =
        ServiceCidr { name: "kubernetes".to_owned(), cidrs: vec![net("10.96.0.0/12"), net("fd00::/108")] };
    let service_cidrs = [(ObjectName::cluster("kubernetes"), object)].into();
    let d = compiled(&ClusterState { service_cidrs, ..ClusterState::default() });
    let blocks: Vec<_> = d.service_cidrs.keys().map(|p| (p.data.family, p.len)).collect();
    assert_eq!(blocks, [(4, 32 + 96 + 12), (6, 32 + 108)]);
}
