use std::collections::BTreeMap;

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};
use crate::node::NodePortAddress;

fn resolve(flags: &[&str]) -> anyhow::Result<RunConfig> {
    let all = ["lbr", "run", "--manifests", "/m"].iter().chain(flags);
    match Cli::try_parse_from(all)?.command {
        Command::Run(args) => args.resolve(),
        _ => unreachable!(),
    }
}

#[test]
fn objects_come_from_one_place() {
    let source = |flags: &[&str]| {
        let all = ["lbr", "run"].iter().chain(flags);
        let Command::Run(args) = Cli::try_parse_from(all).unwrap().command else { unreachable!() };
        args.resolve().map(|config| config.source)
    };
    let api = |kubeconfig: Option<&str>, server: Option<&str>| {
        let (kubeconfig, server) = (kubeconfig.map(PathBuf::from), server.map(str::to_owned));
        Source::ApiServer(ApiServer { kubeconfig, server, silence: None })
    };
    assert_eq!(source(&["--manifests", "/m"]).unwrap(), Source::Folder("/m".into()));
    assert_eq!(source(&[]).unwrap(), api(None, None));
    assert_eq!(source(&["--kubeconfig", "/k"]).unwrap(), api(Some("/k"), None));
    assert_eq!(source(&["--master=https://h:1"]).unwrap(), api(None, Some("https://h:1")));
    let error = source(&["--manifests", "/m", "--server", "https://h:1"]).unwrap_err().to_string();
    assert!(error.contains("--manifests") && error.contains("--server"), "{error}");
}

#[test]
fn contradicting_flags_are_named() {
    let error = resolve(&["--cgroup", "/c", "--socket-lb", "off"]).unwrap_err().to_string();
    assert!(error.contains("--cgroup") && error.contains("--socket-lb=off"), "{error}");
}

#[test]
fn xdp_is_off_unless_asked_for() {
    for (flags, expected) in [
        (&[][..], XdpChoice::Off),
        (&["--xdp=off"], XdpChoice::Off),
        (&["--xdp=auto"], XdpChoice::Auto),
        (&["--xdp=native"], XdpChoice::Native),
        (&["--xdp=generic"], XdpChoice::Generic),
    ] {
        let all = [&["--cgroup", "/c"], flags].concat();
        assert_eq!(resolve(&all).unwrap().dataplane.xdp, expected, "{flags:?}");
    }
}

#[test]
fn sizes() {
    let config = resolve(&["--map-max", "flows=1000", "--map-max", "slots=7", "--cgroup", "/c"]).unwrap();
    assert_eq!(config.dataplane.sizes, BTreeMap::from([("flows".into(), 1000), ("slots".into(), 7)]));
    for (flag, expected) in [
        ("flows", "NAME=N"),
        ("flows=0", "from 1 to"),
        ("flows=4294967296", "from 1 to 4294967295"),
        ("flows=x", "`x` is not a whole number"),
        ("flows=1_000", "write 1000"),
        ("flows=512k", "write 512000"),
        ("events=4Mi", "write 4194304"),
        ("flow=1", "did you mean flows?"),
        ("flow=1", "there are frontends"),
        ("Frontends=1", "did you mean frontends?"),
        ("counters=1", "no map counters"),
        ("state=1", "no map state"),
        ("endpoints=7", "give 1024 or more"),
        ("link_policy=7", "needs an entry for each of links (4096)"),
        ("links=5000", "link_policy (4096) needs"),
        ("events=100000", "power of two"),
        ("events=16", "whole pages"),
    ] {
        let error = format!("{:#}", resolve(&["--map-max", flag]).unwrap_err());
        assert!(error.contains(expected), "{flag}: {error}");
    }
}

#[test]
fn maps_of_policies_have_sizes_too() {
    let flags = ["--map-max", "verdicts=9", "--map-max", "events=1048576", "--map-max", "denials=8"];
    let sizes = resolve(&flags).unwrap().dataplane.sizes;
    assert_eq!(
        sizes,
        [("verdicts", 9), ("events", 1 << 20), ("denials", 8)].map(|(k, v)| (k.into(), v)).into()
    );
}

#[test]
fn policy_flags_are_bits_and_off_by_default() {
    let bits = |flags: &[&str]| resolve(flags).unwrap().dataplane.options;
    assert_eq!(bits(&[]), 0);
    assert_eq!(bits(&["--pending=allow", "--source-check=on", "--established=revoke"]), 0);
    assert_eq!(bits(&["--pending=deny"]), options::DENY_PENDING);
    assert_eq!(bits(&["--source-check=off"]), options::ANY_SOURCE);
    assert_eq!(bits(&["--established=keep"]), options::KEEP_ESTABLISHED);
    assert_eq!(bits(&["--pending=deny", "--source-check=off", "--established=keep"]), 7);
}

#[test]
fn services_are_compiled_by_the_flags() {
    let config = resolve(&[
        "--external-ips=192.0.2.0/24,2001:db8::/32",
        "--snat-ports=50000-50009",
        "--nodeport-addresses=10.0.0.0/8,primary",
        "--bind-address=10.0.0.1",
        "--iptables-localhost-nodeports=false",
    ])
    .unwrap();
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let expected = Settings {
        nodeport_addresses: vec![NodePortAddress::Block(net("10.0.0.0/8")), NodePortAddress::Primary],
        without_localhost_nodeports: true,
        node_ip: Some("10.0.0.1".parse().unwrap()),
        external_ips: vec![net("192.0.2.0/24"), net("2001:db8::/32")],
        ephemeral_ports: None,
        maglev_tables: None,
    };
    assert_eq!(config.services, expected);
    assert_eq!(config.snat_ports, SnatChoice::Range(50_000, 50_009));
    let default = resolve(&[]).unwrap();
    let on = resolve(&["--iptables-localhost-nodeports"]).unwrap();
    assert!(!default.services.without_localhost_nodeports && !on.services.without_localhost_nodeports);
    assert_eq!((default.services.external_ips, default.snat_ports), (vec![], SnatChoice::Auto));
}

#[test]
fn the_maglev_seed_is_16_digits() {
    let seed = |flags: &[&str]| resolve(flags).map(|config| config.dataplane.maglev_seed);
    assert_eq!(seed(&[]).unwrap(), lbr_common::maglev::DEFAULT_SEED);
    assert_eq!(seed(&["--maglev-seed=00000000DEADbeef"]).unwrap(), 0xdead_beef);
}

#[test]
fn another_maglev_seed_is_refused() {
    for text in ["", "beef", "+000000000000001", "00000000deadbeef0", "0x000000deadbeef"] {
        let error = text.parse::<MaglevSeed>().unwrap_err();
        assert!(error.contains("16 hexadecimal digits"), "{text:?}: {error}");
    }
}

#[test]
fn addresses_of_servers() {
    let addresses = |flags: &[&str]| resolve(flags).unwrap().addresses;
    let default = Addresses {
        healthz: Some("0.0.0.0:10256".parse().unwrap()),
        metrics: Some("127.0.0.1:10249".parse().unwrap()),
        hard_fail: false,
    };
    assert_eq!(addresses(&[]), default);
    let off = Addresses { healthz: None, metrics: None, hard_fail: true };
    let flags = ["--healthz-bind-address=", "--metrics-bind-address=", "--bind-address-hard-fail"];
    assert_eq!(addresses(&flags), off);
    assert!(!addresses(&["--bind-address-hard-fail=false"]).hard_fail);
    let error = format!("{:#}", resolve(&["--metrics-bind-address", "here"]).unwrap_err());
    assert!(error.contains("--metrics-bind-address=here"), "{error}");
}

#[test]
fn node_name_defaults_to_the_host_name() {
    assert_eq!(resolve(&["--node-name", "n1"]).unwrap().node_name, "n1");
    assert!(!resolve(&[]).unwrap().node_name.is_empty());
}
