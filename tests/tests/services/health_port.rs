//! The port where load balancers ask whether a node has endpoints (`healthCheckNodePort`).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use lbr_common::addr::Family;

use crate::objects::State::{Ready, Terminating};
use crate::objects::{Web, at};
use crate::world::{Check, From, NODES, World, patience, until};

pub(crate) const CHECKS: &[Check] = &[
    ("LoadBalancers should only target nodes with endpoints: HealthCheckNodePort", follows_endpoints),
    ("Services should fail health check node port if there are only terminating endpoints", only_terminating),
    ("Services should be closed when externalTrafficPolicy changes to Cluster", closes),
];

/// A port that is no NodePort.
const PORT: u16 = 32_100;

fn local(web: Web) -> String {
    let service = web.balanced().spec("externalTrafficPolicy: Local");
    service.spec(&format!("healthCheckNodePort: {PORT}")).yaml()
}

/// The status line of the answer, and the whole answer.
fn get(world: &World, from: From, to: SocketAddr) -> Result<(String, String)> {
    world.client(from).inside(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(patience()))?;
        write!(stream, "GET /anything HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok((text.lines().next().unwrap_or_default().to_owned(), text))
    })
}

/// Every node reports its number of local endpoints to a load balancer outside.
fn counts(world: &World, web: Web, counts: [usize; 3]) -> Result<()> {
    for (family, (node, count)) in
        Family::ALL.into_iter().flat_map(|family| NODES.into_iter().zip(counts).map(move |n| (family, n)))
    {
        let to = SocketAddr::new(world.node(node).address(family), PORT);
        let wanted = if count > 0 { "HTTP/1.1 200 OK" } else { "HTTP/1.1 503 Service Unavailable" };
        until(patience(), || {
            let (status, text) = get(world, From::Outside, to)?;
            ensure!(status == wanted, "{to}: {text}");
            let body = format!(
                "{{\"service\":{{\"namespace\":\"default\",\"name\":\"{}\"}},\"localEndpoints\":{count},\
                 \"serviceProxyHealthy\":true}}",
                web.name()
            );
            ensure!(text.ends_with(&body), "{to}: {text}, not {body}");
            Ok(())
        })?;
    }
    Ok(())
}

fn follows_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    for (pods, wanted) in
        [(&["a1"][..], [1, 0, 0]), (&["a1", "a2", "c1"], [2, 0, 1]), (&["b1"], [0, 1, 0]), (&[], [0, 0, 0])]
    {
        world.apply(&[local(web), web.on(world, pods)])?;
        counts(world, web, wanted)?;
    }
    Ok(())
}

/// The load balancer moves to other nodes, while the node still serves what arrives.
fn only_terminating(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web), web.with(world, &[at("a1", Terminating), at("b1", Ready)])])?;
    counts(world, web, [0, 1, 0])?;
    for family in Family::ALL {
        world.reaches(From::Outside, world.node_port("a", web, family), &["a1"])?;
    }
    Ok(())
}

fn closes(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1"]);
    world.apply(&[local(web), slices.clone()])?;
    counts(world, web, [1, 0, 0])?;
    world.apply(&[web.balanced().yaml(), slices])?;
    for (family, node) in Family::ALL.into_iter().flat_map(|family| NODES.map(|node| (family, node))) {
        let to = SocketAddr::new(world.node(node).address(family), PORT);
        until(patience(), || {
            let refused = get(world, From::Outside, to);
            ensure!(refused.is_err_and(|error| lbr_tests::probe::is_refused(&error)), "{to} is open");
            Ok(())
        })?;
        world.reaches(From::Outside, world.node_port(node, web, family), &["a1"])?;
    }
    Ok(())
}
