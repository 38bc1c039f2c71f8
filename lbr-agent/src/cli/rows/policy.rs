//! Rows about policies: which pods are isolated, by which policies, and what was denied.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::id::{ClassId, PolicyId};
use lbr_common::policy::{DenialKey, direction, policy_flags};
use lbr_common::text::{ClassRecord, PolicyRecord, policy_kind};
use lbr_common::verdict::Counter;
use serde::Serialize;

use crate::cli::names;
use crate::desired::{Desired, EndpointPolicy};

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct PolicyRow {
    pub(in crate::cli) id: u32,
    pub(in crate::cli) namespace: String,
    pub(in crate::cli) name: String,
    /// `enforce`, `audit`, or `no room`: isolates and allows nothing until the maps have room for its rules.
    pub(in crate::cli) mode: &'static str,
    pub(in crate::cli) isolates_ingress: bool,
    pub(in crate::cli) isolates_egress: bool,
    pub(in crate::cli) ingress_rules: u32,
    pub(in crate::cli) egress_rules: u32,
    /// Pods of this node that it selects.
    pub(in crate::cli) pods: u32,
    /// Packets dropped because this policy isolates a pod and no policy that selects the pod allows them: counted once
    /// for each of these policies.
    pub(in crate::cli) denied_packets: u64,
    /// The same for an audited policy, which drops nothing.
    pub(in crate::cli) would_be_denied_packets: u64,
}

/// An address of this node or of one of its pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct EndpointRow {
    pub(in crate::cli) address: String,
    /// `namespace/name`; empty for the node itself, and until the pod is known.
    pub(in crate::cli) pod: String,
    /// The pod's interface; empty if it is not known.
    pub(in crate::cli) link: String,
    /// `ready`, `pending` or `node`.
    pub(in crate::cli) state: &'static str,
    /// Number of the set of policies that are enforced.
    pub(in crate::cli) set: u32,
    pub(in crate::cli) isolated_ingress: bool,
    pub(in crate::cli) isolated_egress: bool,
    /// Number of the set of these and the audited policies; 0: none is audited.
    pub(in crate::cli) audit_set: u32,
    pub(in crate::cli) audited_ingress: bool,
    pub(in crate::cli) audited_egress: bool,
}

/// A class of peers, as the policies distinguish them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct ClassRow {
    pub(in crate::cli) id: u32,
    /// Addresses of pods in it.
    pub(in crate::cli) pods: u32,
    /// Address blocks in it.
    pub(in crate::cli) blocks: u32,
    pub(in crate::cli) matches: String,
}

/// Policies in order of their names.
pub(in crate::cli) fn policies(tables: &Desired, denials: &[(DenialKey, Counter)]) -> Vec<PolicyRow> {
    let denied = denied(tables, denials);
    let row = |(&id, record): (&PolicyId, &PolicyRecord)| {
        let audit = record.kind & policy_kind::AUDIT != 0;
        let packets = denied.get(&id).copied().unwrap_or(0);
        PolicyRow {
            id: id.id,
            namespace: record.namespace.as_str().to_owned(),
            name: record.name.as_str().to_owned(),
            mode: match record.kind & (policy_kind::AUDIT | policy_kind::WITHOUT_ROOM) {
                0 => "enforce",
                policy_kind::AUDIT => "audit",
                _ => "no room",
            },
            isolates_ingress: record.kind & policy_kind::INGRESS != 0,
            isolates_egress: record.kind & policy_kind::EGRESS != 0,
            ingress_rules: record.ingress_rules,
            egress_rules: record.egress_rules,
            pods: record.pods,
            denied_packets: if audit { 0 } else { packets },
            would_be_denied_packets: if audit { packets } else { 0 },
        }
    };
    let mut rows: Vec<_> = tables.policies.iter().map(row).collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    rows
}

/// Packets by policy: for enforced ones what was dropped, for audited ones what only they would drop.
fn denied(tables: &Desired, denials: &[(DenialKey, Counter)]) -> BTreeMap<PolicyId, u64> {
    let mut denied = BTreeMap::new();
    for (key, counter) in denials {
        let audit = if key.audited == 0 { 0 } else { policy_kind::AUDIT };
        let wanted = names::kind(key.direction.into()) | audit;
        let counts = |id: &PolicyId| {
            let kind = tables.policies.get(id).map_or(0, |policy| policy.kind);
            kind & (names::kind(key.direction.into()) | policy_kind::AUDIT) == wanted
        };
        for id in names::members(tables, key.set).filter(counts) {
            *denied.entry(id).or_default() += counter.packets;
        }
    }
    denied
}

/// Endpoints in order of their pods, the node's own addresses last. `link_name` names an interface.
pub(in crate::cli) fn endpoints(tables: &Desired, link_name: impl Fn(u32) -> String) -> Vec<EndpointRow> {
    let row = |(addr, endpoint): (&Addr, &EndpointPolicy)| {
        let policy = endpoint.policy;
        let has = |flag| policy.flags & flag != 0;
        EndpointRow {
            address: addr.to_string(),
            pod: if has(policy_flags::NODE) {
                String::new()
            } else {
                names::pod(tables, addr).unwrap_or_default()
            },
            link: if endpoint.ifindex == 0 { String::new() } else { link_name(endpoint.ifindex) },
            state: if has(policy_flags::NODE) {
                "node"
            } else if has(policy_flags::POD) {
                "ready"
            } else {
                "pending"
            },
            set: policy.set.id,
            isolated_ingress: has(policy_flags::ISOLATED_IN),
            isolated_egress: has(policy_flags::ISOLATED_OUT),
            audit_set: policy.audit.id,
            audited_ingress: has(policy_flags::AUDIT_IN),
            audited_egress: has(policy_flags::AUDIT_OUT),
        }
    };
    let mut rows: Vec<_> = tables.endpoints.iter().map(row).collect();
    rows.sort_by(|a, b| (a.state == "node", &a.pod).cmp(&(b.state == "node", &b.pod)));
    rows
}

/// Classes in order of their numbers.
pub(in crate::cli) fn classes(tables: &Desired) -> Vec<ClassRow> {
    let row = |(&id, record): (&ClassId, &ClassRecord)| ClassRow {
        id: id.id,
        pods: record.pods,
        blocks: record.blocks,
        matches: record.matches.as_str().to_owned(),
    };
    tables.classes.iter().map(row).collect()
}

/// `ready`, or `pending` until the pod behind an interface is known.
pub(in crate::cli) fn link_state(tables: &Desired, ifindex: u32) -> &'static str {
    let flags = tables.link_policy.get(&ifindex).copied().unwrap_or(0);
    if flags & policy_flags::POD != 0 { "ready" } else { "pending" }
}

/// The isolated directions in words; empty if there is none.
pub(in crate::cli) fn directions(ingress: bool, egress: bool) -> String {
    let word = |direction, there: bool| there.then(|| names::direction_name(direction));
    let words = [word(direction::INGRESS, ingress), word(direction::EGRESS, egress)];
    words.into_iter().flatten().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use lbr_common::id::PolicySetId;

    use super::*;
    use crate::cli::example::{self, AUDIT_SET, SET, WEB, addr};

    fn denial(set: PolicySetId, direction: u32, audited: u16, packets: u64) -> (DenialKey, Counter) {
        let direction = u16::try_from(direction).unwrap();
        (DenialKey { set, direction, audited }, Counter { packets, bytes: 0 })
    }

    #[test]
    fn a_policy_counts_denials_of_its_sets_in_the_directions_that_it_isolates() {
        let tables = example::tables();
        let denials = [
            denial(SET, direction::INGRESS, 0, 3),
            denial(SET, direction::EGRESS, 0, 100),
            denial(AUDIT_SET, direction::INGRESS, 1, 7),
            denial(AUDIT_SET, direction::EGRESS, 1, 5),
            denial(999.into(), direction::INGRESS, 0, 1000),
        ];
        let rows = policies(&tables, &denials);
        let short: Vec<_> = rows
            .iter()
            .map(|r| (r.name.as_str(), r.mode, r.denied_packets, r.would_be_denied_packets))
            .collect();
        assert_eq!(short, [("later", "audit", 0, 5), ("web", "enforce", 3, 0)]);
        assert!(rows[1].isolates_ingress && !rows[1].isolates_egress);
        assert_eq!((rows[1].ingress_rules, rows[1].pods), (2, 1));
    }

    #[test]
    fn endpoints_have_names_states_and_sets() {
        let rows = endpoints(&example::tables(), |link| format!("veth{link}"));
        let short: Vec<_> =
            rows.iter().map(|r| (r.address.as_str(), r.pod.as_str(), r.link.as_str(), r.state)).collect();
        assert_eq!(
            short,
            [
                ("10.0.0.9", "", "veth9", "pending"),
                ("10.0.0.1", "default/client", "veth1", "ready"),
                ("fd00::1", "default/client", "veth1", "ready"),
                ("10.0.0.3", "default/stranger", "veth3", "ready"),
                ("10.0.0.2", "default/web-0", "veth2", "ready"),
                ("10.0.0.254", "", "", "node"),
            ]
        );
        let web = rows.iter().find(|r| r.address == WEB.to_string()).unwrap();
        assert!(web.isolated_ingress && !web.isolated_egress && web.audited_egress);
        assert_eq!((web.set, web.audit_set), (SET.id, AUDIT_SET.id));
        assert_eq!(directions(web.isolated_ingress, web.isolated_egress), "ingress");
        assert_eq!(directions(true, true), "ingress,egress");
    }

    #[test]
    fn links_are_ready_once_their_pod_is_known() {
        let mut tables = example::tables();
        tables.link_policy = [(1, policy_flags::POD), (2, policy_flags::PENDING)].into();
        assert_eq!([1, 2, 3].map(|link| link_state(&tables, link)), ["ready", "pending", "pending"]);
    }

    #[test]
    fn classes_say_what_they_match() {
        let rows = classes(&example::tables());
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].pods, rows[0].blocks), (2, 0));
        assert_eq!(rows[0].matches, "pods app=client in default");
    }

    #[test]
    fn a_pod_on_another_node_is_no_endpoint() {
        assert!(names::pod(&example::tables(), &addr(20)).is_some());
        assert!(!endpoints(&example::tables(), |_| String::new()).iter().any(|r| r.pod == "other/far"));
    }
}
