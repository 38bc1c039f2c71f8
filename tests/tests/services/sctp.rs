//! SCTP ports of every type of Service, with packets of raw sockets: this kernel may lack SCTP.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::{Endpoint, EndpointSlice, Service, join};
use lbr_tests::probe::sctp::{Association, End, reaches_none};

use crate::objects::Web;
use crate::world::{Check, From, NODES, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    ("a ClusterIP, for pods", cluster_ip),
    ("a NodePort, with the endpoint on the node and elsewhere", node_port),
    ("an address of a load balancer", load_balancer),
    ("session affinity", affinity),
    ("an association goes on without its endpoint, and a new one finds another", moved),
    ("without endpoints nothing arrives", no_endpoints),
];

/// Port of the Service, and number of the first client port.
const SERVICE_PORT: u16 = 80;
const FIRST: u16 = 42_000;

fn served(service: Service, node_port: Option<u16>) -> Service {
    let service = service.port("sctp", "SCTP", SERVICE_PORT, PORT);
    node_port.into_iter().fold(service, Service::node_port)
}

fn slices(world: &World, web: Web, pods: &[&str]) -> String {
    join(Family::ALL.map(|family| {
        let name = format!("{}-sctp-{}", web.name(), if family.is_v6() { "v6" } else { "v4" });
        let slice = EndpointSlice::new(&name, &web.name(), family).port("sctp", "SCTP", PORT);
        let endpoints = pods.iter().map(|pod| {
            let (addresses, node) = world.place(pod);
            Endpoint::new(addresses[family.index()]).node(&node.name)
        });
        endpoints.fold(slice, EndpointSlice::endpoint).yaml()
    }))
}

/// The servers in these pods.
fn servers(world: &World, pods: &[&str], family: Family) -> Result<Vec<End>> {
    let open = |name: &&str| {
        let pod = &world.bed.pods()[*name];
        End::open(&pod.ns, pod.address(family))
    };
    pods.iter().map(open).collect()
}

fn client(world: &World, from: From, family: Family) -> Result<End> {
    End::open(world.netns(from), world.address(from, family))
}

/// Associations from all of these clients to `to` reach each of the pods, and carry packets of many lengths.
fn reaches(world: &World, froms: &[From], to: SocketAddr, pods: &[&str]) -> Result<()> {
    let family = Family::of(to.ip());
    let servers = servers(world, pods, family)?;
    for &from in froms {
        let client = client(world, from, family)?;
        let mut missing: Vec<IpAddr> =
            pods.iter().map(|pod| world.bed.pods()[*pod].address(family)).collect();
        for port in FIRST..FIRST + 16 {
            let association = Association::open(&client, port, to, &servers, PORT)
                .with_context(|| format!("{from:?} to {to}"))?;
            for len in [1, 3, 1_300] {
                association.echo(len).with_context(|| format!("{from:?} to {to}, {len} bytes"))?;
            }
            missing.retain(|address| *address != association.server());
        }
        ensure!(missing.is_empty(), "{from:?} to {to}: 16 associations do not reach {missing:?}");
    }
    Ok(())
}

fn cluster_ip(world: &World) -> Result<()> {
    let web = world.web();
    let pods = ["a1", "b1"];
    world.apply(&[served(web.internal(), None).yaml(), web.on(world, &pods), slices(world, web, &pods)])?;
    for family in Family::ALL {
        // A pod that is an endpoint of its own Service has no raw socket for both roles.
        reaches(world, &[From::Pod("a2"), From::Pod("c1")], web.cluster_ip(family), &pods)?;
        // The other protocols at the same port are served as before.
        world.reaches(From::Pod("a2"), web.cluster_ip(family), &pods)?;
    }
    Ok(())
}

fn node_port(world: &World) -> Result<()> {
    let web = world.web();
    let pods = ["a1", "b1"];
    let service = served(web.at_nodes(), Some(web.node_port()));
    world.apply(&[service.yaml(), web.on(world, &pods), slices(world, web, &pods)])?;
    for family in Family::ALL {
        for node in NODES {
            let to = world.node_port(node, web, family);
            reaches(world, &[From::Outside, From::Pod("c2")], to, &pods)?;
        }
    }
    Ok(())
}

fn load_balancer(world: &World) -> Result<()> {
    let web = world.web();
    let pods = ["a1", "b1"];
    let service = served(web.balanced(), Some(web.node_port()));
    world.apply(&[service.yaml(), web.on(world, &pods), slices(world, web, &pods)])?;
    for family in Family::ALL {
        let to = web.external(family);
        world.bed.route_vip(to.ip(), world.node("c"))?;
        reaches(world, &[From::Outside, From::Pod("c1")], to, &pods)?;
    }
    Ok(())
}

fn affinity(world: &World) -> Result<()> {
    let web = world.web();
    let pods = ["a1", "b1", "c1"];
    let service = served(web.internal(), None).spec("sessionAffinity: ClientIP");
    world.apply(&[service.yaml(), web.on(world, &pods), slices(world, web, &pods)])?;
    for family in Family::ALL {
        let (servers, client) = (servers(world, &pods, family)?, client(world, From::Pod("a2"), family)?);
        let open = |port| Association::open(&client, port, web.cluster_ip(family), &servers, PORT);
        let first = open(FIRST)?.server();
        for port in FIRST + 1..FIRST + 12 {
            let server = open(port)?.server();
            ensure!(server == first, "{server} after {first}");
        }
    }
    Ok(())
}

fn moved(world: &World) -> Result<()> {
    let web = world.web();
    let service = served(web.at_nodes(), Some(web.node_port())).yaml();
    let of = |pods: &[&'static str]| [service.clone(), web.on(world, pods), slices(world, web, pods)];
    for family in Family::ALL {
        world.apply(&of(&["a1"]))?;
        let servers = servers(world, &["a1", "b1"], family)?;
        let to = world.node_port("c", web, family);
        let outside = client(world, From::Outside, family)?;
        let pod = client(world, From::Pod("c2"), family)?;
        let open = [
            Association::open(&outside, FIRST, to, &servers, PORT)?,
            Association::open(&pod, FIRST, to, &servers, PORT)?,
        ];
        world.apply(&of(&["b1"]))?;
        for association in &open {
            association.echo(10).context("an association that is open")?;
        }
        for end in [&outside, &pod] {
            let server = Association::open(end, FIRST + 1, to, &servers, PORT)?.server();
            ensure!(server == world.bed.pods()["b1"].address(family), "a new association reaches {server}");
        }
    }
    Ok(())
}

fn no_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[served(web.internal(), None).yaml(), web.on(world, &["a1"])])?;
    for family in Family::ALL {
        let (servers, client) = (servers(world, &["a1"], family)?, client(world, From::Pod("a2"), family)?);
        reaches_none(&client, FIRST, web.cluster_ip(family), &servers, PORT)?;
    }
    Ok(())
}
