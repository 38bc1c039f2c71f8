//! Services that change their type, ports or protocols: the new ones work, and the old ones are gone.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;
use lbr_tests::probe::{Protocol, is_refused};

use crate::objects::Web;
use crate::world::{Check, From, NODES, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    (
        "Services should be able to change the type from ExternalName to ClusterIP and NodePort",
        from_external_name,
    ),
    (
        "Services should be able to change the type from ClusterIP and NodePort to ExternalName",
        to_external_name,
    ),
    ("NodePort to ClusterIP and back", node_port_to_cluster_ip),
    (
        "Services should be able to update service type to NodePort listening on same port number but different protocols",
        protocols,
    ),
    ("Granular Checks: Services should update nodePort", number),
    ("LoadBalancers should be able to change the type and ports of a TCP and UDP service", balanced),
    ("Services should be able to up and down services", up_and_down),
    ("Services should implement service.kubernetes.io/service-proxy-name", other_proxy),
    ("Services should implement service.kubernetes.io/headless", headless),
    ("other Services keep their ports when one goes", neighbours),
];

/// Clients outside of the cluster and inside.
const CLIENTS: [From; 3] = [From::Outside, From::Pod("b2"), From::Node("c")];

fn external_name(web: Web) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: default\nspec:\n  type: ExternalName\n  \
         externalName: example.com\n",
        web.name()
    )
}

fn ports(world: &World, web: Web) -> impl Iterator<Item = SocketAddr> {
    Family::ALL.into_iter().flat_map(move |family| NODES.map(|node| world.node_port(node, web, family)))
}

/// The node refuses: no socket listens.
fn has_no_port(world: &World, web: Web) -> Result<()> {
    for to in ports(world, web) {
        CLIENTS.into_iter().try_for_each(|from| world.is_refused(from, to))?;
    }
    Ok(())
}

fn has_port(world: &World, web: Web, names: &[&str]) -> Result<()> {
    for to in ports(world, web) {
        for from in CLIENTS {
            world.reaches(from, to, names)?;
        }
    }
    Ok(())
}

fn has_cluster_ip(world: &World, web: Web, names: &[&str]) -> Result<()> {
    for family in Family::ALL {
        for from in [From::Pod("b2"), From::Node("c")] {
            world.reaches(from, web.cluster_ip(family), names)?;
        }
    }
    Ok(())
}

fn from_external_name(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1", "b1"]);
    for (service, is_at_nodes) in [(web.internal(), false), (web.at_nodes(), true)] {
        world.apply(&[external_name(web), slices.clone()])?;
        has_no_port(world, web)?;
        world.apply(&[service.yaml(), slices.clone()])?;
        has_cluster_ip(world, web, &["a1", "b1"])?;
        if is_at_nodes {
            has_port(world, web, &["a1", "b1"])?;
        }
    }
    Ok(())
}

fn to_external_name(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1", "b1"]);
    for service in [web.internal(), web.at_nodes()] {
        world.apply(&[service.yaml(), slices.clone()])?;
        has_cluster_ip(world, web, &["a1", "b1"])?;
        world.apply(&[external_name(web), slices.clone()])?;
        has_no_port(world, web)?;
        for family in Family::ALL {
            world.fails(From::Pod("b2"), web.cluster_ip(family))?;
            world.fails(From::Node("c"), web.cluster_ip(family))?;
        }
    }
    Ok(())
}

fn node_port_to_cluster_ip(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1"]);
    for _ in 0..2 {
        world.apply(&[web.at_nodes().yaml(), slices.clone()])?;
        has_port(world, web, &["a1"])?;
        world.apply(&[web.internal().yaml(), slices.clone()])?;
        has_no_port(world, web)?;
        has_cluster_ip(world, web, &["a1"])?;
    }
    Ok(())
}

/// A Service with one port, of one protocol.
fn single(web: Web, protocol: &str) -> Service {
    let name = protocol.to_lowercase();
    web.at_nodes().without_ports().port(&name, protocol, 80, PORT).node_port(web.node_port())
}

fn protocols(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1", "b1"]);
    for (name, served, other) in
        [("TCP", Protocol::Tcp, Protocol::Udp), ("UDP", Protocol::Udp, Protocol::Tcp)]
    {
        world.apply(&[single(web, name).yaml(), slices.clone()])?;
        for (to, from) in ports(world, web).flat_map(|to| CLIENTS.map(|from| (to, from))) {
            let answer = world.client(from).ask(served, to)?;
            ensure!(["a1", "b1"].contains(&answer.name.as_str()), "{from:?} to {to}: {answer}");
            match world.client(from).ask(other, to) {
                Ok(answer) => bail!("{from:?} to {to} {other:?}: answered by {answer}"),
                Err(error) => ensure!(is_refused(&error), "{from:?} to {to} {other:?}: {error:#}"),
            }
        }
    }
    world.apply(&[web.at_nodes().yaml(), slices])?;
    has_port(world, web, &["a1", "b1"])
}

fn number(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1", "c1"]);
    world.apply(&[web.at_nodes().yaml(), slices.clone()])?;
    has_port(world, web, &["a1", "c1"])?;
    world.apply(&[web.with_node_ports("NodePort", web.other_node_port()).yaml(), slices])?;
    has_no_port(world, web)?;
    for to in ports(world, web).map(|to| SocketAddr::new(to.ip(), web.other_node_port())) {
        for from in CLIENTS {
            world.reaches(from, to, &["a1", "c1"])?;
        }
    }
    Ok(())
}

fn balanced(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1", "c1"]);
    web.externals().into_iter().try_for_each(|vip| world.bed.route_vip(vip, world.node("b")))?;
    world.apply(&[web.at_nodes().yaml(), slices.clone()])?;
    has_port(world, web, &["a1", "c1"])?;
    for port in [web.node_port(), web.other_node_port()] {
        let service = web.with_node_ports("LoadBalancer", port);
        let service = web.externals().into_iter().fold(service, Service::ingress);
        world.apply(&[service.yaml(), slices.clone()])?;
        for family in Family::ALL {
            let at_node = SocketAddr::new(world.node("a").address(family), port);
            for from in CLIENTS {
                world.reaches(from, web.external(family), &["a1", "c1"])?;
                world.reaches(from, at_node, &["a1", "c1"])?;
            }
        }
    }
    has_no_port(world, web)?;
    world.apply(&[web.internal().yaml(), slices])?;
    has_no_port(world, web)?;
    for family in Family::ALL {
        CLIENTS.into_iter().try_for_each(|from| world.fails(from, web.external(family)))?;
    }
    Ok(())
}

fn up_and_down(world: &World) -> Result<()> {
    let (first, second) = (world.web(), world.web());
    let documents = |web: Web, names: &[&'static str]| [web.at_nodes().yaml(), web.on(world, names)];
    world.apply(&documents(first, &["a1"]))?;
    has_port(world, first, &["a1"])?;
    world.apply(&[documents(first, &["a1"]), documents(second, &["b1"])].concat())?;
    has_port(world, first, &["a1"])?;
    has_port(world, second, &["b1"])?;
    world.apply(&documents(second, &["b1"]))?;
    has_no_port(world, first)?;
    has_port(world, second, &["b1"])?;
    // A Service that comes back finds nothing of its former life.
    world.apply(&[documents(first, &["c1"]), documents(second, &["b1"])].concat())?;
    has_port(world, first, &["c1"])
}

fn neighbours(world: &World) -> Result<()> {
    let (stays, goes) = (world.web(), world.web());
    let documents = |web: Web| [web.balanced().yaml(), web.on(world, &["a1", "b1"])];
    world.apply(&[documents(stays), documents(goes)].concat())?;
    world.apply(&documents(stays))?;
    has_port(world, stays, &["a1", "b1"])?;
    has_cluster_ip(world, stays, &["a1", "b1"])?;
    has_no_port(world, goes)
}

fn labelled(object: &str, label: &str) -> String {
    object.replacen("metadata:\n", &format!("metadata:\n  labels:\n    {label}\n"), 1)
}

/// A Service with this label belongs to another proxy.
fn other_proxy(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1"]);
    let service = web.at_nodes().yaml();
    let of_others = labelled(&service, "service.kubernetes.io/service-proxy-name: other");
    for _ in 0..2 {
        world.apply(&[of_others.clone(), slices.clone()])?;
        has_no_port(world, web)?;
        for family in Family::ALL {
            world.fails(From::Pod("b2"), web.cluster_ip(family))?;
        }
        world.apply(&[service.clone(), slices.clone()])?;
        has_port(world, web, &["a1"])?;
        has_cluster_ip(world, web, &["a1"])?;
    }
    Ok(())
}

/// EndpointSlices with this label are for DNS, not for proxies.
fn headless(world: &World) -> Result<()> {
    const SERVICE: &str = "    kubernetes.io/service-name:";
    let web = world.web();
    let (service, slices) = (web.at_nodes().yaml(), web.on(world, &["a1"]));
    let ignored = slices.replace(SERVICE, &format!("    service.kubernetes.io/headless: \"\"\n{SERVICE}"));
    ensure!(ignored != slices, "the test itself: no label was added");
    world.apply(&[service.clone(), ignored])?;
    for to in ports(world, web) {
        world.is_refused(From::Outside, to)?;
    }
    world.apply(&[service, slices])?;
    has_port(world, web, &["a1"])
}
