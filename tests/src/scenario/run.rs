//! Runs a scenario on a data plane, by the engine that the agent drives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use lbr_agent::cluster::Change;
use lbr_agent::desired::Desired;
use lbr_agent::engine::Engine;
use lbr_agent::model::{Item, Kind, Object, ObjectName, ObjectRef, Partial, Rejected};
use lbr_agent::node::NodeView;
use lbr_agent::reconcile::Reconciler;
use lbr_agent::service::look_up::Sender;
use lbr_agent::source::manifest;
use lbr_common::tuple::{Tuple, proto};

use super::{Node, Plane, Scenario, Step, text};

/// The order in which the objects of a step arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As in the file.
    Given,
    /// In reverse order.
    Reversed,
    /// In an order that follows from this number.
    Shuffled(u64),
}

/// Runs all steps, then deletes everything. An error has the step and the content of the maps.
pub fn run(scenario: &Scenario, order: Order, plane: &mut dyn Plane) -> Result<()> {
    let mut agent = Agent::start(&scenario.node, order, plane)?;
    for (number, step) in scenario.steps.iter().enumerate() {
        agent.step(step).with_context(|| format!("{}, step {}", scenario.name, number + 1))?;
    }
    agent.end().with_context(|| format!("{}, after deleting everything", scenario.name))
}

/// Rounds until the maps must have the right content; with one write of ten failing, a few are enough.
const MAX_ROUNDS: usize = 200;

struct Agent<'a> {
    engine: Engine,
    plane: &'a mut dyn Plane,
    order: Order,
    /// What can be read of objects whose present version is rejected.
    partials: BTreeMap<ObjectRef, Partial>,
    /// Rejections by their object.
    rejected: BTreeMap<Item, Vec<Rejected>>,
    /// The applied objects, for a restart.
    objects: BTreeMap<ObjectRef, Object>,
    /// Entries written or removed since the last restart.
    touched: usize,
}

impl<'a> Agent<'a> {
    fn start(node: &Node, order: Order, plane: &'a mut dyn Plane) -> Result<Self> {
        plane.set_node(node)?;
        let engine = Engine::start(node.view()?, plane.dataplane()?)?;
        let mut agent = Self {
            engine,
            plane,
            order,
            partials: BTreeMap::new(),
            rejected: BTreeMap::new(),
            objects: BTreeMap::new(),
            touched: 0,
        };
        agent.synced();
        agent.converge()?;
        Ok(agent)
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        if let Some(text) = &step.apply {
            self.apply(text)?;
        }
        if let Some(names) = &step.delete {
            let refs = names.iter().map(|n| reference(n)).collect::<Result<Vec<_>>>()?;
            self.delete(refs)?;
        }
        if let Some(node) = &step.node {
            self.plane.set_node(node)?;
            self.set_node(node.view()?)?;
            self.converge()?;
        }
        if step.restart {
            self.restart()?;
        }
        if let Some(expected) = &step.expect {
            let expected = expected.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty());
            same(&expected.collect(), &text::tables(&self.tables()?))?;
        }
        for line in step.verdicts.iter().flatten() {
            check_verdict(line, self.plane).with_context(|| line.clone())?;
        }
        Ok(())
    }

    fn apply(&mut self, text: &str) -> Result<()> {
        let parsed = manifest::parse("scenario", text);
        ensure!(!parsed.unreadable, "not readable: {:?}", parsed.rejected);
        let accepted = parsed.objects.iter().map(|o| o.object.reference());
        for reference in accepted.chain(parsed.held.iter().map(|h| h.reference.clone())) {
            self.rejected.remove(&Item::from(reference));
        }
        for rejected in parsed.rejected {
            self.rejected.entry(rejected.object.clone()).or_default().push(rejected);
        }
        self.send_rejected()?;
        for partial in parsed.held.into_iter().filter_map(|held| held.partial) {
            self.partials.insert(partial.reference(), partial.clone());
            self.change(Change::Restrict(partial))?;
        }
        let objects = parsed.objects.into_iter().map(|o| o.object).collect();
        for object in ordered(objects, self.order) {
            self.objects.insert(object.reference(), object.clone());
            self.partials.remove(&object.reference());
            self.change(Change::Apply(object))?;
        }
        self.converge()
    }

    fn delete(&mut self, refs: Vec<ObjectRef>) -> Result<()> {
        for reference in &refs {
            self.rejected.remove(&Item::from(reference.clone()));
        }
        self.send_rejected()?;
        for reference in ordered(refs, self.order) {
            self.objects.remove(&reference);
            self.partials.remove(&reference);
            self.change(Change::Delete(reference))?;
        }
        self.converge()
    }

    fn send_rejected(&mut self) -> Result<()> {
        self.change(Change::Rejected(self.rejected.values().flatten().cloned().collect()))
    }

    /// One change, one attempt to write: the next change may come before everything is written.
    fn change(&mut self, change: Change) -> Result<()> {
        self.engine.take(change);
        self.attempt().map(drop)
    }

    fn attempt(&mut self) -> Result<bool> {
        let dataplane = self.plane.dataplane()?;
        self.engine.compile(dataplane);
        let (wanted, from_scratch) = (self.engine.desired(), self.engine.from_scratch());
        ensure!(wanted == from_scratch, "incremental: {wanted:#?}, from scratch: {from_scratch:#?}");
        let outcome = self.engine.write(dataplane);
        self.touched += outcome.writes + outcome.removals;
        Ok(outcome.is_converged())
    }

    fn converge(&mut self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            if self.attempt()? {
                return Ok(());
            }
        }
        let outcome = self.engine.write(self.plane.dataplane()?);
        bail!("still pending after {MAX_ROUNDS} rounds: {outcome:?}")
    }

    fn synced(&mut self) {
        for kind in Kind::ALL {
            self.engine.take(Change::Synced(kind));
        }
    }

    /// Forgets everything but the maps. The listed objects arrive one by one.
    fn restart(&mut self) -> Result<()> {
        let before = self.tables()?;
        self.plane.restart()?;
        self.engine = Engine::start(self.engine.node().clone(), self.plane.dataplane()?)?;
        self.touched = 0;
        self.send_rejected()?;
        let objects: Vec<_> = self.objects.values().cloned().collect();
        for object in ordered(objects, self.order) {
            self.change(Change::Apply(object))?;
            // Packets must not notice that the list is incomplete. A Service that is about to lose its only address
            // to another one may bring slots and backends that nothing leads to.
            let now = self.tables()?;
            let same = now.frontends == before.frontends
                && before.slots.iter().all(|(key, slot)| now.slots.get(key) == Some(slot))
                && before.backends.iter().all(|(id, backend)| now.backends.get(id) == Some(backend));
            ensure!(same, "half a list changed the maps from {before:#?} to {now:#?}");
        }
        for partial in self.partials.values().cloned().collect::<Vec<_>>() {
            self.engine.take(Change::Restrict(partial));
        }
        self.synced();
        self.converge()?;
        let after = self.tables()?;
        ensure!(before == after, "a restart changed the maps from {before:#?} to {after:#?}");
        // One write for each link and uplink, to be sure that it is attached. An object that is rejected because of
        // another one is not rejected while only one of them is listed, so its record comes and goes.
        let (touched, links) = (self.touched, after.links.len() + after.uplinks.len());
        let as_few = touched == links || !after.rejected.is_empty();
        ensure!(as_few, "a restart wrote {touched} entries, and there are {links} links");
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        let refs = self.objects.keys().cloned().collect();
        self.rejected.clear();
        self.set_node(NodeView { name: self.engine.node().name.clone(), ..NodeView::default() })?;
        self.delete(refs)?;
        let left = self.tables()?;
        ensure!(left == Desired::default(), "the maps are not empty: {left:#?}");
        Ok(())
    }

    fn set_node(&mut self, node: NodeView) -> Result<()> {
        let outcome = self.engine.set_node(|known| *known = node, self.plane.dataplane()?);
        self.touched += outcome.writes;
        Ok(())
    }

    /// The real content of the maps, not the reconciler's view.
    fn tables(&mut self) -> Result<Desired> {
        Ok(Reconciler::load(self.plane.dataplane()?)?.actual())
    }
}

fn same(expected: &BTreeSet<String>, actual: &BTreeSet<String>) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    let list = |lines: &BTreeSet<String>| lines.iter().map(|l| format!("  {l}\n")).collect::<String>();
    bail!("expected:\n{}but the maps hold:\n{}", list(expected), list(actual))
}

/// `client -> address:port/protocol: verdict`, over enough source ports to meet every backend. `wire` or `node` may
/// stand before the client.
fn check_verdict(line: &str, plane: &mut dyn Plane) -> Result<()> {
    let form = "write: client -> address:port/protocol: verdict";
    let (client, rest) = line.split_once(" -> ").context(form)?;
    let (target, expected) = rest.split_once(": ").context(form)?;
    let (socket, protocol) = target.split_once('/').context(form)?;
    let socket: SocketAddr = socket.parse().with_context(|| format!("address {socket:?}"))?;
    let proto = match protocol {
        "TCP" => proto::TCP,
        "UDP" => proto::UDP,
        "SCTP" => proto::SCTP,
        other => bail!("protocol {other:?}"),
    };
    let expected: BTreeSet<String> = match expected.strip_prefix("to ") {
        Some(backends) => backends.split('|').map(|b| format!("to {b}")).collect(),
        None => [expected.to_owned()].into(),
    };
    let (sender, client) = match client.split_once(' ') {
        Some(("wire", client)) => (Sender::Wire, client),
        Some(("node", client)) => (Sender::Node, client),
        _ => (Sender::Pod, client),
    };
    let client: IpAddr = client.parse().with_context(|| format!("client {client:?}"))?;
    let mut seen = BTreeSet::new();
    for src_port in (32_768u16..).take(32 * expected.len()) {
        let (dst, dst_port) = (socket.ip().into(), socket.port());
        let tuple = Tuple { src: client.into(), dst, src_port, dst_port, proto, _pad: [0; 3] };
        let Some(verdict) = plane.verdict(&tuple, sender)? else { return Ok(()) };
        seen.insert(verdict);
    }
    ensure!(seen == expected, "seen instead: {seen:?}");
    Ok(())
}

/// `Kind namespace/name`.
fn reference(text: &str) -> Result<ObjectRef> {
    let (kind, name) =
        text.split_once(' ').with_context(|| format!("{text:?}: write Kind namespace/name"))?;
    let known = Kind::ALL.into_iter().find(|k| k.as_str() == kind);
    let kind = known.with_context(|| format!("kind {kind:?}"))?;
    let name = match name.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace.to_owned(), name.to_owned()),
        None => ObjectName::cluster(name),
    };
    Ok(ObjectRef { kind, name })
}

fn ordered<T>(mut items: Vec<T>, order: Order) -> Vec<T> {
    match order {
        Order::Given => {}
        Order::Reversed => items.reverse(),
        // Fisher and Yates, with Knuth's MMIX generator.
        Order::Shuffled(mut random) => {
            for n in (1..items.len()).rev() {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                items.swap(n, (random >> 33) as usize % (n + 1));
            }
        }
    }
    items
}
