//! Objects and requests, as tests change and read them without HTTP.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::kind::Kind;
use super::request::Verb;
use super::server::Server;
use super::shared::{Request, State};

impl Server {
    /// Creates or replaces an object with its status, and returns its resource version. An equal object is no change.
    pub fn put(&self, object: Value) -> Result<u64> {
        self.put_all([object])
    }

    /// [`Self::put`] for many objects. Clients see them all at once. Returns the version after the last one.
    pub fn put_all(&self, objects: impl IntoIterator<Item = Value>) -> Result<u64> {
        self.shared.change(|state| {
            for object in objects {
                put(state, object)?;
            }
            Ok(state.store.revision())
        })
    }

    /// Deletes an object regardless of its finalizers, and returns whether it existed. `namespace` is empty for kinds
    /// without one.
    pub fn delete(&self, kind: &'static Kind, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        self.shared.change(|state| state.store.delete(kind, &key).is_some())
    }

    /// An object as clients see it.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Value> {
        let key = (namespace.to_owned(), name.to_owned());
        self.shared.state().store.get(kind, &key).map(|object| object.value())
    }

    /// All objects of a kind, by namespace and name.
    pub fn list(&self, kind: &Kind) -> Vec<Value> {
        let objects: Vec<_> = self.shared.state().store.after(kind, None).cloned().collect();
        objects.iter().map(|object| object.value()).collect()
    }

    /// The current resource version.
    pub fn revision(&self) -> u64 {
        self.shared.state().store.revision()
    }

    /// The requests since the start, or since [`Self::clear_requests`].
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Forgets requests.
    pub fn clear_requests(&self) {
        self.shared.state().requests.clear();
    }

    /// The number of requests with this verb for a kind.
    pub fn count(&self, verb: Verb, kind: &Kind) -> usize {
        let state = self.shared.state();
        state.requests.iter().filter(|request| request.verb == verb && request.kind == Some(kind)).count()
    }

    /// The number of open watches of a kind.
    pub fn open_watches(&self, kind: &Kind) -> usize {
        self.shared.open_watches(kind)
    }
}

pub(super) fn put(state: &mut State, object: Value) -> Result<()> {
    let kind = Kind::of(&object)
        .with_context(|| format!("{} {} is not served", object["apiVersion"], object["kind"]))?;
    let named = object.pointer("/metadata/name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    ensure!(named, "a {} without a name", kind.kind);
    state.store.put(kind, object);
    Ok(())
}
