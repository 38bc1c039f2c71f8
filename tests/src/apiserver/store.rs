//! The objects of all kinds, at one revision.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::history::{Change, History};
use super::kind::{Kind, NAMESPACE};
use super::object::{Key, Object, metadata_mut, metadata_text};
use super::time;

/// The first revision of a new server. Neither 0 nor 1, which have a special meaning in requests or look like it.
const FIRST: u64 = 100;

/// The objects of all kinds. Every change is a new revision, shared by all kinds as in etcd.
#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<&'static Kind, BTreeMap<Key, Arc<Object>>>,
    history: History,
    revision: u64,
    made: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self::from(FIRST)
    }
}

impl Store {
    /// An empty one.
    pub(super) fn from(revision: u64) -> Self {
        Self { objects: BTreeMap::new(), history: History::from(revision), revision, made: 0 }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn history(&self) -> &History {
        &self.history
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.history.compact(revision.min(self.revision));
    }

    /// Raises the revision, as changes of other kinds would.
    pub(super) fn advance(&mut self, by: u64) -> u64 {
        self.revision += by;
        self.revision
    }

    pub(super) fn get(&self, kind: &Kind, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(kind)?.get(key)
    }

    /// Objects of a kind after a key, in order.
    pub(super) fn after<'a>(
        &'a self,
        kind: &Kind,
        start: Option<&Key>,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = start.map_or(Unbounded, |key| Excluded(key.clone()));
        self.objects
            .get(kind)
            .into_iter()
            .flat_map(move |all| all.range((start.clone(), Unbounded)).map(|(_, v)| v))
    }

    /// Objects of a kind as they were at `revision`, or None if that version is gone.
    pub(super) fn at(&self, kind: &Kind, revision: u64) -> Option<Vec<Arc<Object>>> {
        let mut undone = self.history.undone(kind, revision)?;
        if undone.is_empty() {
            return Some(self.after(kind, None).cloned().collect());
        }
        let mut past: BTreeMap<&Key, Arc<Object>> =
            self.after(kind, None).map(|object| (&object.key, Arc::clone(object))).collect();
        for (key, before) in &mut undone {
            match before.take() {
                Some(before) => past.insert(key, before),
                None => past.remove(key),
            };
        }
        Some(past.into_values().collect())
    }

    /// Creates or replaces an object, and adds the server's metadata. An object that equals the present one is no
    /// change.
    pub(super) fn put(&mut self, kind: &'static Kind, mut value: Value) -> Arc<Object> {
        let key = key_of(kind, &mut value);
        let before = self.objects.get(kind).and_then(|all| all.get(&key)).map(Arc::clone);
        self.complete(kind, &mut value, before.as_deref());
        if let Some(before) = &before {
            let same = Object::new(kind, value.clone(), before.revision);
            if same.text == before.text {
                return Arc::clone(before);
            }
        }
        self.revision += 1;
        let after = Arc::new(Object::new(kind, value, self.revision));
        self.objects.entry(kind).or_default().insert(key, Arc::clone(&after));
        let after_too = Some(Arc::clone(&after));
        self.history.push(Change { revision: self.revision, kind, before, after: after_too });
        after
    }

    /// Deletes an object, and returns its last state.
    pub(super) fn delete(&mut self, kind: &'static Kind, key: &Key) -> Option<Arc<Object>> {
        let before = self.objects.get_mut(kind)?.remove(key)?;
        self.revision += 1;
        let change = Change { revision: self.revision, kind, before: Some(Arc::clone(&before)), after: None };
        self.history.push(change);
        Some(before)
    }

    /// The metadata that the server itself writes.
    fn complete(&mut self, kind: &Kind, value: &mut Value, before: Option<&Object>) {
        let before = before.map(Object::value);
        let kept = |name: &str| Some(metadata_text(before.as_ref()?, name)?.to_owned());
        if metadata_text(value, "uid").is_none() {
            let uid = kept("uid").unwrap_or_else(|| self.uid());
            metadata_mut(value).insert("uid".to_owned(), uid.into());
        }
        if metadata_text(value, "creationTimestamp").is_none() {
            let time = kept("creationTimestamp").unwrap_or_else(time::now);
            metadata_mut(value).insert("creationTimestamp".to_owned(), time.into());
        }
        if *kind == NAMESPACE {
            let name = metadata_text(value, "name").unwrap_or_default().to_owned();
            let labels =
                metadata_mut(value).entry("labels").or_insert_with(|| Value::Object(Default::default()));
            if let Some(labels) = labels.as_object_mut() {
                labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
            }
        }
    }

    /// A new uid: different from all others of this process, and of processes that began at another time.
    fn uid(&mut self) -> String {
        self.made += 1;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos) = (since.as_secs(), since.subsec_nanos());
        let made = self.made;
        format!("{:08x}-{:04x}-4{:03x}-8000-{:012x}", seconds as u32, nanos >> 16, nanos & 0xfff, made)
    }
}

/// The place of an object. A namespaced object without a namespace is in `default`.
fn key_of(kind: &Kind, value: &mut Value) -> Key {
    let name = metadata_text(value, "name").unwrap_or_default().to_owned();
    let namespace = metadata_text(value, "namespace").map(str::to_owned);
    let metadata = metadata_mut(value);
    match (kind.namespaced, namespace) {
        (true, Some(namespace)) => (namespace, name),
        (true, None) => {
            metadata.insert("namespace".to_owned(), "default".into());
            ("default".to_owned(), name)
        }
        (false, _) => {
            metadata.remove("namespace");
            (String::new(), name)
        }
    }
}
