//! Code that tests, demo and bench share: namespaces as nodes and pods, packets, probes, and the agent on a folder of
//! manifests.
//!
//! Everything here makes real objects in the kernel of this machine, and removes them when its guard is dropped, also
//! on panic. Errors are `anyhow`: callers only print them.

pub mod agent;
pub mod apiserver;
pub mod bench;
pub mod demo;
pub mod interrupt;
pub mod kubectl;
pub mod manifests;
pub mod netns;
pub mod oracle;
pub mod packet;
pub mod patience;
pub mod probe;
pub mod process;
pub mod scenario;
pub mod testrun;
pub mod topology;
