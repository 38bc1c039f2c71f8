//! The one contract between the kernel object (`lbr-ebpf`) and the agent (`lbr-agent`).
//!
//! Everything here is a plain `#[repr(C)]` value without implicit padding, or a pure function that both
//! sides call, so the two do not drift apart. Nothing here knows a Kubernetes word.
//!
//! Byte order: addresses are bytes as on the wire; **ports and every other number are in host byte order**,
//! so that `bpftool map dump` prints `"port": 80`. Units are in the doc comment of each field.
#![no_std]

#[cfg(any(test, feature = "user"))]
extern crate std;

pub mod addr;
pub mod checksum;
pub mod conntrack;
pub mod crc32c;
pub mod epoch;
pub mod flow;
pub mod id;
pub mod link;
pub mod maglev;
pub mod maps;
pub mod policy;
pub mod select;
pub mod service;
pub mod text;
pub mod tuple;
pub mod verdict;

#[cfg(feature = "user")]
pub mod user;

/// Changes whenever the layout or the meaning of a map changes. Stored in [`service::State::abi`]; an agent
/// that finds pinned maps of another version does not touch them.
pub const ABI_VERSION: u32 = 6;
