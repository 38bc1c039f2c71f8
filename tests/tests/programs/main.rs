//! What the shipped kernel object does with packets, one by one.
//!
//! Every test loads the object anew, so none sees another's flows. [`world`] has the addresses and the Services.
#![expect(clippy::print_stdout, reason = "what could not run must be seen, and how much did")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod collide;
mod direct;
mod fragments;
mod fuzz;
mod headers;
mod icmp;
mod life;
mod maps;
mod policy;
mod random;
mod refuse;
mod snat;
mod spread;
mod traffic;
mod translate;
mod verifier;
mod world;
mod xdp;
