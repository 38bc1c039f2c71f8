//! The agent's tables on the kernel's maps: scenarios, restarts, full maps, and whether its stand-ins (the fake, the
//! look-ups in user space) behave like the kernel.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod agree;
mod facts;
mod full;
mod restart;
mod scenarios;
mod tables;
