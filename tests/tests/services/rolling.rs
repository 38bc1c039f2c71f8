//! Endpoints are replaced one by one, and agents restart, under load: no request fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;
use lbr_tests::probe::LongLived;

use crate::objects::State::{Ready, Terminating};
use crate::objects::{Web, at};
use crate::world::{Check, From, World};

pub(crate) const CHECKS: &[Check] = &[
    (
        "LoadBalancers should not have disruption during rolling update with externalTrafficPolicy=Cluster",
        cluster,
    ),
    (
        "LoadBalancers should not have disruption during rolling update with externalTrafficPolicy=Local",
        local,
    ),
    ("Services should work after restarting kube-proxy", restarts),
    ("open connections stay with an endpoint that terminates", connections_stay),
    ("an open connection through another node stays while other endpoints come and go", neighbours),
];

/// New connections one after another, with one request each.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Load {
    fn start(world: &World, from: From, to: SocketAddr) -> Self {
        let (client, stop) = (world.client(from), Arc::new(AtomicBool::new(false)));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                client.tcp(to).with_context(|| format!("{from:?} to {to}, connection {count}"))?;
                count += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.thread.join().map_err(|_| anyhow!("the load's thread panicked"))??;
        ensure!(count > 20, "only {count} connections");
        Ok(())
    }
}

/// Like a Deployment: the new endpoint is ready before the old one terminates, which serves for a while.
fn roll(world: &World, web: Web, service: &Service, pairs: &[[&'static str; 2]]) -> Result<()> {
    for [old, new] in pairs {
        world.apply(&[service.yaml(), web.with(world, &[at(old, Ready), at(new, Ready)])])?;
        world.apply(&[service.yaml(), web.with(world, &[at(old, Terminating), at(new, Ready)])])?;
        world.apply(&[service.yaml(), web.on(world, &[new])])?;
    }
    Ok(())
}

fn under_load(
    world: &World,
    web: Web,
    service: &Service,
    pairs: &[[&'static str; 2]],
    ways: Vec<(From, SocketAddr)>,
) -> Result<()> {
    let [[first, _], ..] = pairs else { bail!("the test itself: no pair") };
    world.apply(&[service.yaml(), web.on(world, &[first])])?;
    let loads: Vec<Load> = ways.into_iter().map(|(from, to)| Load::start(world, from, to)).collect();
    let rolled = roll(world, web, service, pairs);
    loads.into_iter().try_for_each(Load::stop)?;
    rolled
}

fn cluster(world: &World) -> Result<()> {
    let web = world.web();
    for family in Family::ALL {
        world.bed.route_vip(web.external(family).ip(), world.node("b"))?;
        let ways = vec![
            (From::Outside, web.external(family)),
            (From::Stranger, world.node_port("a", web, family)),
            (From::Pod("a2"), web.cluster_ip(family)),
            (From::Node("c"), web.cluster_ip(family)),
        ];
        let pairs = [["a1", "b1"], ["b1", "c1"], ["c1", "b2"], ["b2", "a1"]];
        under_load(world, web, &web.balanced(), &pairs, ways)?;
    }
    Ok(())
}

fn local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.balanced().spec("externalTrafficPolicy: Local");
    for family in Family::ALL {
        world.bed.route_vip(web.external(family).ip(), world.node("b"))?;
        let ways = vec![
            (From::Outside, web.external(family)),
            (From::Stranger, world.node_port("b", web, family)),
            (From::Pod("a2"), web.external(family)),
        ];
        under_load(world, web, &service, &[["b1", "b2"], ["b2", "b1"]], ways)?;
    }
    Ok(())
}

/// Services in force stay in force while the agent is down, and afterwards.
fn restarts(world: &World) -> Result<()> {
    let web = world.web();
    for family in Family::ALL {
        world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
        world.apply(&[web.balanced().yaml(), web.on(world, &["a1", "b1"])])?;
        let ways = [
            (From::Outside, web.external(family)),
            (From::Stranger, world.node_port("a", web, family)),
            (From::Pod("a2"), web.cluster_ip(family)),
            (From::Node("a"), web.cluster_ip(family)),
        ];
        let loads = ways.map(|(from, to)| Load::start(world, from, to));
        let connections = open(world, &ways)?;
        let restarted = world.restart("a");
        world.apply(&[web.balanced().yaml(), web.on(world, &["a1", "b1", "c1"])])?;
        loads.into_iter().try_for_each(Load::stop)?;
        for connection in connections {
            let report = connection.stop()?;
            ensure!(report.error.is_none() && report.answers > 5, "{report:?}");
        }
        restarted?;
        world.reaches(From::Outside, web.external(family), &["a1", "b1", "c1"])?;
    }
    Ok(())
}

/// Asks on connections to `old` while it terminates.
fn connections_stay(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.balanced();
    for (family, old) in Family::ALL.into_iter().flat_map(|family| ["a1", "b1"].map(|old| (family, old))) {
        world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
        world.apply(&[service.yaml(), web.on(world, &[old])])?;
        let ways = [
            (From::Outside, web.external(family)),
            (From::Stranger, world.node_port("a", web, family)),
            (From::Pod("a2"), web.cluster_ip(family)),
            (From::Node("a"), world.node_port("a", web, family)),
        ];
        let connections = open(world, &ways)?;
        world.apply(&[service.yaml(), web.with(world, &[at(old, Terminating), at("c1", Ready)])])?;
        for (from, to) in ways {
            world.reaches(from, to, &["c1"])?;
        }
        all_well(connections, old)?;
    }
    Ok(())
}

fn neighbours(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.balanced();
    for family in Family::ALL {
        world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
        world.apply(&[service.yaml(), web.on(world, &["b1"])])?;
        let ways =
            [(From::Outside, web.external(family)), (From::Stranger, world.node_port("c", web, family))];
        let connections = open(world, &ways)?;
        for others in [&["b1", "c1"][..], &["a1", "b1"], &["b1"]] {
            world.apply(&[service.yaml(), web.on(world, others)])?;
        }
        all_well(connections, "b1")?;
    }
    Ok(())
}

fn open(world: &World, ways: &[(From, SocketAddr)]) -> Result<Vec<LongLived>> {
    let (interval, limit) = (Duration::from_millis(20), Duration::from_secs(1));
    ways.iter().map(|(from, to)| LongLived::start(&world.client(*from), *to, interval, limit)).collect()
}

fn all_well(connections: Vec<LongLived>, name: &str) -> Result<()> {
    for connection in connections {
        let report = connection.stop()?;
        let last = report.last.as_ref().map(|who| who.name.as_str());
        ensure!(report.error.is_none() && last == Some(name) && report.answers > 5, "{report:?}");
    }
    Ok(())
}
