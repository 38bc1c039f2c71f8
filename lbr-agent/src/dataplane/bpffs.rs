//! Whether a folder can hold the pins, and what to do if not.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use lbr_common::maps;
use nix::sys::statfs;

use super::pins::{ATTACHED, DEFAULT};
use super::sockets::mounts;

pub(super) fn is_bpffs(dir: &Path) -> bool {
    statfs::statfs(dir).is_ok_and(|stat| stat.filesystem_type() == statfs::BPF_FS_MAGIC)
}

/// Fails if `dir` cannot become a pin folder. A BPF filesystem that is to be mounted at its usual place counts as there.
pub(super) fn check(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    ensure!(dir.is_absolute(), "--bpffs {shown}: is a relative path: write it from the root, as {DEFAULT}");
    let Some(parent) = dir.parent() else {
        bail!("--bpffs {shown}: is the root folder: give a folder on a BPF filesystem, as {DEFAULT}")
    };
    match fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => bail!("--bpffs {shown}: is a file: give a folder, as {DEFAULT}"),
        // The filesystem itself may hold other programs' pins, and lbr makes its folder private.
        Ok(_) if is_bpffs(dir) && !is_bpffs(parent) => {
            bail!(
                "--bpffs {shown}: is the BPF filesystem itself: give a folder in it, as {}",
                dir.join("lbr").display()
            )
        }
        _ => {}
    }
    if is_bpffs(parent) || parent == Path::new("/sys/fs/bpf") && parent.exists() {
        return Ok(());
    }
    let elsewhere = elsewhere();
    match fs::metadata(parent) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let above = parent.ancestors().find(|above| above.exists()).unwrap_or(parent);
            let parent = parent.display();
            if is_bpffs(above) {
                bail!(
                    "--bpffs {shown}: the folder {parent} does not exist: make it (`mkdir -p {parent}`), or {elsewhere}"
                );
            }
            bail!("--bpffs {shown}: the folder {parent} does not exist: correct the path, or {elsewhere}")
        }
        Err(error) => bail!("--bpffs {shown}: {}: {error}", parent.display()),
        Ok(_) => bail!("--bpffs {shown}: {} is not on a BPF filesystem: {elsewhere}", parent.display()),
    }
}

/// Where a pin folder can be on this machine.
fn elsewhere() -> String {
    let usual = Path::new(DEFAULT).parent().unwrap_or(Path::new("/"));
    let mounted = mounts("bpf");
    if mounted.iter().any(|at| at == usual) || mounted.is_empty() {
        return format!("leave the flag out (lbr takes {DEFAULT})");
    }
    let places: Vec<_> = mounted.iter().map(|at| at.join("lbr").display().to_string()).collect();
    format!("give a folder on a mounted BPF filesystem, as {}", places.join(" or "))
}

/// Fails if no agent has pinned its maps in `dir`; says where there are some.
pub(super) fn check_pinned(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    let why = match fs::metadata(dir.join(maps::STATE.name)) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("--bpffs {shown}: {error}: run this as root")
        }
        Err(_) => match fs::metadata(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => "the folder does not exist",
            Ok(meta) if !meta.is_dir() => "it is a file",
            Ok(_) if !is_bpffs(dir) => "the folder is not on a BPF filesystem",
            _ => "the folder has none",
        },
    };
    let others: Vec<String> = pin_folders().iter().map(|dir| dir.display().to_string()).collect();
    let advice = match others.as_slice() {
        [] => "start `lbr run`, or give the --bpffs folder of an agent (in a cluster: run this in lbr's pod)"
            .to_owned(),
        all => format!("give --bpffs {}", all.join(" or ")),
    };
    bail!("no lbr maps under {shown} ({why}): {advice}")
}

/// Folders with lbr's pins, directly in a mounted BPF filesystem.
fn pin_folders() -> Vec<PathBuf> {
    let folders = mounts("bpf").into_iter().filter_map(|at| fs::read_dir(at).ok());
    let is_ours = |dir: &PathBuf| dir.join(maps::STATE.name).exists() && dir.join(ATTACHED).is_dir();
    let mut found: Vec<_> = folders.flatten().filter_map(|e| Some(e.ok()?.path())).filter(is_ours).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_can_hold_no_pins_says_what_to_do_and_never_mounts_over_it() {
        let dir = std::env::temp_dir().join(format!("lbr-bpffs-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        let said = |path: PathBuf| check(&path).map_err(|error| error.to_string());
        let cases = [
            (dir.join("lbr"), "is not on a BPF filesystem"),
            (dir.join("a/b"), "a does not exist: correct the path"),
            (dir.join("file"), "is a file"),
            (dir.join("file/lbr"), "file is not on a BPF filesystem"),
            (PathBuf::from("/"), "is the root folder"),
            (PathBuf::from("lbr"), "is a relative path"),
        ];
        let results = cases.map(|(path, words)| (said(path.clone()), path, words));
        let missing = check_pinned(&dir.join("a")).unwrap_err().to_string();
        let empty = check_pinned(&dir).unwrap_err().to_string();
        fs::remove_dir_all(&dir).unwrap();
        for (result, path, words) in results {
            let error = result.unwrap_err();
            assert!(error.starts_with(&format!("--bpffs {}: ", path.display())), "{error}");
            assert!(error.contains(words) && !error.contains("mount -t"), "{error}");
        }
        assert!(missing.contains("(the folder does not exist): "), "{missing}");
        assert!(empty.contains("(the folder is not on a BPF filesystem): "), "{empty}");
    }
}
