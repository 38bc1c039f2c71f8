//! Nodes and pods on one machine, each a network namespace.
//!
//! ```text
//!   pod ns ─ eth0 ══ podN ─┐                                    ┌─ podM ══ eth0 ─ pod ns
//!                          ├─ node ns ─ eth0 ══ fabric bridge ══ eth0 ─ node ns ─┤
//!   pod ns ─ eth0 ══ podK ─┘                        │           └─ …
//!                                                fabric (a router)
//!                                                   │
//!                             client ns ─ eth0 ══ bridge ══ eth0 ─ client ns
//! ```
//!
//! Addresses: node N (from 1) is `172.18.0.N` and `fd00:172:18::N`; its pods are `10.244.N.H` and `fd00:10:244:N::H`,
//! where H counts from 2 and has the same digits in both families. Client N is `192.0.2.N` and `2001:db8:2::N`. Nodes
//! reach clients by their default route only.

mod bed;
mod cgroup;
mod host;
mod mounts;
mod node;
mod pod;
mod reap;
mod wire;

pub use bed::{Bed, BedOptions, Underlay};
pub use cgroup::Cgroup;
pub use host::Host;
pub(crate) use mounts::Mounts;
pub use node::Node;
pub use pod::{Pod, PodNetwork, PodOptions};
pub(crate) use reap::PREFIX;
pub use reap::reap;
