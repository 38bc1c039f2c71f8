//! What is in force instead of the policies that do not fit.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::id::PolicySetId;
use lbr_common::policy::{Policy, policy_flags};

use super::shortage::Shortage;
use super::{Policies, text};
use crate::desired::EndpointPolicy;
use crate::table::Problem;

const ISOLATED: u32 = policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT;
const AUDIT: u32 = policy_flags::AUDIT_IN | policy_flags::AUDIT_OUT;

/// The sets that this round leaves out.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Sets that get no entry.
    pub(super) sets: BTreeSet<PolicySetId>,
    /// Sets that stay in use in their place.
    pub(super) kept: BTreeSet<PolicySetId>,
}

/// Overrides the desired entries that do not fit, reports them, and returns the sets that are left out.
pub(super) fn hold(state: &mut Policies, shortage: &Shortage, problems: &mut Vec<Problem>) -> Held {
    report(state, shortage, problems);
    let mut held = Held { sets: shortage.sets.keys().copied().collect(), ..Held::default() };
    let mut endpoints = pods(state, &mut held);
    if let Some((_, lacking)) = &shortage.endpoints {
        endpoints.extend(lacking.iter().map(|addr| (*addr, None)));
        // Pods that are not known yet give way to known ones, in the next round.
        let is_pending = |flags: u32| flags & policy_flags::PENDING != 0;
        let unknown = state.maps.endpoints.desired().iter().filter(|(_, e)| is_pending(e.policy.flags));
        endpoints.extend(unknown.map(|(addr, _)| (*addr, None)).take(lacking.len()));
    }
    state.maps.endpoints.set_instead(endpoints);
    let no_class = shortage.classes.iter().flat_map(|(_, lacking)| lacking);
    state.maps.ip_class.set_instead(no_class.map(|addr| (*addr, None)).collect());
    let no_policy = shortage.links.iter().flat_map(|(_, lacking)| lacking);
    state.maps.link_policy.set_instead(no_policy.map(|link| (*link, None)).collect());
    match shortage.blocks {
        Some(_) => state.maps.cidr_class.keep(state.generation),
        None => state.maps.cidr_class.set_instead(BTreeMap::new()),
    }
    held
}

/// Pods whose set lacks room keep their present one. A pod that was not isolated so far gets no set, which allows nothing; so
/// does a pod whose address belonged to another pod.
fn pods(state: &Policies, held: &mut Held) -> BTreeMap<Addr, Option<EndpointPolicy>> {
    let mut instead = BTreeMap::new();
    if held.sets.is_empty() {
        return instead;
    }
    for (addr, &desired) in state.maps.endpoints.desired() {
        let mut endpoint = desired;
        let Policy { set, audit, flags } = &mut endpoint.policy;
        let now = state.maps.endpoints.at(addr, state.generation).unwrap_or_default().policy;
        let same_pod = state.maps.pod_names.actual().get(addr) == state.maps.pod_names.get(addr);
        if held.sets.contains(set) {
            *set = if same_pod && now.flags & ISOLATED != 0 { now.set } else { PolicySetId::NONE };
            held.kept.insert(*set);
        }
        if held.sets.contains(audit) {
            *flags &= !AUDIT;
            *audit = PolicySetId::NONE;
            if same_pod && now.flags & AUDIT != 0 {
                *flags |= now.flags & AUDIT;
                *audit = now.audit;
                held.kept.insert(now.audit);
            }
        }
        if endpoint != desired {
            instead.insert(*addr, Some(endpoint));
        }
    }
    instead
}

fn report(state: &Policies, shortage: &Shortage, problems: &mut Vec<Problem>) {
    problems.extend(shortage.sets.iter().map(|(&set, full)| {
        let (object, key) = text::set(set, &state.maps);
        Problem { map: full.map, object, key, error: full.error() }
    }));
    if let Some(full) = shortage.blocks {
        let new: Vec<_> = state
            .maps
            .cidr_class
            .desired()
            .keys()
            .filter(|block| !state.maps.cidr_class.has(block))
            .collect();
        let key = format!("ipBlock {}", text::some(new.into_iter(), |block| text::block(block)));
        problems.push(Problem::new(full.map, key, full.error()));
    }
    for (full, addresses) in shortage.classes.iter().chain(&shortage.endpoints) {
        let key = text::some(addresses.iter(), |addr| addr.to_string());
        problems.push(Problem::new(full.map, key, full.error()));
    }
    if let Some((full, links)) = &shortage.links {
        let key = text::some(links.iter(), |link| format!("link {link}"));
        problems.push(Problem::new(full.map, key, full.error()));
    }
}
