//! Three nodes with an agent each, their pods, and two clients outside.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lbr_agent::dataplane::Pinned;
use lbr_common::addr::Family;
use lbr_common::tuple::proto;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::manifests::{Service, join};
use lbr_tests::netns::Netns;
use lbr_tests::probe::{Client, Server};
use lbr_tests::topology::{Bed, BedOptions, Cgroup, Host, Node, PodOptions, Underlay};

use crate::objects::{self, Web};

/// The port where every server listens.
pub(crate) const PORT: u16 = 8080;
/// The second port where every server listens.
pub(crate) const OTHER_PORT: u16 = 8081;

/// The longest time that a change takes on a busy machine.
pub(crate) fn patience() -> Duration {
    lbr_tests::patience::millis(10_000)
}

/// Names of the nodes. Each has two pods, `a1` and `a2` for instance, and a server of its own, `host-a`.
pub(crate) const NODES: [&str; 3] = ["a", "b", "c"];

/// No client asks at this address. Its one port is the version of the objects in force.
const MARKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 255, 254));

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A host outside of the cluster.
    Outside,
    /// Another host outside.
    Stranger,
    /// A pod, by its name.
    Pod(&'static str),
    /// A process of a node, by the node's name.
    Node(&'static str),
}

/// Whether the agents attach the XDP program to the uplinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Xdp {
    Off,
    /// In the driver; it must forward packets in both directions.
    Native,
    /// Behind the driver; the same.
    Generic,
}

/// Fields are dropped in this order, so processes end before their namespaces.
#[derive(Debug)]
pub(crate) struct World {
    /// By name of the node.
    agents: RefCell<BTreeMap<String, Agent>>,
    _servers: Vec<Server>,
    clients: [Host; 2],
    cgroup: Cgroup,
    version: Cell<u16>,
    numbers: Cell<u8>,
    pub(crate) bed: Bed,
}

impl World {
    /// Starts a world in which every pod and node serves, with agents that know nodes and ServiceCIDRs, and without
    /// Services.
    fn start(name: &str, underlay: Underlay, xdp: Xdp) -> Result<Self> {
        // Pods of VXLAN networks are known to their own nodes only.
        let masquerade = underlay == Underlay::Vxlan;
        let wires = xdp != Xdp::Off;
        let mut bed = Bed::with(name, BedOptions { underlay, masquerade, wires, ..BedOptions::default() })?;
        let mut servers = Vec::new();
        for name in NODES {
            let node = bed.add_node(name)?;
            servers.extend(serve(&node.ns, &format!("host-{name}"), &node.addresses())?);
            for number in [1, 2] {
                let pod = bed.add_pod(&node, &format!("{name}{number}"), PodOptions::default())?;
                servers.extend(serve(&pod.ns, &pod.name, &pod.addresses())?);
            }
        }
        let clients = [bed.add_client("outside")?, bed.add_client("stranger")?];
        let cluster = objects::cluster(&bed);
        // Without these blocks no Service may have an external address.
        let mut arguments = vec!["--external-ips=203.0.113.0/24,2001:db8:113::/48".to_owned()];
        match xdp {
            Xdp::Off => {}
            Xdp::Native => arguments.push("--xdp=native".to_owned()),
            Xdp::Generic => arguments.push("--xdp=generic".to_owned()),
        }
        let options = AgentOptions { sockets: true, arguments, ..AgentOptions::default() };
        let mut agents = BTreeMap::new();
        for node in bed.nodes().clone().into_values() {
            let files = [("cluster.yaml", cluster.clone())];
            agents.insert(node.name.clone(), Agent::start_with(&mut bed, &node, &options, &files)?);
        }
        let cgroup = bed.cgroup()?;
        let (version, numbers) = (Cell::new(0), Cell::new(0));
        let agents = RefCell::new(agents);
        Ok(Self { agents, _servers: servers, clients, cgroup, version, numbers, bed })
    }

    /// Names and addresses of a Service that no check has used.
    pub(crate) fn web(&self) -> Web {
        self.numbers.set(self.numbers.get() + 1);
        Web::new(self.numbers.get())
    }

    /// Makes these the only Services and EndpointSlices, and waits until they are in force on all nodes.
    pub(crate) fn apply(&self, documents: &[String]) -> Result<()> {
        self.save(documents)?;
        for (name, agent) in self.agents.borrow().iter() {
            until(patience(), || self.is_in_force(agent)).with_context(|| format!("node {name}"))?;
        }
        // The marker is among the writes; removals follow right after.
        std::thread::sleep(Duration::from_millis(50));
        Ok(())
    }

    /// The same without waiting.
    pub(crate) fn save(&self, documents: &[String]) -> Result<()> {
        self.version.set(self.version.get() + 1);
        let marker = Service::new("marker", &[MARKER]).port("", "TCP", self.version.get(), 1).yaml();
        let text = join(documents.iter().cloned().chain([marker]));
        self.agents.borrow().values().try_for_each(|agent| agent.write("services.yaml", &text))
    }

    /// Kills the agent of a node, and starts it again.
    pub(crate) fn restart(&self, node: &str) -> Result<()> {
        let mut agents = self.agents.borrow_mut();
        let agent = agents.get_mut(node).with_context(|| format!("no node {node}"))?;
        agent.kill();
        agent.run()
    }

    fn is_in_force(&self, agent: &Agent) -> Result<()> {
        let frontends = Pinned::open(agent.bpffs())?.tables()?.frontends;
        let ports = frontends.keys().filter(|key| key.addr == MARKER.into() && key.proto == proto::TCP);
        let ports: Vec<u16> = ports.map(|key| key.port).collect();
        ensure!(ports == [self.version.get()], "in force is {ports:?}, not {}", self.version.get());
        Ok(())
    }

    /// Gives a client outside one more address, or removes it.
    pub(crate) fn pretend(&self, verb: &str, address: IpAddr) -> Result<()> {
        let nodad = if address.is_ipv6() && verb == "add" { " nodad" } else { "" };
        self.clients[0].ns.ip([format!("addr {verb} {address} dev lo{nodad}")])
    }

    /// A client at a place.
    pub(crate) fn client(&self, from: From) -> Client {
        let client = Client::new(self.netns(from));
        if matches!(from, From::Node(_)) { client.cgroup(&self.cgroup) } else { client }
    }

    /// The network namespace of a place.
    pub(crate) fn netns(&self, from: From) -> &Netns {
        match from {
            From::Outside => &self.clients[0].ns,
            From::Stranger => &self.clients[1].ns,
            From::Pod(name) => &self.bed.pods()[name].ns,
            From::Node(name) => &self.node(name).ns,
        }
    }

    /// The address at a place.
    pub(crate) fn address(&self, from: From, family: Family) -> IpAddr {
        match from {
            From::Outside => self.clients[0].address(family),
            From::Stranger => self.clients[1].address(family),
            From::Pod(name) => self.bed.pods()[name].address(family),
            From::Node(name) => self.node(name).address(family),
        }
    }

    /// A node.
    pub(crate) fn node(&self, name: &str) -> &Node {
        &self.bed.nodes()[name]
    }

    /// The port of a Service at a node.
    pub(crate) fn node_port(&self, node: &str, web: Web, family: Family) -> SocketAddr {
        SocketAddr::new(self.node(node).address(family), web.node_port())
    }

    /// The source address of a node towards pods of other nodes.
    pub(crate) fn in_the_name_of(&self, node: &str, family: Family) -> IpAddr {
        let node = self.node(node);
        match self.bed.options().underlay {
            Underlay::Routed => node.address(family),
            Underlay::Vxlan => node.tunnel_addresses()[family.index()],
        }
    }

    /// Where a backend is: its addresses, and its node.
    pub(crate) fn place(&self, backend: &str) -> ([IpAddr; 2], &Node) {
        match backend.strip_prefix("host-") {
            Some(node) => (self.node(node).addresses(), self.node(node)),
            None => {
                let pod = &self.bed.pods()[backend];
                (pod.addresses(), self.node(&pod.node))
            }
        }
    }

    /// A counter of the agent on a node.
    pub(crate) fn count(&self, node: &str, hook: Hook, verdict: Verdict) -> Result<u64> {
        let counts = Pinned::open(self.agents.borrow()[node].bpffs())?.counters()?;
        let count = counts.iter().find(|count| (count.hook, count.verdict) == (hook, verdict));
        Ok(count.map_or(0, |count| count.counter.packets))
    }

    /// XDP forwarded requests and answers if it was attached, and none otherwise.
    fn was_carried_by(&self, xdp: Xdp) -> Result<()> {
        for verdict in [Verdict::ToBackend, Verdict::ToClient] {
            let counts = NODES.map(|node| self.count(node, Hook::Xdp, verdict));
            let sum: u64 = counts.into_iter().sum::<Result<u64>>()?;
            ensure!((sum > 0) == (xdp != Xdp::Off), "{verdict:?}: {sum} packets");
            if xdp != Xdp::Off {
                println!("  XDP {verdict:?}: {sum} packets");
            }
        }
        Ok(())
    }

    /// The maps are empty after all objects are deleted.
    fn is_empty(&self) -> Result<()> {
        let agents = self.agents.borrow();
        agents.values().try_for_each(|agent| agent.remove("services.yaml"))?;
        for (name, agent) in agents.iter() {
            until(patience(), || {
                let tables = Pinned::open(agent.bpffs())?.tables()?;
                let left = (tables.frontends, tables.slots, tables.backends, tables.source_ranges);
                match left {
                    (f, s, b, r) if f.is_empty() && s.is_empty() && b.is_empty() && r.is_empty() => Ok(()),
                    left => bail!("left: {left:?}"),
                }
            })
            .with_context(|| format!("node {name}"))?;
        }
        Ok(())
    }

    /// A description for the message of a failed check.
    fn picture(&self) -> String {
        let of = |(name, agent): (&String, &Agent)| {
            let show = |what| agent.show_text(what).unwrap_or_else(|error| format!("{error:#}\n"));
            format!("node {name}:\n{}{}{}", show("services"), show("rejected"), show("counters"))
        };
        self.agents.borrow().iter().map(of).collect()
    }
}

fn serve(ns: &Netns, name: &str, addresses: &[IpAddr]) -> Result<Vec<Server>> {
    [PORT, OTHER_PORT].into_iter().map(|port| Server::start(ns, name, addresses, port)).collect()
}

/// A check with a name. All checks run, then all failures are reported.
pub(crate) type Check = (&'static str, fn(&World) -> Result<()>);

/// Runs the checks of a subject, then asserts that nothing of their Services is left.
pub(crate) fn play(subject: &str, underlay: Underlay, xdp: Xdp, checks: &[Check]) {
    let world = World::start(subject, underlay, xdp).unwrap();
    let mut failed = Vec::new();
    for (name, check) in checks {
        let begin = Instant::now();
        match check(&world) {
            Ok(()) => println!("  {name}: {:?}", begin.elapsed()),
            Err(error) => {
                failed.push(format!("{name}: {error:#}"));
                println!("--- failed: {name}: {error:#}\n{}", world.picture());
            }
        }
    }
    if let Err(error) = world.was_carried_by(xdp) {
        failed.push(format!("XDP: {error:#}"));
    }
    if let Err(error) = world.is_empty() {
        failed.push(format!("nothing is left: {error:#}"));
    }
    assert!(failed.is_empty(), "{} of {} checks:\n{}", failed.len(), checks.len(), failed.join("\n"));
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
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
