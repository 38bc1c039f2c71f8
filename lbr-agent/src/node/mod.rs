//! This node: its name and settings, its interfaces and addresses. Who it is, once for all parts.

pub(crate) mod direct;
pub(crate) mod here;
pub mod links;
mod settings;

mod change;

use std::collections::BTreeMap;

pub(crate) use self::change::NodeChange;
use self::links::LocalLinks;
pub use self::settings::{NodePortAddress, Settings};

/// The node that the maps are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name, which endpoints carry as `nodeName`.
    pub name: String,
    /// Settings for Services from the command line.
    pub settings: Settings,
    /// Its pod links, routes and addresses.
    pub links: LocalLinks,
    /// Health check ports that the agent cannot listen on, and why.
    pub refused_ports: BTreeMap<u16, String>,
}
