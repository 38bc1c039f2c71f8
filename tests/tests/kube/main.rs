//! lbr's own source of objects against the API server for tests: whatever goes wrong, its store is the server's state
//! in the end, and nothing is taken away before that is certain.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod asked;
mod kept;
mod reader;
mod scenarios;
mod told;
mod troubles;
