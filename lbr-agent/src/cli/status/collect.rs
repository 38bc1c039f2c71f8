//! Collects the status from the pins, the report and this kernel.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use lbr_common::maps::{self, MapSpec};
use lbr_common::policy::policy_flags;

use super::ages;
use super::types::{
    Agent, AgentState, Counts, Kernel, Links, MapFill, Missing, Object, SourceStatus, State, Status, Uplink,
};
use crate::cli::names;
use crate::cli::rows::{self, policy, uplinks};
use crate::dataplane::{Attached, Fill, Pinned, Walk, has_tcx, object_hash, requirements};
use crate::desired::Desired;
use crate::serve::report::{REPORT, Report};

/// The maps whose content is counted.
const MAPS: &[MapSpec] = &[
    maps::SERVICES,
    maps::BACKENDS,
    maps::ENDPOINTS,
    maps::POD_NAMES,
    maps::POLICIES,
    maps::REJECTED,
    maps::LINKS,
    maps::LINK_POLICY,
    maps::UPLINKS,
];

/// An agent that has not reported for this long hangs. It may wait for a slow disk meanwhile.
const SILENT: f64 = REPORT.as_secs() as f64 * 3.0;

/// Reads everything.
pub(super) fn status(pinned: &Pinned, bpffs: &Path) -> anyhow::Result<Status> {
    let report = pinned.report().and_then(|text| Report::parse(&text));
    let now = Timestamp::now();
    let tables = pinned.tables_of(MAPS)?;
    let walk = pinned.walk()?;
    let attached = pinned.attached()?;
    let xdp = pinned.xdp()?;
    let uplinks = uplinks::uplinks(&tables, &xdp, names::link).into_iter();
    Ok(Status {
        bpffs: bpffs.display().to_string(),
        agent: agent(report.as_ref(), pinned.is_owned()?, now),
        object: compare(report.as_ref(), &attached),
        source: report.as_ref().map(|report| source(report, now)),
        state: report.as_ref().map(state),
        counts: counts(&tables, &walk),
        rejected: rows::rejected(&tables),
        maps: fullest(&pinned.fill(&walk)?),
        uplinks: uplinks
            .map(|row| Uplink {
                tc: attached.tc.get(&row.ifindex).copied().unwrap_or("none"),
                name: row.name,
                xdp: row.xdp,
                ipv4: row.ipv4,
                ipv6: row.ipv6,
            })
            .collect(),
        links: links(&tables, &attached),
        socket_programs: attached.sockets,
        kernel: kernel(),
    })
}

/// The kernel object of this binary, and the one in force; without pins there is none.
pub(in crate::cli) fn object(pinned: Option<&Pinned>) -> anyhow::Result<(Object, Option<Report>)> {
    let Some(pinned) = pinned else { return Ok((compare(None, &Attached::default()), None)) };
    let report = pinned.report().and_then(|text| Report::parse(&text));
    Ok((compare(report.as_ref(), &pinned.attached()?), report))
}

fn compare(report: Option<&Report>, attached: &Attached) -> Object {
    let here = object_hash();
    let in_force = report.map(|report| report.object.clone()).filter(|hash| !hash.is_empty());
    let ids = attached.programs.iter().flat_map(|(name, ids)| ids.iter().map(move |id| (*name, *id)));
    let confirmed = report.filter(|_| !attached.programs.is_empty()).map(|report| {
        // Zero: the interface is gone, and the link has no program.
        ids.filter(|(_, id)| *id != 0).all(|(name, id)| report.programs.get(name) == Some(&id))
    });
    let same = in_force.as_ref().filter(|_| confirmed != Some(false)).map(|in_force| *in_force == here);
    Object { same, here, in_force, confirmed }
}

fn agent(report: Option<&Report>, is_owned: bool, now: Timestamp) -> Agent {
    let age = report.and_then(|report| ages::seconds(&report.written, now));
    // A report of an earlier agent, or from before it ended, says nothing about the one that holds the folder.
    let is_recent =
        report.is_some_and(|report| report.stopped.is_none()) && age.is_some_and(|age| age <= SILENT);
    let state = match (is_owned, report) {
        (true, _) if is_recent => AgentState::Running,
        (true, None) => AgentState::Running,
        (true, Some(_)) => AgentState::Silent,
        (false, Some(Report { stopped: Some(_), .. })) => AgentState::Stopped,
        (false, Some(_)) => AgentState::Killed,
        (false, None) => AgentState::Unknown,
    };
    let text = |of: fn(&Report) -> &String| report.map(of).filter(|text| !text.is_empty()).cloned();
    Agent {
        state,
        version: text(|report| &report.version),
        process: report.map(|report| report.process),
        pod: report.and_then(|report| report.pod.clone()),
        node: text(|report| &report.node),
        since: text(|report| &report.started),
        stopped: report.and_then(|report| report.stopped.clone()),
        last_report: text(|report| &report.written),
    }
}

/// Since the report, nobody may have read the source: only a running agent reports again.
fn source(report: &Report, now: Timestamp) -> SourceStatus {
    let since_report = ages::seconds(&report.written, now).unwrap_or(0.0);
    let is_followed =
        report.stopped.is_none() && since_report <= SILENT && report.source.silent_seconds == 0.0;
    SourceStatus {
        kind: report.source.kind.clone(),
        place: report.source.place.clone(),
        age_seconds: if is_followed { 0.0 } else { report.source.silent_seconds + since_report },
        changed: report.changed.clone(),
    }
}

fn state(report: &Report) -> State {
    State {
        synced: report.synced,
        in_force_since: report.applied.clone(),
        pending: report.pending,
        problems: report.problems,
    }
}

fn counts(tables: &Desired, walk: &Walk) -> Counts {
    let services: BTreeSet<_> = tables
        .services
        .values()
        .map(|s| (s.namespace.as_str().to_owned(), s.name.as_str().to_owned()))
        .collect();
    let (mut pods, mut isolated) = (BTreeSet::new(), BTreeSet::new());
    for (addr, endpoint) in &tables.endpoints {
        let flags = endpoint.policy.flags;
        if flags & policy_flags::POD != 0 {
            // A pod without a name yet counts by its address.
            let name = names::pod(tables, addr).unwrap_or_else(|| addr.to_string());
            if flags & (policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT) != 0 {
                isolated.insert(name.clone());
            }
            pods.insert(name);
        }
    }
    Counts {
        services: services.len(),
        service_ports: tables.services.len(),
        endpoints: tables.backends.len(),
        pods: pods.len(),
        isolated_pods: isolated.len(),
        policies: tables.policies.len(),
        flows: walk.flows,
    }
}

fn fullest(fill: &[Fill]) -> Vec<MapFill> {
    let percent = |fill: &Fill| 100.0 * fill.entries as f64 / f64::from(fill.max_entries.max(1));
    let row = |f: &Fill| MapFill {
        map: f.map,
        entries: f.entries,
        max_entries: f.max_entries,
        percent: (percent(f) * 10.0).round() / 10.0,
    };
    let mut rows: Vec<(f64, MapFill)> = fill.iter().map(|fill| (percent(fill), row(fill))).collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.map.cmp(b.1.map)));
    rows.into_iter().map(|(_, row)| row).collect()
}

fn links(tables: &Desired, attached: &Attached) -> Links {
    let mut links = Links::default();
    for ifindex in tables.links.keys() {
        *match attached.tc.get(ifindex) {
            Some(&"tcx") => &mut links.tcx,
            Some(_) => &mut links.clsact,
            None => &mut links.detached,
        } += 1;
        links.pending += usize::from(policy::link_state(tables, *ifindex) == "pending");
    }
    links
}

fn kernel() -> Kernel {
    let missing = requirements::missing().into_iter();
    Kernel {
        release: requirements::release(),
        tcx: has_tcx(),
        missing: missing
            .map(|feature| Missing {
                feature: feature.name(),
                since: feature.since.to_string(),
                without: feature.without.unwrap_or("lbr does not start"),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:01:00Z";

    fn report() -> Report {
        Report {
            object: object_hash(),
            programs: [("from_pod".to_owned(), 7)].into(),
            written: "2026-01-01T00:00:55Z".into(),
            ..Report::default()
        }
    }

    #[test]
    fn the_lock_and_the_report_tell_what_became_of_the_agent() {
        let now = NOW.parse().unwrap();
        let state = |report: Option<&Report>, owned| agent(report, owned, now).state;
        let (fresh, old) = (report(), Report { written: "2026-01-01T00:00:00Z".into(), ..report() });
        let stopped = Report { stopped: Some("2026-01-01T00:00:55Z".into()), ..report() };
        for (report, owned, expected) in [
            (Some(&fresh), true, AgentState::Running),
            (None, true, AgentState::Running),
            (Some(&old), true, AgentState::Silent),
            (Some(&stopped), true, AgentState::Silent),
            (Some(&stopped), false, AgentState::Stopped),
            (Some(&fresh), false, AgentState::Killed),
            (None, false, AgentState::Unknown),
        ] {
            assert_eq!(state(report, owned), expected);
        }
    }

    #[test]
    fn a_source_that_is_not_read_grows_old() {
        let now = NOW.parse().unwrap();
        let age = |report: &Report| source(report, now).age_seconds;
        assert_eq!(age(&report()), 0.0);
        let silent = crate::serve::report::Source { silent_seconds: 30.0, ..Default::default() };
        assert_eq!(age(&Report { source: silent, ..report() }), 35.0);
        assert_eq!(age(&Report { stopped: Some(NOW.into()), ..report() }), 5.0);
        assert_eq!(age(&Report { written: "2026-01-01T00:00:00Z".into(), ..report() }), 60.0);
    }

    #[test]
    fn the_object_is_the_same_only_if_the_programs_are_those_of_the_report() {
        let attached = |id| Attached { programs: [("from_pod", [id].into())].into(), ..Attached::default() };
        let of = |report: &Report, attached: &Attached| {
            let object = compare(Some(report), attached);
            (object.same, object.confirmed)
        };
        let other = Report { object: "00".into(), ..report() };
        assert_eq!(of(&report(), &attached(7)), (Some(true), Some(true)));
        assert_eq!(of(&report(), &attached(8)), (None, Some(false)));
        assert_eq!(of(&report(), &attached(0)), (Some(true), Some(true)));
        assert_eq!(of(&other, &attached(7)), (Some(false), Some(true)));
        assert_eq!(of(&report(), &Attached::default()), (Some(true), None));
        assert_eq!(compare(None, &attached(7)).same, None);
    }

    #[test]
    fn the_fullest_map_is_first() {
        let fill = |map, entries, max_entries| Fill { map, entries, max_entries };
        let rows = fullest(&[fill("a", 1, 1_000), fill("b", 1, 3), fill("c", 0, 0), fill("d", 9, 9_000)]);
        let short: Vec<_> = rows.iter().map(|row| (row.map, row.percent)).collect();
        assert_eq!(short, [("b", 33.3), ("a", 0.1), ("d", 0.1), ("c", 0.0)]);
    }
}
