//! The test API server: what it says on the wire, what kube-rs makes of it, and kubectl.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod fixtures;
mod raw;

mod discovery;
mod faults;
mod kubectl;
mod limits;
mod list;
mod load;
mod reflector;
mod tls;
mod typed;
mod watch;
mod watch_faults;
mod write;
