//! The cast in a bed with an agent on each node, and the state of a case.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::manifests::{Service, join};
use lbr_tests::probe::Server;
use lbr_tests::topology::{Bed, Node};
use serde_json::{Value, json};

use crate::arrivals::Recorder;
use crate::case::{Case, Expect, Line, merge};
use crate::cast::{self, Actor, PORTS};
use crate::probe::{Got, Probe, long, short};

/// The longest time until a saved file is in force, on a busy machine.
fn patience() -> Duration {
    lbr_tests::patience::millis(5_000)
}

/// Fields are dropped in this order, so processes end before their namespaces.
#[derive(Debug)]
pub(crate) struct World {
    /// On node-a and on node-b.
    pub(crate) agents: Vec<Agent>,
    pub(crate) recorders: BTreeMap<String, Recorder>,
    _servers: Vec<Server>,
    pub(crate) actors: BTreeMap<String, Actor>,
    pub(crate) nodes: Vec<Node>,
    idents: AtomicU16,
    states: AtomicU16,
    pub(crate) bed: Bed,
}

impl World {
    /// Starts a world in which each of the cast serves, with agents that have these arguments.
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let mut bed = Bed::new(name)?;
        let (nodes, actors) = cast::build(&mut bed)?;
        let (mut servers, mut recorders) = (Vec::new(), BTreeMap::new());
        for actor in actors.values() {
            for port in PORTS {
                servers.push(Server::start(&actor.ns, &actor.name, &actor.addresses, port)?);
            }
            recorders.insert(actor.name.clone(), Recorder::start(&actor.ns)?);
        }
        let inside = [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
        servers.push(Server::start(&actors["x/a"].ns, "localhost", &inside, PORTS[0])?);
        let mut world = Self {
            agents: Vec::new(),
            recorders,
            _servers: servers,
            actors,
            nodes,
            idents: AtomicU16::new(10_000),
            states: AtomicU16::new(0),
            bed,
        };
        let arguments = arguments.iter().map(|&a| a.to_owned()).collect();
        let options = AgentOptions { arguments, ..AgentOptions::default() };
        let files = [
            ("cluster.yaml", cast::cluster(&world.nodes, &world.actors)),
            ("case.yaml", world.documents(&Case::default(), 0)?),
        ];
        for node in &world.nodes {
            world.agents.push(Agent::start_with(&mut world.bed, node, &options, &files)?);
        }
        Ok(world)
    }

    pub(crate) fn actor(&self, name: &str) -> Result<&Actor> {
        self.actors.get(name).with_context(|| format!("{name:?} is not in the cast"))
    }

    /// A source port or identifier that no other probe has had lately.
    pub(crate) fn next_ident(&self) -> u16 {
        let next = |now: u16| Some(if now >= 60_000 { 10_000 } else { now + 1 });
        self.idents.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|now| now)
    }

    /// Namespaces, pods, policies, and a Service whose port shows that all of it has been read.
    fn documents(&self, case: &Case, number: u16) -> Result<String> {
        let mut objects: Vec<Value> = Vec::new();
        for name in ["x", "y", "z"] {
            objects.extend(patched(cast::namespace(name), case.namespaces.get(name)));
        }
        for actor in self.actors.values() {
            let object = actor.object().and_then(|object| patched(object, case.pods.get(&actor.name)));
            objects.extend(object);
        }
        let known = |name: &String| self.actors.contains_key(name);
        ensure!(case.pods.keys().all(known), "{:?}: not all pods of the cast", case.pods.keys());
        for (index, policy) in case.policies.iter().enumerate() {
            // Names are new in every state: after a wrong policy, an earlier version with its name would stay in
            // force.
            let mut spec = policy.clone();
            let namespace = spec.remove("in").context("`in`, the namespace of the policy")?;
            let metadata = json!({"namespace": namespace, "name": format!("p{number}-{index}")});
            objects.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": metadata, "spec": spec,
            }));
        }
        objects.extend(case.objects.iter().cloned());
        let mut documents: Vec<String> = objects.iter().map(|object| format!("{object}\n")).collect();
        let marker = Service::new("marker", &cast::vip(250)).port("", "TCP", 1000 + number, 1);
        documents.push(marker.yaml());
        Ok(join(documents))
    }

    /// Puts the cluster into the state of a case and waits until both agents have written it.
    pub(crate) fn apply(&self, case: &Case) -> Result<()> {
        let number = self.states.fetch_add(1, Ordering::Relaxed) + 1;
        let text = self.documents(case, number)?;
        self.agents.iter().try_for_each(|agent| agent.write("case.yaml", &text))?;
        for agent in &self.agents {
            agent.wait_for("services", patience(), |shown| {
                let rows = shown.as_array().into_iter().flatten();
                rows.into_iter().any(|row| row["name"] == "marker" && row["port"] == 1000 + number)
            })?;
        }
        Ok(())
    }

    /// Plays a case: the state, then all of its probes at once, and again.
    ///
    /// A probe that should pass is repeated with more patience before it counts as lost. A probe that should not pass
    /// must not, from the first round in which all results were as expected.
    pub(crate) fn play(&self, case: &Case) -> Result<()> {
        self.apply(case)?;
        let probes = self.probes(&case.lines()?)?;
        ensure!(!probes.is_empty(), "no probes");
        let end = Instant::now() + long();
        while !self.wrong(&probes, short()).is_empty() && Instant::now() < end {}
        // Writes behind the marker (a switch of generations, for instance) are in force by now.
        std::thread::sleep(Duration::from_millis(50));
        let wrong = self.wrong(&probes, short());
        let (lost, through): (Vec<_>, Vec<_>) =
            wrong.into_iter().partition(|(probe, _)| probe.expect != Expect::Denied);
        let lost: Vec<Probe> = lost.into_iter().map(|(probe, _)| probe).collect();
        let mut wrong = self.wrong(&lost, long());
        wrong.extend(through);
        if wrong.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> =
            wrong.iter().map(|(p, got)| format!("  {p}: expected {:?}, got {got:?}", p.expect)).collect();
        bail!("{} of {} probes:\n{}", lines.len(), probes.len(), lines.join("\n"))
    }

    /// Sends all of them at the same time; returns those with another result than expected.
    pub(crate) fn wrong(&self, probes: &[Probe], patience: Duration) -> Vec<(Probe, Got)> {
        self.recorders.values().for_each(Recorder::forget);
        // Enough to wait for at the same time, and not so many that two processors delay them.
        const AT_ONCE: usize = 96;
        let mut wrong = Vec::new();
        for probes in probes.chunks(AT_ONCE) {
            let got: Vec<Got> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    probes.iter().map(|probe| scope.spawn(|| probe.send(self, patience))).collect();
                let panicked = |_| Got::Error("panicked".to_owned());
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
            });
            let both = probes.iter().cloned().zip(got);
            wrong.extend(both.filter(|(probe, got)| !got.is(probe.expect)));
        }
        wrong
    }

    /// The cells of lines of probes.
    pub(crate) fn probes(&self, lines: &[Line]) -> Result<Vec<Probe>> {
        let mut probes = Vec::new();
        for line in lines {
            for from in self.names(&line.from)? {
                for to in self.names(&line.to)? {
                    let is_group = line.from.iter().chain(&line.to).any(|name| name == "pods");
                    if is_group && from == to {
                        continue;
                    }
                    let to = if to == "self" { from.clone() } else { to };
                    self.cells(line, &from, &to, &mut probes)?;
                }
            }
        }
        Ok(probes)
    }

    fn cells(&self, line: &Line, from: &str, to: &str, into: &mut Vec<Probe>) -> Result<()> {
        use crate::case::What::{Tcp, Udp};
        let is_pod = self.actor(from)?.pod.is_some();
        for &family in line.families {
            for (via, by_service) in line.via.into_iter().zip([false, true]) {
                for what in &line.what {
                    // lbr translates for pods only, and TCP and UDP only.
                    let possible =
                        is_pod && to != "localhost" && matches!(what, Tcp(_) | Udp(_)) || !by_service;
                    if via && possible {
                        let (from, to) = (from.to_owned(), to.to_owned());
                        into.push(Probe { from, to, what: *what, family, by_service, expect: line.expect });
                    }
                }
            }
        }
        Ok(())
    }

    fn names(&self, words: &[String]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for word in words {
            match word.as_str() {
                "pods" => {
                    names.extend(self.actors.values().filter(|a| a.pod.is_some()).map(|a| a.name.clone()));
                }
                "self" | "localhost" => names.push(word.clone()),
                name => names.push(self.actor(name)?.name.clone()),
            }
        }
        Ok(names)
    }
}

/// The object with a patch; nothing, if the patch is null.
fn patched(mut object: Value, patch: Option<&Value>) -> Option<Value> {
    match patch {
        Some(Value::Null) => None,
        Some(patch) => {
            merge(&mut object, patch);
            Some(object)
        }
        None => Some(object),
    }
}
