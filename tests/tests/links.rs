//! The pod link behind an address, by the kernel's own tables: routed and bridged pods, pods that have sent nothing,
//! and pods that claim others' addresses.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "how long things took, for `--nocapture` and for failing tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use lbr_agent::node::links::{LocalLinks, PodAddresses};
use lbr_agent::source::links::{LinkFilter, watch_links};
use lbr_tests::packet::{arp_request, solicitation};
use lbr_tests::probe::send_frames;
use lbr_tests::topology::{Bed, Node, Pod, PodNetwork, PodOptions};
use tokio::sync::watch;

/// The watch of one node's links, and its list of pods.
struct Watch {
    links: watch::Receiver<LocalLinks>,
    pods: watch::Sender<PodAddresses>,
}

impl Watch {
    fn start(node: &Node) -> Self {
        Self::after(node, &[])
    }

    /// Starts after an agent that knew these pods.
    fn after(node: &Node, known: &[&Pod]) -> Self {
        let (pods, known_pods) = watch::channel(names(known));
        let links = node.ns.run(|| watch_links(LinkFilter::default(), known_pods, behind(known))).unwrap();
        Self { links, pods }
    }

    /// Gives the watch the pods' names.
    fn name(&self, pods: &[&Pod]) {
        let _ = self.pods.send(names(pods));
    }

    fn addresses(&self) -> BTreeMap<IpAddr, u32> {
        self.links.borrow().addresses.clone()
    }

    /// Waits until the links satisfy the condition; returns the time that it took.
    fn wait(&self, what: &str, is_right: impl Fn(&LocalLinks) -> bool) -> Duration {
        let start = Instant::now();
        while !is_right(&self.links.borrow()) {
            assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", self.links.borrow());
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = start.elapsed();
        println!("{what}: {took:?}");
        took
    }

    fn wait_for(&self, what: &str, pods: &[&Pod]) -> Duration {
        let expected = behind(pods);
        self.wait(what, |links| links.addresses == expected)
    }
}

/// Pod names by address, as in the API.
fn names(pods: &[&Pod]) -> PodAddresses {
    pods.iter().flat_map(|pod| pod.addresses().map(|addr| (addr, pod.name.clone()))).collect()
}

/// Every pod behind its own link.
fn behind(pods: &[&Pod]) -> BTreeMap<IpAddr, u32> {
    pods.iter().flat_map(|pod| pod.addresses().map(|addr| (addr, pod.ifindex))).collect()
}

fn gateways(node: &Node) -> [IpAddr; 2] {
    let index = u16::from(node.index);
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, index, 0, 0, 0, 1);
    [Ipv4Addr::new(10, 244, node.index, 1).into(), v6.into()]
}

/// A datagram from this address of the pod to the gateway, which makes the pod resolve the gateway first.
fn speak(pod: &Pod, from: IpAddr, gateway: IpAddr) {
    pod.ns
        .run(
            || Ok(UdpSocket::bind(SocketAddr::new(from, 0))?.send_to(b"hello", SocketAddr::new(gateway, 9))?),
        )
        .unwrap();
}

fn speaks(pod: &Pod, node: &Node) {
    for (from, gateway) in pod.addresses().into_iter().zip(gateways(node)) {
        speak(pod, from, gateway);
    }
}

/// A command's output in the node.
fn output(node: &Node, program: &str, args: &[&str]) -> String {
    let output = node.ns.command(program).unwrap().args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the node's neighbour table has this link address for the address.
fn believes(node: &Node, addr: IpAddr, mac: [u8; 6]) -> bool {
    output(node, "ip", &["neigh", "show", &addr.to_string()]).contains(&mac_text(mac))
}

#[test]
fn routed_pods_are_known_by_their_routes() {
    let mut bed = Bed::new("routed").unwrap();
    let node = bed.add_node("a").unwrap();
    let watch = Watch::start(&node);
    let pods = ["one", "two"].map(|name| bed.add_pod(&node, name, PodNetwork::Routed.into()).unwrap());
    watch.wait_for("routes", &[&pods[0], &pods[1]]);
    let own = |links: &LocalLinks| {
        let has_link_local =
            links.node_addresses.iter().any(|addr| *addr == IpAddr::V6("fe80::1".parse().unwrap()));
        let has_loopback = links.node_addresses.iter().any(IpAddr::is_loopback);
        node.addresses().iter().all(|addr| links.node_addresses.contains(addr))
            && has_link_local
            && !has_loopback
    };
    assert!(own(&watch.links.borrow()), "{:?}", watch.links.borrow().node_addresses);
    bed.remove_pod(&pods[0]).unwrap();
    watch.wait_for("one removed", &[&pods[1]]);
    node.ns.ip(["addr add 203.0.113.9/32 dev eth0"]).unwrap();
    watch.wait("own address", |links| links.node_addresses.contains(&"203.0.113.9".parse().unwrap()));
}

#[test]
fn bridged_pods_are_known_when_they_have_spoken() {
    let mut bed = Bed::new("spoken").unwrap();
    let node = bed.add_node("a").unwrap();
    let pods = ["one", "two"].map(|name| bed.add_pod(&node, name, PodNetwork::Bridge.into()).unwrap());
    let watch = Watch::start(&node);
    assert_eq!(watch.addresses(), BTreeMap::new(), "no pod has sent anything");
    speaks(&pods[0], &node);
    watch.wait_for("one speaks", &[&pods[0]]);
    speaks(&pods[1], &node);
    watch.wait_for("two speaks", &[&pods[0], &pods[1]]);
    // Neighbour entries age and are confirmed all the time, which changes nothing.
    let mut links = watch.links.clone();
    links.mark_unchanged();
    for state in ["reachable", "stale", "probe"] {
        node.ns.ip([format!("neigh change {} dev cni0 nud {state}", pods[0].v4)]).unwrap();
        std::thread::sleep(Duration::from_millis(150));
        assert!(!links.has_changed().unwrap(), "{state}");
    }
    // A later watch reads the addresses from the kernel.
    assert_eq!(Watch::start(&node).addresses(), behind(&[&pods[0], &pods[1]]));

    watch.name(&[&pods[0]]);
    node.ns.ip(["neigh flush dev cni0"]).unwrap();
    watch.wait_for("forgotten by the kernel, and only one is a pod's", &[&pods[0]]);
    bed.remove_pod(&pods[0]).unwrap();
    watch.wait("removed", |links| links.addresses.is_empty());
}

#[test]
fn bridged_pods_that_never_spoke_are_asked() {
    let mut bed = Bed::new("silent").unwrap();
    let node = bed.add_node("a").unwrap();
    let pods = ["one", "two"].map(|name| bed.add_pod(&node, name, PodNetwork::Bridge.into()).unwrap());
    let watch = Watch::start(&node);
    watch.name(&[&pods[0]]);
    watch.wait_for("asked", &[&pods[0]]);
    assert_eq!(watch.addresses(), behind(&[&pods[0]]), "only the named pod is asked for");

    // A pod that is named before it can answer is asked for again.
    pods[1].ns.ip(["link set eth0 down"]).unwrap();
    watch.name(&[&pods[0], &pods[1]]);
    eventually("the kernel gives up", || {
        output(&node, "ip", &["neigh", "show", &pods[1].v4.to_string()]).contains("FAILED")
    });
    pods[1].ns.ip(["link set eth0 up", &format!("addr replace {}/64 dev eth0 nodad", pods[1].v6)]).unwrap();
    watch.wait_for("asked again", &[&pods[0], &pods[1]]);
}

#[test]
fn a_pod_that_speaks_for_another_does_not_get_its_address() {
    let mut bed = Bed::new("spoof").unwrap();
    let node = bed.add_node("a").unwrap();
    let [victim, thief, witness] = ["victim", "thief", "witness"]
        .map(|name| bed.add_pod(&node, name, PodNetwork::Bridge.into()).unwrap());
    let watch = Watch::start(&node);
    watch.name(&[&victim]);
    speaks(&thief, &node);
    watch.wait_for("both known", &[&victim, &thief]);
    let [gateway, _] = gateways(&node);
    let IpAddr::V4(gateway) = gateway else { panic!("IPv4 first") };

    // By ARP and neighbour discovery, as the kernel does for an address of its own.
    thief
        .ns
        .ip([
            format!("addr add {}/24 dev eth0", victim.v4),
            format!("addr add {}/64 dev eth0 nodad", victim.v6),
            "neigh flush dev eth0".to_owned(),
        ])
        .unwrap();
    for (addr, gateway) in victim.addresses().into_iter().zip(gateways(&node)) {
        thief.ns.ip(["neigh flush dev eth0"]).unwrap();
        speak(&thief, addr, gateway);
        eventually("the node believes the thief", || believes(&node, addr, thief.mac));
    }
    // The next pod that sends updates the links after all of this.
    speaks(&witness, &node);
    watch.wait_for("the victim's by neighbour tables", &[&victim, &thief, &witness]);

    // With the victim's link address, which moves to the thief in the bridge's table.
    let frame = arp_request(victim.v4, victim.mac, gateway);
    eventually("the bridge believes the thief", || {
        // A frame of the victim, which the node may be asking, moves it back.
        send_frames(&thief.ns, "eth0", &[&frame]).unwrap();
        let table = output(&node, "bridge", &["fdb", "show", "br", "cni0"]);
        table.lines().any(|line| line.contains(&mac_text(victim.mac)) && line.contains(&thief.link))
    });
    assert!(believes(&node, victim.v4.into(), victim.mac), "the neighbour table is right again");
    bed.remove_pod(&witness).unwrap();
    watch.wait_for("the victim's by forwarding table", &[&victim, &thief]);

    // An unsolicited announcement of an address outside of the pod network.
    node.ns.run(|| lbr_tests::netns::sysctl("ipv4/conf/cni0/arp_accept", "1")).unwrap();
    node.ns.run(|| lbr_tests::netns::sysctl("ipv4/conf/cni0/rp_filter", "0")).unwrap();
    let elsewhere = Ipv4Addr::new(172, 18, 0, 77);
    send_frames(&thief.ns, "eth0", &[&arp_request(elsewhere, thief.mac, elsewhere)]).unwrap();
    eventually("the node believes it", || believes(&node, elsewhere.into(), thief.mac));
    let last = bed.add_pod(&node, "last", PodNetwork::Bridge.into()).unwrap();
    speaks(&last, &node);
    watch.wait_for("what is elsewhere stays there", &[&victim, &thief, &last]);

    // Without known pods a watch has only the tables, as for an address whose pod is gone.
    bed.remove_pod(&victim).unwrap();
    thief.ns.ip(["neigh flush dev eth0"]).unwrap();
    speak(&thief, victim.v4.into(), gateway.into());
    watch.wait("an address without a pod", |links| {
        links.addresses.get(&victim.v4.into()) == Some(&thief.ifindex)
    });
}

/// A new agent finds a neighbour table with another pod's claim.
#[test]
fn addresses_known_to_a_former_agent_are_kept() {
    let mut bed = Bed::new("former").unwrap();
    let node = bed.add_node("a").unwrap();
    let [victim, thief] =
        ["victim", "thief"].map(|name| bed.add_pod(&node, name, PodNetwork::Bridge.into()).unwrap());
    claim(&thief, &node, (victim.v4, victim.v6));
    eventually("the node believes the thief", || {
        victim.addresses().iter().all(|addr| believes(&node, *addr, thief.mac))
    });
    assert_eq!(Watch::after(&node, &[&victim]).addresses(), behind(&[&victim]));
    let misled = Watch::start(&node).addresses();
    assert_eq!(misled.get(&victim.v4.into()), Some(&thief.ifindex), "the test itself");
}

/// Addresses of the node's pod network with this host number, which no pod has.
fn free(node: &Node, host: u8) -> (Ipv4Addr, Ipv6Addr) {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, node.index.into(), 0, 0, 1, host.into());
    (Ipv4Addr::new(10, 244, node.index, host), v6)
}

/// One request of each family to the gateway, from these addresses.
fn claim(pod: &Pod, node: &Node, (v4, v6): (Ipv4Addr, Ipv6Addr)) {
    let [IpAddr::V4(gateway4), IpAddr::V6(gateway6)] = gateways(node) else { unreachable!() };
    let arp = arp_request(v4, pod.mac, gateway4);
    let solicitation = solicitation(v6, pod.mac, gateway6, pod.gateway_mac);
    send_frames(&pod.ns, "eth0", &[arp, solicitation]).unwrap();
}

#[test]
fn known_pod_gets_no_second_address() {
    let mut bed = Bed::new("second").unwrap();
    let node = bed.add_node("a").unwrap();
    let [pod, other] =
        ["one", "two"].map(|name| bed.add_pod(&node, name, PodNetwork::Bridge.into()).unwrap());
    let watch = Watch::start(&node);
    watch.name(&[&pod]);
    watch.wait_for("known", &[&pod]);

    let later = (Ipv4Addr::new(10, 244, 1, 77), "fd00:10:244:1::77".parse().unwrap());
    claim(&pod, &node, later);
    eventually("the node believes the pod", || {
        believes(&node, later.0.into(), pod.mac) && believes(&node, later.1.into(), pod.mac)
    });
    // The next pod that sends updates the links after all of this.
    speaks(&other, &node);
    watch.wait_for("its own addresses only", &[&pod, &other]);

    // The pod that gets these addresses is found, although the node's table has another pod at first.
    let options = PodOptions { host: Some(77), ..PodOptions::from(PodNetwork::Bridge) };
    let late = bed.add_pod(&node, "late", options).unwrap();
    watch.name(&[&pod, &late]);
    watch.wait_for("the later pod at its own link", &[&pod, &late, &other]);
}

/// The most addresses of an unknown pod, for each family.
const AT_MOST: usize = 8;

#[test]
fn flood_of_claims_causes_few_updates_and_no_delay() {
    let mut bed = Bed::new("flood").unwrap();
    let node = bed.add_node("a").unwrap();
    let [known, pending, other] = ["known", "pending", "other"]
        .map(|name| bed.add_pod(&node, name, PodNetwork::Bridge.into()).unwrap());
    let watch = Watch::start(&node);
    watch.name(&[&known]);
    watch.wait_for("known", &[&known]);
    let mut links = watch.links.clone();

    // 50 claims a second, each of another address.
    let flood = |from: &Pod, count: u8| {
        for host in 100..100 + count {
            claim(from, &node, free(&node, host));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    links.mark_unchanged();
    flood(&known, 100);
    assert!(believes(&node, free(&node, 150).0.into(), known.mac), "the test itself");
    assert!(!links.has_changed().unwrap(), "{:?}", links.borrow().addresses);

    // A pod that is not known yet gets a few of the addresses, and causes a limited number of updates.
    let mut pictures = 0;
    let took = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&pending, 100));
        std::thread::sleep(Duration::from_millis(1_000));
        speaks(&other, &node);
        let took = watch.wait("another pod, meanwhile", |links| {
            other.addresses().iter().all(|addr| links.addresses.get(addr) == Some(&other.ifindex))
        });
        while !flood.is_finished() {
            pictures += usize::from(links.has_changed().unwrap());
            links.mark_unchanged();
            std::thread::sleep(Duration::from_millis(5));
        }
        took
    });
    let addresses = watch.addresses();
    let of = |pod: &Pod| addresses.values().filter(|link| **link == pod.ifindex).count();
    println!("{pictures} pictures; {} addresses of the pod that floods", of(&pending));
    assert_eq!(of(&pending), 2 * AT_MOST, "{addresses:?}");
    assert!(pictures <= 5, "{pictures} pictures in the last second");
    assert!(took < lbr_tests::patience::millis(500), "another pod was known after {took:?}");
}
