//! Packets for tests: made byte by byte, and read back by code that shares nothing with the kernel object.
//!
//! [`Packet`] makes one, [`Parsed`] reads one. Neither touches the system.

mod build;
mod checksum;
mod headers;
mod kinds;
mod neighbour;
mod network;
mod parse;
mod text;

pub use build::Packet;
pub use checksum::{crc32c, pseudo_sum, sum};
pub use kinds::{Ext, Reason};
pub use neighbour::{arp_request, solicitation};
pub use parse::{Fragment, Parsed, Transport, chunk, flags};

#[cfg(test)]
mod tests;
