//! What `lbr show` and `lbr why` read about policies: `policies` and `rules`.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::id::PolicyId;
use lbr_common::policy::direction;
use lbr_common::text::{PolicyRecord, RuleKey, RuleText, Text, policy_kind};

use super::rules_text;
use super::versions::{Key, Version, Versions};
use crate::ids::PolicyIds;
use crate::model::{ObjectName, PolicyRule};
use crate::table::PolicyMaps;

/// The policies in use, by name.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// How many pods of this node each one selects.
    pods: BTreeMap<ObjectName, u32>,
    /// Policies that select more or fewer pods.
    due: BTreeSet<ObjectName>,
    /// Policies with other versions in use.
    changed: BTreeSet<ObjectName>,
}

impl Records {
    /// A version came into use or went out of it.
    pub(super) fn change(&mut self, name: &ObjectName) {
        self.changed.insert(name.clone());
    }

    /// A pod has other versions.
    pub(super) fn count(&mut self, before: &[Key], now: &[Key]) {
        let names = |keys: &[Key]| keys.iter().map(|key| key.name.clone()).collect::<BTreeSet<_>>();
        let (before, now) = (names(before), names(now));
        for name in before.difference(&now) {
            if let Some(pods) = self.pods.get_mut(name) {
                *pods = pods.saturating_sub(1);
            }
        }
        for name in now.difference(&before) {
            *self.pods.entry(name.clone()).or_default() += 1;
        }
        self.due.extend(before.symmetric_difference(&now).cloned());
    }

    /// Writes what changed.
    pub(super) fn write(&mut self, versions: &Versions, ids: &mut PolicyIds, maps: &mut PolicyMaps) {
        let changed = std::mem::take(&mut self.changed);
        for name in std::mem::take(&mut self.due).iter().chain(&changed) {
            let id = ids.policy(name);
            let is_in_use = versions.of(name).next().is_some();
            let pods = self.pods.get(name).copied().unwrap_or(0);
            match maps.policies.get(&id) {
                Some(record) if is_in_use && !changed.contains(name) => {
                    maps.policies.set(id, Some(PolicyRecord { pods, ..*record }));
                }
                _ => {
                    let all = RuleKey { policy: id, direction: 0, rule: 0 }..=RuleKey {
                        policy: id,
                        direction: u32::MAX,
                        rule: u32::MAX,
                    };
                    maps.rules.replace(all, rules(versions.of(name), id));
                    maps.policies.set(id, is_in_use.then(|| record(name, versions.of(name), pods)));
                }
            }
            if !is_in_use {
                self.pods.remove(name);
                ids.leave_policy(name.clone());
            }
        }
    }
}

/// Of the versions in force, those with rules count; two of them have the same rules in each direction.
fn record<'a>(
    name: &ObjectName,
    versions: impl Iterator<Item = (&'a Key, &'a Version)>,
    pods: u32,
) -> PolicyRecord {
    let count = |rules: &Option<Vec<PolicyRule>>| {
        u32::try_from(rules.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX)
    };
    let mut record = PolicyRecord {
        namespace: Text::new(&name.namespace),
        name: Text::new(&name.name),
        pods,
        ..PolicyRecord::default()
    };
    let versions: Vec<_> = versions.collect();
    let has_rules = versions.iter().any(|(key, _)| key.has_rules);
    for (key, version) in versions.into_iter().filter(|(key, _)| key.has_rules == has_rules) {
        let policy = &version.policy;
        for (bit, is) in [
            (policy_kind::INGRESS, policy.ingress.is_some()),
            (policy_kind::EGRESS, policy.egress.is_some()),
            (policy_kind::AUDIT, policy.audit),
            (policy_kind::WITHOUT_ROOM, !key.has_rules),
        ] {
            record.kind |= if is { bit } else { 0 };
        }
        record.ingress_rules = record.ingress_rules.max(count(&policy.ingress));
        record.egress_rules = record.egress_rules.max(count(&policy.egress));
    }
    record
}

fn rules<'a>(
    versions: impl Iterator<Item = (&'a Key, &'a Version)>,
    policy: PolicyId,
) -> BTreeMap<RuleKey, RuleText> {
    let mut texts = BTreeMap::new();
    for (_, version) in versions.filter(|(key, _)| key.has_rules) {
        for (direction, field, rules) in [
            (direction::INGRESS, "from", &version.policy.ingress),
            (direction::EGRESS, "to", &version.policy.egress),
        ] {
            for (rule, model) in (0..).zip(rules.iter().flatten()) {
                let yaml = Text::new(&rules_text::yaml(model, field));
                texts.insert(RuleKey { policy, direction, rule }, RuleText { yaml });
            }
        }
    }
    texts
}
