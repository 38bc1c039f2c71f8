//! The test API server: its answers on the wire, and kube-rs and kubectl as its clients.
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
