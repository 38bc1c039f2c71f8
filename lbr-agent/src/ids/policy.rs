//! The numbers of policies, sets and classes.
//!
//! The number of a set or a class belongs to its content: changed content gets another number, so that no entry that
//! packets can reach changes its meaning in place.

use std::collections::BTreeMap;

use lbr_common::id::{ClassId, PolicyId, PolicySetId};
use lbr_common::policy::class;

use super::pool::{HashedPool, Pool};
use crate::desired::Desired;
use crate::model::ObjectName;

/// Numbers for policies by name, for sets and classes by content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PolicyIds {
    policies: Pool<ObjectName, PolicyId>,
    /// Numbers for the content of a policy, or of a term, inside the keys below; no map shows them.
    parts: Pool<Vec<u8>, u32>,
    sets: HashedPool<Vec<u32>, PolicySetId>,
    classes: HashedPool<Vec<u32>, ClassId>,
}

impl Default for PolicyIds {
    fn default() -> Self {
        Self {
            policies: Pool::default(),
            parts: Pool::default(),
            sets: HashedPool::starting_at(PolicySetId { id: 1 }),
            classes: HashedPool::starting_at(class::FIRST),
        }
    }
}

impl PolicyIds {
    /// The numbers that a former agent left in the maps.
    pub(super) fn restore(tables: &Desired) -> Self {
        let mut ids = Self::default();
        for (&id, record) in &tables.policies {
            let (namespace, name) = (record.namespace.as_str().to_owned(), record.name.as_str().to_owned());
            ids.policies.adopt(ObjectName::new(namespace, name), id);
        }
        for (&id, record) in &tables.classes {
            ids.classes.adopt(record.hash, id);
        }
        // Members that do not agree belonged to two sets.
        let mut hashes = BTreeMap::new();
        for (key, member) in &tables.set_members {
            let known = hashes.entry(key.set).or_insert(Some(member.hash));
            if *known != Some(member.hash) {
                *known = None;
            }
        }
        for (set, hash) in hashes {
            if let Some(hash) = hash {
                ids.sets.adopt(hash, set);
            }
        }

        let policies = &mut ids.policies;
        policies.avoid(tables.policies.keys().copied());
        policies.avoid(tables.verdicts.values().map(|allow| allow.policy));
        policies.avoid(tables.rules.keys().map(|key| key.policy));
        policies.avoid(tables.set_members.values().map(|member| member.policy));
        policies.skip_ahead();
        let sets = &mut ids.sets.pool;
        sets.avoid(tables.verdicts.keys().map(|key| key.set));
        sets.avoid(tables.port_class.keys().map(|prefix| prefix.data.set));
        sets.avoid(tables.set_members.keys().map(|key| key.set));
        sets.avoid(tables.endpoints.values().flat_map(|e| [e.policy.set, e.policy.audit]));
        sets.skip_ahead();
        let classes = &mut ids.classes.pool;
        classes.avoid(tables.verdicts.keys().map(|key| key.class));
        classes.avoid(tables.ip_class.values().copied());
        classes.avoid(tables.cidr_class.values().copied());
        classes.avoid(tables.classes.keys().copied());
        classes.skip_ahead();
        ids
    }

    /// The number of a policy.
    pub(crate) fn policy(&mut self, name: &ObjectName) -> PolicyId {
        self.policies.get(name.clone())
    }

    /// A number for this content, stable as long as each compile asks for it.
    pub(crate) fn part(&mut self, content: Vec<u8>) -> u32 {
        self.parts.get(content)
    }

    /// The number of a set. `hash` is of the same content, but does not depend on numbers that no map shows.
    pub(crate) fn set(&mut self, content: Vec<u32>, hash: u64) -> PolicySetId {
        self.sets.get(content, hash)
    }

    /// The number of a class. See [`Self::set`] for the hash.
    pub(crate) fn class(&mut self, content: Vec<u32>, hash: u64) -> ClassId {
        self.classes.get(content, hash)
    }

    pub(super) fn forget_unused(&mut self) {
        self.policies.forget_unused();
        self.parts.forget_unused();
        self.sets.pool.forget_unused();
        self.classes.pool.forget_unused();
    }
}
