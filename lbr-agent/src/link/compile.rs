//! From the node's interfaces to `links`.

use std::collections::BTreeMap;

use lbr_common::link::{Link, link_flags};

use crate::model::{Extent, Item, Rejected};
use crate::node::links::{LocalLink, LocalLinks, UnfitDevice};

/// The entries of `links`. They need no object, so new links do not wait for the rest.
pub(crate) fn links(local: &LocalLinks) -> BTreeMap<u32, Link> {
    let flags = |has_peer: bool, has_master: bool| match (has_peer, has_master) {
        (true, false) => link_flags::PEER | link_flags::ROUTED,
        (true, true) => link_flags::PEER,
        (false, _) => 0,
    };
    let link = |l: &LocalLink| Link {
        flags: flags(l.has_peer, l.master.is_some()),
        master: l.master.unwrap_or_default(),
    };
    local.links.iter().map(|(&index, l)| (index, link(l))).collect()
}

/// A `--devices` pattern that cannot be honoured.
pub(crate) fn unfit_device(device: &UnfitDevice) -> Rejected {
    Rejected {
        extent: Extent::Limited,
        object: Item::Text("lbr run".to_owned()),
        origin: "command line".to_owned(),
        field: format!("--devices={}", device.pattern),
        reason: device.reason.clone(),
    }
}
