//! `lbr run`: connects the sources, the kernel and the agent's loop.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing_subscriber::EnvFilter;

use super::args::ports::ephemeral_ports;
use super::args::run::{RunArgs, RunConfig, Source};
use crate::agent::{self, Inputs, Loading};
use crate::dataplane::{Kernel, object_hash};
use crate::engine::Former;
use crate::events::{Events, Occurrence};
use crate::serve::report::{self, Report, Reporter};
use crate::serve::{self, Listening, Observer, Origin};
use crate::source::apiserver::{ApiSource, Pace};
use crate::source::links::watch_links;
use crate::source::manifest::ManifestSource;

/// Runs the agent until SIGTERM or SIGINT. The pinned programs and maps go on working afterwards.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut config = args.resolve()?;
    let ephemeral = ephemeral_ports()?;
    config.dataplane.snat_ports = Some(config.snat_ports.resolve(&ephemeral)?);
    config.services.ephemeral_ports = Some(ephemeral);
    init_log(config.kube_proxy.verbosity.unwrap_or(0), config.kube_proxy.log_json);
    if let Some(score) = config.kube_proxy.oom_score_adj
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        tracing::warn!("oom-score-adj {score}: /proc/self/oom_score_adj: {error}");
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_until_signal(config, started))
}

async fn run_until_signal(config: RunConfig, started: Instant) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The sources first: wrong flags should be reported before the kernel is touched.
    let (sender, changes) = mpsc::channel(1024);
    let mut events = Events::nowhere();
    let place;
    let mut contact = None;
    let origin = match &config.source {
        Source::Folder(folder) => {
            let source = ManifestSource::open(folder)?;
            contact = Some(source.contact());
            source.spawn(sender).context("start to read the manifests")?;
            place = std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string();
            Origin::Folder
        }
        Source::ApiServer(server) => {
            let mut source = ApiSource::open(server).await?;
            place = source.url();
            let contact = source.contact();
            events = source.events(&config.node_name, Pace::default());
            events.tell(Occurrence::starting(&config.node_name));
            source.spawn(sender)?;
            Origin::ApiServer(Box::new(move || contact.silent_for()))
        }
    };
    let observer = Observer::new(origin)?;
    let bpffs = config.dataplane.bpffs.clone();
    let listening = serve::start(&config.addresses, &observer, bpffs, &in_effect(&config))?;
    tell_of_servers(&config, listening, &events);
    serve::start_health_ports(&observer)?;
    // The kernel verifies the programs while the sources list objects.
    let (mut kernel, loaded) = Kernel::open(&config.dataplane)?;
    let reporter = Arc::new(OnceLock::new());
    let then = {
        let (about, observer, reporter) = (about(&config, place), observer.clone(), Arc::clone(&reporter));
        let bpffs = config.dataplane.bpffs.clone();
        move |programs| {
            let about = Report { programs, ..about };
            // Until then the former agent's report describes the programs.
            let _ = reporter.set(Reporter::start(&observer, contact, bpffs, about)?);
            Ok(())
        }
    };
    let loading = Some(Loading { loaded, then: Box::new(then) });
    let former = Former::read(&mut kernel).context("read the pods of the last run")?;
    let (pods, known_pods) = watch::channel(former.pods);
    let links = watch_links(config.links, known_pods, former.links).context("watch the node's interfaces")?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; Services go on working with the last state");
    };
    // The gate is for a CNI plugin. No plugin uses it yet.
    let (_, gate) = crate::gate::gate();
    let inputs = Inputs { changes, links, pods, gate, observer, events, loading, started };
    let ended = agent::run(config.node_name, config.services, inputs, &mut kernel, shutdown).await;
    // While the folder is locked: the next agent reports itself.
    if let Some(reporter) = reporter.get() {
        reporter.stop();
    }
    ended
}

/// What the reports say of this agent.
fn about(config: &RunConfig, place: String) -> Report {
    let kind = match config.source {
        Source::Folder(_) => "folder",
        Source::ApiServer(_) => "api-server",
    };
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        object: object_hash(),
        node: config.node_name.clone(),
        process: std::process::id(),
        pod: std::env::var("POD_NAME").ok().filter(|name| !name.is_empty()),
        source: report::Source { kind: kind.to_owned(), place, ..report::Source::default() },
        ..Report::default()
    }
}

/// Reports servers that do not listen yet.
fn tell_of_servers(config: &RunConfig, listening: Listening, events: &Events) {
    for (flag, wanted, bound) in [
        ("--healthz-bind-address", config.addresses.healthz, listening.healthz),
        ("--metrics-bind-address", config.addresses.metrics, listening.metrics),
    ] {
        if let (Some(address), None) = (wanted, bound) {
            events.tell(Occurrence::can_not_listen(&config.node_name, flag, address));
        }
    }
}

/// For `/configz`: the settings that have a name in kube-proxy's configuration.
fn in_effect(config: &RunConfig) -> Value {
    let text = |address: Option<SocketAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    json!({
        "bindAddressHardFail": config.addresses.hard_fail,
        "healthzBindAddress": text(config.addresses.healthz),
        "hostnameOverride": config.node_name,
        "iptables": {"localhostNodePorts": !config.services.without_localhost_nodeports},
        "metricsBindAddress": text(config.addresses.metrics),
        "mode": "lbr",
    })
}

/// Logs to standard error; `RUST_LOG=debug` for more, or klog's `-v` in its place.
fn init_log(verbosity: u32, json: bool) {
    let level = match verbosity {
        0..4 => "info",
        4..6 => "info,lbr=debug,lbr_agent=debug",
        6.. => "info,lbr=trace,lbr_agent=trace",
    };
    // The client logs each failed attempt; lbr logs once that a kind cannot be read.
    let level = format!("{level},kube_client::client::builder=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match json {
        true => log.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
        false => log.with_ansi(has_colors()).init(),
    }
}

/// Colours are for terminals: log collectors show the codes. <https://no-color.org>
fn has_colors() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !no_color
}
