//! `--map-max`: sizes of maps.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use lbr_common::maps;

use super::values;

/// More addresses than the pods of any node have.
const MIN_ENDPOINTS: usize = 1_024;

/// Sizes by name of the map.
pub(super) fn parse(flags: &[String]) -> anyhow::Result<BTreeMap<String, u32>> {
    let known = || {
        let fixed = [maps::STATE, maps::NEAR_EPOCHS, maps::FAR_EPOCHS, maps::COUNTERS].map(|spec| spec.name);
        maps::PINNED.iter().map(|spec| spec.name).filter(move |name| !fixed.contains(name))
    };
    let mut sizes = BTreeMap::new();
    for flag in flags {
        let (name, size) =
            flag.split_once('=').with_context(|| format!("--map-max {flag}: write it as NAME=N"))?;
        if !known().any(|known| known == name) {
            let names: Vec<_> = known().collect();
            let meant = names.iter().max_by_key(|known| (strsim::jaro(known, name) * 1e6) as u64);
            let meant = meant.filter(|known| strsim::jaro(known, name) > 0.8);
            let meant = meant.map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
            bail!("--map-max {flag}: no map {name}{meant}; there are {}", names.join(", "));
        }
        let size = values::count(size).map_err(|wrong| anyhow::anyhow!("--map-max {flag}: {wrong}"))?;
        let size = u32::try_from(size).ok().filter(|&n| n > 0);
        let size = size.with_context(|| format!("--map-max {flag}: N is a number from 1 to {}", u32::MAX))?;
        if name == maps::EVENTS.name {
            check_ring(size).with_context(|| format!("--map-max {flag}"))?;
        }
        sizes.insert(name.to_owned(), size);
    }
    let size = |spec: &maps::MapSpec| sizes.get(spec.name).map_or(spec.max_entries, |&size| size as usize);
    let endpoints = size(&maps::ENDPOINTS);
    anyhow::ensure!(
        endpoints >= MIN_ENDPOINTS,
        "--map-max endpoints={endpoints}: a pod of this node without an entry is cut off; give {MIN_ENDPOINTS} or more"
    );
    // Without its entry in link_policy, a pod link would let packets pass that cannot be judged.
    let (links, known) = (size(&maps::LINKS), size(&maps::LINK_POLICY));
    anyhow::ensure!(
        known >= links,
        "--map-max: link_policy ({known}) needs an entry for each of links ({links}): raise link_policy or lower links"
    );
    Ok(sizes)
}

/// The kernel accepts no other sizes of ring buffers.
fn check_ring(bytes: u32) -> anyhow::Result<()> {
    // SAFETY: asks for a number, and touches no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = u32::try_from(page).context("the size of a page is not known")?;
    // A page is a power of two itself.
    anyhow::ensure!(
        bytes.is_power_of_two() && bytes >= page,
        "this map is measured in bytes: a power of two, and whole pages of {page} bytes (its default is {})",
        maps::EVENTS.max_entries
    );
    Ok(())
}
