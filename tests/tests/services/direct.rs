//! Direct server return: endpoints on other nodes see the client, and their nodes answer the client directly.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::manifests::Service;

use crate::objects::Web;
use crate::world::{Check, From, World, patience, until};

/// The frontend travels in an option of the packet.
pub(crate) const CHECKS: &[Check] = &checks::<Option>();
/// The packet travels unchanged inside of one from node to node.
pub(crate) const TUNNELED: &[Check] = &checks::<Tunnel>();

pub(crate) struct Option;
pub(crate) struct Tunnel;

/// How packets travel to endpoints on other nodes.
pub(crate) trait Form {
    /// Value of the annotation.
    const NAME: &str;

    /// The Service with direct answers of the endpoint's node.
    fn direct(service: Service) -> Service {
        service.annotation(&format!("lbr.dev/forwarding: {}", Self::NAME))
    }
}

impl Form for Option {
    const NAME: &str = "dsr";
}

impl Form for Tunnel {
    const NAME: &str = "dsr-ipip";
}

const fn checks<F: Form>() -> [Check; 9] {
    [
        ("endpoints everywhere see the client, whichever node it asks", the_client_is_seen::<F>),
        ("answers bypass the node that was asked", answers_go_straight::<F>),
        ("a load balancer's address answers under its own name", load_balancer::<F>),
        ("an endpoint in the node's network sees the client", host_network::<F>),
        ("large transfers and datagrams arrive whole", large::<F>),
        ("datagrams of one GSO packet arrive one by one", together::<F>),
        ("a router's ICMP error about an answer reaches the endpoint", router_errors_arrive::<F>),
        ("clients inside of the cluster are served as before", inside::<F>),
        ("switched on and off, and nothing is left", switched::<F>),
    ]
}

fn ways(world: &World, web: Web, family: Family) -> [(From, SocketAddr); 3] {
    let at = |node| world.node_port(node, web, family);
    [(From::Outside, at("a")), (From::Stranger, at("b")), (From::Outside, at("c"))]
}

fn the_client_is_seen<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    let names = ["a1", "b1", "c1"];
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &names)])?;
    for family in Family::ALL {
        for (from, to) in ways(world, web, family) {
            world.reaches_as(from, to, &names, world.address(from, family))?;
        }
    }
    Ok(())
}

fn answers_go_straight<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        let to = world.node_port("a", web, family);
        let count = |verdict| world.count("a", Hook::FromNetdev, verdict);
        let (requests, answers) = (count(Verdict::ToBackend)?, count(Verdict::ToClient)?);
        world.client(From::Outside).tcp_bulk(to, 1 << 20)?;
        ensure!(count(Verdict::ToBackend)? > requests + 20, "{to}: the requests bypassed node a");
        ensure!(count(Verdict::ToClient)? == answers, "{to}: answers came by node a");
    }
    Ok(())
}

fn load_balancer<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[F::direct(web.balanced()).yaml(), web.on(world, &["b1", "c1"])])?;
    for family in Family::ALL {
        world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, web.external(family), &["b1", "c1"], client)?;
    }
    Ok(())
}

fn host_network<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &["host-b"])])?;
    for family in Family::ALL {
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, world.node_port("a", web, family), &["host-b"], client)?;
    }
    Ok(())
}

/// A datagram too big together with the frontend is answered with an ICMP error and lost.
fn large<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        let to = world.node_port("a", web, family);
        world.client(From::Outside).tcp_bulk(to, 8 << 20)?;
        for len in [1_400, 1_460, 2_000, 20_000] {
            let client = world.client(From::Outside).timeout(Duration::from_millis(300));
            until(patience(), || client.udp_echo(to, len)).with_context(|| format!("{len} bytes to {to}"))?;
        }
    }
    Ok(())
}

/// They travel as one packet with the first one's headers, which the last link before the receiver splits.
fn together<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        let to = world.node_port("a", web, family);
        for len in [100, 1_300] {
            world
                .client(From::Outside)
                .udp_segments(to, 8, len)
                .with_context(|| format!("{len} bytes to {to}"))?;
        }
    }
    Ok(())
}

/// The router sends the error to the node that was asked, as the answer has that node's address.
fn router_errors_arrive<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &["b1"])])?;
    Family::ALL
        .into_iter()
        .try_for_each(|family| world.answers_over_a_narrow_path(world.node_port("a", web, family)))
}

fn inside<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    let names = ["a1", "b1", "host-c"];
    world.apply(&[F::direct(web.at_nodes()).yaml(), web.on(world, &names)])?;
    for family in Family::ALL {
        for from in [From::Pod("a2"), From::Pod("c1"), From::Node("b")] {
            world.reaches(from, web.cluster_ip(family), &names)?;
            for node in ["a", "b"] {
                world.reaches(from, world.node_port(node, web, family), &names)?;
            }
        }
    }
    Ok(())
}

/// Open connections go on as they began.
fn switched<F: Form>(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["b1"]);
    for family in Family::ALL {
        let to = world.node_port("a", web, family);
        let (client, node) = (world.address(From::Outside, family), world.in_the_name_of("a", family));
        for is_direct in [true, false, true] {
            let service = if is_direct { F::direct(web.at_nodes()) } else { web.at_nodes() };
            world.apply(&[service.yaml(), slices.clone()])?;
            let seen = if is_direct { client } else { node };
            world.reaches_as(From::Outside, to, &["b1"], seen)?;
        }
    }
    world.apply(&[])?;
    for family in Family::ALL {
        world.fails(From::Outside, world.node_port("a", web, family))?;
    }
    Ok(())
}
