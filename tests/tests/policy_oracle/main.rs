//! lbr's verdicts for policies against an independent reading of the specification, for random clusters and random
//! histories; and that reading against the specification's tables. No root, no kernel.
//!
//! `LBR_ORACLE_SETS`, `LBR_ORACLE_HISTORIES`: how many. `LBR_ORACLE_SEED`: the first seed, as a failure reports it.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod harness;
mod parallel;
mod random_histories;
mod random_sets;
mod table_a;
mod table_b;
mod tables;
