//! Every field of `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1, Kubernetes 1.36) and every flag of
//! kube-proxy, and what lbr does with it: the one table that the file, the flags and the documentation come from.
//!
//! lbr refuses only the flags that make kube-proxy do one thing and exit (`--cleanup`, `--init-only`,
//! `--write-config-to`): an init container with such a flag would never end, and the node would get a second agent. For
//! every other setting without effect, lbr does the job in another way, or no connection needs it.

use std::path::PathBuf;

use super::settings::{BindAddress, HEALTHZ_PORT, KubeProxySettings, LocalMode, METRICS_PORT};
use super::value::{Kind, Value};
use crate::node::NodePortAddress;

/// Which value means the same as no value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Usual {
    /// Go's zero value: the empty text, `false`, 0.
    Zero,
    /// The zero value, which stands for this one.
    ZeroOr(&'static str),
    /// This one; zero means something else.
    Is(&'static str),
}

/// What lbr does with a setting.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// It has an effect, described here.
    Honoured(&'static str),
    /// It has no effect, for this reason.
    Ignored(&'static str),
    /// It is an error; the text says what to do instead.
    Refused(&'static str),
}

/// One field with its flag, or one of them.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Path in the file; empty: only a flag.
    pub(super) field: &'static str,
    /// Name without dashes; empty: only a field.
    pub(super) flag: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Usual,
    pub(super) fate: Fate,
    /// Puts the value into the settings. Values without an effect may be there as well.
    pub(super) set: fn(&mut KubeProxySettings, &Value),
}

/// Sets a lifetime of flows in seconds, at least one. Zero leaves it unchanged.
fn seconds(value: &Value, timeout: &mut u32) {
    if let Value::Duration(time) = value
        && !time.is_zero()
    {
        *timeout = u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
    }
}

const fn row(field: &'static str, flag: &'static str, kind: Kind, default: Usual, fate: Fate) -> Row {
    Row { field, flag, kind, default, fate, set: |_, _| {} }
}

impl Row {
    const fn sets(mut self, set: fn(&mut KubeProxySettings, &Value)) -> Self {
        self.set = set;
        self
    }

    /// Whether the value means the same as no value.
    pub(super) fn is_default(&self, value: &Value) -> bool {
        let is = |text: &str| self.kind.of_flag(text).is_ok_and(|default| default == *value);
        match self.default {
            Usual::Zero => value.is_zero(),
            Usual::ZeroOr(text) => value.is_zero() || is(text),
            Usual::Is(text) => is(text),
        }
    }
}

use Fate::{Honoured, Ignored, Refused};
use Usual::{Is, Zero, ZeroOr};

const AT_ONCE: Fate = Ignored("lbr writes each change at once");
const NO_MARKS: Fate = Ignored("lbr marks no packets");
const IPVS_TIME: Fate = Ignored("lbr uses no IPVS; `conntrack.*Timeout` set the lifetimes of its flows");
const MASQUERADE: Fate =
    Ignored("lbr translates answers at the client's own interface, so ClusterIPs need no masquerade");
const SYSCTL: Fate =
    Ignored("lbr keeps its own flows (--map-max flows=N) and leaves nf_conntrack's settings alone");
const WINDOWS: Fate = Ignored("only for Windows");
const BY_LINK: Fate = Ignored("lbr recognises this node's pods by their interfaces");
const KLOG: Fate = Ignored("lbr logs text to standard error; RUST_LOG chooses what");
const GONE: Fate = Ignored("kube-proxy itself has ignored it for years");
const LOCALHOST: &str = "whether processes of the node reach NodePorts at 127.0.0.1 and ::1; other hosts never do. Default: true, as \
     kube-proxy has it for IPv4 in its iptables mode (lbr needs no route_localnet for it); its other modes never serve them";
const NO_PROFILER: Fate = Ignored("lbr has no profiler of its own");
const ENDS: &str = "`lbr run` does not end by itself: remove the flag";

/// A port number, as the fields want it.
const PORTS: Kind = Kind::Port;
const MASK_BIT: Kind = Kind::Int(0, 31);
const COUNT: Kind = Kind::Int(0, i32::MAX as i64);

/// The table. In the order of upstream's type, flags without a field last.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("featureGates", "feature-gates", Kind::Gates, Zero, Ignored("feature gates switch parts of kube-proxy")),
    row("clientConnection.kubeconfig", "kubeconfig", Kind::Text, Zero,
        Honoured("how to reach the API server")).sets(|s, v| s.kubeconfig = v.text().map(PathBuf::from)),
    row("clientConnection.acceptContentTypes", "", Kind::Text, Zero, Ignored("lbr speaks JSON")),
    row("clientConnection.contentType", "kube-api-content-type", Kind::Text,
        ZeroOr("application/vnd.kubernetes.protobuf"), Ignored("lbr speaks JSON")),
    row("clientConnection.qps", "kube-api-qps", Kind::Number, ZeroOr("5"),
        Ignored("lbr only watches: there is nothing to slow down"))
        .sets(|s, v| if let Value::Number(n) = v { s.qps = (*n > 0.0).then_some(*n) }),
    row("clientConnection.burst", "kube-api-burst", COUNT, ZeroOr("10"),
        Ignored("lbr only watches: there is nothing to slow down"))
        .sets(|s, v| if let Value::Int(n) = v { s.burst = u32::try_from(*n).ok().filter(|n| *n > 0) }),
    row("logging.format", "logging-format", Kind::OneOf(&["text", "json"]), ZeroOr("text"),
        Honoured("`json`: an object a line, with timestamp, level and message"))
        .sets(|s, v| s.log_json = *v == Value::Text("json".to_owned())),
    row("logging.flushFrequency", "log-flush-frequency", Kind::Duration, ZeroOr("5s"), KLOG),
    row("logging.verbosity", "v", COUNT, Zero, Honoured("4 and more is lbr's `debug`, 6 and more its `trace`, unless RUST_LOG is set"))
        .sets(|s, v| if let Value::Int(n) = v { s.verbosity = u32::try_from(*n).ok() }),
    row("logging.vmodule", "vmodule", Kind::Any, Zero, KLOG),
    row("logging.options.text.splitStream", "log-text-split-stream", Kind::Bool, Zero, KLOG),
    row("logging.options.text.infoBufferSize", "log-text-info-buffer-size", Kind::Any, Zero, KLOG),
    row("logging.options.json.splitStream", "log-json-split-stream", Kind::Bool, Zero, KLOG),
    row("logging.options.json.infoBufferSize", "log-json-info-buffer-size", Kind::Any, Zero, KLOG),
    row("hostnameOverride", "hostname-override", Kind::Text, Zero,
        Honoured("name of this node, in lower case; --node-name (and NODE_NAME) goes first"))
        .sets(|s, v| s.node_name = v.text().map(|name| name.trim().to_lowercase()).filter(|name| !name.is_empty())),
    row("bindAddress", "bind-address", Kind::Address, Is("0.0.0.0"), Honoured("the node's primary address in its family; an IPv6 address also makes the two defaults below `[::]` and `[::1]`"))
        .sets(|s, v| if let Value::Address(ip) = v { s.node_ip = Some(*ip) }),
    row("healthzBindAddress", "healthz-bind-address", Kind::Bind(HEALTHZ_PORT), Is("0.0.0.0:10256"), Honoured("where /healthz and /livez are served"))
        .sets(|s, v| if let Value::Bind(at) = v { s.healthz_bind_address = Some(*at) }),
    row("metricsBindAddress", "metrics-bind-address", Kind::Bind(METRICS_PORT), Is("127.0.0.1:10249"), Honoured("where /metrics, /metrics/slis and /proxyMode are served"))
        .sets(|s, v| if let Value::Bind(at) = v { s.metrics_bind_address = Some(*at) }),
    row("bindAddressHardFail", "bind-address-hard-fail", Kind::Bool, Zero, Honoured("the agent ends if it cannot listen on an address"))
        .sets(|s, v| s.bind_address_hard_fail = *v == Value::Bool(true)),
    row("enableProfiling", "profiling", Kind::Bool, Zero, NO_PROFILER),
    row("showHiddenMetricsForVersion", "show-hidden-metrics-for-version", Kind::Text, Zero, Ignored("lbr hides no metrics")),
    row("mode", "proxy-mode", Kind::Text, Zero, Ignored("lbr has its own: eBPF")),
    row("iptables.masqueradeBit", "iptables-masquerade-bit", MASK_BIT, Is("14"), NO_MARKS),
    row("iptables.masqueradeAll", "masquerade-all", Kind::Bool, Zero, MASQUERADE)
        .sets(|s, v| s.masquerade_all |= *v == Value::Bool(true)),
    row("iptables.localhostNodePorts", "iptables-localhost-nodeports", Kind::Bool, Is("true"), Honoured(LOCALHOST))
        .sets(|s, v| if let Value::Bool(yes) = v { s.localhost_nodeports = Some(*yes) }),
    row("iptables.syncPeriod", "iptables-sync-period", Kind::Duration, ZeroOr("30s"), AT_ONCE),
    row("iptables.minSyncPeriod", "iptables-min-sync-period", Kind::Duration, ZeroOr("1s"), AT_ONCE),
    row("ipvs.syncPeriod", "ipvs-sync-period", Kind::Duration, ZeroOr("30s"), AT_ONCE),
    row("ipvs.minSyncPeriod", "ipvs-min-sync-period", Kind::Duration, ZeroOr("1s"), AT_ONCE),
    row("ipvs.scheduler", "ipvs-scheduler", Kind::Text, ZeroOr("rr"), Ignored("lbr chooses by a hash of the connection")),
    row("ipvs.excludeCIDRs", "ipvs-exclude-cidrs", Kind::List, Zero, Ignored("lbr uses no IPVS, and touches no virtual server")),
    row("ipvs.strictARP", "ipvs-strict-arp", Kind::Bool, Zero, Ignored("no interface has the Services' addresses, so nothing answers ARP for them")),
    row("ipvs.tcpTimeout", "ipvs-tcp-timeout", Kind::Duration, Zero, IPVS_TIME),
    row("ipvs.tcpFinTimeout", "ipvs-tcpfin-timeout", Kind::Duration, Zero, IPVS_TIME),
    row("ipvs.udpTimeout", "ipvs-udp-timeout", Kind::Duration, Zero, IPVS_TIME),
    row("nftables.masqueradeBit", "", MASK_BIT, Is("14"), NO_MARKS),
    row("nftables.masqueradeAll", "", Kind::Bool, Zero, MASQUERADE)
        .sets(|s, v| s.masquerade_all |= *v == Value::Bool(true)),
    row("nftables.syncPeriod", "", Kind::Duration, ZeroOr("30s"), AT_ONCE),
    row("nftables.minSyncPeriod", "", Kind::Duration, ZeroOr("1s"), AT_ONCE),
    row("winkernel.networkName", "network-name", Kind::Text, Zero, WINDOWS),
    row("winkernel.sourceVip", "source-vip", Kind::Text, Zero, WINDOWS),
    row("winkernel.enableDSR", "enable-dsr", Kind::Bool, Zero, WINDOWS),
    row("winkernel.rootHnsEndpointName", "root-hnsendpoint-name", Kind::Text, Zero, WINDOWS),
    row("winkernel.forwardHealthCheckVip", "forward-healthcheck-vip", Kind::Bool, Zero, WINDOWS),
    row("detectLocalMode", "detect-local-mode", Kind::OneOf(&["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]),
        ZeroOr("ClusterCIDR"), BY_LINK).sets(set_local_mode),
    row("detectLocal.bridgeInterface", "pod-bridge-interface", Kind::Text, Zero, BY_LINK).sets(|s, v| s.bridge_interface = v.text()),
    row("detectLocal.interfaceNamePrefix", "pod-interface-name-prefix", Kind::Text, Zero, BY_LINK)
        .sets(|s, v| s.interface_name_prefix = v.text()),
    row("clusterCIDR", "cluster-cidr", Kind::Blocks(&[]), Zero, BY_LINK).sets(set_cluster_cidr),
    row("nodePortAddresses", "nodeport-addresses", Kind::Blocks(&["primary"]), Zero, Honoured("the addresses of the node that serve NodePorts. Default: `primary`, as in kube-proxy's nftables mode; all, as in its iptables mode: `0.0.0.0/0,::/0`"))
        .sets(|s, v| if let Value::Blocks(blocks) = v { s.nodeport_addresses.clone_from(blocks) }),
    row("oomScoreAdj", "oom-score-adj", Kind::Int(-1000, 1000), Is("-999"), Honoured("written to /proc/self/oom_score_adj if it is set"))
        .sets(|s, v| if let Value::Int(n) = v { s.oom_score_adj = i32::try_from(*n).ok() }),
    row("conntrack.maxPerCore", "conntrack-max-per-core", COUNT, Is("32768"), SYSCTL),
    row("conntrack.min", "conntrack-min", COUNT, Is("131072"), SYSCTL),
    row("conntrack.tcpEstablishedTimeout", "conntrack-tcp-timeout-established", Kind::Duration, Is("24h"), Honoured("lifetime of an established TCP connection without packets; 0: 24h"))
        .sets(|s, v| seconds(v, &mut s.timeouts.tcp_established)),
    row("conntrack.tcpCloseWaitTimeout", "conntrack-tcp-timeout-close-wait", Kind::Duration, Is("1h"), Honoured("the same for a connection that only one side has closed; 0: 1h"))
        .sets(|s, v| seconds(v, &mut s.timeouts.tcp_close_wait)),
    row("conntrack.tcpBeLiberal", "conntrack-tcp-be-liberal", Kind::Bool, Zero, SYSCTL),
    row("conntrack.udpTimeout", "conntrack-udp-timeout", Kind::Duration, Zero, Honoured("lifetime of a UDP flow that is no stream, without packets; 0: 30s"))
        .sets(|s, v| seconds(v, &mut s.timeouts.udp)),
    row("conntrack.udpStreamTimeout", "conntrack-udp-timeout-stream", Kind::Duration, Zero, Honoured("lifetime of a UDP stream without packets; 0: 3m"))
        .sets(|s, v| seconds(v, &mut s.timeouts.udp_stream)),
    row("configSyncPeriod", "config-sync-period", Kind::Duration, ZeroOr("15m"), Ignored("lbr follows the watch, and lists again only if it breaks"))
        .sets(|s, v| if let Value::Duration(time) = v { s.config_sync_period = (!time.is_zero()).then_some(*time) }),
    row("portRange", "proxy-port-range", Kind::Text, Zero, GONE),
    row("windowsRunAsService", "windows-service", Kind::Bool, Zero, WINDOWS),

    // Fields of earlier kube-proxies, which upgraded clusters carry along.
    row("udpIdleTimeout", "udp-timeout", Kind::Duration, ZeroOr("250ms"), GONE),
    row("resourceContainer", "resource-container", Kind::Text, ZeroOr("/kube-proxy"), GONE),

    // Flags without a field.
    // `RunArgs::server` has it as its alias.
    row("", "master", Kind::Text, Zero, Honoured("URL of the API server, in place of the kubeconfig's")),
    row("", "healthz-port", PORTS, Is("10256"), Honoured("port of --healthz-bind-address; 0 switches it off"))
        .sets(|s, v| if let Value::Port(port) = v { s.healthz_bind_address = Some(with_port(s.healthz_bind_address, *port, HEALTHZ_DEFAULT)) }),
    row("", "metrics-port", PORTS, Is("10249"), Honoured("port of --metrics-bind-address; 0 switches it off"))
        .sets(|s, v| if let Value::Port(port) = v { s.metrics_bind_address = Some(with_port(s.metrics_bind_address, *port, METRICS_DEFAULT)) }),
    row("", "cleanup", Kind::Bool, Zero, Refused("run `lbr cleanup --kube-proxy` for kube-proxy's rules, `lbr cleanup` for lbr's own")),
    row("", "cleanup-ipvs", Kind::Bool, Is("true"), Ignored("it belongs to --cleanup")),
    row("", "init-only", Kind::Bool, Zero, Refused("lbr has no step of its own for that, and `lbr run` would not end: remove the container with this flag")),
    row("", "write-config-to", Kind::Text, Zero, Refused(ENDS)),
    row("", "logtostderr", Kind::Bool, Is("true"), KLOG),
    row("", "alsologtostderr", Kind::Bool, Zero, KLOG),
    row("", "stderrthreshold", Kind::Text, Is("2"), KLOG),
    row("", "log-dir", Kind::Text, Zero, KLOG),
    row("", "log-file", Kind::Text, Zero, KLOG),
    row("", "log-file-max-size", COUNT, Is("1800"), KLOG),
    row("", "log-backtrace-at", Kind::Text, Is(":0"), KLOG),
    row("", "one-output", Kind::Bool, Zero, KLOG),
    row("", "skip-headers", Kind::Bool, Zero, KLOG),
    row("", "skip-log-headers", Kind::Bool, Zero, KLOG),
    row("", "add-dir-header", Kind::Bool, Zero, KLOG),
];

const HEALTHZ_DEFAULT: BindAddress = BindAddress::At(std::net::SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
    HEALTHZ_PORT,
));
const METRICS_DEFAULT: BindAddress = BindAddress::At(std::net::SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    METRICS_PORT,
));

/// The older flags name only the port.
fn with_port(said: Option<BindAddress>, port: u16, default: BindAddress) -> BindAddress {
    match said.unwrap_or(default) {
        _ if port == 0 => BindAddress::Off,
        BindAddress::Off => BindAddress::Off,
        BindAddress::At(mut at) => {
            at.set_port(port);
            BindAddress::At(at)
        }
    }
}

fn set_local_mode(settings: &mut KubeProxySettings, value: &Value) {
    settings.detect_local_mode = value.text().and_then(|mode| match mode.as_str() {
        "ClusterCIDR" => Some(LocalMode::ClusterCidr),
        "NodeCIDR" => Some(LocalMode::NodeCidr),
        "BridgeInterface" => Some(LocalMode::BridgeInterface),
        "InterfaceNamePrefix" => Some(LocalMode::InterfaceNamePrefix),
        _ => None,
    });
}

fn set_cluster_cidr(settings: &mut KubeProxySettings, value: &Value) {
    let Value::Blocks(blocks) = value else { return };
    let block = |address: &NodePortAddress| match address {
        NodePortAddress::Block(block) => Some(*block),
        NodePortAddress::Primary => None,
    };
    settings.cluster_cidr = blocks.iter().filter_map(block).collect();
}
