//! The content of every map that the agent owns, as plain data: what `compile` makes and `reconcile` writes.

use std::collections::BTreeMap;

use lbr_common::link::Link;
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey};
use lbr_common::text::{RejectedRecord, ServiceName};

/// Desired (or actual) content of the agent's maps. Ordered, so that equal states are equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// `frontends`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// `slots`.
    pub slots: BTreeMap<SlotKey, Slot>,
    /// `backends`, by backend id.
    pub backends: BTreeMap<u32, Backend>,
    /// `services`, by service id.
    pub services: BTreeMap<u32, ServiceName>,
    /// `rejected`, by number.
    pub rejected: BTreeMap<u32, RejectedRecord>,
    /// `links`, by interface index; the programs are attached to each of these interfaces.
    pub links: BTreeMap<u32, Link>,
}
