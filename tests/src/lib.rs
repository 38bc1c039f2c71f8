//! What tests share.

pub mod scenario;
