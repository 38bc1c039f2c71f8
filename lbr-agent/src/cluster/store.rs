//! Applies changes to the state of the cluster. One task owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Change, Changes, ClusterState};
use crate::model::{EndpointSlice, Kind, Object, ObjectName, ObjectRef, Partial};

/// Applies changes, and finds out whether anything is different.
#[derive(Debug, Default)]
pub struct Store {
    state: ClusterState,
    changes: Changes,
    synced: BTreeSet<Kind>,
    /// Objects whose present version is rejected, and their last accepted version.
    held: BTreeMap<ObjectRef, Option<Object>>,
    /// Addresses of pods without an address in the API.
    addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
}

impl Store {
    /// An empty store that has not seen any list yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one change. True if it changes the state, or lists a kind for the first time.
    pub fn apply(&mut self, change: Change) -> bool {
        if let Change::Apply(object) = &change
            && !self.held.is_empty()
        {
            self.held.remove(&object.reference());
        }
        self.apply_as_is(change)
    }

    fn apply_as_is(&mut self, change: Change) -> bool {
        match change {
            Change::Apply(object) => {
                let reference = object.reference();
                self.change_slices_of(&reference, |store| store.put(object))
            }
            Change::Restrict(partial) => self.restrict(&partial),
            Change::Delete(reference) => self.change_slices_of(&reference, |store| store.delete(&reference)),
            Change::Origin(None, origin) => {
                let changed = replace(&mut self.state.origin, origin);
                self.changes.rejected |= changed;
                changed
            }
            Change::Origin(Some(object), origin) => {
                let changed = self.state.origins.get(&object) != Some(&origin);
                self.state.origins.insert(object, origin);
                self.changes.rejected |= changed;
                changed
            }
            Change::Addresses(pod, addresses) => self.set_addresses(&pod, addresses),
            Change::Rejected(rejected) => {
                let changed = replace(&mut self.state.rejected, rejected);
                self.changes.rejected |= changed;
                changed
            }
            Change::Synced(kind) => {
                let is_new = self.synced.insert(kind);
                if is_new && self.is_synced() {
                    self.state.compact();
                }
                is_new
            }
        }
    }

    /// Makes a change of one object, and notes what it concerns: a slice concerns the Services that it belonged to and
    /// belongs to.
    fn change_slices_of(&mut self, object: &ObjectRef, change: impl FnOnce(&mut Self) -> bool) -> bool {
        let is_slice = object.kind == Kind::EndpointSlice;
        let owner = |store: &Self| store.state.slices.get(&object.name).and_then(EndpointSlice::owner);
        let before = is_slice.then(|| owner(self)).flatten();
        if !change(self) {
            return false;
        }
        self.changes.add(object.kind, &object.name);
        if is_slice {
            let after = owner(self);
            let shared = |name: ObjectName| {
                self.state.services.get(&name).map_or(name, |service| service.name.clone())
            };
            let after = after.map(shared);
            let index = &mut self.state.slices_of;
            if let Some(before) = before.filter(|before| after.as_ref() != Some(before)) {
                let entry = (before, object.name.clone());
                index.remove(&entry);
                self.changes.services.insert(entry.0);
            }
            if let Some(after) = after {
                index.insert((after.clone(), object.name.clone()));
                self.changes.services.insert(after);
            }
        }
        true
    }

    /// Returns whether the object is another one.
    fn put(&mut self, object: Object) -> bool {
        let s = &mut self.state;
        match object {
            Object::Pod(mut o) => {
                if o.ips.is_empty() {
                    o.ips = self.addresses.get(&o.name).cloned().unwrap_or_default();
                } else {
                    self.addresses.remove(&o.name);
                }
                if s.pods.get(&o.name) == Some(&o) {
                    return false;
                }
                let name = o.name.clone();
                let former = s.pods.insert(name.clone(), o);
                self.changes.add_pod(&name, former);
                true
            }
            Object::Service(o) => put(&mut s.services, o.name.clone(), o),
            Object::EndpointSlice(o) => put(&mut s.slices, o.name.clone(), o),
            Object::Namespace(o) => put(&mut s.namespaces, ObjectName::cluster(&o.name), o),
            Object::Node(o) => put(&mut s.nodes, ObjectName::cluster(&o.name), o),
            Object::NetworkPolicy(o) => put(&mut s.policies, o.name.clone(), Arc::new(o)),
            Object::ServiceCidr(o) => put(&mut s.service_cidrs, ObjectName::cluster(&o.name), o),
        }
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Each rejected version is applied to the last accepted one, whatever was rejected in between.
    fn restrict(&mut self, partial: &Partial) -> bool {
        let reference = partial.reference();
        let name = &reference.name;
        let accepted = self.held.remove(&reference).unwrap_or_else(|| match reference.kind {
            Kind::Service => self.state.services.get(name).cloned().map(Object::Service),
            Kind::NetworkPolicy => {
                let policy = self.state.policies.get(name).cloned();
                policy.map(Arc::unwrap_or_clone).map(Object::NetworkPolicy)
            }
            _ => None,
        });
        let object = partial.over(accepted.as_ref());
        self.held.insert(reference, accepted);
        object.is_some_and(|object| self.apply_as_is(Change::Apply(object)))
    }

    fn delete(&mut self, reference: &ObjectRef) -> bool {
        let s = &mut self.state;
        self.held.remove(reference);
        self.changes.rejected |= s.origins.remove(reference).is_some();
        let name = &reference.name;
        match reference.kind {
            Kind::Service => s.services.remove(name).is_some(),
            Kind::EndpointSlice => s.slices.remove(name).is_some(),
            Kind::Namespace => s.namespaces.remove(name).is_some(),
            Kind::Pod => {
                self.addresses.remove(name);
                let former = s.pods.remove(name);
                let was_known = former.is_some();
                if was_known {
                    self.changes.add_pod(name, former);
                }
                was_known
            }
            Kind::Node => s.nodes.remove(name).is_some(),
            Kind::NetworkPolicy => s.policies.remove(name).is_some(),
            Kind::ServiceCidr => s.service_cidrs.remove(name).is_some(),
        }
    }

    fn set_addresses(&mut self, pod: &ObjectName, addresses: Vec<IpAddr>) -> bool {
        let known = self.state.pods.get_mut(pod);
        if known.as_ref().is_some_and(|pod| !pod.ips.is_empty()) {
            return false;
        }
        if let Some(known) = known {
            self.changes.add_pod(pod, Some(known.clone()));
            known.ips.clone_from(&addresses);
        }
        self.addresses.insert(pod.clone(), addresses);
        true
    }

    /// The present state.
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Whether every kind has been listed once. Before that, nothing may be removed from a map.
    pub fn is_synced(&self) -> bool {
        self.synced.len() == Kind::ALL.len()
    }
}

/// Returns whether it is different.
fn replace<T: PartialEq>(place: &mut T, new: T) -> bool {
    let changed = *place != new;
    *place = new;
    changed
}

fn put<V: PartialEq>(map: &mut BTreeMap<ObjectName, V>, name: ObjectName, value: V) -> bool {
    if map.get(&name) == Some(&value) {
        return false;
    }
    map.insert(name, value);
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::NetworkPolicy;

    use crate::model::netpol;

    fn partial(types: &[&str]) -> Change {
        let value = json!({
            "metadata": {"name": "p", "namespace": "ns"}, "spec": {"podSelector": {}, "policyTypes": types},
        });
        Change::Restrict(Partial::NetworkPolicy(Box::new(netpol::partial(&value, true).unwrap())))
    }

    /// Ingress and egress: whether they are isolated.
    fn isolation(store: &Store) -> Option<(bool, bool)> {
        let policy = store.state().policies.values().next()?;
        Some((policy.ingress.is_some(), policy.egress.is_some()))
    }

    #[test]
    fn mistakes_in_a_row_add_up_to_nothing() {
        let name = ObjectName::new("ns", "p");
        let reference = ObjectRef { kind: Kind::NetworkPolicy, name: name.clone() };
        let accepted = NetworkPolicy { name, ingress: Some(vec![]), ..NetworkPolicy::default() };
        let accepted = || Change::Apply(Object::NetworkPolicy(accepted.clone()));
        let mut store = Store::new();
        for (what, change, expected) in [
            ("never accepted", partial(&["egress"]), Some((false, true))),
            ("another mistake", partial(&["ingress"]), Some((true, false))),
            ("accepted", accepted(), Some((true, false))),
            ("an edit", partial(&["egress"]), Some((true, true))),
            ("another edit", partial(&["ingress"]), Some((true, false))),
            ("an edit", partial(&["egress"]), Some((true, true))),
            ("the same as accepted", accepted(), Some((true, false))),
            ("an edit", partial(&["egress"]), Some((true, true))),
            ("gone", Change::Delete(reference.clone()), None),
            ("never accepted again", partial(&["egress"]), Some((false, true))),
        ] {
            store.apply(change);
            assert_eq!(isolation(&store), expected, "{what}");
        }
    }
}
