//! A node with a client, backends on it or on another node, and the agents.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::probe::{Client, Server};
use lbr_tests::topology::{Bed, BedOptions, Node, Pod, PodNetwork, PodOptions, Underlay};

/// The port where servers listen.
pub(crate) const PORT: u16 = 8080;
/// The second port where servers listen.
pub(crate) const OTHER_PORT: u16 = 8081;

/// The longest time until a saved file is in force.
pub(crate) fn soon() -> Duration {
    lbr_tests::patience::millis(1_000)
}
/// The same with the delays of a busy machine.
pub(crate) fn patience() -> Duration {
    lbr_tests::patience::millis(5_000)
}

/// Where backends are, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    SameNode,
    OtherNode(Underlay),
}

/// The parts of a world.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) network: PodNetwork,
    pub(crate) place: Place,
    pub(crate) backends: usize,
    pub(crate) pod_mtu: Option<u32>,
    pub(crate) agent: AgentOptions,
}

impl Plan {
    pub(crate) fn new(network: PodNetwork, place: Place) -> Self {
        Self { network, place, backends: 3, pod_mtu: None, agent: AgentOptions::default() }
    }

    /// Whether programs are attached by clsact.
    pub(crate) fn is_clsact(&self) -> bool {
        self.agent.arguments.iter().any(|argument| argument == "clsact")
    }
}

/// Fields are dropped in this order, so processes end before their namespaces.
#[derive(Debug)]
pub(crate) struct World {
    /// The first one is on the client's node.
    pub(crate) agents: Vec<Agent>,
    pub(crate) servers: BTreeMap<String, Vec<Server>>,
    pub(crate) client: Pod,
    pub(crate) backends: Vec<Pod>,
    /// The client's node.
    pub(crate) node: Node,
    pub(crate) plan: Plan,
    pub(crate) bed: Bed,
}

impl World {
    /// Starts a world in which every pod serves, with agents on the files of `files`.
    pub(crate) fn start(
        name: &str,
        plan: Plan,
        files: impl FnOnce(&Self) -> Vec<(&'static str, String)>,
    ) -> Result<Self> {
        let underlay = if let Place::OtherNode(underlay) = plan.place { underlay } else { Underlay::Routed };
        let mut bed = Bed::with(name, BedOptions { underlay, ..BedOptions::default() })?;
        let node = bed.add_node("node-a")?;
        let other = if plan.place == Place::SameNode { None } else { Some(bed.add_node("node-b")?) };
        let home = other.as_ref().unwrap_or(&node);
        let options = PodOptions { network: plan.network, mtu: plan.pod_mtu, host: None };
        let client = bed.add_pod(&node, "client", options)?;
        let backends = (1..=plan.backends).map(|n| bed.add_pod(home, &format!("b{n}"), options));
        let backends = backends.collect::<Result<Vec<_>>>()?;
        let mut world =
            Self { agents: Vec::new(), servers: BTreeMap::new(), client, backends, node, plan, bed };
        for pod in world.backends.iter().chain([&world.client]) {
            world.servers.insert(pod.name.clone(), serve(pod)?);
        }
        let files = files(&world);
        let nodes = [Some(world.node.clone()), other];
        for node in nodes.into_iter().flatten() {
            world.agents.push(Agent::start_with(&mut world.bed, &node, &world.plan.agent, &files)?);
        }
        Ok(world)
    }

    /// The agent on the client's node.
    pub(crate) fn agent(&self) -> &Agent {
        &self.agents[0]
    }

    /// A client in the client's pod.
    pub(crate) fn ask(&self) -> Client {
        Client::new(&self.client.ns)
    }

    /// The first so many backends.
    pub(crate) fn first(&self, count: usize) -> Vec<&Pod> {
        self.backends.iter().take(count).collect()
    }

    /// Names of all backends.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.backends.iter().map(|pod| pod.name.clone()).collect()
    }

    /// Saves a file for every agent.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<()> {
        self.agents.iter().try_for_each(|agent| agent.write(name, text))
    }

    /// Waits until every port of a Service has exactly these endpoints. Returns the time that it took.
    pub(crate) fn wait_for(&self, service: &str, endpoints: &[SocketAddr]) -> Result<Duration> {
        let begin = Instant::now();
        let wanted: BTreeSet<String> = endpoints.iter().map(ToString::to_string).collect();
        for agent in &self.agents {
            agent.wait_for("services", patience(), |shown| {
                let rows = shown.as_array().into_iter().flatten().filter(|row| row["name"] == service);
                let found = rows.flat_map(|row| row["endpoints"].as_array().cloned().unwrap_or_default());
                let found: BTreeSet<String> = found.filter_map(|e| e.as_str().map(str::to_owned)).collect();
                found == wanted
            })?;
        }
        Ok(begin.elapsed())
    }
}

/// A pod's servers on both ports.
pub(crate) fn serve(pod: &Pod) -> Result<Vec<Server>> {
    [PORT, OTHER_PORT].into_iter().map(|port| Server::pod(pod, port)).collect()
}

/// Both addresses of the n-th Service.
pub(crate) fn vip(n: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, n.into());
    [Ipv4Addr::new(10, 96, 0, n).into(), v6.into()]
}

/// A port at both addresses of the n-th Service.
pub(crate) fn at(n: u8, port: u16) -> [SocketAddr; 2] {
    vip(n).map(|ip| SocketAddr::new(ip, port))
}

/// A port at both addresses of every pod.
pub(crate) fn ends(pods: &[&Pod], port: u16) -> Vec<SocketAddr> {
    let all = pods.iter().flat_map(|pod| pod.addresses());
    all.map(|ip| SocketAddr::new(ip, port)).collect()
}

/// Retries until it holds.
pub(crate) fn until(timeout: Duration, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + timeout;
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("still after {timeout:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// Asserts that the call is refused for lack of a listener, and at once.
pub(crate) fn refused_at_once<T>(what: &str, act: impl FnOnce() -> Result<T>) -> Result<()> {
    let at_once = lbr_tests::patience::millis(300);
    let begin = Instant::now();
    let Err(error) = act() else { bail!("{what}: answered, where it should be refused") };
    let took = begin.elapsed();
    ensure!(lbr_tests::probe::is_refused(&error), "{what}: not refused: {error:#}");
    ensure!(took < at_once, "{what}: refused after {took:?} only");
    Ok(())
}

/// A check with a name. All checks run, then all failures are reported.
pub(crate) type Check = (&'static str, fn(&mut World) -> Result<()>);

pub(crate) fn run(world: &mut World, checks: &[Check]) {
    let mut failed = Vec::new();
    for (name, check) in checks {
        let begin = Instant::now();
        match check(world) {
            Ok(()) => println!("  {name}: {:?}", begin.elapsed()),
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
    }
    assert!(failed.is_empty(), "{} of {} checks:\n{}", failed.len(), checks.len(), failed.join("\n"));
}

/// A counter of the agent on the client's node.
pub(crate) fn packets(world: &World, hook: &str, verdict: &str) -> Result<u64> {
    let shown = world.agent().show("counters")?;
    let rows = shown.as_array().context("counters are a list")?;
    let row = rows.iter().find(|row| row["hook"] == hook && row["verdict"] == verdict);
    Ok(row.and_then(|row| row["packets"].as_u64()).unwrap_or(0))
}
