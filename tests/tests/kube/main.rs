//! lbr's source of objects against the test API server: whatever the fault, its store ends up with the server's
//! state, and nothing is removed before that is certain.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod asked;
mod kept;
mod reader;
mod scenarios;
mod told;
mod troubles;
