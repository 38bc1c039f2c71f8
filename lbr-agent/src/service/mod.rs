//! Services: from Services and EndpointSlices to frontends, slots and backends, and the order in which these are written.
//!
//! Only `compile` knows both the Kubernetes words (Service, EndpointSlice) and those of the data path (frontend, slot,
//! backend).

mod apply;
mod compile;
pub(crate) mod ephemeral;
pub mod look_up;
mod order;

pub(crate) use self::apply::Services;
pub(crate) use self::compile::{Compiler, HEALTH_PORT};
