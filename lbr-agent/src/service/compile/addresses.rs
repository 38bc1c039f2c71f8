//! Entries for whole addresses: what becomes of the ports that no Service has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope};

use super::frontends;
use super::plan::{Plan, Role};
use crate::model::Service;
use crate::node::here::Here;
use crate::table::{ServiceMaps, compact};

/// How many times Services use an address.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// As a ClusterIP, with a port or without.
    cluster: usize,
    /// In another role.
    other: usize,
}

/// One use of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Use {
    whole: FrontendKey,
    is_cluster: bool,
}

/// All addresses of Services, kept from one change to the next.
#[derive(Debug, Default)]
pub(super) struct Addresses(BTreeMap<FrontendKey, Uses>);

/// The addresses that a Service uses.
pub(super) fn of(service: &Service, plans: &[Plan<'_>]) -> Vec<Use> {
    let whole = |ip: IpAddr, scope| frontends::key(ip, 0, 0, scope);
    let cluster =
        service.cluster_ips.iter().map(|ip| Use { whole: whole(*ip, scope::ANY), is_cluster: true });
    let won = plans.iter().flat_map(|plan| &plan.won).filter(|(role, _)| *role != Role::ClusterIp);
    let other = won.map(|(_, key)| Use { whole: whole(key.addr.into(), key.scope), is_cluster: false });
    cluster.chain(other).collect()
}

impl Addresses {
    /// Keeps the same in less memory, after many came at once.
    pub(super) fn compact(&mut self) {
        compact(&mut self.0);
    }

    pub(super) fn add(&mut self, uses: &[Use]) {
        for one in uses {
            let all = self.0.entry(one.whole).or_default();
            *(if one.is_cluster { &mut all.cluster } else { &mut all.other }) += 1;
        }
    }

    pub(super) fn remove(&mut self, uses: &[Use]) {
        for one in uses {
            let Some(all) = self.0.get_mut(&one.whole) else { continue };
            *(if one.is_cluster { &mut all.cluster } else { &mut all.other }) -= 1;
            if all.cluster + all.other == 0 {
                self.0.remove(&one.whole);
            }
        }
    }

    /// Brings the entries of these addresses up to date.
    ///
    /// A ClusterIP is a Service's as a whole: its other ports are refused, whatever the protocol, even where a former proxy
    /// gave the address to an interface (IPVS). At any other address packets to them pass: it may be this node's, or
    /// another host's.
    pub(super) fn write<'a>(
        &self,
        touched: impl Iterator<Item = &'a Use>,
        here: &Here<'_>,
        maps: &mut ServiceMaps,
    ) {
        for Use { whole, .. } in touched {
            let flags = self.0.get(whole).map(|uses| {
                let is_of_host = whole.scope == scope::HOST_LOCAL || here.is_own(whole.addr.into());
                let host = if is_of_host { frontend_flags::HOST } else { 0 };
                if uses.cluster > 0 { 0 } else { frontend_flags::PASS_UNMATCHED | host }
            });
            let entry = |flags| Frontend { flags: frontend_flags::WILDCARD | flags, ..Frontend::default() };
            maps.frontends.set(*whole, flags.map(entry));
        }
    }
}
