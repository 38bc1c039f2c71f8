//! Packets that an uplink drops or refuses, and the answers to them: one node is asked, the backend is on another.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lbr_agent::dataplane::Pinned;
use lbr_common::addr::Family;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::manifests::{Endpoint, EndpointSlice, Service, join};
use lbr_tests::packet::{Packet, Parsed, Transport, flags};
use lbr_tests::probe::{Capture, Client, Server, is_refused, send_frames};
use lbr_tests::topology::{Bed, BedOptions, Host, Node, PodNetwork, Underlay};

use crate::world::{PORT, patience, until};

/// A node port of the pod on the other node.
const NODE_PORT: u16 = 30_080;
/// A node port of another port of that pod.
const OTHER_NODE_PORT: u16 = 30_081;
/// A node port of an address behind a blackhole route.
const NOWHERE: u16 = 30_082;
/// MAC address of `eth0` of the node that is asked.
const MAC: [u8; 6] = [2, 0x42, 0xac, 0x12, 0, 1];
/// Number of SNAT ports.
const SNAT_PORTS: usize = 8;

/// Fields are dropped in this order, so processes end before their namespaces.
struct Rig {
    agent: Agent,
    _servers: [Server; 2],
    outside: Host,
    node: Node,
    bed: Bed,
}

impl Rig {
    fn start(name: &str, underlay: Underlay) -> Result<Self> {
        let masquerade = underlay == Underlay::Vxlan;
        let mut bed = Bed::with(name, BedOptions { underlay, masquerade, ..BedOptions::default() })?;
        let node = bed.add_node("asked")?;
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        node.ns.ip([
            format!("link set eth0 address {mac}"),
            "route add blackhole 10.99.0.0/16".to_owned(),
            "route add blackhole fd00:99::/64".to_owned(),
        ])?;
        let other = bed.add_node("other")?;
        let pod = bed.add_pod(&other, "p", PodNetwork::Routed.into())?;
        let serve = |port| Server::start(&pod.ns, "p", &pod.addresses(), port);
        let servers = [serve(PORT)?, serve(PORT + 1)?];
        let outside = bed.add_client("outside")?;
        let ports = format!("--snat-ports=61000-{}", 60_999 + SNAT_PORTS);
        let options = AgentOptions { arguments: vec![ports], ..AgentOptions::default() };
        let files = [("web.yaml", services(pod.addresses()))];
        let agent = Agent::start_with(&mut bed, &node, &options, &files)?;
        let rig = Self { agent, _servers: servers, outside, node, bed };
        for to in rig.at(NODE_PORT) {
            until(patience(), || rig.client().tcp(to).map(drop))?;
        }
        Ok(rig)
    }

    fn client(&self) -> Client {
        Client::new(&self.outside.ns)
    }

    fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.node.addresses().map(|address| SocketAddr::new(address, port))
    }

    fn count(&self, verdict: Verdict) -> Result<u64> {
        let counts = Pinned::open(self.agent.bpffs())?.counters()?;
        let of =
            |count: &&lbr_agent::dataplane::Count| (count.hook, count.verdict) == (Hook::FromNetdev, verdict);
        Ok(counts.iter().find(of).map_or(0, |count| count.counter.packets))
    }

    /// A datagram of each family is answered with an ICMP error and counted.
    fn is_answered(&self, verdict: Verdict, ttl: i32, is_error: impl Fn(&Transport) -> bool) -> Result<()> {
        for to in self.at(NODE_PORT) {
            let before = self.count(verdict)?;
            let capture = Capture::start(&self.outside.ns, "eth0")?;
            let socket = self.client().udp_socket(Family::of(to.ip()))?;
            set(&socket, Family::of(to.ip()), [libc::IP_TTL, libc::IPV6_UNICAST_HOPS], ttl)?;
            socket.send_to(b"who", to)?;
            let is_wanted = |packet: Parsed| packet.src.ip() == to.ip() && is_error(&packet.transport);
            capture
                .wait(patience(), |frame| Parsed::frame(&frame.bytes).is_ok_and(is_wanted))
                .with_context(|| format!("{to}: {verdict:?}"))?;
            ensure!(self.count(verdict)? == before + 1, "{to}: {verdict:?} is not counted");
        }
        Ok(())
    }
}

fn services(pod: [IpAddr; 2]) -> String {
    let nowhere: [IpAddr; 2] = ["10.99.0.1".parse().unwrap(), "fd00:99::1".parse().unwrap()];
    let of = |(name, last, number, target, addresses): (&str, u8, u16, u16, [IpAddr; 2])| {
        let cluster_ips =
            [format!("10.96.0.{last}"), format!("fd00:10:96::{last}")].map(|ip| ip.parse().unwrap());
        let service = Service::new(name, &cluster_ips).spec("type: NodePort");
        let service = service.port("tcp", "TCP", 80, target).node_port(number);
        let service = service.port("udp", "UDP", 80, target).node_port(number);
        let slices = addresses.map(|address| {
            let family = if address.is_ipv6() { "v6" } else { "v4" };
            let slice = EndpointSlice::new(&format!("{name}-{family}"), name, Family::of(address));
            let slice = slice.port("tcp", "TCP", target).port("udp", "UDP", target);
            slice.endpoint(Endpoint::new(address).node("other")).yaml()
        });
        join([service.yaml()].into_iter().chain(slices))
    };
    join(
        [
            ("web", 10, NODE_PORT, PORT, pod),
            ("twin", 11, OTHER_NODE_PORT, PORT + 1, pod),
            ("nowhere", 12, NOWHERE, PORT, nowhere),
        ]
        .map(of),
    )
}

/// Sets an option of IPv4 or IPv6.
fn set(socket: &UdpSocket, family: Family, options: [libc::c_int; 2], value: libc::c_int) -> Result<()> {
    let level = if family.is_v6() { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
    let option = options[family.index()];
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
    // SAFETY: the pointer and length are of a live integer.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    ensure!(done == 0, "option {option} of a socket: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Each backend has as many clients as there are SNAT ports. The next client is refused at once, and is served after
/// another one has left.
#[test]
fn ports_of_the_node_run_out_and_come_back() {
    let rig = Rig::start("we", Underlay::Routed).unwrap();
    for (to, other) in rig.at(NODE_PORT).into_iter().zip(rig.at(OTHER_NODE_PORT)) {
        // The connections of the start have ended.
        let connect = || rig.client().timeout(Duration::from_secs(2)).tcp_stream(to);
        let mut open = Vec::new();
        for number in 0..SNAT_PORTS {
            open.push(connect().with_context(|| format!("connection {number} to {to}")).unwrap());
        }
        let before = rig.count(Verdict::SnatExhausted).unwrap();
        let error = connect().expect_err("more connections than ports");
        assert!(is_refused(&error), "{to}: not refused at once: {error:#}");
        assert_eq!(rig.count(Verdict::SnatExhausted).unwrap(), before + 1);
        rig.client().tcp(other).expect("another backend has ports of its own");
        // Both sides close.
        let mut last = open.pop().unwrap();
        last.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(last.read(&mut [0; 16]).unwrap(), 0, "the server hangs up");
        drop(last);
        until(patience(), || connect().map(drop)).unwrap();
        // The open connections are not affected.
        for mut stream in open {
            writeln!(stream, "who").unwrap();
            assert!(stream.read(&mut [0; 256]).unwrap() > 0, "{to}");
        }
    }
}

/// A packet from a source that cannot be answered is dropped.
#[test]
fn martian_sources_are_dropped() {
    let rig = Rig::start("wm", Underlay::Routed).unwrap();
    let [v4, v6] = rig.at(NODE_PORT);
    let up = format!("up{}", rig.node.index);
    for (source, to) in [
        ("127.0.0.1", v4),
        ("127.9.9.9", v4),
        ("0.0.0.0", v4),
        ("224.0.0.1", v4),
        ("255.255.255.255", v4),
        ("::1", v6),
        ("::", v6),
        ("ff02::1", v6),
    ] {
        let from = SocketAddr::new(source.parse().unwrap(), 4000);
        let before = rig.count(Verdict::Martian).unwrap();
        let syn = Packet::tcp(from, to, flags::SYN).macs([2, 0, 0, 0, 0, 9], MAC).build();
        send_frames(rig.bed.fabric(), &up, &[syn]).unwrap();
        until(patience(), || {
            let now = rig.count(Verdict::Martian)?;
            if now == before + 1 { Ok(()) } else { bail!("{source}: {before} before, {now} now") }
        })
        .unwrap();
    }
}

/// The fabric uses one hop.
#[test]
fn expired_hop_limit_is_answered_with_time_exceeded() {
    let rig = Rig::start("wh", Underlay::Routed).unwrap();
    let is_time_exceeded = |error: &Transport| {
        matches!(
            error,
            Transport::IcmpError { kind: 11, code: 0, .. }
                | Transport::IcmpError { kind: 3, code: 0, rest: 0, .. }
        )
    };
    rig.is_answered(Verdict::HopLimit, 2, is_time_exceeded).unwrap();
}

#[test]
fn a_backend_without_a_route_is_counted() {
    let rig = Rig::start("wr", Underlay::Routed).unwrap();
    for to in rig.at(NOWHERE) {
        let before = rig.count(Verdict::NoRoute).unwrap();
        rig.client().timeout(Duration::from_millis(300)).udp(to).expect_err("the backend does not exist");
        assert!(rig.count(Verdict::NoRoute).unwrap() > before, "{to}");
    }
}

/// The path to the backend has a smaller MTU than the path to the node.
#[test]
fn datagram_too_big_for_the_tunnel_is_answered_with_its_mtu() {
    let rig = Rig::start("wt", Underlay::Vxlan).unwrap();
    let mtu = rig.bed.options().pod_mtu();
    for to in rig.at(NODE_PORT) {
        let before = rig.count(Verdict::TooBig).unwrap();
        let socket = rig.client().udp_socket(Family::of(to.ip())).unwrap();
        socket.connect(to).unwrap();
        let headers = if to.is_ipv6() { 48 } else { 28 };
        let (fits, too_big) = (vec![7; mtu as usize - headers], vec![7; mtu as usize - headers + 1]);
        // `PMTUDISC_DO` is the same number in both.
        let options = [libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER];
        set(&socket, Family::of(to.ip()), options, libc::IP_PMTUDISC_DO).unwrap();
        socket.send(&too_big).unwrap();
        until(patience(), || match socket.send(&too_big) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(()),
            other => bail!("{to}: {other:?}"),
        })
        .unwrap();
        assert!(rig.count(Verdict::TooBig).unwrap() > before, "{to}: not counted");
        // A datagram of the reported MTU passes, once the socket's pending errors are read.
        socket.set_read_timeout(Some(patience())).unwrap();
        let mut back = [0; 2048];
        until(patience(), || {
            socket.send(&fits)?;
            Ok(())
        })
        .unwrap();
        assert_eq!(socket.recv(&mut back).unwrap(), fits.len(), "{to}");
    }
}
