//! The bed itself, without lbr: what other tests rely on.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use lbr_tests::netns;
use lbr_tests::probe::{Capture, Client, LongLived, Protocol, Server, is_refused, send_frames};
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
            assert_eq!(answer.peer.ip(), from.address(address.is_ipv6()), "source kept");
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

/// Every pod to every pod: the same node and another one, routed and bridged, both families.
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
    assert_eq!(again.v4, second.v4, "the lowest free address is given out");
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

/// Names of everything that a bed may leave behind.
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

/// A bed with everything, and how its names begin.
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
