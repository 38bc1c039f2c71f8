//! The parts of a request: verb, kind, object, parameters.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::Method;

use super::failure::Failure;
use super::kind::{Kind, Status};
use super::object::Key;

/// The verb of a request, in the words of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the words of RBAC")]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// A request that is not for objects: discovery, version, health.
    Other,
}

/// The target of a path.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) kind: &'static Kind,
    /// Empty: all namespaces, or a kind without namespaces.
    pub(super) namespace: String,
    /// Empty: the collection.
    pub(super) name: String,
    /// Whether it is the subresource `status`.
    pub(super) status: bool,
}

impl Target {
    /// None: not a path of objects.
    pub(super) fn of(path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match segments.split_first()? {
            (&"api", [version, rest @ ..]) => ("", *version, rest),
            (&"apis", [group, version, rest @ ..]) => (*group, *version, rest),
            _ => return None,
        };
        let target = |plural, namespace: &str, name: &str, status| {
            let kind = Kind::at(group, version, plural)?;
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Some(Self { kind, namespace, name, status })
        };
        let found = match *rest {
            [plural] => target(plural, "", "", false)?,
            [plural, name] => target(plural, "", name, false)?,
            [plural, name, "status"] => target(plural, "", name, true)?,
            ["namespaces", namespace, plural] => target(plural, namespace, "", false)?,
            ["namespaces", namespace, plural, name] => target(plural, namespace, name, false)?,
            ["namespaces", namespace, plural, name, "status"] => target(plural, namespace, name, true)?,
            _ => return None,
        };
        let all_namespaces = found.namespace.is_empty();
        // A namespaced object has its namespace in the path, no other has.
        let fits = match (found.kind.namespaced, found.name.is_empty()) {
            (true, false) => !all_namespaces,
            (true, true) => true,
            (false, _) => all_namespaces,
        };
        (fits && (!found.status || found.kind.status != Status::None)).then_some(found)
    }

    pub(super) fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    pub(super) fn verb(&self, method: &Method, query: &Query) -> Option<Verb> {
        Some(match (method.as_str(), self.name.is_empty()) {
            ("GET", true) if query.flag("watch") => Verb::Watch,
            ("GET", true) => Verb::List,
            ("GET", false) => Verb::Get,
            ("POST", true) if self.namespace.is_empty() != self.kind.namespaced => Verb::Create,
            ("PUT", false) => Verb::Update,
            ("PATCH", false) => Verb::Patch,
            ("DELETE", false) if !self.status => Verb::Delete,
            ("DELETE", true) if self.namespace.is_empty() != self.kind.namespaced => Verb::DeleteCollection,
            _ => return None,
        })
    }

    /// Whether an object of that key is in the collection.
    pub(super) fn holds(&self, key: &Key) -> bool {
        self.namespace.is_empty() || self.namespace == key.0
    }
}

/// Parameters.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    /// Empty if absent.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    /// 0 if absent.
    pub(super) fn number(&self, name: &str) -> Result<u64, Failure> {
        match self.text(name) {
            "" => Ok(0),
            text => text.parse().map_err(|_| {
                Failure::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }

    /// `resourceVersion`: None if absent.
    pub(super) fn resource_version(&self) -> Result<Option<u64>, Failure> {
        match self.text("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::invalid("resourceVersion", "resourceVersion", &format!("Invalid value: {text:?}"))
            }),
        }
    }
}

/// Where a list continues: its version (0: the current one), and the last key that was sent.
#[derive(Debug, PartialEq)]
pub(super) struct Continue {
    pub(super) revision: u64,
    pub(super) last: Key,
}

impl Continue {
    pub(super) fn token(&self) -> String {
        BASE64.encode(format!("{}/{}/{}", self.revision, self.last.0, self.last.1))
    }

    pub(super) fn parse(token: &str) -> Result<Self, Failure> {
        let wrong = || Failure::bad_request("continue key is not valid");
        let bytes = BASE64.decode(token).map_err(|_| wrong())?;
        let text = String::from_utf8(bytes).map_err(|_| wrong())?;
        let [revision, namespace, name] = text.split('/').collect::<Vec<_>>()[..] else {
            return Err(wrong());
        };
        let revision = revision.parse().map_err(|_| wrong())?;
        Ok(Self { revision, last: (namespace.to_owned(), name.to_owned()) })
    }
}

/// Decodes percent and plus.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
