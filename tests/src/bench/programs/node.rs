//! The node for all runs: two open pods and an isolated one, an uplink, and Services with a backend here, on another
//! node, and in the node itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use aya::maps::HashMap;
use ipnet::IpNet;
use lbr_agent::cluster::Store;
use lbr_agent::compile::compile;
use lbr_agent::desired::Desired;
use lbr_agent::ids::Ids;
use lbr_agent::node::NodeView;
use lbr_agent::node::links::{LocalLink, LocalLinks, LocalUplink};
use lbr_agent::reconcile::Reconciler;
use lbr_agent::source::manifest::{ManifestSet, parse};
use lbr_common::addr::Family;
use lbr_common::maps;

use crate::manifests::{Endpoint, EndpointSlice, Service, join};
use crate::process;
use crate::testrun::{Programs, open};

/// The port where all servers listen.
pub(in crate::bench) const PORT: u16 = 8080;

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Net {
    /// Pods of this node.
    pub(super) client: IpAddr,
    pub(super) backend: IpAddr,
    /// A pod to which no policy allows anything.
    pub(super) isolated: IpAddr,
    /// A pod of another node.
    pub(super) far: IpAddr,
    /// The node itself, and another one.
    pub(in crate::bench) node: IpAddr,
    pub(super) other_node: IpAddr,
    /// Outside of the cluster.
    pub(in crate::bench) outside: IpAddr,
    /// Addresses of [`Web`], in its order.
    pub(super) services: [IpAddr; 4],
    /// An address in the Services' block that no Service has.
    pub(super) unallocated: IpAddr,
}

/// A Service by its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Web {
    /// A pod of this node.
    Here,
    /// A pod of another node.
    There,
    /// A process of this node.
    Own,
    /// None.
    Empty,
}

impl Web {
    const ALL: [Self; 4] = [Self::Here, Self::There, Self::Own, Self::Empty];

    fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::There => "there",
            Self::Own => "own",
            Self::Empty => "empty",
        }
    }

    /// Its NodePort, TCP and UDP.
    pub(in crate::bench) fn node_port(self) -> u16 {
        30_000 + self as u16
    }

    fn endpoint(self, net: &Net) -> Option<Endpoint> {
        match self {
            Self::Here => Some(Endpoint::new(net.backend).node("node")),
            Self::There => Some(Endpoint::new(net.far).node("other")),
            Self::Own => Some(Endpoint::new(net.node).node("node")),
            Self::Empty => None,
        }
    }
}

/// IPv4 and IPv6.
pub(in crate::bench) fn nets() -> Result<[Net; 2]> {
    let net = |here: &str, far: &str, nodes: &str, services: &str, outside: &str| {
        let at = |prefix: &str, host: &str| format!("{prefix}{host}").parse::<IpAddr>();
        let service = |host| at(services, host);
        anyhow::Ok(Net {
            client: at(here, "2")?,
            backend: at(here, "3")?,
            isolated: at(here, "4")?,
            far: at(far, "2")?,
            node: at(nodes, "1")?,
            other_node: at(nodes, "2")?,
            outside: at(outside, "9")?,
            services: [service("10")?, service("11")?, service("12")?, service("13")?],
            unallocated: service("99")?,
        })
    };
    Ok([
        net("10.244.1.", "10.244.2.", "172.18.0.", "10.96.0.", "192.0.2.")?,
        net("fd00:10:244:1::", "fd00:10:244:2::", "fd00:172:18::", "fd00:10:96::", "2001:db8:2::")?,
    ])
}

/// Interface indexes.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Links {
    pub(super) client: u32,
    pub(super) backend: u32,
    pub(super) isolated: u32,
    pub(in crate::bench) uplink: u32,
}

/// The loaded object with all maps filled, and the agent that fills them.
pub(in crate::bench) struct Node {
    pub(in crate::bench) programs: Programs,
    links: Links,
    set: ManifestSet,
    store: Store,
    view: NodeView,
    ids: Ids,
    // Dropping it detaches what it attached.
    reconciler: Reconciler,
}

impl Node {
    pub(in crate::bench) fn set_up() -> Result<Self> {
        let nets = nets()?;
        let mut programs = Programs::load("bench-programs", 0)?;
        let [client, backend, isolated] = programs.links;
        let links = Links { client, backend, isolated, uplink: make_uplink(&nets)? };
        let view =
            NodeView { name: "node".to_owned(), links: local_links(&links, &nets), ..NodeView::default() };
        let reconciler = Reconciler::load(&mut programs.kernel)?;
        let (set, store, ids) = (ManifestSet::new(), Store::new(), Ids::new());
        let mut node = Self { programs, links, set, store, view, ids, reconciler };
        node.set_file("cluster.yaml", &cluster(&nets))?;
        // Written past the agent, which would attach programs there: occasional packets of the kernel by this link
        // would be counted too.
        let mut uplinks = HashMap::try_from(open(node.programs.pins(), &maps::UPLINKS)?)?;
        for (index, uplink) in node.compile().uplinks {
            uplinks.insert(index, uplink, 0).context("write an uplink")?;
        }
        Ok(node)
    }

    fn compile(&mut self) -> Desired {
        compile(self.store.state(), &self.view, &mut self.ids)
    }

    /// What the agent does when a file of manifests changes.
    pub(in crate::bench) fn set_file(&mut self, name: &str, text: &str) -> Result<()> {
        self.set.set_file(name, parse(name, text));
        ensure!(self.set.rejected().is_empty(), "rejected: {:?}", self.set.rejected());
        for change in self.set.changes() {
            self.store.apply(change);
        }
        let mut tables = self.compile();
        tables.uplinks.clear();
        let outcome = self.reconciler.apply(tables, true, &mut self.programs.kernel);
        ensure!(outcome.is_converged(), "not in force: {:?}", outcome.problems.first());
        Ok(())
    }

    pub(in crate::bench) fn links(&self) -> Links {
        self.links
    }

    /// Removes every flow.
    pub(in crate::bench) fn forget_flows(&mut self) -> Result<()> {
        let keys = self.programs.flows.keys();
        for key in keys {
            self.programs.flows.remove(&key).context("remove a flow")?;
        }
        Ok(())
    }
}

/// A link with the node's addresses, in this thread's namespace, and default routes by it.
fn make_uplink(nets: &[Net; 2]) -> Result<u32> {
    let mut lines = vec!["link add uplink address 02:00:00:00:00:02 type veth peer name beyond".to_owned()];
    for net in nets {
        let (length, nodad) = if net.node.is_ipv6() { (64, " nodad") } else { (24, "") };
        lines.push(format!("addr add {}/{length} dev uplink{nodad}", net.node));
    }
    lines.extend(["link set beyond up".to_owned(), "link set uplink up".to_owned()]);
    lines.extend(nets.iter().map(|net| format!("route add default via {}", net.other_node)));
    // XDP forwards packets only to known neighbours.
    let neighbor =
        |net: &Net| format!("neigh add {} lladdr 02:00:00:00:00:02 dev uplink nud permanent", net.other_node);
    lines.extend(nets.iter().map(neighbor));
    for line in lines {
        process::run(Command::new("ip").args(line.split(' ')))?;
    }
    nix::net::if_::if_nametoindex("uplink").context("no uplink")
}

fn local_links(links: &Links, nets: &[Net; 2]) -> LocalLinks {
    let pods = |net: &Net| {
        [(net.client, links.client), (net.backend, links.backend), (net.isolated, links.isolated)]
    };
    let addresses: BTreeMap<IpAddr, u32> = nets.iter().flat_map(pods).collect();
    let link =
        |index: &u32| (*index, LocalLink { name: format!("pod{index}"), master: None, has_peer: true });
    let v4 = nets.iter().find_map(|net| if let IpAddr::V4(v4) = net.node { Some(v4) } else { None });
    let v6 = nets.iter().find_map(|net| if let IpAddr::V6(v6) = net.node { Some(v6) } else { None });
    LocalLinks {
        links: addresses.values().map(link).collect(),
        routes: addresses.iter().map(|(address, index)| (IpNet::from(*address), *index)).collect(),
        addresses,
        node_addresses: nets.iter().map(|net| net.node).collect(),
        uplinks: [(links.uplink, LocalUplink { name: "uplink".to_owned(), v4, v6 })].into(),
        ..LocalLinks::default()
    }
}

fn cluster(nets: &[Net; 2]) -> String {
    let pod = |name: &str, node: &str, ips: [IpAddr; 2]| {
        let [v4, v6] = ips;
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{pod: {name}}}}}\nspec: \
             {{nodeName: {node}, containers: []}}\nstatus: {{phase: Running, podIP: \"{v4}\", podIPs: [{{ip: \"{v4}\"}}, \
             {{ip: \"{v6}\"}}]}}\n"
        )
    };
    let of = |address: fn(&Net) -> IpAddr| [address(&nets[0]), address(&nets[1])];
    let [v4, v6] = of(|net| net.node);
    let mut documents = vec![
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: node}}\nstatus: {{addresses: [{{type: InternalIP, address: \
             \"{v4}\"}}, {{type: InternalIP, address: \"{v6}\"}}]}}\n"
        ),
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: \
         [\"10.96.0.0/16\", \"fd00:10:96::/112\"]}\n"
            .to_owned(),
        pod("client", "node", of(|net| net.client)),
        pod("backend", "node", of(|net| net.backend)),
        pod("isolated", "node", of(|net| net.isolated)),
        pod("far", "other", of(|net| net.far)),
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: nothing, namespace: default}\nspec: \
         {podSelector: {matchLabels: {pod: isolated}}, policyTypes: [Ingress, Egress]}\n"
            .to_owned(),
    ];
    for (number, web) in Web::ALL.into_iter().enumerate() {
        let addresses = nets.map(|net| net.services[number]);
        let service = Service::new(web.name(), &addresses).spec("type: NodePort");
        let service = service.port("tcp", "TCP", 80, PORT).node_port(web.node_port());
        documents.push(service.port("udp", "UDP", 80, PORT).node_port(web.node_port()).yaml());
        for net in nets {
            let name = format!("{}-v{}", web.name(), if net.node.is_ipv6() { 6 } else { 4 });
            let slice = EndpointSlice::new(&name, web.name(), Family::of(net.node));
            let slice = slice.port("tcp", "TCP", PORT).port("udp", "UDP", PORT);
            documents.push(web.endpoint(net).into_iter().fold(slice, EndpointSlice::endpoint).yaml());
        }
    }
    join(documents)
}
