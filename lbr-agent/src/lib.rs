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
pub mod compile;
pub mod dataplane;
pub mod desired;
pub mod done;
pub mod events;
pub mod fit;
pub mod gate;
mod interface;
pub mod kube_proxy;
pub mod model;
mod netlink;
pub mod reconcile;
pub mod serve;
pub mod source;
pub mod store;
