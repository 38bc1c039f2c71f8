//! Where the programs are attached, by the pins and by the filters of this network namespace.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aya::programs::links::PinnedLink;
use lbr_common::verdict::Hook;

use super::Pinned;
use crate::dataplane::attach::{Side, parse_pin_name};
use crate::dataplane::filters;
use crate::dataplane::pins::ATTACHED;
use crate::dataplane::sockets;

/// Attached programs.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// How the programs of a side are attached to an interface; it is listed only if all of them are.
    pub tc: BTreeMap<u32, &'static str>,
    /// Number of socket programs, of [`Attached::SOCKETS`].
    pub sockets: usize,
    /// Kernel ids of the programs behind pinned links, by name of the program.
    pub programs: BTreeMap<&'static str, BTreeSet<u32>>,
}

impl Attached {
    /// How many socket programs there are.
    pub const SOCKETS: usize = sockets::PROGRAMS.len();
}

impl Pinned {
    /// Looks for attached programs. Filters are those of the calling thread's network namespace.
    pub fn attached(&self) -> anyhow::Result<Attached> {
        let folder = self.dir.join(ATTACHED);
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let mut hooks: BTreeMap<u32, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        let mut attached = Attached::default();
        for entry in entries {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let of_link = |hook: Hook| parse_pin_name(&name, hook).map(|ifindex| (ifindex, hook.name()));
            let program = match Side::all_hooks().find_map(of_link) {
                Some((ifindex, hook)) => {
                    hooks.entry(ifindex).or_default().entry("tcx").or_default().insert(hook);
                    hook
                }
                None => match sockets::PROGRAMS.iter().find(|program| **program == name) {
                    Some(program) => {
                        attached.sockets += 1;
                        program
                    }
                    None => continue,
                },
            };
            // A link whose interface is gone has no program any more.
            if let Ok(link) = PinnedLink::from_pin(folder.join(&name))
                && let Ok(info) = aya::programs::links::FdLink::from(link).info()
            {
                attached.programs.entry(program).or_default().insert(info.program_id());
            }
        }
        for (ifindex, hook) in filters::list().context("list tc filters")? {
            hooks.entry(ifindex).or_default().entry("clsact").or_default().insert(hook);
        }
        for (ifindex, ways) in hooks {
            let is_whole = |found: &BTreeSet<&str>| {
                Side::ALL
                    .into_iter()
                    .any(|side| side.hooks().iter().all(|(hook, _)| found.contains(hook.name())))
            };
            let way = ways.into_iter().find(|(_, found)| is_whole(found));
            attached.tc.extend(way.map(|(way, _)| (ifindex, if way == "tcx" { "tcx" } else { "clsact" })));
        }
        Ok(attached)
    }
}
