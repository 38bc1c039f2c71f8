//! Services on real links: the agent on a folder of manifests, pods in namespaces, ordinary sockets.
//!
//! Needs root. [`cells`] plays the same checks wherever a backend can be; the other files hold what needs a
//! world of its own.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod catalog;
mod cells;
mod checks;
mod moving;
mod world;
