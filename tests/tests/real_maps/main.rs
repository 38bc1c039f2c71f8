//! The agent's tables on the maps of the kernel: scenarios, restarts, full maps, and whether what stands in for
//! the kernel elsewhere (the fake, the look-ups in user space) does as the kernel does.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod agree;
mod facts;
mod full;
mod restart;
mod scenarios;
mod tables;
