//! Tests of the tables as a whole, judged as the programs judge them.

mod histories;
mod numbers;
pub(super) mod random;
mod tables;
mod verdicts;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lbr_common::addr::Addr;
use lbr_common::tuple::{Tuple, proto};
use serde_json::{Value, json};

use crate::cluster::ClusterState;
use crate::compile::compile;
use crate::desired::Desired;
use crate::ids::Ids;
use crate::model::{Namespace, NetworkPolicy, ObjectName, Pod, Protocol, netpol};
use crate::node::NodeView;
use crate::policy::judge::judge;

/// A cluster that is seen from the node `here`.
#[derive(Clone)]
struct World {
    state: ClusterState,
    node: NodeView,
    ids: Ids,
}

impl World {
    fn new() -> Self {
        let node = NodeView { name: "here".to_owned(), ..NodeView::default() };
        Self { state: ClusterState::default(), node, ids: Ids::new() }
    }

    /// A pod of this node.
    fn pod(&mut self, name: &str, ips: &[&str], labels: &[(&str, &str)]) -> &mut Pod {
        let name = object_name(name);
        let pod = Pod {
            name: name.clone(),
            labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            node: "here".to_owned(),
            ..Pod::default()
        };
        self.state.pods.insert(name.clone(), pod);
        self.state.pods.get_mut(&name).unwrap()
    }

    fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) {
        let name_label = ("kubernetes.io/metadata.name", name);
        let labels = labels.iter().chain([&name_label]);
        let labels = labels.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let namespace = Namespace { name: name.to_owned(), labels };
        self.state.namespaces.insert(ObjectName::cluster(name), namespace);
    }

    /// A policy as the API has it.
    fn policy(&mut self, name: &str, spec: Value) -> &mut NetworkPolicy {
        let name = object_name(name);
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name.name, "namespace": name.namespace}, "spec": spec,
        });
        let converted = netpol::from_api(serde_json::from_value(object).unwrap());
        self.state.policies.insert(name.clone(), converted.object.unwrap().into());
        Arc::make_mut(self.state.policies.get_mut(&name).unwrap())
    }

    fn compile(&mut self) -> Desired {
        compile(&self.state, &self.node, &mut self.ids)
    }
}

fn object_name(name: &str) -> ObjectName {
    let (namespace, name) = name.split_once('/').unwrap();
    ObjectName::new(namespace.to_owned(), name.to_owned())
}

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn tuple(src: &str, dst: &str, proto: u8, port: u16) -> Tuple {
    Tuple { src: addr(src), dst: addr(dst), src_port: 40000, dst_port: port, proto, ..Tuple::default() }
}

fn passes(tables: &Desired, src: &str, dst: &str, proto: u8, port: u16) -> bool {
    judge(tables, &tuple(src, dst, proto, port)).passes()
}

/// Whether TCP passes.
fn tcp(tables: &Desired, src: &str, dst: &str, port: u16) -> bool {
    passes(tables, src, dst, proto::TCP, port)
}

fn named(pod: &mut Pod, name: &str, protocol: Protocol, number: u16) {
    pod.named_ports.insert((name.to_owned(), protocol), number);
}
