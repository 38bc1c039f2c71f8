//! What kube-proxy leaves in the kernel in each of its modes, and its removal. Only kube-proxy's own: other chains, and
//! other rules in the same tables, stay.
//!
//! | mode | what |
//! |---|---|
//! | iptables, ipvs | chains in `nat`, `filter` and `mangle`, and the jumps to them; nf_tables or legacy |
//! | nftables | the tables `ip kube-proxy` and `ip6 kube-proxy` |
//! | ipvs | the interface `kube-ipvs0`; virtual servers are only named |
//!
//! The IP sets of ipvs mode stay: no rule uses them any more, and they affect no packet.

mod ipvs;
mod legacy;
mod names;
mod nft;
mod plan;

use anyhow::Context as _;

use crate::done::Done;

fn tell(done: &mut Done, table: &str, plan: &plan::Plan) {
    for jump in &plan.jumps {
        done.removed.push(format!("rule in {table} {}: jump to {}", jump.chain, jump.target));
    }
    done.removed.extend(plan.chains.iter().map(|chain| format!("chain {table} {chain}")));
    for (chain, by) in &plan.kept {
        done.left.push(format!("chain {table} {chain}: chain {by} has a rule that jumps to it"));
    }
}

/// Removes all of it in the network namespace of this thread; with `dry_run` only lists it.
pub fn clean(dry_run: bool) -> Done {
    let mut done = Done::default();
    done.add(nft::clean(dry_run).context("remove rules over nf_tables"));
    done.add(legacy::clean(dry_run).context("remove rules of the older iptables"));
    done.add(ipvs::clean(dry_run).context("remove what ipvs mode made"));
    done
}
