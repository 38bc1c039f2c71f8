//! Where objects come from. Every source is turned into the same stream of [`Change`]s; nothing else in the
//! agent knows whether an object came from a file or from an API server.

pub mod apiserver;
mod decode;
mod fields;
pub mod links;
pub mod manifest;

use crate::model::{Kind, Object, ObjectRef, Rejected};

/// One thing that happened at a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The object is now this.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectRef),
    /// Everything that this source rejects now, in place of what it rejected before. The last accepted
    /// version of a rejected object stays in force: no `Delete` is sent for it.
    Rejected(Vec<Rejected>),
    /// All objects of this kind that exist have been applied once.
    Synced(Kind),
}
