//! The first packet of a flow: both its entries, and a tuple whose answers can be told from others'.

mod plain;
mod store;
mod to_service;
mod wire;

pub(crate) use self::plain::{beside_service, plain};
pub(crate) use self::to_service::to_service;
pub(crate) use self::wire::from_wire;

/// First source port that stands in for one that is taken. Above Linux' default ephemeral range
/// (`ip_local_port_range`: 32768 to 60999), so that it does not meet a port that the client chose itself.
const SPARE_PORTS_FROM: u16 = 61_000;
const SPARE_PORTS: u16 = u16::MAX - SPARE_PORTS_FROM;

/// A source port that stands in for one that is taken.
#[inline(always)]
fn spare_port(hash: u32, attempt: u32) -> u16 {
    SPARE_PORTS_FROM + ((hash >> 8).wrapping_add(attempt.wrapping_mul(0x9e5)) % u32::from(SPARE_PORTS)) as u16
}
