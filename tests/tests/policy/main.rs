//! NetworkPolicy by row of the truth tables (A: which direction is isolated, B: which rule matches, C: kinds of
//! traffic), with packets between namespaces.
//!
//! Needs root. [`rows`] runs the files in `tests/scenarios/policies`; [`case`] has their format, [`cast`] the pods,
//! nodes and hosts. The other tests need packets made by hand, changes during a connection, or an agent with other
//! arguments. Each name begins with its row:
//!
//! | row | tests |
//! |---|---|
//! | A1-A7, B1-B17, most of C | `rows::a1` ... and the file `a1-*.yaml` |
//! | C2, C4, C7, C8, C9 | more of them in [`service`], [`unasked`], [`icmp`] |
//! | C10 | [`icmp`] |
//! | C16 | [`spoofed`], [`claims`], [`masqueraded`] |
//! | C17 | [`fragments`] |
//! | C18 | [`established`], [`masqueraded`] |
//! | C19 | [`pending`], without the gate, which no plugin calls yet |
//! | C22 | [`multicast`] |
//!
//! [`mistakes`]: rejected policies and rejected edits (the tables in `model/netpol/isolation.rs` and `edit.rs`).
//!
//! C14 and C15 are about clients of NodePorts and load balancers: their files test such traffic as it arrives at
//! pods.
//!
//! `cargo test -p lbr-tests --test policy b16 -- --test-threads=1`, and only one case of a file with
//! `LBR_CASE="two numbers"` in front.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod arrivals;
mod case;
mod cast;
mod claims;
mod established;
mod fragments;
mod gateways;
mod icmp;
mod masqueraded;
mod mistakes;
mod multicast;
mod packets;
mod pending;
mod probe;
mod rows;
mod selfcheck;
mod service;
mod spoofed;
mod stage;
mod unasked;
mod world;
