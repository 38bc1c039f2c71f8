//! Removes everything that lbr made on this node. Goes by names and places only, never by the content of maps, so it
//! works on what any version left, complete or not.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use lbr_common::maps;

use super::attach::{Side, parse_pin_name};
use super::pins::ATTACHED;
use super::{bpffs, filters, owner, record, xdp};
use crate::done::Done;
use crate::interface;

/// Removes the pins in `dir`, which detaches the pinned programs, and the filters in the network namespace of this
/// thread.
///
/// # Errors
/// If nothing was done: an agent runs, or the folder is not lbr's.
pub fn remove(dir: &Path, dry_run: bool, force: bool) -> anyhow::Result<Done> {
    let exists = check(dir)?;
    // Held until the end, so that no agent starts meanwhile.
    let lock = if exists { owner::lock(dir)? } else { None };
    ensure!(
        !exists || lock.is_some() || force || dry_run,
        "an lbr agent uses {}: stop it first (--force removes all the same, --dry-run only looks)",
        dir.display()
    );
    let mut done = Done::default();
    // The programs first, since they need the maps while they run.
    let known = exists || force;
    let mut filters = filters::remove(dry_run || !known).context("remove tc filters");
    if let Ok(filters) = filters.as_mut()
        && !known
    {
        // Without its folder, nothing shows whether an agent still runs.
        let why = format!("{} is not there; give the --bpffs of its agent, or --force", dir.display());
        filters.left.extend(filters.removed.drain(..).map(|what| format!("{what}: {why}")));
    }
    done.add(filters);
    if exists {
        let pins = remove_pins(dir, dry_run, &mut done);
        done.add(pins.map(|()| Done::default()));
    }
    Ok(done)
}

/// Whether the folder exists. A wrong --bpffs must not cost other programs' pins.
fn check(dir: &Path) -> anyhow::Result<bool> {
    let meta = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.with_context(|| format!("--bpffs {}", dir.display()))?,
    };
    ensure!(meta.is_dir(), "--bpffs {}: is no folder", dir.display());
    ensure!(bpffs::is_bpffs(dir), "--bpffs {}: is not on a BPF filesystem", dir.display());
    let above = fs::metadata(dir.join("..")).with_context(|| format!("--bpffs {}", dir.display()))?;
    ensure!(
        above.dev() == meta.dev(),
        "--bpffs {}: is the BPF filesystem itself; give the folder in it that the agent used",
        dir.display()
    );
    let names = names(dir)?;
    let is_known = |name: &String| name == ATTACHED || maps::PINNED.iter().any(|spec| spec.name == name);
    ensure!(
        names.is_empty() || names.iter().any(is_known),
        "--bpffs {}: holds no map of lbr, but {}",
        dir.display(),
        names.join(", ")
    );
    Ok(true)
}

fn remove_pins(dir: &Path, dry_run: bool, done: &mut Done) -> anyhow::Result<()> {
    let attached = dir.join(ATTACHED);
    if fs::symlink_metadata(&attached).is_ok_and(|meta| meta.is_dir()) {
        for name in names(&attached)? {
            remove_file(&attached.join(&name), &format!("{}, pinned", link_text(&name)), dry_run, done);
        }
        folder(&attached, dry_run, done);
    }
    for name in names(dir)? {
        match name.as_str() {
            ATTACHED => {}
            owner::NAME => remove_file(&dir.join(&name), "name of its last agent,", dry_run, done),
            record::NAME => remove_file(&dir.join(&name), "last report of its agent,", dry_run, done),
            _ => remove_file(&dir.join(&name), "map, pinned", dry_run, done),
        }
    }
    folder(dir, dry_run, done);
    Ok(())
}

/// Description of a pinned link, by its name.
fn link_text(name: &str) -> String {
    let tcx = Side::all_hooks().find_map(|hook| parse_pin_name(name, hook)).map(|ifindex| ("tcx", ifindex));
    let found = tcx.or_else(|| xdp::parse_pin_name(name).map(|(ifindex, _)| ("XDP", ifindex)));
    match found.map(|(kind, ifindex)| (kind, interface::name(ifindex))) {
        Some((kind, Some(interface))) => format!("{kind} program at {interface}"),
        Some((kind, None)) => format!("{kind} program at an interface that is gone"),
        None => "cgroup program".to_owned(),
    }
}

/// Removes a pin, or the owner's link beside the pins. Leaves a folder: lbr makes only one.
fn remove_file(path: &Path, what: &str, dry_run: bool, done: &mut Done) {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => {
            done.left.push(format!("folder {}: lbr made none of that name", path.display()));
            return;
        }
        _ => {}
    }
    let removed = if dry_run { Ok(()) } else { fs::remove_file(path) };
    report(removed, format!("{what} at {}", path.display()), done);
}

fn folder(path: &Path, dry_run: bool, done: &mut Done) {
    // A folder left inside keeps this one, and is reported already.
    let inside = done.left.iter().any(|line| line.starts_with(&format!("folder {}/", path.display())));
    if !inside {
        let removed = if dry_run { Ok(()) } else { fs::remove_dir(path) };
        report(removed, format!("folder {}", path.display()), done);
    }
}

fn report(removed: io::Result<()>, what: String, done: &mut Done) {
    match removed {
        Ok(()) => done.removed.push(what),
        // Another process was faster.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => done.errors.push(anyhow::Error::new(error).context(what)),
    }
}

fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> =
        names.collect::<io::Result<_>>().with_context(|| format!("read {}", dir.display()))?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_called_what_it_is() {
        let dir = std::env::temp_dir().join(format!("lbr-remove-{}", std::process::id()));
        fs::create_dir_all(dir.join(ATTACHED)).unwrap();
        fs::write(dir.join(ATTACHED).join("connect4"), "").unwrap();
        fs::write(dir.join(ATTACHED).join("2147483647-xdp"), "").unwrap();
        fs::write(dir.join("flows"), "").unwrap();
        std::os::unix::fs::symlink("version 1, process 2", dir.join(owner::NAME)).unwrap();
        let mut done = Done::default();
        let result = remove_pins(&dir, false, &mut done);
        let left = dir.exists();
        let _ = fs::remove_dir_all(&dir);
        result.unwrap();
        let at = dir.display();
        let expected = [
            format!("XDP program at an interface that is gone, pinned at {at}/attached/2147483647-xdp"),
            format!("cgroup program, pinned at {at}/attached/connect4"),
            format!("folder {at}/attached"),
            format!("map, pinned at {at}/flows"),
            format!("name of its last agent, at {at}/owner"),
            format!("folder {at}"),
        ];
        assert_eq!((done.removed.as_slice(), left), (&expected[..], false));
    }
}
