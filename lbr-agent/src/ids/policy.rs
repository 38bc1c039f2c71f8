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
    /// Numbers for the content of a policy, and of a term, inside the keys below; no map shows them.
    bodies: Pool<Vec<u8>, u32>,
    terms: Pool<Vec<u8>, u32>,
    sets: HashedPool<Vec<u32>, PolicySetId>,
    classes: HashedPool<Vec<u32>, ClassId>,
}

impl Default for PolicyIds {
    fn default() -> Self {
        Self {
            policies: Pool::default(),
            bodies: Pool::default(),
            terms: Pool::default(),
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

    /// Nothing needs the number of a policy any more.
    pub(crate) fn leave_policy(&mut self, name: ObjectName) {
        self.policies.leave(name);
    }

    /// A number for the content of a policy.
    pub(crate) fn body(&mut self, content: &[u8]) -> u32 {
        self.bodies.get(content.to_vec())
    }

    /// Nothing needs the number of the content of a policy any more.
    pub(crate) fn leave_body(&mut self, content: Vec<u8>) {
        self.bodies.leave(content);
    }

    /// A number for a term.
    pub(crate) fn term(&mut self, content: &[u8]) -> u32 {
        self.terms.get(content.to_vec())
    }

    /// Nothing needs the number of a term any more.
    pub(crate) fn leave_term(&mut self, content: Vec<u8>) {
        self.terms.leave(content);
    }

    /// The number of a set. `hash` is of the same content, but does not depend on numbers that no map shows.
    pub(crate) fn set(&mut self, content: Vec<u32>, hash: u64) -> PolicySetId {
        self.sets.get(content, hash)
    }

    /// Nothing needs the number of a set any more.
    pub(crate) fn leave_set(&mut self, content: Vec<u32>) {
        self.sets.pool.leave(content);
    }

    /// The number of a class. See [`Self::set`] for the hash.
    pub(crate) fn class(&mut self, content: Vec<u32>, hash: u64) -> ClassId {
        self.classes.get(content, hash)
    }

    /// Nothing needs the number of a class any more.
    pub(crate) fn leave_class(&mut self, content: Vec<u32>) {
        self.classes.pool.leave(content);
    }

    /// Gives up the numbers that were left and not asked for since. Until then, a compile that does not fit into the maps can
    /// be tried in another way with the same numbers.
    pub(crate) fn release_left(&mut self) {
        self.policies.release_left();
        self.bodies.release_left();
        self.terms.release_left();
        self.sets.pool.release_left();
        self.classes.pool.release_left();
    }

    pub(super) fn forget_unused(&mut self) {
        self.policies.forget_unused();
        self.bodies.forget_unused();
        self.terms.forget_unused();
        self.sets.pool.forget_unused();
        self.classes.pool.forget_unused();
    }
}
