//! The second part: the same Service at a NodePort, with a client outside of the cluster.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;

use super::story::{BACKENDS, Stage, Story, indent};
use super::{picture, yaml};
use crate::probe::{Client, Protocol};

/// The longest time until a saved Service is in force.
const SOON: Duration = Duration::from_secs(2);

/// Requests of the picture.
const REQUESTS: usize = 300;

/// Plays it on the stage as the previous part left it.
pub(super) fn scenes(story: &mut Story<'_>, stage: &mut Stage) -> Result<()> {
    let outside = stage.bed.add_client("outside")?;
    let target = SocketAddr::new(stage.node.v4.into(), yaml::NODE_PORT);
    let client = Client::new(&outside.ns).timeout(Duration::from_millis(300));

    story.next("The Service at a port of the node, for a client outside of the cluster")?;
    ensure!(client.tcp(target).is_err(), "{target} is answered before the Service has that port");
    story.tell(&format!("{target} is not a Service's port yet. my-service.yaml becomes:"));
    story.tell(&indent(&yaml::service_at_node()));
    stage.save(story, "my-service.yaml", &yaml::service_at_node())?;
    let saved = Instant::now();
    let first = loop {
        match client.tcp(target) {
            Ok(first) => break first,
            Err(error) if saved.elapsed() > SOON => {
                return Err(error).with_context(|| format!("{SOON:?} after the port was saved"));
            }
            Err(_) => {}
        }
    };
    story.tell(&format!(
        "{} First answer {} ms later: from {}, which sees the client under its own address, {}.",
        stage.saved(),
        saved.elapsed().as_millis(),
        first.name,
        first.peer.ip()
    ));
    ensure!(first.peer.ip() == outside.address(Family::V4), "the backend saw {} as the client", first.peer);
    let spread = client.spread(Protocol::Tcp, target, REQUESTS)?;
    story.tell(&format!("{REQUESTS} connections from {} to {target}:", outside.address(Family::V4)));
    story.say(picture::bars(&BACKENDS, &spread).trim_end());
    ensure!(spread.len() == BACKENDS.len(), "not every backend was asked: {spread:?}");
    story.tell("$ lbr show uplinks");
    story.tell(&indent(&stage.agent()?.show_text("uplinks")?));
    Ok(())
}
