//! An independent opinion on NetworkPolicies, random clusters to ask it about, and the comparison with lbr.
//!
//! [`Case::random`] makes raw objects as in the API. [`Case::expected`] applies the specification to them
//! (`verdict.rs`); [`Case::tables`] gives them to lbr: its converters, its store, its compiler. [`check`] compares
//! the two by `judge`, and a later test may by packets. A difference is made small ([`shrink`]) and printed as
//! manifests. [`history`] does the same over many changes of one cluster, by the engine that ships ([`Agent`]).

mod agent;
mod block;
pub mod change;
mod generate;
pub mod history;
mod policies;
mod questions;
mod random;
mod services;
pub mod shrink;
mod steps;
mod tuples;
mod verdict;

use std::fmt::Write as _;
use std::net::IpAddr;

pub use agent::Agent;
use anyhow::{Context as _, Result, bail};
use lbr_agent::cluster::Change;
use lbr_agent::cluster::Store;
use lbr_agent::compile::compile;
use lbr_agent::desired::Desired;
use lbr_agent::ids::Ids;
use lbr_agent::model::convert::Converted;
use lbr_agent::model::{Object, Partial, endpointslice, namespace, netpol, node, pod, service, servicecidr};
use lbr_agent::node::NodeView;
use lbr_agent::policy::judge::{Judged, Side, judge};
use lbr_common::tuple::Tuple;
use lbr_common::user::{proto_name, socket_text};
pub use questions::Question;
use random::Random;
use serde_json::Value;
use tuples::Interesting;
pub use verdict::{Answer, Expected, Rule};
use verdict::{World, pod_ips};

/// A cluster, as one of its nodes sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// Pods, Namespaces, Nodes, NetworkPolicies, and what belongs to Services, as in the API.
    pub objects: Vec<Value>,
    /// The node.
    pub node: NodeView,
}

impl Case {
    /// A cluster that depends only on the seed.
    pub fn random(seed: u64) -> Self {
        generate::case(&mut Random(seed), true)
    }

    /// The same with Services, and with an uplink that has this interface index.
    pub fn with_services(seed: u64, uplink: u32) -> Self {
        let mut random = Random(seed);
        let mut case = generate::case(&mut random, true);
        services::add(&mut random, &mut case, uplink);
        case
    }

    /// New connections between ends of all kinds: pods, nodes, Services, hosts outside.
    pub fn questions(&self, seed: u64, count: usize) -> Vec<Question> {
        let ends = questions::Ends::new(self);
        let mut random = Random(seed);
        (0..count).map(|_| ends.question(&mut random)).collect()
    }

    /// Connections worth a check: new ones, not from this node itself.
    pub fn tuples(&self, seed: u64, count: usize) -> Vec<Tuple> {
        let interesting = Interesting::new(self);
        let mut random = Random(seed);
        (0..count).map(|_| interesting.tuple(&mut random)).collect()
    }

    /// The answer of the specification.
    pub fn expected(&self, tuple: &Tuple) -> Expected {
        self.world().expected(tuple)
    }

    /// The addresses of the pod of this node that has this address, if there is one: without those that belong to
    /// another pod now.
    pub fn local_pod(&self, addr: IpAddr) -> Option<Vec<IpAddr>> {
        let pod = self.world().subject_at(addr)?;
        let is_its = |ip: &IpAddr| self.world().subject_at(*ip).is_some_and(|owner| std::ptr::eq(owner, pod));
        Some(pod_ips(pod).into_iter().filter(is_its).collect())
    }

    fn world(&self) -> World<'_> {
        let (node, node_addresses) = (&self.node.name, &self.node.links.node_addresses);
        World { objects: &self.objects, node, node_addresses }
    }

    /// The objects as lbr reads them, with the substitute for a refused policy.
    pub fn converted(&self) -> Result<Vec<Object>> {
        self.objects.iter().map(|object| Ok(convert(object)?.0)).collect()
    }

    /// The store of an agent that has just seen all objects.
    pub fn store(&self) -> Result<Store> {
        let mut store = Store::new();
        for object in self.converted()? {
            store.apply(Change::Apply(object));
        }
        Ok(store)
    }

    /// The tables of an agent without a past.
    pub fn tables(&self) -> Result<Desired> {
        Ok(compile(self.store()?.state(), &self.node, &mut Ids::new()))
    }

    /// The objects as manifests, and the node's knowledge as a comment.
    pub fn yaml(&self) -> String {
        let mut text = format!("# node {}\n# links {:?}\n", self.node.name, self.node.links);
        self.objects.iter().for_each(|object| text.push_str(&yaml(object)));
        text
    }

    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }
}

/// One object as a document of a manifest.
fn yaml(object: &Value) -> String {
    let text = serde_saphyr::to_string(object).unwrap_or_else(|e| format!("# {e}: {object}\n"));
    format!("---\n{text}")
}

/// lbr's reading of an object, and whether lbr refused it.
fn convert(value: &Value) -> Result<(Object, bool)> {
    fn api<'a, T: serde::Deserialize<'a>>(value: &'a Value) -> Result<T> {
        T::deserialize(value).with_context(|| value.to_string())
    }
    let converted: Converted<Object> = match value["kind"].as_str() {
        Some("Pod") => pod::from_api(api(value)?).map(Object::Pod),
        Some("Namespace") => namespace::from_api(api(value)?).map(Object::Namespace),
        Some("Node") => node::from_api(api(value)?).map(Object::Node),
        Some("NetworkPolicy") => netpol::from_api(api(value)?).map(Object::NetworkPolicy),
        Some("Service") => service::from_api(api(value)?).map(Object::Service),
        Some("EndpointSlice") => endpointslice::from_api(api(value)?).map(Object::EndpointSlice),
        Some("ServiceCIDR") => servicecidr::from_api(api(value)?).map(Object::ServiceCidr),
        _ => bail!("no kind that is generated: {value}"),
    };
    let is_policy = value["kind"] == "NetworkPolicy";
    let partial = netpol::partial(value, true).filter(|_| is_policy && converted.object.is_none());
    let remains = partial.and_then(|partial| Partial::NetworkPolicy(Box::new(partial)).over(None));
    match (converted.object, remains) {
        // A part of a Service may be rejected: an address, a port.
        (Some(object), _) if !is_policy => Ok((object, false)),
        (Some(object), _) if converted.problems.is_empty() => Ok((object, false)),
        (None, Some(object)) => Ok((object, true)),
        _ => bail!("{:?} in {value}", converted.problems),
    }
}

/// A connection about which lbr and the specification disagree.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// The connection; `None` where something other than a verdict is wrong.
    pub tuple: Option<Tuple>,
    /// lbr's answer, and the right one.
    pub what: String,
}

impl Mismatch {
    fn other(what: impl Into<String>) -> Self {
        Self { tuple: None, what: what.into() }
    }
}

/// Compares lbr's tables with the specification.
pub fn check(case: &Case, tables: &Desired, tuples: &[Tuple]) -> Result<(), Mismatch> {
    for tuple in tuples {
        let (expected, got) = (case.expected(tuple), judge(tables, tuple));
        if let Some(what) = difference(tables, &expected, &got) {
            return Err(Mismatch { tuple: Some(*tuple), what: format!("{}\n{what}", tuple_text(tuple)) });
        }
    }
    Ok(())
}

/// The difference for one connection, as text.
pub fn difference(tables: &Desired, expected: &Expected, got: &Judged) -> Option<String> {
    let sides = [
        ("egress", &expected.egress, got.egress),
        ("ingress", &expected.ingress, got.ingress),
        ("audited egress", &expected.audited_egress, got.audited_egress),
        ("audited ingress", &expected.audited_ingress, got.audited_ingress),
    ];
    let mut text = String::new();
    for (side, expected, got) in sides {
        if !agrees(tables, expected, got) {
            let name = rule(tables, got).map(|rule| format!(" = {rule:?}")).unwrap_or_default();
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {side}: expected {expected:?}, got {got:?}{name}");
        }
    }
    if expected.passes() != got.passes() && text.is_empty() {
        text = format!("  passes: expected {}, got {}\n", expected.passes(), got.passes());
    }
    (!text.is_empty()).then_some(text)
}

fn agrees(tables: &Desired, expected: &Answer, got: Side) -> bool {
    match (expected, got) {
        (Answer::NoPod, Side::NoPod)
        | (Answer::Exempt, Side::Exempt)
        | (Answer::NotIsolated, Side::NotIsolated)
        | (Answer::Denied, Side::Denied { .. }) => true,
        (Answer::Allowed(rules), Side::Allowed(_)) => rule(tables, got).is_some_and(|r| rules.contains(&r)),
        _ => false,
    }
}

/// The rule that lbr reports.
fn rule(tables: &Desired, side: Side) -> Option<Rule> {
    let Side::Allowed(allow) = side else { return None };
    let policy = tables.policies.get(&allow.policy)?;
    Some(Rule {
        namespace: policy.namespace.as_str().to_owned(),
        policy: policy.name.as_str().to_owned(),
        rule: allow.rule as usize,
    })
}

/// `TCP 10.0.0.1:1024 -> 10.0.0.2:80`.
pub fn tuple_text(tuple: &Tuple) -> String {
    let (src, dst) = (socket_text(tuple.src, tuple.src_port), socket_text(tuple.dst, tuple.dst_port));
    format!("{} {src} -> {dst}", proto_name(tuple.proto))
}
