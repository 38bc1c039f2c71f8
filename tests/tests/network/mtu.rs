//! Path MTU discovery through a Service: errors of routers reach the client as errors about the Service.

use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_tests::topology::{PodNetwork, Underlay};

use crate::bulk;
use crate::catalog::{ONE, TWIN, simple};
use crate::world::{OTHER_PORT, PORT, Place, Plan, World, at, run, until};

const BULK: u64 = 20 << 20;

fn files(world: &World) -> Vec<(&'static str, String)> {
    let one = world.first(1);
    vec![
        ("one.yaml", simple("one", ONE, &one, PORT)),
        ("bulk.yaml", simple("twin", TWIN, &one, bulk::PORT)),
        ("other.yaml", simple("other", 20, &one, OTHER_PORT)),
    ]
}

fn both_ways(world: &mut World) -> Result<()> {
    for to in at(TWIN, 80) {
        bulk::both_ways(&world.client, &world.backends[0], to, BULK)?;
    }
    Ok(())
}

/// Pods that assume a path MTU of 1500 bytes, and a tunnel with 1450.
fn tunnel(name: &str, network: PodNetwork) {
    let plan =
        Plan { pod_mtu: Some(1500), backends: 1, ..Plan::new(network, Place::OtherNode(Underlay::Vxlan)) };
    let mut world = World::start(name, plan, files).unwrap();
    run(
        &mut world,
        &[
            ("datagrams learn the MTU", |world| clients_learn_the_mtu(world, 1450)),
            ("bulk both ways", both_ways),
            ("fragments", |world| {
                at(ONE, 80).into_iter().try_for_each(|to| world.ask().udp_echo(to, 60_000))
            }),
        ],
    );
}

#[test]
fn routed_pods_over_a_tunnel() {
    tunnel("mt", PodNetwork::Routed);
}

#[test]
fn bridged_pods_over_a_tunnel() {
    tunnel("mb", PodNetwork::Bridge);
}

/// A router on the way has an MTU of 1300 bytes.
#[test]
fn a_narrow_router() {
    let plan = Plan { backends: 1, ..Plan::new(PodNetwork::Routed, Place::OtherNode(Underlay::Routed)) };
    let mut world = World::start("mr", plan, files).unwrap();
    narrow(&world, 1300).unwrap();
    run(
        &mut world,
        &[
            ("datagrams learn the MTU", |world| clients_learn_the_mtu(world, 1300)),
            ("bulk both ways", both_ways),
        ],
    );
}

/// Routes the nodes' traffic through the fabric, which becomes a router with a small MTU.
fn narrow(world: &World, mtu: u32) -> Result<()> {
    let fabric = world.bed.fabric();
    let nodes: Vec<_> = world.bed.nodes().values().collect();
    for node in &nodes {
        for (cidr, gateway) in node.pod_cidrs().iter().zip(node.addresses()) {
            fabric.ip([format!("route add {cidr} via {gateway} mtu lock {mtu}")])?;
        }
        for other in nodes.iter().filter(|other| other.name != node.name) {
            let [cidr4, cidr6] = other.pod_cidrs();
            node.ns.ip([
                format!("route replace {cidr4} via 172.18.0.254"),
                format!("route replace {cidr6} via fd00:172:18::fe"),
            ])?;
        }
    }
    Ok(())
}

/// After the ICMP error, the client's own kernel refuses a datagram that may not be fragmented, and knows the MTU of
/// the path to the Service.
fn clients_learn_the_mtu(world: &mut World, mtu: i32) -> Result<()> {
    for to in at(ONE, 80) {
        world.ask().inside(|| socket_learns_the_mtu(to, mtu))?;
    }
    Ok(())
}

fn socket_learns_the_mtu(to: SocketAddr, mtu: i32) -> Result<()> {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (level, discover, asks, headers) = if to.is_ipv6() {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_MTU, 48)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_MTU, 28)
    };
    set(&socket, level, discover, libc::IP_PMTUDISC_DO)?;
    socket.connect(to)?;
    until(Duration::from_secs(3), || {
        // Fits the link, but not the path, whose MTU is unknown at first.
        let error = socket.send(&[1; 1440]).err();
        let kind = error.and_then(|e| e.raw_os_error());
        let known = get(&socket, level, asks)?;
        ensure!(kind == Some(libc::EMSGSIZE), "errno {kind:?}, and the kernel knows {known}");
        ensure!(known == mtu, "the MTU to {to} is {known}, not {mtu}");
        Ok(())
    })?;
    // Drains the error queue, so that the next read gets the answer.
    let mut buffer = [0; 2048];
    while socket.recv(&mut buffer).is_err_and(|e| e.raw_os_error() == Some(libc::EMSGSIZE)) {}
    let fits = vec![2; usize::try_from(mtu - headers)?];
    socket.send(&fits).context("send a datagram that fits")?;
    let len = socket.recv(&mut buffer).context("receive its echo")?;
    ensure!(buffer[..len] == fits, "damaged");
    Ok(())
}

fn set(socket: &std::net::UdpSocket, level: i32, option: i32, value: i32) -> Result<()> {
    let len = libc::socklen_t::try_from(size_of::<i32>())?;
    // SAFETY: the pointer and length are of a live integer.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

fn get(socket: &std::net::UdpSocket, level: i32, option: i32) -> Result<i32> {
    let (mut value, mut len) = (0_i32, libc::socklen_t::try_from(size_of::<i32>())?);
    // SAFETY: the pointers are of live integers, and `len` is the size of the first one.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len) };
    if done == 0 { Ok(value) } else { Err(std::io::Error::last_os_error().into()) }
}
