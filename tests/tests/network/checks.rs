//! Checks that leave the Services as they are.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Client, Identity, Protocol, ask_on};

use crate::catalog::{self, CLOSED, EMPTY, MIRROR, MULTI, ONE, TWIN, WEB};
use crate::world::{OTHER_PORT, PORT, World, at, refused_at_once};

/// The client sees the Service, the server sees the client.
pub(crate) fn addresses(world: &mut World) -> Result<()> {
    const BOUND: u16 = 20_000;
    for to in at(WEB, 80) {
        let from = world.client.address(Family::of(to.ip()));
        let seen = |who: &Identity| -> Result<()> {
            let server = world.backends.iter().find(|pod| pod.name == who.name);
            let server = server.with_context(|| format!("{} is no backend", who.name))?;
            ensure!(who.peer.ip() == from, "{to}: the server sees {} as the client", who.peer);
            ensure!(who.local == SocketAddr::new(server.address(Family::of(to.ip())), PORT), "{who}");
            Ok(())
        };
        let stream = world.ask().tcp_stream(to)?;
        ensure!(stream.peer_addr()? == to, "getpeername: {} for {to}", stream.peer_addr()?);
        let who = ask_on(&stream)?;
        seen(&who)?;
        ensure!(who.peer == stream.local_addr()?, "source port of {to}: {}", who.peer);
        seen(&world.ask().udp(to)?)?;
        let (who, shown) = world.ask().udp_unconnected(to)?;
        seen(&who)?;
        ensure!(shown == to, "the answer of {to} came from {shown}");
        let bound = world.ask().from_port(BOUND);
        ensure!(bound.tcp(to)?.peer.port() == BOUND, "the source port was changed without need");
        ensure!(bound.udp(to)?.peer.port() == BOUND, "the source port was changed without need");
    }
    Ok(())
}

/// Chi-square over three backends. 24 is exceeded by chance once in 160,000 times (2 degrees of freedom).
pub(crate) fn spread(world: &mut World) -> Result<()> {
    const REQUESTS: u32 = 600;
    for to in at(WEB, 80) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let counts = world.ask().spread(protocol, to, REQUESTS as usize)?;
            let names: BTreeSet<String> = counts.keys().cloned().collect();
            ensure!(names == world.names(), "{protocol:?} {to}: {counts:?}");
            let mean = f64::from(REQUESTS) / 3.0;
            let square =
                |count: &usize| (f64::from(u32::try_from(*count).unwrap_or(0)) - mean).powi(2) / mean;
            let chi: f64 = counts.values().map(square).sum();
            ensure!(chi < 24.0, "{protocol:?} {to}: chi-square {chi:.1} of {counts:?}");
        }
    }
    Ok(())
}

/// Each port leads to its own target port in each slice.
pub(crate) fn several_ports(world: &mut World) -> Result<()> {
    let [one, two] = [0, 1].map(|i: usize| world.backends[i].name.clone());
    let straight = BTreeSet::from([(one.clone(), PORT), (two.clone(), OTHER_PORT)]);
    let crossed = BTreeSet::from([(one, OTHER_PORT), (two, PORT)]);
    for family in Family::ALL {
        for (port, protocol, wanted) in
            [(80, Protocol::Tcp, &straight), (53, Protocol::Udp, &crossed), (53, Protocol::Tcp, &crossed)]
        {
            let to = at(MULTI, port)[family.index()];
            let client = world.ask();
            let ask = |_| if protocol == Protocol::Tcp { client.tcp(to) } else { client.udp(to) };
            // Forty answers of the same one of two happen once in 2^39.
            let all: Vec<Identity> = (0..40).map(ask).collect::<Result<_>>()?;
            let found: BTreeSet<_> = all.into_iter().map(|who| (who.name, who.local.port())).collect();
            ensure!(found == *wanted, "{protocol:?} {to}: {found:?}");
        }
    }
    Ok(())
}

/// Two ClusterIPs of one family.
pub(crate) fn two_addresses(world: &mut World) -> Result<()> {
    for ip in catalog::two_addresses() {
        let to = SocketAddr::new(ip, 80);
        world.ask().tcp(to)?;
        ensure!(world.ask().udp_unconnected(to)?.1 == to, "answer from elsewhere");
    }
    Ok(())
}

/// A pod reaches itself through its own Service, and sees the Service as its peer.
pub(crate) fn hairpin(world: &mut World) -> Result<()> {
    for to in at(MIRROR, 80) {
        let client = world.ask();
        let (tcp, udp, (datagram, shown)) = (client.tcp(to)?, client.udp(to)?, client.udp_unconnected(to)?);
        ensure!(shown == to, "the answer of {to} came from {shown}");
        for who in [tcp, udp, datagram] {
            ensure!(who.name == world.client.name, "{to} led to {}", who.name);
            ensure!(who.peer.ip() == to.ip(), "{to}: the pod sees {} as the client", who.peer);
        }
        client.tcp_bulk(to, 1 << 20)?;
        client.udp_echo(to, 2_000)?;
        client.udp_echo(to, 60_000)?;
    }
    Ok(())
}

/// No endpoints, and ports that the Service does not have.
pub(crate) fn refused(world: &mut World) -> Result<()> {
    let client = world.ask();
    for to in at(EMPTY, 80).into_iter().chain(at(WEB, 81)).chain(at(EMPTY, 81)) {
        refused_at_once(&format!("{to}/TCP"), || client.tcp(to))?;
        refused_at_once(&format!("{to}/UDP"), || client.udp(to))?;
    }
    // The port exists with the other protocol only.
    for to in at(MULTI, 80) {
        refused_at_once(&format!("{to}/UDP"), || client.udp(to))?;
    }
    not_for_the_node(world)
}

/// Without socket programs, the node's own processes do not reach Services.
fn not_for_the_node(world: &World) -> Result<()> {
    if world.plan.agent.sockets {
        return Ok(());
    }
    let node = Client::new(&world.node.ns).timeout(std::time::Duration::from_millis(200));
    ensure!(node.tcp(at(WEB, 80)[0]).is_err(), "a process of the node was translated");
    Ok(())
}

/// The backend's "port unreachable" reaches the client as an error about the Service.
pub(crate) fn port_unreachable(world: &mut World) -> Result<()> {
    let client = world.ask();
    for to in at(CLOSED, 80) {
        refused_at_once(&format!("{to}/UDP"), || client.udp(to))?;
        refused_at_once(&format!("{to}/TCP"), || client.tcp(to))?;
    }
    Ok(())
}

/// Datagrams of two fragments and of many.
pub(crate) fn fragments(world: &mut World) -> Result<()> {
    for to in at(ONE, 80).into_iter().chain(at(WEB, 80)) {
        for len in [2_000, 60_000] {
            world.ask().udp_echo(to, len)?;
        }
    }
    Ok(())
}

/// One source port, two Services, one backend: both conversations go on in parallel.
pub(crate) fn one_port_two_services(world: &mut World) -> Result<()> {
    for (this, that) in at(ONE, 80).into_iter().zip(at(TWIN, 80)) {
        let client = world.ask().from_port(20_002);
        let (one, two) = (client.tcp_stream(this)?, client.tcp_stream(that)?);
        ensure!(one.local_addr()? == two.local_addr()?, "the test itself: one source port");
        for _ in 0..3 {
            let (a, b) = (ask_on(&one)?, ask_on(&two)?);
            ensure!((&a.name, a.local) == (&b.name, b.local), "the test itself: one backend");
            ensure!(a.peer != b.peer, "the backend sees {} and {} as the same client", a.peer, b.peer);
        }
        datagrams_to_both(&client, this, that)?;
    }
    Ok(())
}

/// One source port, a Service, and then its endpoint's own address: both conversations go on in parallel.
pub(crate) fn one_port_service_and_endpoint(world: &mut World) -> Result<()> {
    for service in at(ONE, 80) {
        let endpoint = world.ask().tcp(service)?.local;
        for (port, [first, second]) in [(20_003, [service, endpoint]), (20_004, [endpoint, service])] {
            let client = world.ask().from_port(port);
            let (one, two) = (client.tcp_stream(first)?, client.tcp_stream(second)?);
            for _ in 0..3 {
                let (a, b) = (ask_on(&one)?, ask_on(&two)?);
                ensure!((&a.name, a.local) == (&b.name, b.local), "the test itself: one backend");
                ensure!(a.peer != b.peer, "the backend sees {} and {} as the same client", a.peer, b.peer);
            }
            datagrams_to_both(&client, first, second)?;
        }
    }
    Ok(())
}

fn datagrams_to_both(client: &Client, this: SocketAddr, that: SocketAddr) -> Result<()> {
    let socket = client.udp_socket(Family::of(this.ip()))?;
    for number in 0..5 {
        let sent = BTreeSet::from([(this, format!("this {number}")), (that, format!("that {number}"))]);
        for (to, text) in &sent {
            socket.send_to(text.as_bytes(), to)?;
        }
        let mut got = BTreeSet::new();
        for _ in &sent {
            let mut buffer = [0; 64];
            let (len, from) = socket.recv_from(&mut buffer).context("one of two answers")?;
            got.insert((from, String::from_utf8_lossy(&buffer[..len]).into_owned()));
        }
        ensure!(got == sent, "sent {sent:?}, got {got:?}");
    }
    Ok(())
}
