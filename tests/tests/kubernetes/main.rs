//! The agent with an API server and real pods: packets follow the objects, and an API server that is away changes
//! nothing.
//!
//! Needs root.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod away;
mod follow;
mod objects;
mod restart;
mod world;
