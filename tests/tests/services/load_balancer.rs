//! Addresses that a load balancer, or the network before the cluster, routes to a node.

use std::net::SocketAddr;

use anyhow::Result;
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;
use lbr_tests::probe::Server;

use crate::datagrams::Datagrams;
use crate::objects::Web;
use crate::world::{Check, From, NODES, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    ("LoadBalancers should be able to reach all endpoints through any node", cluster),
    ("LoadBalancers ExternalTrafficPolicy: Local should work for type=LoadBalancer", local),
    ("LoadBalancers ExternalTrafficPolicy: Local should work from pods", local_from_pods),
    ("Services should be rejected when no endpoints exist", no_endpoints),
    (
        "LoadBalancers should be able to create LoadBalancer Service without NodePort and change it",
        without_node_ports,
    ),
    ("Services should be able to reach ExternalIP that is not assigned to a node", external_ip),
    ("an external address with externalTrafficPolicy=Local", external_ip_local),
    ("an address that the load balancer has given back leads nowhere", given_back),
    ("an address whose load balancer is a proxy is not taken by nodes", proxied),
    ("a socket of the node gets answers on the port of a load balancer at the node's address", own_address),
    ("a load balancer at the nodes' addresses leaves their other ports alone", addresses_of_nodes),
];

const PODS: [&str; 3] = ["a1", "b1", "c1"];

const INSIDE: [From; 5] =
    [From::Pod("a2"), From::Pod("b2"), From::Pod("c2"), From::Node("a"), From::Node("b")];

fn route(world: &World, web: Web, node: &str) -> Result<()> {
    web.externals().into_iter().try_for_each(|vip| world.bed.route_vip(vip, world.node(node)))
}

fn cluster(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.balanced().yaml(), web.on(world, &PODS)])?;
    for node in NODES {
        route(world, web, node)?;
        for family in Family::ALL {
            world.reaches(From::Outside, web.external(family), &PODS)?;
            world.reaches(From::Outside, world.node_port(node, web, family), &PODS)?;
        }
    }
    for (family, from) in Family::ALL.into_iter().flat_map(|family| INSIDE.map(|from| (family, from))) {
        world.reaches(from, web.external(family), &PODS)?;
    }
    Ok(())
}

fn local_service(web: Web) -> Service {
    web.balanced().spec("externalTrafficPolicy: Local")
}

fn local(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local_service(web).yaml(), web.on(world, &["a1", "b1", "b2"])])?;
    let client = |family| world.address(From::Outside, family);
    for (node, names) in [("a", &["a1"][..]), ("b", &["b1", "b2"])] {
        route(world, web, node)?;
        for family in Family::ALL {
            world.reaches_as(From::Outside, web.external(family), names, client(family))?;
        }
    }
    route(world, web, "c")?;
    for family in Family::ALL {
        world.is_lost(From::Outside, web.external(family))?;
    }
    Ok(())
}

/// No load balancer chose the node of a client inside of the cluster, so every endpoint serves it.
fn local_from_pods(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local_service(web).yaml(), web.on(world, &["a1"])])?;
    for (family, from) in Family::ALL.into_iter().flat_map(|family| INSIDE.map(|from| (family, from))) {
        world.reaches(from, web.external(family), &["a1"])?;
    }
    for family in Family::ALL {
        let pod = world.address(From::Pod("b2"), family);
        world.reaches_as(From::Pod("b2"), web.external(family), &["a1"], pod)?;
    }
    Ok(())
}

fn no_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.balanced().yaml(), web.on(world, &[])])?;
    route(world, web, "b")?;
    for family in Family::ALL {
        for from in [From::Outside, From::Pod("a1"), From::Node("a")] {
            world.is_refused(from, web.external(family))?;
        }
    }
    Ok(())
}

fn without_node_ports(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &PODS);
    let without = web.of_type("LoadBalancer").spec("allocateLoadBalancerNodePorts: false");
    let without = web.externals().into_iter().fold(without, Service::ingress).yaml();
    route(world, web, "a")?;
    for _ in 0..2 {
        world.apply(&[without.clone(), slices.clone()])?;
        for family in Family::ALL {
            world.reaches(From::Outside, web.external(family), &PODS)?;
            world.is_refused(From::Outside, world.node_port("a", web, family))?;
        }
        world.apply(&[web.balanced().yaml(), slices.clone()])?;
        for family in Family::ALL {
            world.reaches(From::Outside, web.external(family), &PODS)?;
            world.reaches(From::Outside, world.node_port("a", web, family), &PODS)?;
        }
    }
    Ok(())
}

fn external_ips(web: Web) -> String {
    let [v4, v6] = web.externals();
    format!("externalIPs: [\"{v4}\", \"{v6}\"]")
}

fn external_ip(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().spec(&external_ips(web)).yaml(), web.on(world, &PODS)])?;
    route(world, web, "c")?;
    for family in Family::ALL {
        for from in INSIDE.into_iter().chain([From::Outside]) {
            world.reaches(from, web.external(family), &PODS)?;
        }
    }
    Ok(())
}

fn external_ip_local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().spec(&external_ips(web)).spec("externalTrafficPolicy: Local");
    world.apply(&[service.yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        world.reaches(From::Pod("a1"), web.external(family), &["b1"])?;
        world.reaches(From::Node("c"), web.external(family), &["b1"])?;
    }
    route(world, web, "b")?;
    for family in Family::ALL {
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, web.external(family), &["b1"], client)?;
    }
    route(world, web, "a")?;
    for family in Family::ALL {
        world.is_lost(From::Outside, web.external(family))?;
    }
    Ok(())
}

fn given_back(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1"]);
    route(world, web, "a")?;
    world.apply(&[web.balanced().yaml(), slices.clone()])?;
    for family in Family::ALL {
        world.reaches(From::Outside, web.external(family), &["a1"])?;
    }
    let without = web.with_node_ports("LoadBalancer", web.node_port());
    world.apply(&[without.yaml(), slices])?;
    for family in Family::ALL {
        world.fails(From::Outside, web.external(family))?;
        world.fails(From::Pod("a2"), web.external(family))?;
        world.reaches(From::Outside, world.node_port("a", web, family), &["a1"])?;
    }
    Ok(())
}

/// `ipMode: Proxy`: traffic to the address must pass the load balancer, also from inside.
fn proxied(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.balanced().yaml().replace("ipMode: VIP", "ipMode: Proxy");
    world.apply(&[service, web.on(world, &["a1"])])?;
    for family in Family::ALL {
        let vip = web.external(family).ip();
        world.bed.route_vip(vip, world.node("b"))?;
        // The load balancer of this test is a process of a node, so packets reach it with their destination
        // unchanged.
        let nodad = if family.is_v6() { " nodad" } else { "" };
        world.node("b").ns.ip([format!("addr add {vip} dev lo{nodad}")])?;
        let balancer = Server::start(&world.node("b").ns, "balancer", &[vip], web.external(family).port())?;
        for from in [From::Outside, From::Node("b")] {
            world.reaches(from, web.external(family), &["balancer"])?;
        }
        drop(balancer);
        world.node("b").ns.ip([format!("addr del {vip} dev lo")])?;
        world.reaches(From::Outside, world.node_port("b", web, family), &["a1"])?;
    }
    Ok(())
}

/// As with a load balancer that forwards to the nodes' own addresses. Without a NodePort no other check reserves the
/// port.
fn own_address(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.of_type("LoadBalancer").spec("allocateLoadBalancerNodePorts: false");
    let service = world.node("a").addresses().into_iter().fold(service, Service::ingress);
    let outside = &world.bed.clients()["outside"];
    let _server = Server::start(&outside.ns, "outside", &outside.addresses(), PORT)?;
    for family in Family::ALL {
        world.apply(&[])?;
        let balancer = SocketAddr::new(world.node("a").address(family), 80);
        let server = SocketAddr::new(outside.address(family), PORT);
        // Bound before the Service has the port.
        let socket = Datagrams::from(world, From::Node("a"), balancer.port(), server)?;
        world.apply(&[service.clone().yaml(), web.on(world, &PODS)])?;
        world.reaches(From::Outside, balancer, &PODS)?;
        socket.until(|answer| answer.name == "outside")?;
        world.reaches(From::Outside, balancer, &PODS)?;
    }
    Ok(())
}

/// k3s' ServiceLB reports the addresses of the nodes themselves, and so each node knows those of the others as a Service's.
fn addresses_of_nodes(world: &World) -> Result<()> {
    let (web, other) = (world.web(), world.web());
    let service = web.of_type("LoadBalancer").spec("allocateLoadBalancerNodePorts: false");
    let addresses = NODES.into_iter().flat_map(|node| world.node(node).addresses());
    let service = addresses.fold(service, Service::ingress).yaml();
    world.apply(&[service, web.on(world, &PODS), other.at_nodes().yaml(), other.on(world, &["b1"])])?;
    for family in Family::ALL {
        for (from, node) in [From::Pod("a1"), From::Node("a"), From::Outside]
            .into_iter()
            .flat_map(|from| NODES.map(|node| (from, node)))
        {
            let at = |port| SocketAddr::new(world.node(node).address(family), port);
            world.reaches(from, at(80), &PODS)?;
            // A server of the node itself, and the NodePort of another Service.
            world.reaches(from, at(PORT), &[&format!("host-{node}")])?;
            world.reaches(from, world.node_port(node, other, family), &["b1"])?;
        }
        // Answers come back to the other nodes.
        let pod = SocketAddr::new(world.address(From::Pod("a1"), family), PORT);
        for node in NODES {
            world.reaches(From::Node(node), pod, &["a1"])?;
        }
    }
    Ok(())
}
