//! C2: a Service with two pods, one of which is the client.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::join;
use lbr_tests::probe::Client;

use crate::cast::{crossed, service, vip};
use crate::packets::isolated;
use crate::probe::short;
use crate::stage;
use crate::world::World;

/// Requests of each kind. One of two pods gets none of them once in 2^23.
const REQUESTS: usize = 24;

/// Requests of an isolated pod are answered only where they return to the pod itself.
fn only_itself(world: &World, client: &str, other: &str) -> Result<()> {
    let (client, other) = (world.actor(client)?, world.actor(other)?);
    let text = join(service("pair", vip(240), &[client, other]));
    world.agents.iter().try_for_each(|agent| agent.write("pair.yaml", &text))?;
    world.apply(&isolated(&["x"]))?;
    for (ip, _) in vip(240).into_iter().zip(Family::ALL) {
        let target = SocketAddr::new(ip, crossed(80));
        let ask = |_| {
            let from = Client::new(&client.ns).timeout(short()).from_port(world.next_ident());
            from.tcp(target).ok().map(|who| who.name)
        };
        let answers: Vec<Option<String>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..REQUESTS).map(|n| scope.spawn(move || ask(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (own, silent) =
            (answers.iter().flatten().count(), answers.iter().filter(|a| a.is_none()).count());
        ensure!(answers.iter().flatten().all(|name| *name == client.name), "{target}: {answers:?}");
        ensure!(own > 0 && silent > 0, "{target}: {own} came back, {silent} went to {}", other.name);
    }
    Ok(())
}

#[test]
fn c2_two_backends() {
    stage::with(|world| {
        only_itself(world, "x/a", "x/b")?;
        only_itself(world, "x/a", "x/c")?;
        only_itself(world, "x/c", "x/b")
    })
    .unwrap();
}
