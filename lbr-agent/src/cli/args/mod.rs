//! Flags as they are typed; those of `lbr run` are in [`run`].

pub mod cleanup;
pub mod completions;
pub mod kube_proxy;
pub mod ports;
pub mod run;
mod sizes;
mod slips;
pub mod status;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use lbr_common::tuple::proto;

use crate::dataplane::DEFAULT_BPFFS;
use cleanup::CleanupArgs;
use completions::CompletionsArgs;
use run::RunArgs;
use status::StatusArgs;

/// Kubernetes Services and NetworkPolicies in eBPF, for the node that it runs on.
#[derive(Debug, Parser)]
#[command(name = "lbr", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line; ends the process if it is wrong. Called as `kube-proxy`, as DaemonSets do, it is `lbr
    /// run`.
    pub fn of_command_line() -> Self {
        let arguments = with_command(std::env::args_os().collect());
        Self::try_parse_from(&arguments).unwrap_or_else(|error| slips::with_tip(error, &arguments).exit())
    }
}

fn with_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|first| Path::new(first).file_name());
    if name.is_some_and(|name| name == "kube-proxy") {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent: translate Services and enforce policies for the pods of this network namespace.
    Run(Box<RunArgs>),
    /// Print what is in force, read from the kernel's maps; no agent needs to run.
    Show(ShowArgs),
    /// Say on one screen how this node's agent is, what it reads and what is in force; no agent needs to run.
    ///
    /// The agent, its source and how far it is in force come from the agent's last report, beside the pins; all else comes
    /// from the kernel. Exit code: 0, also if no agent runs; 1 if there is nothing of lbr in the folder.
    Status(StatusArgs),
    /// Print the version, and the SHA-256 of the kernel object: of this binary's, and of the one in force.
    Version(StatusArgs),
    /// Say whether a new connection would pass, and which policy decides; no packet is sent.
    ///
    /// Answers for what this node decides: the Service's endpoints, the sender's policies if it is a pod of this node,
    /// and the receiver's likewise. Other nodes judge for their own pods. The answer holds for datagrams in fragments too:
    /// the first one is judged, and the others follow it. Only of SCTP fragments are dropped if a Service changes their port.
    ///
    /// Exit code: 0 allowed, 1 denied (also if only some endpoints of the Service are), 2 error.
    Why(WhyArgs),
    /// Print denied packets as they happen, until Ctrl-C.
    ///
    /// Shows packets that policies deny, spoofed and invalid addresses, what a pod may not send (router messages, VLAN
    /// tags, tunnels into the cluster), packets of isolated pods that policies cannot judge, and packets of pods that
    /// are not known yet (`--pending=deny`).
    ///
    /// At most 100 a second on each CPU; the next line says how many more there were, and `lbr show counters` counts
    /// all. Run only one monitor: each event goes to one reader.
    Monitor(MonitorArgs),
    /// Remove what lbr made on this node, or what kube-proxy left there.
    ///
    /// Without --kube-proxy: attached programs, maps and their folder. Services and policies of this node stop
    /// working at that moment, connections through Services included. Refused while an agent runs.
    ///
    /// With --kube-proxy: rules, tables and interfaces of kube-proxy, in all its modes, and nothing of lbr. Stop
    /// kube-proxy first, or it makes them again. What others made stays, also in the same tables.
    ///
    /// Exit code: 0, also if nothing was there or something is named as left; 1 if something could not be removed.
    Cleanup(CleanupArgs),
    /// Print a script that completes subcommands, flags and values in a shell.
    Completions(CompletionsArgs),
}

/// `lbr show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// What to print. kubectl's names and short names are known too.
    #[arg(ignore_case = true)]
    pub what: What,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,

    /// Folder on a BPF filesystem that the agent uses.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}

/// Subjects of `lbr show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Service ports and their endpoints (also: svc).
    #[value(aliases = ["service", "svc", "svcs"])]
    Services,
    /// Endpoints of Services, each with its state and how it is reached (also: endpointslices).
    #[value(aliases = ["backend", "endpointslice", "endpointslices"])]
    Backends,
    /// Connections: those through Services, and all others of pods that are known.
    #[value(aliases = ["flow", "connections", "conntrack"])]
    Flows,
    /// Pods' interfaces that the programs are attached to. `pending`: the pod behind it is not known yet, so no
    /// policy holds for it and `--pending` of `lbr run` decides. The start of pods is not held back.
    #[value(aliases = ["link"])]
    Links,
    /// The node's interfaces to the outside, by which clients reach its NodePorts; the node's addresses there, which
    /// replace the source address of clients whose endpoint is on another node; and whether XDP is in use.
    #[value(aliases = ["uplink"])]
    Uplinks,
    /// NetworkPolicies, the pods that they select on this node, and what they denied (also: netpol, networkpolicies).
    #[value(aliases = ["policy", "netpol", "netpols", "networkpolicy", "networkpolicies"])]
    Policies,
    /// Addresses of this node and its pods, and whether policies isolate them (also: pods, ep). For the endpoints of
    /// Services, see `backends`.
    #[value(aliases = ["endpoint", "ep", "eps", "pod", "pods", "po"])]
    Endpoints,
    /// Classes of peers, as the policies distinguish them.
    #[value(aliases = ["class"])]
    Classes,
    /// Objects that are not in force (rejected), or are but for a field (limited), and why.
    #[value(aliases = ["rejections"])]
    Rejected,
    /// What happened to packets, by hook and reason.
    #[value(aliases = ["counter"])]
    Counters,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    Table,
    /// More columns.
    Wide,
    /// JSON, for programs.
    Json,
}

/// `lbr why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The client: namespace/pod, pod/NAME (of the namespace `default`), pod/NAMESPACE/NAME, node/NAME for this node, or
    /// an IP address.
    pub from: String,

    /// The destination: as the client, or namespace/service, svc/NAME, svc/NAMESPACE/NAME, or any IP address of a
    /// Service; each may have its port behind it: `svc/web:80`, `10.0.0.1:80`, `[fd00::1]:80`. Where a pod and a Service
    /// have one name, the port decides: the Service if it has the port, else the pod.
    pub to: String,

    /// Destination port, as the client names it: a Service's port by number or name, else the pod's by number. Default:
    /// the only port of the Service.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,

    /// Protocol. Default: that of the Service's port, else tcp.
    #[arg(long, value_name = "PROTOCOL")]
    pub proto: Option<Proto>,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: WhyOutput,

    /// Folder on a BPF filesystem that the agent uses.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}

/// `--proto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP, and ICMPv6 between IPv6 addresses: pings. The answer is that for every protocol without ports.
    Icmp,
}

impl Proto {
    /// IP protocol number; that of IPv4 for [`Self::Icmp`].
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Sctp => proto::SCTP,
            Self::Icmp => proto::ICMP,
        }
    }
}

/// `-o` of `lbr why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WhyOutput {
    /// Text.
    Table,
    /// JSON, for programs.
    Json,
}

/// `lbr monitor`.
#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Print only packets that audited policies would deny. Default: only dropped packets.
    #[arg(long)]
    pub audit: bool,

    /// One JSON object a line, for programs.
    #[arg(long)]
    pub json: bool,

    /// Folder on a BPF filesystem that the agent uses.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_have_kubectls_names_too() {
        let what = |word: &str| match Cli::try_parse_from(["lbr", "show", word]) {
            Ok(Cli { command: Command::Show(args) }) => args.what,
            other => panic!("{word}: {other:?}"),
        };
        for (words, expected) in [
            ("services service svc svcs SVC", What::Services),
            ("backends backend endpointslice endpointslices", What::Backends),
            ("flows flow connections conntrack", What::Flows),
            ("links link", What::Links),
            ("uplinks uplink", What::Uplinks),
            ("policies policy netpol netpols networkpolicy networkpolicies NetworkPolicy", What::Policies),
            ("endpoints endpoint ep eps pod pods po", What::Endpoints),
            ("classes class", What::Classes),
            ("rejected rejections", What::Rejected),
            ("counters counter", What::Counters),
        ] {
            for word in words.split(' ') {
                assert_eq!(what(word), expected, "{word}");
            }
        }
    }

    #[test]
    fn an_unknown_subject_lists_what_there_is() {
        for (word, similar) in [("servcies", "'services'"), ("polices", "'policies'")] {
            let error = Cli::try_parse_from(["lbr", "show", word]).unwrap_err().to_string();
            assert!(
                error.contains(similar) && error.contains("[possible values: services, backends"),
                "{error}"
            );
        }
        let error = Cli::try_parse_from(["lbr", "show", "deployments"]).unwrap_err().to_string();
        assert!(error.contains("[possible values: services, backends"), "{error}");
    }

    #[test]
    fn in_the_place_of_kube_proxy_it_runs() {
        let read = |arguments: &[&str]| with_command(arguments.iter().map(OsString::from).collect());
        assert_eq!(
            read(&["/usr/local/bin/kube-proxy", "-v=2"]),
            ["/usr/local/bin/kube-proxy", "run", "-v=2"]
        );
        assert_eq!(read(&["/usr/bin/lbr", "kube-proxy"]), ["/usr/bin/lbr", "kube-proxy"]);
        assert_eq!(read(&[]), [""; 0]);
    }
}
