//! The programs attached to a link, as the kernel reports them.

use anyhow::Result;
use aya::programs::{SchedClassifier, TcAttachType};
use lbr_tests::netns::Netns;
use lbr_tests::process;

/// Sides of a pod's link, and the program that belongs to each.
pub(crate) const POD_HOOKS: [(&str, &str); 2] = [("ingress", "from_pod"), ("egress", "to_pod")];

/// The same of an uplink.
pub(crate) const UPLINK_HOOKS: [(&str, &str); 2] = [("ingress", "from_netdev"), ("egress", "to_netdev")];

/// Ids of the programs with this name at one side of a link: by clsact if requested, or if the kernel has no tcx
/// (before Linux 6.6).
pub(crate) fn programs(node: &Netns, clsact: bool, link: &str, side: &str, hook: &str) -> Result<Vec<u64>> {
    if clsact {
        return filters(node, link, side, hook);
    }
    tcx(node, link, side, hook).or_else(|_| filters(node, link, side, hook))
}

fn filters(node: &Netns, link: &str, side: &str, hook: &str) -> Result<Vec<u64>> {
    let output = process::run(node.command("tc")?.args(["-j", "filter", "show", "dev", link, side]))?;
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let options = shown.as_array().into_iter().flatten().map(|row| &row["options"]);
    let ours = options.filter(|o| o["bpf_name"].as_str().is_some_and(|n| n.starts_with(hook)));
    Ok(ours.filter_map(|o| o["prog"]["id"].as_u64()).collect())
}

/// Not by `bpftool net`: that of Debian 12 does not know tcx.
fn tcx(node: &Netns, link: &str, side: &str, hook: &str) -> Result<Vec<u64>> {
    let side = if side == "ingress" { TcAttachType::Ingress } else { TcAttachType::Egress };
    node.run(|| {
        let (_, programs) = SchedClassifier::query_tcx(link, side)?;
        let ours = programs.iter().filter(|program| program.name_as_str() == Some(hook));
        Ok(ours.map(|program| program.id().into()).collect())
    })
}
