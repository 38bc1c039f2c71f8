//! NetworkPolicies: from policies, Pods and Namespaces to sets, classes and verdicts, which of them fit into the maps, and
//! how they come into force at one switch.

mod apply;
mod compile;
mod fit;
pub mod judge;
pub mod stand_in;

pub(crate) use self::apply::Policies;
pub use self::apply::{Full, Shortage};
pub(crate) use self::fit::{Fit, from_scratch};
