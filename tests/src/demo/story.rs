//! The steps.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::control::{Control, Source};
use super::load::Load;
use super::{control, outside, picture, policy, yaml};
use crate::agent::Agent;
use crate::interrupt;
use crate::probe::{Client, Protocol, Server};
use crate::topology::{Bed, Node, Pod, PodOptions};

/// Names of the backends.
pub(super) const BACKENDS: [&str; 3] = ["backend-1", "backend-2", "backend-3"];

/// The backend that leaves and comes back.
const AWAY: usize = 1;

/// Requests of the first picture.
const REQUESTS: usize = 600;

/// Prints the story, and knows its current step.
pub struct Story<'a> {
    number: u32,
    title: String,
    say: &'a dyn Fn(&str),
}

impl<'a> Story<'a> {
    /// Tells it through `say`, line by line.
    pub fn new(say: &'a dyn Fn(&str)) -> Self {
        Self { number: 0, title: "start".to_owned(), say }
    }

    /// The current step, for the message about a failure.
    pub fn step(&self) -> String {
        format!("step {} ({})", self.number, self.title)
    }

    pub(super) fn next(&mut self, title: &str) -> Result<()> {
        interrupt::check()?;
        self.number += 1;
        title.clone_into(&mut self.title);
        self.say(&format!("\n{}. {title}", self.number));
        Ok(())
    }

    /// A line as it is.
    pub(super) fn say(&self, text: &str) {
        (self.say)(text);
    }

    /// A paragraph below the step.
    pub(super) fn tell(&self, text: &str) {
        for line in text.lines() {
            self.say(&format!("   {line}"));
        }
    }
}

/// Fields are dropped in this order, so processes end before their namespaces.
pub(super) struct Stage {
    agent: Option<Agent>,
    control: Control,
    servers: Vec<Server>,
    pub(super) client: Pod,
    /// A client that the policy does not allow.
    pub(super) stranger: Pod,
    pub(super) backends: Vec<Pod>,
    pub(super) node: Node,
    pub(super) bed: Bed,
}

/// Plays it. Everything is removed again, whatever happens.
pub fn play(story: &mut Story<'_>, source: Source) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("network namespaces and BPF programs need root: run it with sudo");
    }
    story.next("A node with five pods")?;
    let mut stage = set_up(source)?;
    story.tell(
        "Each is a network namespace of this machine, connected by veth as a container runtime does it:",
    );
    for (pod, label) in [(&stage.client, " (app: allowed-app)"), (&stage.stranger, "")] {
        story.tell(&format!("  {:<10} {}{label}", pod.name, pod.v4));
    }
    for pod in &stage.backends {
        let port = yaml::PORTS.1;
        story.tell(&format!("  {:<10} {} (app: my-app), listening on port {port}", pod.name, pod.v4));
    }

    let told = scenes(story, &mut stage);
    if let (Err(_), Some(agent)) = (&told, &stage.agent) {
        story.say("\n--- what lbr said ---");
        story.say(agent.log_text().trim_end());
    }
    told
}

fn scenes(story: &mut Story<'_>, stage: &mut Stage) -> Result<()> {
    stage.agent = Some(control::start_agent(story, stage)?);
    let target = SocketAddr::new(yaml::SERVICE.into(), yaml::PORTS.0);
    let client = Client::new(&stage.client.ns);

    story.next("Requests from the client to the Service")?;
    stage.wait_for_backends(BACKENDS.len())?;
    let first = client.tcp(target)?;
    ensure!(first.peer.ip() == stage.client.v4, "the backend saw {} as the client", first.peer);
    story.tell(&format!("First answer: from {}, which sees the client as {}.", first.name, first.peer));
    let spread = client.spread(Protocol::Tcp, target, REQUESTS)?;
    story.tell(&format!("{REQUESTS} connections, each to a backend chosen at random by the kernel:"));
    story.say(picture::bars(&BACKENDS, &spread).trim_end());
    ensure!(spread.len() == BACKENDS.len(), "not every backend was asked: {spread:?}");

    come_and_go(story, stage, client, target)?;

    story.next("What lbr shows")?;
    let agent = stage.agent.as_ref().context("the agent is gone")?;
    for kind in ["services", "backends", "flows"] {
        let text = agent.show_text(kind)?;
        let lines: Vec<&str> = text.lines().collect();
        story.tell(&format!("$ lbr show {kind}"));
        story.tell(&lines[..lines.len().min(8)].join("\n"));
        if lines.len() > 8 {
            story.tell(&format!("… and {} more", lines.len() - 8));
        }
    }
    story.tell("It reads the maps in the kernel: this works also while the agent is stopped.");

    outside::scenes(story, stage)?;
    policy::scenes(story, stage)
}

fn set_up(source: Source) -> Result<Stage> {
    let mut bed = Bed::new("demo")?;
    let node = bed.add_node("demo-node")?;
    let client = bed.add_pod(&node, "client", PodOptions::default())?;
    let stranger = bed.add_pod(&node, "stranger", PodOptions::default())?;
    let backends = BACKENDS.map(|name| bed.add_pod(&node, name, PodOptions::default()));
    let backends = backends.into_iter().collect::<Result<Vec<_>>>()?;
    let servers = backends.iter().map(|pod| Server::pod(pod, yaml::PORTS.1)).collect::<Result<_>>()?;
    let control = Control::start(source, &bed, &node)?;
    Ok(Stage { agent: None, control, servers, client, stranger, backends, node, bed })
}

fn come_and_go(story: &mut Story<'_>, stage: &mut Stage, client: Client, target: SocketAddr) -> Result<()> {
    let name = BACKENDS[AWAY];
    story.next(&format!("{name} goes away, while requests go on"))?;
    let load = Load::start(client, target);
    load.sample(Duration::from_millis(500))?;
    let others = stage.backends.iter().enumerate().filter(|(at, _)| *at != AWAY).map(|(_, pod)| pod);
    stage.change_slice(story, others)?;
    let last = load.wait(name, false)?;
    story.tell(&format!("{} Last request to it {} ms later.", stage.left(), last.as_millis()));
    drop(stage.servers.remove(AWAY));
    stage.bed.remove_pod(&stage.backends[AWAY])?;
    story.tell("Then the pod itself was removed. The next two seconds:");
    let spread = load.sample(Duration::from_secs(2))?;
    story.say(picture::bars(&BACKENDS, &spread).trim_end());
    ensure!(!spread.contains_key(name) && spread.len() == 2, "unexpected spread: {spread:?}");

    story.next(&format!("{name} comes back"))?;
    let host = Some(stage.backends[AWAY].host);
    let options = PodOptions { host, ..PodOptions::default() };
    stage.backends[AWAY] = stage.bed.add_pod(&stage.node, name, options)?;
    stage.servers.insert(AWAY, Server::pod(&stage.backends[AWAY], yaml::PORTS.1)?);
    stage.change_slice(story, &stage.backends)?;
    let first = load.wait(name, true)?;
    story.tell(&format!("{} First request {} ms later.", stage.joined(), first.as_millis()));
    let spread = load.sample(Duration::from_secs(2))?;
    story.say(picture::bars(&BACKENDS, &spread).trim_end());
    let (total, failures) = load.stop()?;
    story.tell(&format!("{total} requests since step 4 began, {} lost.", failures.len()));
    ensure!(failures.is_empty(), "the first request that was lost: {}", failures[0]);
    ensure!(spread.len() == BACKENDS.len(), "unexpected spread: {spread:?}");
    Ok(())
}

impl Stage {
    pub(super) fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the agent is gone")
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    fn wait_for_backends(&self, count: usize) -> Result<()> {
        let wanted = |shown: &serde_json::Value| shown.as_array().is_some_and(|all| all.len() >= count);
        self.agent()?.wait_for("backends", Duration::from_secs(5), wanted).map(drop)
    }
}

pub(super) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
