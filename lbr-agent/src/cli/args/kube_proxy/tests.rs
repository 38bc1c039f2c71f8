//! Files and flags as clusters have them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use lbr_common::conntrack::Timeouts;

use super::fields::{Fate, ROWS, Usual};
use super::*;
use crate::cli::{Cli, Command as Subcommand};

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// The ConfigMap that kubeadm 1.36 writes, with the values that it fills in.
const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
udpIdleTimeout: 0s
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

/// A file with this text, removed at the end.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("lbr-kube-proxy-{}-{number}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn parse(flags: &[&str]) -> Result<KubeProxyArgs, clap::Error> {
    let all = ["lbr", "run", "--manifests", "/m"].iter().chain(flags);
    match Cli::try_parse_from(all)?.command {
        Subcommand::Run(args) => Ok(args.kube_proxy),
        _ => unreachable!(),
    }
}

fn resolve(text: &str, flags: &[&str]) -> anyhow::Result<KubeProxy> {
    let file = File::new(text);
    let config = ["--config", file.0.to_str().unwrap()];
    let config: &[&str] = if text.is_empty() { &[] } else { &config };
    parse(&[config, flags].concat())?.resolve()
}

fn error(text: &str, flags: &[&str]) -> String {
    format!("{:#}", resolve(text, flags).unwrap_err())
}

#[test]
fn kubeadms_configmap_works_as_it_is_and_says_what_has_no_effect() {
    let kube_proxy = resolve(KUBEADM, &["--hostname-override=Node-1"]).unwrap();
    let settings = kube_proxy.settings;
    assert_eq!(settings.kubeconfig, Some(PathBuf::from("/var/lib/kube-proxy/kubeconfig.conf")));
    assert_eq!(settings.node_name.as_deref(), Some("node-1"));
    assert_eq!(settings.cluster_cidr, ["10.244.0.0/16", "fd00:10:244::/56"].map(|c| c.parse().unwrap()));
    assert_eq!((settings.healthz_bind_address, settings.qps, settings.burst), (None, None, None));
    let ignored = kube_proxy.ignored.unwrap();
    assert!(ignored.ends_with("effect: clusterCIDR=10.244.0.0/16,fd00:10:244::/56 (lbr recognises this node's pods by their interfaces)"), "{ignored}");
}

#[test]
fn the_same_in_json() {
    let value: serde_json::Value = serde_saphyr::from_str(KUBEADM).unwrap();
    assert_eq!(resolve(&value.to_string(), &[]).unwrap(), resolve(KUBEADM, &[]).unwrap());
}

#[test]
fn every_value_that_is_honoured_or_carried_arrives() {
    let text = format!(
        "{HEAD}{}",
        r#"
clientConnection: {kubeconfig: /k, qps: 7.5, burst: 20}
logging: {format: json, verbosity: 4, vmodule: [{filePattern: a, verbosity: 3}]}
hostnameOverride: n1
bindAddress: "::"
bindAddressHardFail: true
metricsBindAddress: 0.0.0.0
iptables: {masqueradeAll: true, localhostNodePorts: false}
detectLocalMode: BridgeInterface
detectLocal: {bridgeInterface: cni0, interfaceNamePrefix: veth}
nodePortAddresses: [10.0.0.0/8, primary]
oomScoreAdj: -998
configSyncPeriod: 1m
conntrack: {tcpEstablishedTimeout: 2h, tcpCloseWaitTimeout: 10m, udpTimeout: 0s, udpStreamTimeout: 300ms}
"#
    );
    let wanted = KubeProxySettings {
        kubeconfig: Some("/k".into()),
        node_name: Some("n1".into()),
        node_ip: Some("::".parse().unwrap()),
        healthz_bind_address: Some(BindAddress::At("[::]:10256".parse().unwrap())),
        metrics_bind_address: Some(BindAddress::At("0.0.0.0:10249".parse().unwrap())),
        bind_address_hard_fail: true,
        nodeport_addresses: vec![
            NodePortAddress::Block("10.0.0.0/8".parse().unwrap()),
            NodePortAddress::Primary,
        ],
        localhost_nodeports: Some(false),
        config_sync_period: Some(Duration::from_secs(60)),
        qps: Some(7.5),
        burst: Some(20),
        cluster_cidr: vec!["10.1.0.0/16".parse().unwrap()],
        detect_local_mode: Some(LocalMode::BridgeInterface),
        bridge_interface: Some("cni0".into()),
        interface_name_prefix: Some("veth".into()),
        masquerade_all: true,
        timeouts: Timeouts { tcp_established: 7_200, tcp_close_wait: 600, udp: 30, udp_stream: 1 },
        oom_score_adj: Some(-998),
        log_json: true,
        verbosity: Some(4),
    };
    let flags = ["--master=https://api:6443", "--cluster-cidr", "10.1.0.0/16"];
    assert_eq!(resolve(&text, &flags).unwrap().settings, wanted);
}

#[test]
fn flags_win_over_the_file() {
    let text = format!(
        "{HEAD}hostnameOverride: file\nhealthzBindAddress: 127.0.0.1:1\nnodePortAddresses: [10.0.0.0/8]"
    );
    let flags = ["--hostname-override=flag", "--healthz-bind-address=", "--nodeport-addresses=primary"];
    let settings = resolve(&text, &flags).unwrap().settings;
    assert_eq!(settings.node_name.as_deref(), Some("flag"));
    assert_eq!(settings.healthz_bind_address, Some(BindAddress::Off));
    assert_eq!(settings.nodeport_addresses, [NodePortAddress::Primary]);
    let text = format!("{HEAD}iptables: {{localhostNodePorts: false}}\nlogging: {{format: json}}");
    let settings =
        resolve(&text, &["--iptables-localhost-nodeports", "--logging-format=text"]).unwrap().settings;
    assert_eq!((settings.localhost_nodeports, settings.log_json), (Some(true), false));
    let settings = resolve("", &["--healthz-port=0", "--metrics-port", "9000"]).unwrap().settings;
    assert_eq!(settings.healthz_bind_address, Some(BindAddress::Off));
    assert_eq!(settings.metrics_bind_address, Some(BindAddress::At("127.0.0.1:9000".parse().unwrap())));
}

#[test]
fn arguments_of_daemonsets_are_accepted() {
    let flags = [
        "--kubeconfig=/var/lib/kube-proxy/kubeconfig",
        "-v=2",
        "--logtostderr=true",
        "--conntrack-max-per-core",
        "65536",
        "--iptables-min-sync-period=1s",
        "--ipvs-scheduler=sh",
        "--oom-score-adj",
        "-998",
        "--feature-gates=A=true,B=false",
        "--feature-gates=C=true",
        "--cleanup=false",
        "--profiling",
        "--proxy-mode=iptables",
        "--cluster-cidr=10.0.0.0/8,fd00::/8",
        "--show-hidden-metrics-for-version=1.35",
    ];
    let kube_proxy = resolve("", &flags).unwrap();
    assert_eq!(kube_proxy.settings.verbosity, Some(2));
    let ignored = kube_proxy.ignored.unwrap();
    for wanted in [
        "--conntrack-max-per-core=65536",
        "--proxy-mode=iptables (lbr has its own",
        "--feature-gates=A=true,B=false,C=true",
        "--ipvs-scheduler=sh",
    ] {
        assert!(ignored.contains(wanted), "{wanted}: {ignored}");
    }
    for unwanted in ["logtostderr", "min-sync-period", "--cleanup", "kubeconfig", "-v="] {
        assert!(!ignored.contains(unwanted), "{unwanted}: {ignored}");
    }
    assert_eq!(ignored.lines().count(), 1);
}

#[test]
fn what_would_do_something_else_is_refused() {
    assert!(error("", &["--cleanup"]).contains("--cleanup=true: run `lbr cleanup --kube-proxy`"));
    assert!(error("", &["--init-only=true"]).contains("--init-only"));
    assert!(error("", &["--write-config-to=/f"]).contains("--write-config-to=/f"));
}

#[test]
fn mistakes_are_named_with_field_value_and_what_is_allowed() {
    let with = |line: &str| error(&format!("{HEAD}{line}"), &[]);
    for (line, wanted) in [
        ("hostnameOveride: n", vec!["hostnameOveride", "no version"]),
        ("iptables: {syncPeriods: 1s}", vec!["iptables.syncPeriods"]),
        ("iptables: 5", vec!["iptables is 5", "fields"]),
        ("iptables: {masqueradeBit: 32}", vec!["iptables.masqueradeBit is 32", "0 to 31"]),
        ("healthzBindAddress: here", vec!["healthzBindAddress is \"here\"", "0.0.0.0:10256"]),
        ("detectLocalMode: Guess", vec!["detectLocalMode is \"Guess\"", "BridgeInterface"]),
        ("nodePortAddresses: [10.0.0.1]", vec!["nodePortAddresses", "`10.0.0.1`", "primary"]),
        ("clusterCIDR: 10.0.0.0/33", vec!["clusterCIDR", "`10.0.0.0/33`"]),
        ("oomScoreAdj: 1001", vec!["oomScoreAdj is 1001", "-1000 to 1000"]),
        ("configSyncPeriod: soon", vec!["configSyncPeriod is \"soon\"", "30s"]),
        ("mode: iptables\nmode: ipvs", vec!["mode"]),
        ("---\na: 1", vec!["one document"]),
        ("a: [", vec!["YAML"]),
    ] {
        let error = with(line);
        assert!(error.starts_with("--config "), "{error}");
        assert!(wanted.iter().all(|wanted| error.contains(wanted)), "{line}: {error}");
    }
    for (text, wanted) in [
        ("kind: KubeProxyConfiguration", "apiVersion is missing"),
        ("apiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind is missing"),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1beta1\nkind: KubeProxyConfiguration",
            "v1beta1\": lbr reads kubeproxy.config.k8s.io/v1alpha1 only",
        ),
        ("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeletConfiguration", "KubeletConfiguration"),
        ("apiVersion: v1\nkind: Config\nclusters: []", "give it as --kubeconfig"),
        ("- 1", "is no KubeProxyConfiguration"),
        ("# nothing", "there are 0"),
    ] {
        let error = error(text, &[]);
        assert!(error.contains(wanted), "{text}: {error}");
    }
    assert!(error("", &["--config=/nowhere"]).contains("--config /nowhere: cannot be read"));
    assert!(
        error("", &["--iptables-masquerade-bit=40"])
            .contains("--iptables-masquerade-bit=40: a whole number, 0 to 31")
    );
    assert!(error("", &["--profiling=perhaps"]).contains("--profiling=perhaps: true or false"));
    assert!(parse(&["--no-flag-of-anybody"]).is_err());
}

/// Upstream's type, written down a second time: every leaf of v1alpha1 in Kubernetes 1.36.
const UPSTREAM: &str = "featureGates clientConnection.{kubeconfig acceptContentTypes contentType qps burst} \
    logging.{format flushFrequency verbosity vmodule options.text.splitStream options.text.infoBufferSize \
    options.json.splitStream options.json.infoBufferSize} hostnameOverride bindAddress healthzBindAddress \
    metricsBindAddress bindAddressHardFail enableProfiling showHiddenMetricsForVersion mode \
    iptables.{masqueradeBit masqueradeAll localhostNodePorts syncPeriod minSyncPeriod} \
    ipvs.{syncPeriod minSyncPeriod scheduler excludeCIDRs strictARP tcpTimeout tcpFinTimeout udpTimeout} \
    nftables.{masqueradeBit masqueradeAll syncPeriod minSyncPeriod} \
    winkernel.{networkName sourceVip enableDSR rootHnsEndpointName forwardHealthCheckVip} \
    detectLocalMode detectLocal.{bridgeInterface interfaceNamePrefix} clusterCIDR nodePortAddresses oomScoreAdj \
    conntrack.{maxPerCore min tcpEstablishedTimeout tcpCloseWaitTimeout tcpBeLiberal udpTimeout udpStreamTimeout} \
    configSyncPeriod portRange windowsRunAsService";

#[test]
fn the_table_has_every_field_of_upstream() {
    let mut wanted = BTreeSet::from(["udpIdleTimeout".to_owned(), "resourceContainer".to_owned()]);
    let mut above = String::new();
    for word in UPSTREAM.split_whitespace() {
        let (prefix, rest) = word.split_once('{').map_or((None, word), |(p, r)| (Some(p), r));
        above = prefix.map_or(above, str::to_owned);
        let closes = rest.strip_suffix('}');
        wanted.insert(format!("{above}{}", closes.unwrap_or(rest)));
        if closes.is_some() {
            above.clear();
        }
    }
    let found: BTreeSet<_> = ROWS.iter().map(|row| row.field.to_owned()).filter(|f| !f.is_empty()).collect();
    assert_eq!(found, wanted);
}

#[test]
fn the_table_is_sound() {
    let mut names = BTreeSet::new();
    for row in ROWS {
        assert!(!row.field.is_empty() || !row.flag.is_empty());
        for name in [row.field, row.flag].into_iter().filter(|name| !name.is_empty()) {
            assert!(names.insert((name == row.flag, name)), "{name} twice");
        }
        if let Usual::ZeroOr(text) | Usual::Is(text) = row.default {
            let value = row.kind.of_flag(text);
            assert!(value.is_ok_and(|value| row.is_default(&value)), "{}{}: {text}", row.field, row.flag);
        }
    }
}

#[test]
fn the_long_help_says_of_each_flag_what_becomes_of_it_and_the_short_one_nothing() {
    let mut command = Cli::command();
    let run = command.find_subcommand_mut("run").unwrap();
    let plain = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (long, short) = (plain(run.render_long_help().to_string()), plain(run.render_help().to_string()));
    assert!(long.contains("Flags win over the file"));
    // These are documented as lbr's own.
    let is_own = |row: &&Row| ["kubeconfig", "master"].contains(&row.flag);
    for row in ROWS.iter().filter(|row| !row.flag.is_empty() && !is_own(row)) {
        let flag = format!("--{}", row.flag);
        let (Fate::Honoured(word) | Fate::Ignored(word) | Fate::Refused(word)) = row.fate;
        assert!(long.contains(&flag) && long.contains(word), "{flag}: {word}");
        let listed = [format!("{flag} <"), format!("{flag}[")];
        assert!(!listed.iter().any(|listed| short.contains(listed)), "{flag}");
    }
}

#[test]
fn flags_that_are_there_already_keep_their_meaning() {
    let own = clap::Arg::new("mine").long("kubeconfig").alias("master").num_args(1);
    let command = KubeProxyArgs::augment_args(Command::new("x").arg(own));
    let matches = command.try_get_matches_from(["x", "--kubeconfig", "/k", "--proxy-mode=ipvs"]).unwrap();
    assert_eq!(matches.get_one::<String>("mine").map(String::as_str), Some("/k"));
    let args = KubeProxyArgs::from_arg_matches(&matches).unwrap();
    assert_eq!(args.resolve().unwrap().settings.kubeconfig, None);
    assert!(args.resolve().unwrap().ignored.unwrap().contains("ipvs"));
}

#[test]
fn the_nodes_name_is_the_flags_then_the_files() {
    let file = File::new(&format!("{HEAD}hostnameOverride: From-File"));
    let node_name = |flags: &[&str]| {
        let all = ["lbr", "run", "--manifests=/m", "--cgroup=/c", "--config", file.0.to_str().unwrap()];
        match Cli::try_parse_from(all.iter().chain(flags)).unwrap().command {
            Subcommand::Run(args) => args.resolve().unwrap().node_name,
            _ => unreachable!(),
        }
    };
    assert_eq!(node_name(&[]), "from-file");
    assert_eq!(node_name(&["--hostname-override", " Flag "]), "flag");
    assert_eq!(node_name(&["--hostname-override=flag", "--node-name=own"]), "own");
}
