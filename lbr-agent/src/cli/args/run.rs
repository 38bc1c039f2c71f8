//! Flags of `lbr run` as they are typed, and what they mean once checked against each other.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use lbr_common::maglev;
use lbr_common::maps::config::options;

use super::kube_proxy::{BindAddress, KubeProxy, KubeProxyArgs, KubeProxySettings};
use super::ports::SnatChoice;
use super::{sizes, values};
use crate::dataplane::{AttachMode, DEFAULT_BPFFS, Options, XdpChoice, find_cgroup2};
use crate::node::Settings;
use crate::serve::{Addresses, HEALTHZ_PORT, METRICS_PORT};
use crate::source::apiserver::ApiServer;
use crate::source::links::{LinkFilter, Pattern};

/// `lbr run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Kubeconfig file of the API server to watch. Default: the service account of the pod that lbr runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// URL of the API server, in place of the kubeconfig's or the pod's environment. Needed where only lbr would serve
    /// the address of the Service `kubernetes`.
    #[arg(long, value_name = "URL", visible_alias = "master")]
    pub server: Option<String>,

    /// Folder of Kubernetes YAML or JSON files (Services, EndpointSlices, ...), watched for changes, in place of an
    /// API server.
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// Name of this node, as in EndpointSlices' nodeName. Default: --hostname-override, or the name in --config, else
    /// the host name.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Folder on a BPF filesystem where maps and programs are pinned.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,

    /// Folder of a cgroup2 mount. Default: lbr finds it.
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// Which sockets connect to backends directly.
    #[arg(long, value_name = "SOCKETS", default_value = "node")]
    pub socket_lb: SocketLb,

    /// Only veths with such a name are pods' links (`*` and `?` match). May be repeated. Default: every veth that leads
    /// to another network namespace, unless it has an address of the node's subnet and a gateway behind it.
    #[arg(long, value_name = "PATTERN")]
    pub link_include: Vec<Pattern>,

    /// Veths with such a name are not pods' links. May be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub link_exclude: Vec<Pattern>,

    /// Interfaces with such a name are the node's uplinks, by which clients outside reach its NodePorts (`*` and `?`
    /// match). May be repeated. Default: those with a gateway behind them, and those with an address of the node,
    /// except pods' links and bridges of pods.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub devices: Vec<Pattern>,

    /// Entries of a map, as NAME=N (frontends, flows, verdicts, ...; a wrong name lists all). May be repeated. For
    /// `events`: its size in bytes. Takes effect when a map is created; pinned maps keep their size.
    #[arg(long, value_name = "NAME=N")]
    pub map_max: Vec<String>,

    /// How programs are attached to links.
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub attach: Attach,

    /// Where XDP forwards packets from outside whose backend is on another node, before the kernel makes packet buffers
    /// of them. `lbr show uplinks` shows where it is in use.
    #[arg(long, value_name = "WHERE", default_value = "off")]
    pub xdp: XdpWhere,

    /// What happens to traffic of a pod whose interface exists, but whose Pod object has not been read yet.
    #[arg(long, value_name = "WHAT", default_value = "allow")]
    pub pending: Pending,

    /// Whether a pod may send only from its own addresses.
    #[arg(long, value_name = "WHETHER", default_value = "on")]
    pub source_check: OnOff,

    /// What happens to open connections that a policy no longer allows.
    #[arg(long, value_name = "WHAT", default_value = "revoke")]
    pub established: Established,

    /// Blocks in which Services may have `externalIPs`, separated by commas. Default: none, since any author of
    /// Services could take any address from its owner (CVE-2020-8554).
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', value_parser = values::block)]
    pub external_ips: Vec<IpNet>,

    /// Source ports of the node for clients from outside whose backend is on another node, as FIRST-LAST. `auto`: all
    /// from 1024 on that are neither in the kernel's `ip_local_port_range`, nor NodePorts (30000-32767), nor in use by
    /// a socket at start. Ports of Services are left out anyway.
    #[arg(long, value_name = "RANGE", default_value = "auto")]
    pub snat_ports: SnatChoice,

    /// Secret seed of `lbr.dev/algorithm: maglev`, as 16 hexadecimal digits, the same on all nodes. The default is
    /// public: with it, clients can choose the endpoint that they reach.
    #[arg(long, value_name = "HEX", env = "LBR_MAGLEV_SEED", hide_env_values = true)]
    pub maglev_seed: Option<MaglevSeed>,

    // Last, so that flags defined above keep their meaning.
    #[command(flatten)]
    #[expect(missing_docs, reason = "a text here would become the description of the command")]
    pub kube_proxy: KubeProxyArgs,
}

/// `--maglev-seed`.
#[derive(Clone, Copy)]
pub struct MaglevSeed(u64);

// A secret is not for logs.
impl std::fmt::Debug for MaglevSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MaglevSeed")
    }
}

impl std::str::FromStr for MaglevSeed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let seed = u64::from_str_radix(text, 16).ok().filter(|_| is_hex);
        seed.map(Self).ok_or("write it as 16 hexadecimal digits, as `openssl rand -hex 8` makes them")
    }
}

/// `--pending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pending {
    /// Passes, both ways, until the pod is known: policies take hold a moment after its start.
    Allow,
    /// Dropped, both ways, until the pod is known; counted as `pod_pending`.
    Deny,
}

/// `--source-check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Packets from any other address are dropped, and counted as `spoofed_source`.
    On,
    /// Packets from any address pass, so a pod can pretend to be another one.
    Off,
}

/// `--established`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Established {
    /// They end: the next packet is judged by the new policies.
    Revoke,
    /// They go on until they end by themselves.
    Keep,
}

/// `--socket-lb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketLb {
    /// Sockets of the node's own network namespace.
    Node,
    /// None: processes of the node do not reach Services.
    Off,
}

/// `--attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// tcx where the kernel has it (6.6 and later), else clsact.
    Auto,
    /// tcx links.
    Tcx,
    /// clsact filters.
    Clsact,
}

/// `--xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpWhere {
    /// In drivers that support it; not at virtual interfaces. Elsewhere tc does the work.
    Auto,
    /// In the driver of every uplink. If a driver cannot, lbr logs an error, and tc does the work there.
    Native,
    /// Behind the driver, at every uplink: works everywhere, and saves less.
    Generic,
    /// Nowhere. A driver that attaches a program resets its device, so the operator has to ask for XDP.
    Off,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// See [`RunArgs::manifests`].
    Folder(PathBuf),
    /// The API server of a cluster.
    ApiServer(ApiServer),
}

/// `lbr run`, resolved.
#[derive(Debug)]
pub struct RunConfig {
    /// Where objects come from.
    pub source: Source,
    /// Name of this node.
    pub node_name: String,
    /// Which interfaces are pods' links.
    pub links: LinkFilter,
    /// How to load the kernel object.
    pub dataplane: Options,
    /// Where health and metrics are served.
    pub addresses: Addresses,
    /// How Services are compiled.
    pub services: Settings,
    /// Source ports for clients whose backend is on another node.
    pub snat_ports: SnatChoice,
    /// The settings of kube-proxy's configuration file and flags.
    pub kube_proxy: KubeProxySettings,
    /// Warnings for the operator, logged once logging works.
    pub warnings: Vec<String>,
}

impl RunArgs {
    /// Checks the flags and fills in defaults.
    pub fn resolve(self) -> anyhow::Result<RunConfig> {
        let KubeProxy { settings: kube_proxy, ignored } = self.kube_proxy.resolve()?;
        let mut warnings: Vec<String> = ignored.into_iter().collect();
        let cgroup = match (self.socket_lb, self.cgroup) {
            (SocketLb::Off, Some(_)) => {
                bail!("--cgroup and --socket-lb=off contradict each other: give one of them")
            }
            (SocketLb::Off, None) => None,
            (SocketLb::Node, Some(folder)) => Some(folder),
            (SocketLb::Node, None) => {
                let found = find_cgroup2();
                if found.is_none() {
                    warnings.push(
                        "no cgroup2 mount found: processes of the node do not reach Services (pods do). \
                         Mount one (`mount -t cgroup2 none DIR`) and give --cgroup DIR, or --socket-lb=off"
                            .to_owned(),
                    );
                }
                found
            }
        };
        let given = self.node_name.filter(|name| !name.is_empty());
        let node_name = match given.or_else(|| kube_proxy.node_name.clone()) {
            Some(name) => name,
            None => host_name()?,
        };
        let attach = match self.attach {
            Attach::Auto => AttachMode::Auto,
            Attach::Tcx => AttachMode::Tcx,
            Attach::Clsact => AttachMode::Clsact,
        };
        let xdp = match self.xdp {
            XdpWhere::Auto => XdpChoice::Auto,
            XdpWhere::Native => XdpChoice::Native,
            XdpWhere::Generic => XdpChoice::Generic,
            XdpWhere::Off => XdpChoice::Off,
        };
        let sizes = sizes::parse(&self.map_max)?;
        let options = [
            (self.pending == Pending::Deny, options::DENY_PENDING),
            (self.source_check == OnOff::Off, options::ANY_SOURCE),
            (self.established == Established::Keep, options::KEEP_ESTABLISHED),
        ];
        let options = options.iter().filter(|(set, _)| *set).fold(0, |all, (_, bit)| all | bit);
        let maglev_seed = self.maglev_seed.map_or(maglev::DEFAULT_SEED, |seed| seed.0);
        let dataplane = Options {
            bpffs: self.bpffs,
            attach,
            xdp,
            cgroup,
            sizes,
            options,
            snat_ports: None,
            timeouts: kube_proxy.timeouts,
            maglev_seed,
        };
        let services = Settings {
            nodeport_addresses: kube_proxy.nodeport_addresses.clone(),
            without_localhost_nodeports: kube_proxy.localhost_nodeports == Some(false),
            node_ip: kube_proxy.node_ip,
            external_ips: self.external_ips,
            ephemeral_ports: None,
            maglev_tables: None,
        };
        let links =
            LinkFilter { include: self.link_include, exclude: self.link_exclude, devices: self.devices };
        let at = |address: Option<BindAddress>, default: IpAddr, port| match address {
            None => Some(SocketAddr::new(default, port)),
            Some(BindAddress::Off) => None,
            Some(BindAddress::At(address)) => Some(address),
        };
        let addresses = Addresses {
            healthz: at(kube_proxy.healthz_bind_address, Ipv4Addr::UNSPECIFIED.into(), HEALTHZ_PORT),
            metrics: at(kube_proxy.metrics_bind_address, Ipv4Addr::LOCALHOST.into(), METRICS_PORT),
            hard_fail: kube_proxy.bind_address_hard_fail,
        };
        let source = match self.manifests {
            Some(folder) => {
                if self.kubeconfig.is_some() || self.server.is_some() {
                    bail!(
                        "--manifests and an API server (--kubeconfig, --server) contradict each other: give one of them"
                    );
                }
                Source::Folder(folder)
            }
            None => Source::ApiServer(ApiServer {
                kubeconfig: self.kubeconfig.or_else(|| kube_proxy.kubeconfig.clone()),
                server: self.server,
                silence: None,
            }),
        };
        let snat_ports = self.snat_ports;
        Ok(RunConfig {
            source,
            node_name,
            links,
            dataplane,
            addresses,
            services,
            snat_ports,
            kube_proxy,
            warnings,
        })
    }
}

fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("read the host name; give --node-name")?;
    name.into_string().map_err(|name| anyhow::anyhow!("host name {name:?} is not text; give --node-name"))
}

#[cfg(test)]
mod tests;
