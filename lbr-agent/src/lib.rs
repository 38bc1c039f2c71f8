//! The agent of lbr: Kubernetes objects in, BPF maps out.
//!
//! ```text
//! kube watch ─┐
//!             ├─> Change ─> store ─> compile ─> Desired ─> reconcile ─> BPF maps
//! manifests ──┘   (source)  (model)   (pure)     (maps)     (delta)     (dataplane)
//! local links ───────────────^
//! ```

pub mod agent;
pub mod cli;
pub mod cluster;
pub mod compile;
pub mod dataplane;
pub mod desired;
pub mod done;
pub mod engine;
pub mod events;
pub mod gate;
pub mod ids;
mod interface;
pub mod kube_proxy;
mod link;
pub mod model;
mod netlink;
pub mod node;
pub mod policy;
pub mod reconcile;
pub mod serve;
pub mod service;
pub mod source;
pub mod table;
