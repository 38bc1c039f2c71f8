//! Sources of objects. Every source sends the same stream of [`Change`](crate::cluster::Change)s.

pub mod apiserver;
mod decode;
mod fields;
pub mod links;
pub mod manifest;
