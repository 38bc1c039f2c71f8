//! A node with a real agent: manifests in, maps in the kernel out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::maps::{Array, MapData};
use ipnet::IpNet;
use lbr_agent::cluster::Store;
use lbr_agent::compile::compile;
use lbr_agent::ids::Ids;
use lbr_agent::node::NodeView;
use lbr_agent::node::links::{LocalLink, LocalLinks, LocalUplink};
use lbr_agent::reconcile::Reconciler;
use lbr_agent::source::manifest::{ManifestSet, parse};
use lbr_common::addr::Family;
use lbr_common::maps;
use lbr_common::service::State;
use lbr_tests::manifests::{Endpoint, EndpointSlice, Service, join};
use lbr_tests::testrun::open;

use super::NODE_PORT;
use crate::wire::{Wire, node};
use crate::world::Net;

/// A node and its agent, on manifests of one family.
pub(super) struct Cluster {
    pub(super) wire: Wire,
    reconciler: Reconciler,
    ids: Ids,
    documents: BTreeMap<String, String>,
    pub(super) links: LocalLinks,
}

impl Cluster {
    /// Services `web` (backend on another node) and `near` (the local pod), two pods here, in namespaces of their own.
    pub(super) fn new(name: &str, net: Net) -> Self {
        let mut wire = Wire::new(name);
        let reconciler = Reconciler::load(&mut wire.world.programs.kernel).unwrap();
        let links = local_links(&wire, &net);
        let mut cluster = Self { wire, reconciler, ids: Ids::new(), documents: BTreeMap::new(), links };
        for (namespace, labels) in [("one", "team: a"), ("two", "team: a"), ("three", "team: c")] {
            cluster.set(namespace, namespaced(namespace, labels));
        }
        cluster.set("client", pod("client", "one", "node", net.client, "app: client"));
        cluster.set("local", pod("local", "two", "node", net.local, "app: server"));
        cluster.set("far", pod("far", "three", "other", net.remote, "app: far"));
        cluster.set("far2", pod("far2", "three", "other", net.remote2, "app: far"));
        cluster.set("web", service("web", net.service, Some(NODE_PORT), &[net.remote]));
        cluster.set("near", service("near", net.service2, None, &[net.local]));
        cluster.apply();
        cluster
    }

    pub(super) fn set(&mut self, name: &str, document: String) {
        self.documents.insert(name.to_owned(), document);
    }

    /// What the agent does after a change.
    #[track_caller]
    pub(super) fn apply(&mut self) {
        let mut set = ManifestSet::new();
        let text = join(self.documents.values().cloned());
        set.set_file("cluster.yaml", parse("cluster.yaml", &text));
        assert!(set.rejected().is_empty(), "{:?}", set.rejected());
        let mut store = Store::new();
        for change in set.changes() {
            store.apply(change);
        }
        let view = NodeView { name: "node".to_owned(), links: self.links.clone(), ..NodeView::default() };
        let tables = compile(store.state(), &view, &mut self.ids);
        let outcome = self.reconciler.apply(tables, true, &mut self.wire.world.programs.kernel);
        assert!(outcome.is_converged(), "{:?}", outcome.problems);
    }

    #[track_caller]
    pub(super) fn change(&mut self, name: &str, document: String) {
        self.set(name, document);
        self.apply();
    }

    #[track_caller]
    pub(super) fn remove(&mut self, name: &str) {
        assert!(self.documents.remove(name).is_some(), "{name}");
        self.apply();
    }

    pub(super) fn epoch(&self) -> u32 {
        let map = open(self.wire.world.programs.pins(), &maps::STATE).unwrap();
        let state: Array<MapData, State> = Array::try_from(map).unwrap();
        state.get(&0, 0).unwrap().epoch
    }
}

fn local_links(wire: &Wire, net: &Net) -> LocalLinks {
    let [client, local, _] = wire.world.programs.links;
    let addresses: BTreeMap<IpAddr, u32> = [(net.client, client), (net.local, local)].into();
    let link =
        |index: &u32| (*index, LocalLink { name: format!("pod{index}"), master: None, has_peer: true });
    let (v4, v6) = match node(net) {
        IpAddr::V4(v4) => (Some(v4), None),
        IpAddr::V6(v6) => (None, Some(v6)),
    };
    LocalLinks {
        links: wire.world.programs.links.iter().map(link).collect(),
        routes: addresses.iter().map(|(addr, index)| (IpNet::from(*addr), *index)).collect(),
        addresses,
        node_addresses: [node(net)].into(),
        uplinks: [(wire.uplink, LocalUplink { name: "uplink".to_owned(), v4, v6 })].into(),
        ..LocalLinks::default()
    }
}

pub(super) fn namespaced(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
}

pub(super) fn pod(name: &str, namespace: &str, node: &str, ip: IpAddr, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\nspec: \
         {{nodeName: {node}, containers: []}}\nstatus: {{phase: Running, podIP: \"{ip}\", podIPs: [{{ip: \"{ip}\"}}]}}\n"
    )
}

/// A Service with ports for TCP and UDP, and its slice.
pub(super) fn service(name: &str, addr: IpAddr, node_port: Option<u16>, backends: &[IpAddr]) -> String {
    service_with(name, addr, node_port, backends, |service| service)
}

pub(super) fn service_with(
    name: &str,
    addr: IpAddr,
    node_port: Option<u16>,
    backends: &[IpAddr],
    more: impl FnOnce(Service) -> Service,
) -> String {
    let mut service = Service::new(name, &[addr]);
    if node_port.is_some() {
        service = service.spec("type: NodePort");
    }
    let mut slice = EndpointSlice::new(name, name, Family::of(addr));
    for (port, protocol) in [("tcp", "TCP"), ("udp", "UDP"), ("sctp", "SCTP")] {
        service = service.port(port, protocol, 80, 8080);
        if let Some(number) = node_port {
            service = service.node_port(number);
        }
        slice = slice.port(port, protocol, 8080);
    }
    let slice = backends.iter().fold(slice, |slice, backend| slice.endpoint(Endpoint::new(*backend)));
    join([more(service).yaml(), slice.yaml()])
}

/// A policy of the pods in a namespace that have an `app`: ingress from these peers only.
pub(super) fn policy(name: &str, namespace: &str, app: &str, from: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
         {{podSelector: {{matchLabels: {{app: {app}}}}}, policyTypes: [Ingress], ingress: [{{from: [{from}]}}]}}\n"
    )
}
