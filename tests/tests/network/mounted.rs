//! Manifests in a mounted ConfigMap, whose content the kubelet exchanges as a whole (`AtomicWriter`): files are links into
//! `..data`, which is a link that is renamed over.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_tests::topology::Pod;

use crate::catalog::{MOUNTED, simple};
use crate::load::Load;
use crate::world::{PORT, World, at, ends};

/// Exchanges under load.
const SWAPS: usize = 30;
const FILE: &str = "mounted.yaml";

/// Not a request fails while the content is exchanged many times, faster than the agent reads it.
pub(crate) fn swapped_under_load(world: &mut World) -> Result<()> {
    let pods: Vec<&Pod> = world.backends.iter().collect();
    let [first, last] = [&pods[..2], &pods[1..3]];
    let mount = |number: usize, pods: &[&Pod]| {
        let text = simple("mounted", MOUNTED, pods, PORT);
        world.agents.iter().try_for_each(|agent| exchange(agent.manifests(), number, &text))
    };
    mount(0, first)?;
    for agent in &world.agents {
        symlink(format!("..data/{FILE}"), agent.manifests().join(FILE))?;
    }
    world.wait_for("mounted", &ends(first, PORT))?;
    let load = Load::start(world.ask(), at(MOUNTED, 80));
    for number in 1..=SWAPS {
        mount(number, if number % 2 == 0 { first } else { last })?;
        std::thread::sleep(Duration::from_millis(if number % 3 == 0 { 150 } else { 5 }));
    }
    mount(SWAPS + 1, last)?;
    world.wait_for("mounted", &ends(last, PORT))?;
    let count = load.stop().context("while the ConfigMap was exchanged")?;
    ensure!(count > 50, "only {count} requests");
    for to in at(MOUNTED, 80) {
        let new = world.ask().spread(lbr_tests::probe::Protocol::Tcp, to, 30)?;
        ensure!(!new.contains_key(&pods[0].name), "{to}: {new:?}");
    }
    for agent in &world.agents {
        fs::remove_file(agent.manifests().join(FILE))?;
    }
    Ok(())
}

/// Puts new content into the folder as the kubelet does, and removes the former one.
fn exchange(folder: &Path, number: usize, text: &str) -> Result<()> {
    let content = format!("..content_{number}");
    fs::create_dir(folder.join(&content))?;
    fs::write(folder.join(&content).join(FILE), text)?;
    let former = fs::read_link(folder.join("..data")).ok();
    symlink(&content, folder.join("..data_tmp"))?;
    fs::rename(folder.join("..data_tmp"), folder.join("..data"))?;
    former.map_or(Ok(()), |former| fs::remove_dir_all(folder.join(former)))?;
    Ok(())
}
