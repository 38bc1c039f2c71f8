//! Messages as the kernel sends them, and the kernel itself.

use std::process::Command;

use rtnetlink::packet_route::route::RouteNextHop;

use super::*;

#[test]
fn links_are_read() {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.attributes = vec![
        LinkAttribute::IfName("veth7".into()),
        LinkAttribute::Controller(3),
        LinkAttribute::LinkNetNsId(0),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];
    let expected =
        LinkFact { index: 7, name: "veth7".into(), is_pair: true, peer_is_elsewhere: true, has_master: true };
    assert_eq!(link_fact(&message), expected);
    message.attributes = vec![
        LinkAttribute::IfName("br0".into()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    let fact = link_fact(&message);
    assert_eq!((fact.is_pair, fact.peer_is_elsewhere, fact.has_master), (false, false, false));
}

#[test]
fn routes_are_read() {
    let to = RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 5)));
    let gateway = RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1)));
    let oif = RouteAttribute::Oif(5);
    let mut hop = RouteNextHop::default();
    hop.interface_index = 2;
    hop.attributes = vec![gateway.clone()];
    for (what, table, kind, attributes, expected) in [
        ("direct", 254, RouteType::Unicast, vec![to.clone(), oif.clone()], Some((0, Way::Direct(5)))),
        (
            "metric",
            254,
            RouteType::Unicast,
            vec![to.clone(), oif.clone(), RouteAttribute::Priority(9)],
            Some((9, Way::Direct(5))),
        ),
        (
            "gateway",
            254,
            RouteType::Unicast,
            vec![to.clone(), gateway, oif.clone()],
            Some((0, Way::Gateways(vec![5]))),
        ),
        (
            "several gateways",
            254,
            RouteType::Unicast,
            vec![to.clone(), RouteAttribute::MultiPath(vec![hop])],
            Some((0, Way::Gateways(vec![2]))),
        ),
        ("blackhole", 254, RouteType::BlackHole, vec![to.clone()], Some((0, Way::Other))),
        ("local", 255, RouteType::Local, vec![to.clone(), oif.clone()], None),
        (
            "other table",
            252,
            RouteType::Unicast,
            vec![to.clone(), oif.clone(), RouteAttribute::Table(1000)],
            None,
        ),
        ("broadcast", 254, RouteType::Broadcast, vec![to, oif], None),
    ] {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        (message.header.table, message.header.kind) = (table, kind);
        message.attributes = attributes;
        let fact = route_fact(&message);
        if let Some(fact) = &fact {
            assert_eq!(fact.destination.to_string(), "10.0.0.5/32", "{what}");
        }
        assert_eq!(fact.map(|f| (f.metric, f.way)), expected, "{what}");
    }
    let mut default = RouteMessage::default();
    default.header.address_family = AddressFamily::Inet6;
    (default.header.table, default.header.kind) = (254, RouteType::Unicast);
    default.attributes = vec![RouteAttribute::Oif(2)];
    assert_eq!(route_fact(&default).map(|f| f.destination.to_string()), Some("::/0".to_owned()));
    default.header.destination_prefix_length = 64;
    default.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6("fe80::".parse().unwrap())));
    assert_eq!(route_fact(&default), None);
}

/// Two network namespaces that go with the test.
struct Namespaces {
    host: String,
    pod: String,
}

impl Namespaces {
    fn new() -> Self {
        let id = std::process::id();
        let namespaces = Self { host: format!("lbr-links-host-{id}"), pod: format!("lbr-links-pod-{id}") };
        ip(&format!("netns add {}", namespaces.host));
        ip(&format!("netns add {}", namespaces.pod));
        namespaces
    }

    fn in_host(&self, command: &str) {
        ip(&format!("-n {} {command}", self.host));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.host, &self.pod] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status().unwrap();
    assert!(status.success(), "ip {command}");
}

/// Waits for a picture that satisfies; returns how long it took.
fn wait_for(
    links: &mut watch::Receiver<LocalLinks>,
    what: &str,
    is_right: impl Fn(&LocalLinks) -> bool,
) -> Duration {
    let start = std::time::Instant::now();
    while !is_right(&links.borrow_and_update()) {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", links.borrow());
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

#[test]
#[ignore = "needs root"]
fn a_pod_that_is_plugged_in_is_seen() {
    let namespaces = Namespaces::new();
    let file = std::fs::File::open(format!("/run/netns/{}", namespaces.host)).unwrap();
    // Only this thread changes over, and the one that it starts.
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let mut links = watch_links(LinkFilter::default()).unwrap();
    assert_eq!(*links.borrow(), LocalLinks::default());

    let addr: IpAddr = "10.9.0.2".parse().unwrap();
    namespaces.in_host(&format!("link add vethpod type veth peer name eth0 netns {}", namespaces.pod));
    wait_for(&mut links, "link, still down", |l| l.links.values().any(|l| l.name == "vethpod" && l.is_veth));
    namespaces.in_host("link set vethpod up");
    namespaces.in_host("route add 10.9.0.2/32 dev vethpod");
    let took = wait_for(&mut links, "route", |l| l.direct_link(addr).is_some());
    assert!(took < Duration::from_millis(100), "took {took:?}");

    namespaces.in_host("link add br0 type bridge");
    namespaces.in_host("link set vethpod master br0");
    wait_for(&mut links, "bridge", |l| {
        l.links.values().any(|l| l.has_master) && l.direct_link(addr).is_none()
    });
    namespaces.in_host("link del vethpod");
    wait_for(&mut links, "gone", |l| l.links.is_empty() && l.direct_link(addr).is_none());

    namespaces.in_host(&format!("link add vethup type veth peer name eth1 netns {}", namespaces.pod));
    wait_for(&mut links, "uplink before its route", |l| l.links.len() == 1);
    namespaces.in_host("addr add 192.0.2.2/24 dev vethup");
    namespaces.in_host("link set vethup up");
    namespaces.in_host("route add default via 192.0.2.1");
    wait_for(&mut links, "uplink", |l| l.links.is_empty());
}
