//! Services: from Services and EndpointSlices to frontends, slots and backends, and the order in which these are written.
//!
//! Only `compile` knows both the Kubernetes words (Service, EndpointSlice) and those of the data path (frontend, slot,
//! backend).

mod apply;
mod compile;
pub(crate) mod ephemeral;
pub mod look_up;
mod order;

use std::ops::RangeInclusive;

use lbr_common::id::ServiceId;
use lbr_common::service::SlotKey;

pub(crate) use self::apply::Services;
pub(crate) use self::compile::{Compiler, HEALTH_PORT};

/// The keys of a service's slots.
fn slots_of(service: ServiceId) -> RangeInclusive<SlotKey> {
    let first = SlotKey { service, ..SlotKey::default() };
    first..=SlotKey { service, set: u32::MAX, slot: u32::MAX }
}
