//! Services on real links: the agent on a folder of manifests, pods in namespaces, and ordinary sockets.
//!
//! Needs root. [`cells`] runs the same checks for every place of a backend; the other files hold tests that need a
//! world of their own.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::print_stdout, reason = "how long things took, for `--nocapture` and for failing tests")]

mod attached;
mod bulk;
mod catalog;
mod cells;
mod checks;
mod hotplug;
mod load;
mod loopback;
mod mounted;
mod moving;
mod mtu;
mod path;
mod restart;
mod show;
mod sockets;
mod stale;
mod uplinks;
mod wire;
mod world;
