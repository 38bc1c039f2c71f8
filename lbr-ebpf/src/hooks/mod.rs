//! One file for each hook: a pipeline, read top to bottom.

pub(crate) mod from_netdev;
pub(crate) mod from_pod;
pub(crate) mod socket;
pub(crate) mod to_netdev;
pub(crate) mod to_pod;
pub(crate) mod xdp;
