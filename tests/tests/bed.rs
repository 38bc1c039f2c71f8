//! The bed itself, without lbr: the foundation of other tests.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use lbr_common::addr::Family;
use lbr_tests::netns::{self, Netns};
use lbr_tests::probe::{Capture, Client, LongLived, Protocol, Server, is_refused, is_timeout, send_frames};
use lbr_tests::topology::{Bed, BedOptions, Pod, PodNetwork, PodOptions, Underlay};

const PORT: u16 = 8080;

fn ping(from: &Pod, to: &Pod) {
    for address in to.addresses() {
        let answered = Client::new(&from.ns).ping(address);
        answered.unwrap_or_else(|e| panic!("{} to {}: {e:#}", from.name, to.name));
    }
}

fn talk(from: &Pod, to: &Pod) {
    for address in to.addresses() {
        let target = SocketAddr::new(address, PORT);
        let client = Client::new(&from.ns);
        let (tcp, udp) = (client.tcp(target).unwrap(), client.udp(target).unwrap());
        for answer in [tcp, udp] {
            assert_eq!(answer.name, to.name);
            assert_eq!(answer.peer.ip(), from.address(Family::of(address)), "the source is kept");
            assert_eq!(answer.local, target);
        }
        let (answer, source) = client.udp_unconnected(target).unwrap();
        assert_eq!((answer.name, source), (to.name.clone(), target));
        client.udp_echo(target, 2_000).unwrap();
        client.udp_echo(target, 60_000).unwrap();
        client.tcp_bulk(target, 1 << 18).unwrap();
        let bound = client.from_port(40_000).tcp(target).unwrap();
        assert_eq!(bound.peer.port(), 40_000);
    }
}

/// Every pod reaches every pod: on the same node and on another one, routed and bridged, with both families.
fn everyone_talks(underlay: Underlay) {
    let mut bed = Bed::with("talk", BedOptions { underlay, ..BedOptions::default() }).unwrap();
    let mut pods = Vec::new();
    for (name, network) in [
        ("r1", PodNetwork::Routed),
        ("r2", PodNetwork::Routed),
        ("b1", PodNetwork::Bridge),
        ("b2", PodNetwork::Bridge),
    ] {
        let node = bed.add_node(name).unwrap();
        pods.push(bed.add_pod(&node, &format!("{name}-x"), network.into()).unwrap());
        pods.push(bed.add_pod(&node, &format!("{name}-y"), network.into()).unwrap());
    }
    let _servers: Vec<Server> = pods.iter().map(|pod| Server::pod(pod, PORT).unwrap()).collect();
    for from in &pods {
        for to in &pods {
            ping(from, to);
            talk(from, to);
        }
    }
}

#[test]
fn routed_nodes() {
    everyone_talks(Underlay::Routed);
}

#[test]
fn vxlan_nodes() {
    everyone_talks(Underlay::Vxlan);
}

/// Three nodes and a client: which of them reach each other, and under which source address.
fn everyone_outside(underlay: Underlay, masquerade: bool) {
    let options = BedOptions { underlay, masquerade, ..BedOptions::default() };
    let mut bed = Bed::with("outside", options).unwrap();
    let nodes = ["n1", "n2", "n3"].map(|name| bed.add_node(name).unwrap());
    let [first, last] =
        [0, 2].map(|n| bed.add_pod(&nodes[n], &format!("p{n}"), PodOptions::default()).unwrap());
    let (outside, other) = (bed.add_client("outside").unwrap(), bed.add_client("other").unwrap());
    let _servers = [Server::pod(&first, PORT).unwrap(), Server::pod(&last, PORT).unwrap()];
    let _client = Server::start(&outside.ns, "outside", &outside.addresses(), PORT).unwrap();
    let _nodes: Vec<Server> = nodes
        .iter()
        .map(|node| Server::start(&node.ns, &node.name, &node.addresses(), PORT).unwrap())
        .collect();
    let ask = |from: &Netns, name: &str, to, source| {
        let (client, to) = (Client::new(from), SocketAddr::new(to, PORT));
        for answer in [client.tcp(to).unwrap(), client.udp(to).unwrap()] {
            assert_eq!((answer.name.as_str(), answer.peer.ip()), (name, source), "{from:?} to {to}");
        }
    };
    for family in Family::ALL {
        for node in &nodes {
            ask(&outside.ns, &node.name, node.address(family), outside.address(family));
            ask(&node.ns, "outside", outside.address(family), node.address(family));
        }
        ask(&other.ns, "outside", outside.address(family), other.address(family));
        // Between pods, addresses stay as they are.
        ask(&first.ns, &last.name, last.address(family), first.address(family));
        ask(&last.ns, &first.name, first.address(family), last.address(family));
        for (from, to) in [(&outside.ns, nodes[2].address(family)), (&first.ns, last.address(family))] {
            Client::new(from).udp_echo(SocketAddr::new(to, PORT), 2_000).unwrap();
        }
        let source = if underlay == Underlay::Vxlan {
            nodes[0].tunnel_addresses()[family.index()]
        } else {
            nodes[0].address(family)
        };
        ask(&nodes[0].ns, &last.name, last.address(family), source);
        if masquerade {
            ask(&first.ns, "outside", outside.address(family), nodes[0].address(family));
            ask(&first.ns, "n3", nodes[2].address(family), nodes[0].address(family));
        }
    }
}

#[test]
fn outside_of_routed_nodes() {
    everyone_outside(Underlay::Routed, false);
    everyone_outside(Underlay::Routed, true);
}

#[test]
fn outside_of_vxlan_nodes() {
    everyone_outside(Underlay::Vxlan, true);
}

#[test]
fn addresses_of_services_lead_to_the_node_that_is_named() {
    let mut bed = Bed::new("vip").unwrap();
    let nodes = ["n1", "n2"].map(|name| bed.add_node(name).unwrap());
    let outside = bed.add_client("outside").unwrap();
    let vips: [IpAddr; 2] = ["203.0.113.10".parse().unwrap(), "2001:db8:113::10".parse().unwrap()];
    let servers = nodes.each_ref().map(|node| {
        node.ns
            .ip([format!("addr add {} dev lo", vips[0]), format!("addr add {} dev lo nodad", vips[1])])
            .unwrap();
        Server::start(&node.ns, &node.name, &vips, PORT).unwrap()
    });
    let client = Client::new(&outside.ns);
    for vip in vips {
        let to = SocketAddr::new(vip, PORT);
        let lost = client.clone().timeout(Duration::from_millis(200)).tcp(to).unwrap_err();
        assert!(is_timeout(&lost), "no node answers for the address: {lost:#}");
        for node in nodes.iter().chain([&nodes[0]]) {
            bed.route_vip(vip, node).unwrap();
            assert_eq!(client.tcp(to).unwrap().name, node.name);
        }
    }
    drop(servers);
}

#[test]
fn pods_come_and_go() {
    let mut bed = Bed::new("hotplug").unwrap();
    let node = bed.add_node("a").unwrap();
    let first = bed.add_pod(&node, "first", PodOptions::default()).unwrap();
    let begin = Instant::now();
    let second =
        bed.add_pod(&node, "second", PodOptions { mtu: Some(1400), ..PodOptions::default() }).unwrap();
    println!("a pod takes {:?}", begin.elapsed());
    ping(&first, &second);
    let target = SocketAddr::new(second.v4.into(), PORT);
    let refused = Client::new(&first.ns).tcp(target).unwrap_err();
    assert!(is_refused(&refused), "{refused:#}");
    bed.remove_pod(&second).unwrap();
    assert!(node.ns.ifindex(&second.link).is_err());
    let bridged = bed.add_pod(&node, "third", PodNetwork::Bridge.into()).unwrap_err();
    assert!(format!("{bridged:#}").contains("one kind"), "{bridged:#}");
    let again = bed.add_pod(&node, "second", PodOptions::default()).unwrap();
    assert_eq!(again.v4, second.v4, "the pod gets the lowest free address");
    ping(&first, &again);
}

#[test]
fn probes_count() {
    let mut bed = Bed::new("probes").unwrap();
    let node = bed.add_node("a").unwrap();
    let client = bed.add_pod(&node, "client", PodOptions::default()).unwrap();
    let pod = bed.add_pod(&node, "server", PodOptions::default()).unwrap();
    let server = Server::pod(&pod, PORT).unwrap();
    let target = SocketAddr::new(pod.v6.into(), PORT);
    let asks = Client::new(&client.ns);
    let long = LongLived::start(&asks, target, Duration::from_millis(1), Duration::from_millis(500)).unwrap();
    let spread = asks.spread(Protocol::Tcp, target, 50).unwrap();
    assert_eq!(spread.into_iter().collect::<Vec<_>>(), [("server".to_owned(), 50)]);
    let report = long.stop().unwrap();
    assert!(report.answers > 0 && report.error.is_none(), "{report:?}");
    assert!(server.served() > 50);
}

#[test]
fn frames_are_sent_and_captured() {
    let mut bed = Bed::new("frames").unwrap();
    let node = bed.add_node("a").unwrap();
    let pod = bed.add_pod(&node, "one", PodOptions::default()).unwrap();
    let capture = Capture::start(&node.ns, &pod.link).unwrap();
    // EtherType 0x88b5: for local experiments (IEEE 802).
    let mut frame = [pod.gateway_mac, pod.mac].concat();
    frame.extend([0x88, 0xb5, 1, 2, 3]);
    send_frames(&pod.ns, "eth0", &[&frame]).unwrap();
    let got = capture.wait(Duration::from_secs(1), |f| f.bytes == frame).unwrap();
    assert!(!got.outgoing);
}

/// Names of everything that a bed could leave behind.
fn traces(prefix: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found: Vec<String> =
        mounts.lines().filter(|line| line.contains(prefix)).map(str::to_owned).collect();
    for folder in [netns::FOLDER.into(), std::env::temp_dir()] {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let names = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
        found.extend(names.map(|e| e.path().display().to_string()));
    }
    found
}

/// A bed with everything, and the prefix of its names.
fn furnished() -> (Bed, String) {
    let mut bed = Bed::new("gone").unwrap();
    let node = bed.add_node("a").unwrap();
    let pod = bed.add_pod(&node, "one", PodOptions::default()).unwrap();
    let cgroup = bed.cgroup().unwrap();
    let pinned = bed.bpffs().unwrap().join("folder");
    fs::create_dir(pinned).unwrap();
    fs::write(bed.folder().join("file"), "").unwrap();
    Client::new(&node.ns).cgroup(&cgroup).inside(|| Ok(())).unwrap();
    let mut sleeper = Command::new("sleep");
    sleeper.arg("100");
    cgroup.place(&mut sleeper).unwrap();
    let mut child = pod.ns.spawn_in(sleeper).unwrap();
    let inside = fs::read_to_string(cgroup.path().join("cgroup.threads")).unwrap();
    assert!(inside.lines().any(|line| line == child.id().to_string()), "{inside:?}");
    assert!(child.try_wait().unwrap().is_none());
    let prefix = bed.prefix().to_owned();
    assert!(traces(&prefix).len() >= 6, "{:?}", traces(&prefix));
    (bed, prefix)
}

#[test]
fn nothing_is_left_after_drop() {
    let (bed, prefix) = furnished();
    drop(bed);
    assert_eq!(traces(&prefix), Vec::<String>::new());
}

#[test]
fn nothing_is_left_after_a_panic() {
    let mut name = String::new();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let (_bed, prefix) = furnished();
        name = prefix;
        panic!("expected by this test");
    }));
    assert!(result.is_err());
    assert!(!name.is_empty());
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[test]
fn errors_of_ip_name_the_line() -> Result<()> {
    let mut bed = Bed::new("errors")?;
    let ns = bed.namespace("empty")?;
    let error = format!("{:#}", ns.ip(["link set nothing up"]).unwrap_err());
    assert!(error.contains("link set nothing up"), "{error}");
    Ok(())
}
