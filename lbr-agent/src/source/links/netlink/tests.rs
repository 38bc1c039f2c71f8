//! Against the real kernel.

use std::process::Command;

use super::*;

/// Two network namespaces, removed after the test.
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

fn no_pods() -> watch::Receiver<PodAddresses> {
    watch::channel(PodAddresses::new()).1
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status().unwrap();
    assert!(status.success(), "ip {command}");
}

/// Waits for a matching picture; returns how long it took.
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
    // Only this thread and the one that it starts change their namespace.
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    let mut links = watch_links(LinkFilter::default(), no_pods(), BTreeMap::new()).unwrap();
    assert_eq!(*links.borrow(), LocalLinks::default());

    let addr: IpAddr = "10.9.0.2".parse().unwrap();
    namespaces.in_host(&format!("link add vethpod type veth peer name eth0 netns {}", namespaces.pod));
    wait_for(&mut links, "link, still down", |l| l.links.values().any(|l| l.name == "vethpod" && l.has_peer));
    namespaces.in_host("link set vethpod up");
    namespaces.in_host("route add 10.9.0.2/32 dev vethpod");
    let took = wait_for(&mut links, "route", |l| l.direct_link(addr).is_some());
    assert!(took < Duration::from_millis(100), "took {took:?}");

    namespaces.in_host("link add br0 type bridge");
    namespaces.in_host("link set vethpod master br0");
    wait_for(&mut links, "bridge", |l| {
        l.links.values().any(|l| l.master.is_some()) && l.direct_link(addr).is_none()
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
