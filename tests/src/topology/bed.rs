//! The bed: owns all namespaces and mounts of one test, and removes them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use lbr_common::addr::Family;

use super::mounts::Mounts;
use super::{Cgroup, Host, Node, Pod, PodOptions, host, node, pod, reap, wire};
use crate::netns::{Netns, sysctl};

/// How pods' packets travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underlay {
    /// Nodes route to each other's pod networks.
    #[default]
    Routed,
    /// Nodes encapsulate pods' packets in VXLAN.
    Vxlan,
}

/// The options of a bed.
#[derive(Clone, Debug)]
pub struct BedOptions {
    /// The network between nodes.
    pub underlay: Underlay,
    /// `rp_filter` of the nodes: 0 off, 1 strict, 2 loose.
    pub rp_filter: u8,
    /// MTU of the wires between nodes, and of pods unless [`PodOptions::mtu`] is set; pods get 50 less with
    /// [`Underlay::Vxlan`].
    pub mtu: u32,
    /// Nodes masquerade packets that leave the pod network, like network plugins whose pods are reachable only within
    /// the cluster.
    pub masquerade: bool,
    /// Nodes receive packets as from a wire, with whole checksums, and frames sent by XDP arrive. Otherwise it is as
    /// within one machine, where senders leave checksums to a device that the packet never meets.
    pub wires: bool,
}

impl Default for BedOptions {
    fn default() -> Self {
        Self { underlay: Underlay::Routed, rp_filter: 1, mtu: 1500, masquerade: false, wires: false }
    }
}

impl BedOptions {
    /// The default MTU of a pod.
    pub fn pod_mtu(&self) -> u32 {
        match self.underlay {
            Underlay::Routed => self.mtu,
            Underlay::Vxlan => self.mtu.saturating_sub(50),
        }
    }
}

/// All namespaces, mounts and folders of one test. Dropping it removes them.
#[derive(Debug)]
pub struct Bed {
    prefix: String,
    options: BedOptions,
    fabric: Netns,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, Pod>,
    clients: BTreeMap<String, Host>,
    created: Vec<Netns>,
    /// Keeps veths wires, as long as it lives.
    wires: Vec<OwnedFd>,
    counter: u32,
    // Declared last: unmounted after the namespaces are gone.
    mounts: Mounts,
}

impl Bed {
    /// A bed with routed nodes and the usual MTU. Leftovers of dead processes are removed first.
    pub fn new(name: &str) -> Result<Self> {
        Self::with(name, BedOptions::default())
    }

    /// A bed.
    pub fn with(name: &str, options: BedOptions) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        reap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{}-{number}-{name}", reap::PREFIX, std::process::id());
        let mounts = Mounts::new(&prefix)?;
        let fabric = Netns::create(&format!("{prefix}-fabric")).context("make the fabric (needs root)")?;
        let bed = Self {
            prefix,
            options,
            created: vec![fabric.clone()],
            fabric,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            clients: BTreeMap::new(),
            wires: Vec::new(),
            counter: 0,
            mounts,
        };
        bed.fabric.run(|| {
            sysctl("ipv4/ip_forward", "1")?;
            sysctl("ipv6/conf/all/forwarding", "1")?;
            sysctl("ipv4/conf/default/rp_filter", "0")?;
            sysctl("ipv4/conf/all/rp_filter", "0")?;
            // A router that sends a packet back by the interface that it came by would send a redirect to the sender.
            sysctl("ipv4/conf/default/send_redirects", "0")?;
            sysctl("ipv4/conf/all/send_redirects", "0")
        })?;
        let mtu = bed.options.mtu;
        bed.fabric.ip([
            format!("link add {} mtu {mtu} type bridge", node::BRIDGE),
            format!("addr add {}/24 dev {}", node::GATEWAY_V4, node::BRIDGE),
            format!("addr add {}/64 dev {} nodad", node::GATEWAY_V6, node::BRIDGE),
            format!("link set {} up", node::BRIDGE),
            format!("link add {} mtu {mtu} type bridge", host::BRIDGE),
            format!("addr add {}/24 dev {}", host::GATEWAY_V4, host::BRIDGE),
            format!("addr add {}/64 dev {} nodad", host::GATEWAY_V6, host::BRIDGE),
            format!("link set {} up", host::BRIDGE),
            "route add blackhole 0.0.0.0/0".to_owned(),
            "route add blackhole ::/0".to_owned(),
        ])?;
        Ok(bed)
    }

    /// Adds a node, connected to all others.
    pub fn add_node(&mut self, name: &str) -> Result<Node> {
        if self.nodes.contains_key(name) {
            bail!("there is a node {name} already");
        }
        let index = u8::try_from(self.nodes.len() + 1)?;
        let ns = self.namespace(name)?;
        let others: Vec<&Node> = self.nodes.values().collect();
        let node = node::create(&self.fabric, ns, name, index, &self.options, &others)
            .with_context(|| format!("node {name}"))?;
        if self.options.wires {
            self.wires.push(self.fabric.run(|| wire::like_a_wire(&node.wire()))?);
        }
        self.nodes.insert(name.to_owned(), node.clone());
        Ok(node)
    }

    /// Adds a pod to a node, while everything else runs. All pods of a node have the same [`super::PodNetwork`], as
    /// with real network plugins: bridged pods expect their neighbours on the bridge.
    pub fn add_pod(&mut self, node: &Node, name: &str, options: PodOptions) -> Result<Pod> {
        if self.pods.contains_key(name) {
            bail!("there is a pod {name} already");
        }
        if self.pods.values().any(|p| p.node == node.name && p.network != options.network) {
            bail!("all pods of one node are connected in one kind of network");
        }
        self.counter += 1;
        let host = match options.host {
            Some(host) => host,
            None => self.free_host(node)?,
        };
        let ns = self.namespace(name)?;
        let mtu = options.mtu.unwrap_or(self.options.pod_mtu());
        let request = pod::Request { name, number: self.counter, host, network: options.network, mtu };
        let pod = pod::create(node, ns, &request).with_context(|| format!("pod {name}"))?;
        self.pods.insert(name.to_owned(), pod.clone());
        Ok(pod)
    }

    /// Adds a host outside of the cluster, that reaches every node through the fabric.
    pub fn add_client(&mut self, name: &str) -> Result<Host> {
        if self.clients.contains_key(name) {
            bail!("there is a client {name} already");
        }
        let index = u8::try_from(self.clients.len() + 1)?;
        let ns = self.namespace(name)?;
        let client = host::create(&self.fabric, ns, name, index, self.options.mtu)
            .with_context(|| format!("client {name}"))?;
        self.clients.insert(name.to_owned(), client.clone());
        Ok(client)
    }

    /// Routes an address of a Service to a node, like the network before a load balancer. The last call for an
    /// address counts.
    pub fn route_vip(&self, vip: IpAddr, node: &Node) -> Result<()> {
        let via = node.address(Family::of(vip));
        self.fabric.ip([format!("route replace {vip} via {via} dev {}", node::BRIDGE)])
    }

    /// Removes a pod: its link first, as the container runtime does, then its namespace.
    pub fn remove_pod(&mut self, pod: &Pod) -> Result<()> {
        self.pods.remove(&pod.name);
        self.created.retain(|ns| *ns != pod.ns);
        pod.node_ns.ip([format!("link del {}", pod.link)])?;
        pod.ns.delete()
    }

    /// A namespace of this bed without links, for the test's own use. Removed with the bed.
    pub fn namespace(&mut self, name: &str) -> Result<Netns> {
        let ns = Netns::create(&format!("{}-{name}", self.prefix))?;
        self.created.push(ns.clone());
        Ok(ns)
    }

    /// The namespace whose bridge `br0` connects the nodes. It is their default gateway, routes to clients and by
    /// [`Self::route_vip`], and drops all other packets silently.
    pub fn fabric(&self) -> &Netns {
        &self.fabric
    }

    /// The nodes by name.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// The pods by name.
    pub fn pods(&self) -> &BTreeMap<String, Pod> {
        &self.pods
    }

    /// The hosts outside of the cluster, by name.
    pub fn clients(&self) -> &BTreeMap<String, Host> {
        &self.clients
    }

    /// The prefix of the names of all its namespaces, its folder and its cgroup.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The options that it was made with.
    pub fn options(&self) -> &BedOptions {
        &self.options
    }

    /// A folder of its own under the temporary folder.
    pub fn folder(&self) -> &Path {
        self.mounts.folder()
    }

    /// The mount point of a bpffs of its own.
    pub fn bpffs(&mut self) -> Result<PathBuf> {
        self.mounts.bpffs()
    }

    /// A cgroup of its own, in a mount of the cgroup2 hierarchy of its own.
    pub fn cgroup(&mut self) -> Result<Cgroup> {
        self.mounts.cgroup()
    }

    /// The lowest host number that no pod of the node has.
    fn free_host(&self, node: &Node) -> Result<u16> {
        let taken = |host: u16| self.pods.values().any(|p| p.node == node.name && p.host == host);
        (2..=254).find(|host| !taken(*host)).context("no address left on the node")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for ns in &self.created {
            // An error cannot be reported here; `reap` of a later process tries again.
            let _ = ns.delete();
        }
    }
}
