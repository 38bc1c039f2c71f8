//! What is not in force, and why.

use std::fmt;

use super::ObjectRef;

/// How much of an object is not in force. Ordered: the worse comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// The object is not in force as it is written.
    Rejected,
    /// The object is in force but for the field: a port, an address, a peer.
    Limited,
}

impl Extent {
    /// Its word, the same in logs, tables, Events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Limited => "limited",
        }
    }
}

/// What a rejection is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// An object.
    Object(ObjectRef),
    /// No object that has a name: as much as could be read of a document (its kind, or nothing), or a flag's command.
    Text(String),
}

impl From<ObjectRef> for Item {
    fn from(object: ObjectRef) -> Self {
        Self::Object(object)
    }
}

impl fmt::Display for Item {
    /// `Service default/web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(object) => object.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// An object that lbr rejects, or a part of one. A value, not an error: it is kept, counted and shown, and affects
/// nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rejected {
    /// Whether the object is in force apart from this.
    pub extent: Extent,
    /// The object, or as much of it as could be read.
    pub object: Item,
    /// Where it came from: `web.yaml, document 2`, or the API server.
    pub origin: String,
    /// Path of the field as kubectl writes it (`spec.ports[0].port`); empty for the object as a whole.
    pub field: String,
    /// What is wrong and what to do, for people.
    pub reason: String,
}

impl Rejected {
    /// An object as a whole. The compiler fills in an empty origin.
    pub(crate) fn whole(object: ObjectRef, origin: String, reason: String) -> Self {
        Self { extent: Extent::Rejected, object: object.into(), origin, field: String::new(), reason }
    }

    /// A part that an object in force lacks. The compiler fills in the origin.
    pub(crate) fn limited(object: ObjectRef, field: impl Into<String>, reason: impl Into<String>) -> Self {
        let (origin, field, reason) = (String::new(), field.into(), reason.into());
        Self { extent: Extent::Limited, object: object.into(), origin, field, reason }
    }
}

impl fmt::Display for Rejected {
    /// One line for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.extent.as_str())?;
        let object = self.object.to_string();
        for part in [&self.origin, &object, &self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.reason)
    }
}
