//! The last part: a NetworkPolicy cuts off one client and not the other.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::story::{Stage, Story, indent};
use super::yaml;
use crate::probe::{Client, is_timeout};
use crate::topology::Pod;

/// How long a client waits for an answer that should not come.
const PATIENCE: Duration = Duration::from_millis(300);

/// The longest time until a saved policy is in force.
const SOON: Duration = Duration::from_secs(2);

/// Plays it on the stage as the previous parts left it.
pub(super) fn scenes(story: &mut Story<'_>, stage: &Stage) -> Result<()> {
    let service = SocketAddr::new(yaml::SERVICE.into(), yaml::PORTS.0);
    let pod = SocketAddr::new(IpAddr::V4(stage.backends[0].v4), yaml::PORTS.1);
    let targets = [("my-service", service), ("backend-1", pod)];

    story.next("A NetworkPolicy: only pods with app: allowed-app, and only on port 8080")?;
    ensure!(reaches(&stage.client, service)?, "client does not reach my-service before the policy");
    ensure!(reaches(&stage.stranger, service)?, "stranger does not reach my-service before the policy");
    story.tell("So far both clients reach the Service. my-network-policy.yaml:");
    story.tell(&indent(yaml::POLICY));
    stage.save(story, "my-network-policy.yaml", yaml::POLICY)?;
    let saved = Instant::now();
    while reaches(&stage.stranger, service)? {
        ensure!(
            saved.elapsed() < SOON,
            "stranger still reaches my-service {SOON:?} after the policy was saved"
        );
    }
    let cut = saved.elapsed().saturating_sub(PATIENCE);
    story.tell(&format!(
        "{} The stranger's last connection {} ms later; from then on:",
        stage.saved(),
        cut.as_millis()
    ));
    for (name, target) in targets {
        for (client, expected) in [(&stage.client, true), (&stage.stranger, false)] {
            let got = reaches(client, target)?;
            ensure!(got == expected, "{} reaches {name}: {got}", client.name);
            let outcome = if got { "answered" } else { "no answer" };
            story.tell(&format!("  {:<9} -> {name:<10} {target:<16} {outcome}", client.name));
        }
    }

    story.next("Why?")?;
    let agent = stage.agent()?;
    for client in [&stage.client, &stage.stranger] {
        let from = format!("default/{}", client.name);
        story.tell(&format!("$ lbr why {from} default/my-service"));
        let (text, allowed) = agent.why(&from, "default/my-service")?;
        ensure!(allowed == (client.name == stage.client.name), "lbr why says:\n{text}");
        let lines: Vec<&str> = text.trim_end().lines().collect();
        story.tell(&indent(&lines[..lines.len().min(20)].join("\n")));
    }
    story.tell("$ lbr show policies");
    story.tell(&indent(&agent.show_text("policies")?));

    story.next("The policy is deleted")?;
    stage.remove(story, "my-network-policy.yaml")?;
    let deleted = Instant::now();
    while !reaches(&stage.stranger, service)? {
        ensure!(deleted.elapsed() < SOON, "stranger is still cut off {SOON:?} after the policy was deleted");
    }
    story.tell("Both clients reach the Service again.");
    Ok(())
}

/// Whether a connection is answered. A refusal is an error, as policies drop.
fn reaches(client: &Pod, target: SocketAddr) -> Result<bool> {
    match Client::new(&client.ns).timeout(PATIENCE).tcp(target) {
        Ok(_) => Ok(true),
        Err(error) if is_timeout(&error) => Ok(false),
        Err(error) => Err(error),
    }
}
