//! kube-proxy's configuration as plain values. `None`: not set.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use lbr_common::conntrack::Timeouts;

use crate::node::NodePortAddress;

/// Default port of kube-proxy's `/healthz`.
pub(super) const HEALTHZ_PORT: u16 = 10256;
/// Default port of its `/metrics`.
pub(super) const METRICS_PORT: u16 = 10249;

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindAddress {
    /// Nowhere: it is switched off.
    Off,
    /// Address and port.
    At(SocketAddr),
}

/// How kube-proxy recognises traffic of this node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalMode {
    /// By the addresses of all pods of the cluster.
    ClusterCidr,
    /// By the addresses of the node's pods.
    NodeCidr,
    /// By the bridge that it comes from.
    BridgeInterface,
    /// By the name of the interface that it comes from.
    InterfaceNamePrefix,
}

/// kube-proxy's configuration: its file, and over it its flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeProxySettings {
    /// How to reach the API server.
    pub kubeconfig: Option<PathBuf>,
    /// Name of the Node object.
    pub node_name: Option<String>,
    /// The node's first address.
    pub node_ip: Option<IpAddr>,
    /// Where `/healthz` and `/livez` are served.
    pub healthz_bind_address: Option<BindAddress>,
    /// Where `/metrics` and `/proxyMode` are served.
    pub metrics_bind_address: Option<BindAddress>,
    /// The process ends if it cannot listen on an address.
    pub bind_address_hard_fail: bool,
    /// Empty: not set.
    pub nodeport_addresses: Vec<NodePortAddress>,
    /// Whether processes of the node reach NodePorts at loopback addresses.
    pub localhost_nodeports: Option<bool>,
    /// How often kube-proxy lists everything again.
    pub config_sync_period: Option<Duration>,
    /// Requests to the API server a second.
    pub qps: Option<f64>,
    /// Requests to the API server at once.
    pub burst: Option<u32>,
    /// Addresses of all pods; empty: not set.
    pub cluster_cidr: Vec<IpNet>,
    /// See [`LocalMode`].
    pub detect_local_mode: Option<LocalMode>,
    /// For [`LocalMode::BridgeInterface`].
    pub bridge_interface: Option<String>,
    /// For [`LocalMode::InterfaceNamePrefix`].
    pub interface_name_prefix: Option<String>,
    /// kube-proxy masquerades all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// How long connections live without packets.
    pub timeouts: Timeouts,
    /// How readily the kernel ends the process when memory is short.
    pub oom_score_adj: Option<i32>,
    /// The log is JSON.
    pub log_json: bool,
    /// How much is logged: klog's number.
    pub verbosity: Option<u32>,
}

impl KubeProxySettings {
    /// A node whose first address is IPv6 listens on IPv6 by default.
    pub(super) fn fill_in(&mut self) {
        if self.node_ip.is_some_and(|ip| ip.is_ipv6()) {
            let at = |ip: Ipv6Addr, port| Some(BindAddress::At(SocketAddr::new(ip.into(), port)));
            self.healthz_bind_address = self.healthz_bind_address.or(at(Ipv6Addr::UNSPECIFIED, HEALTHZ_PORT));
            self.metrics_bind_address = self.metrics_bind_address.or(at(Ipv6Addr::LOCALHOST, METRICS_PORT));
        }
    }
}
