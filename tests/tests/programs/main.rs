//! The shipped kernel object, run packet by packet.
//!
//! The tests share one loaded object for each set of options. [`lbr_tests::testrun::Pool`] resets it to its state
//! right after loading before each test. [`world`] has the addresses and the Services.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod attack;
mod backends;
mod collide;
mod concern;
mod direct;
mod ends;
mod fragments;
mod fuzz;
mod headers;
mod icmp;
mod life;
mod maps;
mod model;
mod packets;
mod policy;
mod random;
mod refuse;
mod sctp;
mod shared;
mod snat;
mod spread;
mod states;
mod traffic;
mod translate;
mod verifier;
mod why;
mod wire;
mod world;
mod xdp;
