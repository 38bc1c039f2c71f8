//! NetworkPolicy by row of the truth tables (A: which direction is isolated, B: which rule matches, C: kinds of
//! traffic), with packets between namespaces.
//!
//! Needs root. [`rows`] plays the files in `tests/scenarios/policies`; [`case`] says how to read them, [`cast`]
//! who plays. The other tests hold what needs packets made by hand, changes while a connection lasts, or an
//! agent with other arguments; the names of all begin with their row.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod arrivals;
mod case;
mod cast;
mod established;
mod fragments;
mod icmp;
mod multicast;
mod packets;
mod pending;
mod probe;
mod rows;
mod service;
mod spoofed;
mod stage;
mod world;
