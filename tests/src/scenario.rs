//! Scenarios: Kubernetes YAML in, content of the maps and verdicts out, in one file.
//!
//! A file has a `description`, optionally a `node`, and `steps`, each with one of these keys:
//!
//! - `apply`: documents as for `kubectl apply`
//! - `delete`: list of `Kind namespace/name`
//! - `node`: from now on, the node has these links, routes and addresses, and its agent these flags
//! - `restart`: the agent ends and another one starts; the maps must be the same afterwards, numbers included
//! - `expect`: the maps, as [`text::tables`] prints them, in any order
//! - `verdicts`: `client -> address:port/protocol: verdict`, where the verdict is as [`text::verdict`] prints it, and
//!   the chosen backends are separated by `|`: `to 10.244.0.2:80|10.244.0.3:80`. The client is a pod; `wire
//!   192.0.2.9` is a host outside, `node 192.0.2.1` a process of the node
//!
//! The objects of a step arrive in different orders, and the maps must end up the same. Each scenario ends
//! with the deletion of everything, which must leave the maps empty.

mod names;
mod plane;
mod real;
mod run;
pub mod text;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use lbr_agent::node::links::{LocalLink, LocalLinks, LocalUplink};
use lbr_agent::node::{NodePortAddress, NodeView, Settings};
use serde::Deserialize;

pub use plane::Plane;
pub use real::Real;
pub use run::{Order, run};

/// Interface index of the uplink.
const UPLINK: u32 = 900;

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name of the file without its extension.
    #[serde(skip)]
    pub name: String,
    /// Its purpose.
    pub description: String,
    /// The node at the beginning.
    #[serde(default)]
    pub node: Node,
    /// The steps, in this order.
    pub steps: Vec<Step>,
}

/// The node that the maps are for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Pod links by interface index.
    #[serde(default)]
    pub links: BTreeMap<u32, LinkKind>,
    /// Destination → interface index.
    #[serde(default)]
    pub routes: BTreeMap<String, u32>,
    /// The node's addresses on its uplink, whose interface index is 900: the first one of each family is primary.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// `--nodeport-addresses`, blocks only.
    #[serde(default)]
    pub nodeport_addresses: Vec<String>,
    /// `--external-ips`.
    #[serde(default)]
    pub external_ips: Vec<String>,
}

/// Index of the bridge of bridged links.
const BRIDGE: u32 = 999;

/// The kind of a pod link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// A veth, routed.
    Veth,
    /// A veth, port of a bridge.
    BridgedVeth,
    /// Another kind of interface that leads to a pod.
    Other,
}

/// One event or check.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Documents to apply.
    pub apply: Option<String>,
    /// Objects to delete.
    pub delete: Option<Vec<String>>,
    /// The node from now on.
    pub node: Option<Node>,
    /// Another agent takes over.
    #[serde(default)]
    pub restart: bool,
    /// The content of the maps.
    pub expect: Option<String>,
    /// The fates of packets.
    pub verdicts: Option<Vec<String>>,
}

impl Scenario {
    /// Reads one file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let mut scenario: Self =
            serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(scenario)
    }

    /// The files of a folder below `tests/scenarios`, by name.
    pub fn files(folder: &str) -> Result<Vec<PathBuf>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(folder);
        let entries = std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        let mut files = entries.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        Ok(files)
    }
}

impl Node {
    /// The node as input for `compile`.
    pub fn view(&self) -> Result<NodeView> {
        let link = |(index, kind): (&u32, &LinkKind)| {
            let (has_peer, has_master) = match kind {
                LinkKind::Veth => (true, false),
                LinkKind::BridgedVeth => (true, true),
                LinkKind::Other => (false, false),
            };
            let master = has_master.then_some(BRIDGE);
            (*index, LocalLink { name: format!("pod{index}"), master, has_peer })
        };
        let block = |net: &String| net.parse::<IpNet>().with_context(|| format!("block {net:?}"));
        let route = |(net, index): (&String, &u32)| Ok((block(net)?, *index));
        let links = LocalLinks {
            links: self.links.iter().map(link).collect(),
            routes: self.routes.iter().map(route).collect::<Result<_>>()?,
            node_addresses: self.addresses.iter().copied().collect(),
            uplinks: self.uplink().map(|uplink| (UPLINK, uplink)).into_iter().collect(),
            ..LocalLinks::default()
        };
        let nodeports = self.nodeport_addresses.iter().map(|net| block(net).map(NodePortAddress::Block));
        let settings = Settings {
            nodeport_addresses: nodeports.collect::<Result<_>>()?,
            external_ips: self.external_ips.iter().map(block).collect::<Result<_>>()?,
            ..Settings::default()
        };
        Ok(NodeView { name: self.name.clone(), settings, links, ..NodeView::default() })
    }

    fn uplink(&self) -> Option<LocalUplink> {
        let v4 = self.addresses.iter().find_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None });
        let v6 = self.addresses.iter().find_map(|ip| if let IpAddr::V6(v6) = ip { Some(*v6) } else { None });
        (!self.addresses.is_empty()).then(|| LocalUplink { name: "uplink".to_owned(), v4, v6 })
    }
}
