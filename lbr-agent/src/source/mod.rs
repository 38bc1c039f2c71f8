//! Sources of objects. Every source sends the same stream of [`Change`]s, so that the rest of the agent does not know
//! whether an object came from a file or from an API server.

pub mod apiserver;
mod decode;
mod fields;
pub mod links;
pub mod manifest;

use crate::model::{Kind, Object, ObjectRef, Rejected};

/// A change at a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The present version of an object.
    Apply(Object),
    /// The object is gone.
    Delete(ObjectRef),
    /// Everything that this source rejects now, in place of what it rejected before. The last accepted version of a
    /// rejected object stays in force: no `Delete` is sent for it.
    Rejected(Vec<Rejected>),
    /// All existing objects of this kind have been applied once.
    Synced(Kind),
}
