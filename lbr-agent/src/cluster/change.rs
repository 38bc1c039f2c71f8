//! What sources send: every source the same stream, so that the rest of the agent does not know whether an object came from
//! a file or from an API server.

use std::net::IpAddr;

use crate::model::{Kind, Object, ObjectName, ObjectRef, Partial, Rejected};

/// A change at a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The present version of an object.
    Apply(Object),
    /// The present version of an object is rejected: its last accepted version stays in force, less what this one closes.
    Restrict(Partial),
    /// The addresses of a pod, by a CNI plugin. They count until the API has any.
    Addresses(ObjectName, Vec<IpAddr>),
    /// The object is gone.
    Delete(ObjectRef),
    /// Where an object is written, for people (`web.yaml, document 2`); without an object: where all others are from.
    Origin(Option<ObjectRef>, String),
    /// Everything that this source rejects now, in place of what it rejected before. No `Delete` is sent for a rejected
    /// object.
    Rejected(Vec<Rejected>),
    /// All existing objects of this kind have been applied once.
    Synced(Kind),
}
