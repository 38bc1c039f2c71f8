//! The status as text: a line for each subject, the agent first.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::ages::{ago, short};
use super::types::{Agent, AgentState, Kernel, Links, SourceStatus, State, Status};
use crate::cli::rows::LIMITED;
use crate::cli::version::sameness;
use crate::dataplane::Attached;

/// How many rejections and maps are listed.
const LISTED: usize = 5;

/// The screen.
pub(super) fn render(status: &Status) -> String {
    render_at(status, Timestamp::now())
}

fn render_at(status: &Status, now: Timestamp) -> String {
    let mut out = String::new();
    let mut line = |title: &str, text: &str| {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{title:10} {text}");
    };
    let agent = &status.agent;
    line("agent", &agent_text(agent, now));
    let hash = status.object.in_force.as_deref().map_or_else(String::new, |hash| {
        format!("kernel object sha256 {}..., ", hash.get(..12).unwrap_or(hash))
    });
    let since = agent.since.as_deref().map(|since| format!(", in force since {}", ago(since, now)));
    line("programs", &format!("{hash}{}{}", sameness(&status.object), since.unwrap_or_default()));
    match &status.source {
        Some(source) => line("source", &source_text(source, now)),
        None => line("source", "not known: the agent left no report"),
    }
    match &status.state {
        Some(state) => line("state", &state_text(state, agent.state, now)),
        None => line("state", "not known: the agent left no report"),
    }
    let counts = &status.counts;
    line(
        "counts",
        &format!(
            "{} with {} and {}; {} here, {} isolated, by {}; {}",
            number(counts.services, "Service"),
            number(counts.service_ports, "port"),
            number(counts.endpoints, "endpoint"),
            number(counts.pods, "pod"),
            counts.isolated_pods,
            number_of(counts.policies, "NetworkPolicy", "NetworkPolicies"),
            number(counts.flows, "live connection"),
        ),
    );
    let rejected = &status.rejected;
    let limited = rejected.iter().filter(|row| row.state == LIMITED).count();
    match (rejected.len() - limited, limited) {
        (0, 0) => line("rejected", "nothing"),
        (count, 0) => line("rejected", &format!("{count}: see `lbr show rejected`")),
        (count, limited) => {
            line("rejected", &format!("{count}, and {limited} limited to a part: see `lbr show rejected`"));
        }
    }
    for row in rejected.iter().take(LISTED) {
        let parts = [row.object.as_str(), row.origin.as_str(), row.field.as_str()];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        line("", &format!("{}: {}", parts.join(", "), row.reason));
    }
    if rejected.len() > LISTED {
        line("", &format!("and {} more", rejected.len() - LISTED));
    }
    let maps = status.maps.iter().take(LISTED);
    let maps =
        maps.map(|map| format!("{} {}% ({} of {})", map.map, map.percent, map.entries, map.max_entries));
    line("maps", &format!("fullest: {}", maps.collect::<Vec<_>>().join(", ")));
    if status.uplinks.is_empty() {
        line("uplinks", "none");
    }
    for (i, uplink) in status.uplinks.iter().enumerate() {
        let tc = if uplink.tc == "none" { "no program attached" } else { uplink.tc };
        let addresses = [uplink.ipv4.as_str(), uplink.ipv6.as_str()].into_iter().filter(|a| !a.is_empty());
        let addresses = addresses.map(|address| format!(", {address}")).collect::<String>();
        let title = if i == 0 { "uplinks" } else { "" };
        line(title, &format!("{}: {tc}, XDP {}{addresses}", uplink.name, uplink.xdp));
    }
    line("pod links", &links_text(&status.links));
    line("sockets", &sockets_text(status.socket_programs));
    let kernel = &status.kernel;
    line("kernel", &kernel_text(kernel));
    for missing in &kernel.missing {
        line("", &format!("lacks {} (Linux {}): {}", missing.feature, missing.since, missing.without));
    }
    out
}

fn agent_text(agent: &Agent, now: Timestamp) -> String {
    let version = agent.version.as_deref().map(|version| format!("lbr {version}"));
    let process = agent.process.map(|process| match &agent.pod {
        Some(pod) => format!("pod {pod}"),
        None => format!("process {process}"),
    });
    let node = agent.node.as_deref().map(|node| format!("node {node}"));
    let about: Vec<String> = [version, process, node].into_iter().flatten().collect();
    let about = if about.is_empty() { "no report".to_owned() } else { about.join(", ") };
    let since =
        agent.since.as_deref().map(|since| format!(", since {}", ago(since, now))).unwrap_or_default();
    let report = agent.last_report.as_deref().map_or_else(|| "never".to_owned(), |at| ago(at, now));
    let stays = "the last state stays in force";
    match agent.state {
        AgentState::Running => format!("running ({about}){since}"),
        AgentState::Silent => {
            format!("running, but its last report is of {report}: it starts, or it hangs ({about})")
        }
        AgentState::Stopped => {
            let stopped = agent.stopped.as_deref().map(|at| ago(at, now)).unwrap_or_default();
            format!("not running, stopped {stopped} ({about}); {stays}")
        }
        AgentState::Killed => format!("not running, was killed after {report} ({about}); {stays}"),
        AgentState::Unknown => format!("not running ({about}); {stays}"),
    }
}

fn source_text(source: &SourceStatus, now: Timestamp) -> String {
    let kind = if source.kind == "folder" { "folder" } else { "API server" };
    let changed = source.changed.as_deref().map(|at| format!(", last change {}", ago(at, now)));
    let age = match source.age_seconds {
        0.0 => "followed".to_owned(),
        age => format!("not read for {}", short(age)),
    };
    format!("{kind} {}: {age}{}", source.place, changed.unwrap_or_default())
}

fn state_text(state: &State, agent: AgentState, now: Timestamp) -> String {
    let since = state.in_force_since.as_deref().map(|at| ago(at, now));
    if !state.synced {
        let before = "what an earlier agent left stays in force";
        return match agent {
            AgentState::Running | AgentState::Silent => format!("waits until every kind is listed; {before}"),
            _ => format!("the agent ended before every kind was listed; {before}"),
        };
    }
    if state.pending + state.problems > 0 {
        let since = since.map(|since| format!("; everything was in force {since}")).unwrap_or_default();
        return format!(
            "{} of maps wait, {} failed: see `lbr show rejected` and the agent's log{since}",
            number_of(state.pending, "entry", "entries"),
            number(state.problems, "write"),
        );
    }
    match since {
        Some(since) => format!("everything is in force since {since}"),
        None => "nothing has been in force yet".to_owned(),
    }
}

fn links_text(links: &Links) -> String {
    let ways = [(links.tcx, "tcx"), (links.clsact, "clsact"), (links.detached, "no program attached")];
    let ways: Vec<String> =
        ways.iter().filter(|(count, _)| *count > 0).map(|(count, way)| format!("{count} {way}")).collect();
    match ways.as_slice() {
        [] => "none".to_owned(),
        ways => format!("{}; {} pending", ways.join(", "), links.pending),
    }
}

fn sockets_text(attached: usize) -> String {
    match attached {
        0 => "no program attached: processes of the node do not reach Services".to_owned(),
        Attached::SOCKETS => "attached".to_owned(),
        count => format!("{count} of {} programs attached", Attached::SOCKETS),
    }
}

fn kernel_text(kernel: &Kernel) -> String {
    let tcx = if kernel.tcx { "has tcx" } else { "has no tcx (Linux 6.6): clsact" };
    let rest = if kernel.missing.is_empty() { ", and all else that lbr uses" } else { "" };
    format!("Linux {}: {tcx}{rest}", kernel.release)
}

fn number(count: usize, what: &str) -> String {
    number_of(count, what, &format!("{what}s"))
}

fn number_of(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::super::types::{Counts, MapFill, Missing, Object, Uplink};
    use super::*;
    use crate::cli::rows::RejectedRow;

    fn status() -> Status {
        let at = |time: &str| Some(format!("2026-01-01T{time}.000Z"));
        Status {
            bpffs: "/sys/fs/bpf/lbr".into(),
            agent: Agent {
                state: AgentState::Running,
                version: Some("0.1.0".into()),
                process: Some(7),
                pod: None,
                node: Some("n1".into()),
                since: at("00:00:00"),
                stopped: None,
                last_report: at("01:00:00"),
            },
            object: Object {
                here: "0123456789abcdef".into(),
                in_force: Some("0123456789abcdef".into()),
                same: Some(true),
                confirmed: Some(true),
            },
            source: Some(SourceStatus {
                kind: "folder".into(),
                place: "/etc/lbr".into(),
                age_seconds: 0.0,
                changed: at("00:59:00"),
            }),
            state: Some(State { synced: true, in_force_since: at("00:59:00"), pending: 0, problems: 0 }),
            counts: Counts {
                services: 1,
                service_ports: 2,
                endpoints: 3,
                pods: 4,
                isolated_pods: 2,
                policies: 1,
                flows: 0,
            },
            rejected: Vec::new(),
            maps: vec![MapFill { map: "flows", entries: 5, max_entries: 10, percent: 50.0 }],
            uplinks: vec![Uplink {
                name: "eth0".into(),
                tc: "tcx",
                xdp: "native",
                ipv4: "192.0.2.1".into(),
                ipv6: String::new(),
            }],
            links: Links { tcx: 2, pending: 1, ..Links::default() },
            socket_programs: Attached::SOCKETS,
            kernel: Kernel { release: "6.12.1".into(), tcx: true, missing: Vec::new() },
        }
    }

    fn text(status: &Status) -> String {
        render_at(status, "2026-01-01T01:00:01Z".parse().unwrap())
    }

    #[test]
    fn one_screen() {
        assert_eq!(
            text(&status()),
            "\
agent      running (lbr 0.1.0, process 7, node n1), since 2026-01-01T00:00:00Z (1h0m ago)
programs   kernel object sha256 0123456789ab..., the same, and its programs are attached, in force since \
2026-01-01T00:00:00Z (1h0m ago)
source     folder /etc/lbr: followed, last change 2026-01-01T00:59:00Z (61s ago)
state      everything is in force since 2026-01-01T00:59:00Z (61s ago)
counts     1 Service with 2 ports and 3 endpoints; 4 pods here, 2 isolated, by 1 NetworkPolicy; 0 live connections
rejected   nothing
maps       fullest: flows 50% (5 of 10)
uplinks    eth0: tcx, XDP native, 192.0.2.1
pod links  2 tcx; 1 pending
sockets    attached
kernel     Linux 6.12.1: has tcx, and all else that lbr uses
"
        );
    }

    #[test]
    fn what_is_not_as_it_should_be_is_said() {
        let mut status = status();
        status.agent.state = AgentState::Stopped;
        status.agent.stopped = Some("2026-01-01T00:59:31.000Z".into());
        status.source = status.source.map(|source| SourceStatus {
            kind: "api-server".into(),
            place: "https://api:6443/".into(),
            age_seconds: 4_000.0,
            ..source
        });
        status.state = status.state.map(|state| State { pending: 1, problems: 2, ..state });
        status.rejected = vec![
            RejectedRow {
                state: "rejected",
                object: "Service default/web".into(),
                origin: "web.yaml, document 1".into(),
                field: "spec.clusterIP".into(),
                reason: "is wrong".into(),
            };
            7
        ];
        status.uplinks[0].tc = "none";
        status.socket_programs = 0;
        let without = "tc does the work";
        status.kernel.missing = vec![Missing { feature: "x".into(), since: "5.18".into(), without }];
        status.rejected[0].state = LIMITED;
        let text = text(&status);
        for line in [
            "agent      not running, stopped 2026-01-01T00:59:31Z (30s ago) (lbr 0.1.0, process 7, node n1); the last \
             state stays in force\n",
            "source     API server https://api:6443/: not read for 1h6m, last change",
            "state      1 entry of maps wait, 2 writes failed: see",
            "rejected   6, and 1 limited to a part: see `lbr show rejected`\n           Service default/web, web.yaml, document 1, \
             spec.clusterIP: is wrong\n",
            "           and 2 more\n",
            "uplinks    eth0: no program attached, XDP native, 192.0.2.1\n",
            "sockets    no program attached",
            "           lacks x (Linux 5.18): tc does the work\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn an_agent_that_left_no_report_is_not_made_up() {
        let mut status = status();
        let agent =
            Agent { state: AgentState::Unknown, version: None, process: None, node: None, ..status.agent };
        status.agent = Agent { since: None, last_report: None, ..agent };
        status.object.in_force = None;
        (status.object.same, status.object.confirmed) = (None, None);
        (status.source, status.state) = (None, None);
        let text = text(&status);
        let begin = "agent      not running (no report); the last state stays in force\nprograms   not known\nsource     \
                     not known: the agent left no report\nstate      not known: the agent left no report\n";
        assert!(text.starts_with(begin), "{text}");
    }
}
