//! The programs of guests of another architecture: this machine's do not run there, so Debian's packages are unpacked
//! with all their dependencies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cpio::files_below;
use super::fetch::{Store, must, remove};
use super::initramfs::{self, Files, iptables};
use crate::arch::Arch;
use crate::{run, say};

/// Packages with the programs of suites. `libgcc-s1` is for lbr and the tests.
const PACKAGES: [&str; 13] = [
    "bash",
    "bpftool",
    "busybox-static",
    "conntrack",
    "ethtool",
    "iperf3",
    "iproute2",
    "ipset",
    "iptables",
    "kmod",
    "libgcc-s1",
    "nftables",
    "util-linux",
];
/// Folders of packages, and their places in guests.
const FOLDERS: [(&str, &str); 7] = [
    ("bin/", "usr/bin/"),
    ("sbin/", "usr/bin/"),
    ("usr/bin/", "usr/bin/"),
    ("usr/sbin/", "usr/bin/"),
    ("lib/", "usr/lib/"),
    ("usr/lib/", "usr/lib/"),
    ("etc/iproute2/", "etc/iproute2/"),
];

/// The archive of tools for guests of another architecture, made once. `folder`: where it is kept.
pub(super) fn base(folder: &Path, arch: Arch, store: &mut Store) -> Result<PathBuf> {
    let part = folder.join(format!("base-{}.cpio", arch.name()));
    let listed = part.with_extension("list");
    let list = PACKAGES.join(" ");
    if part.is_file() && fs::read_to_string(&listed).is_ok_and(|text| text == list) {
        return Ok(part);
    }
    let packages = store.download_with_dependencies(&PACKAGES)?;
    let tree = folder.join(format!("base-{}", arch.name()));
    remove(&tree)?;
    for package in &packages {
        must(Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
    }
    let mut files = Files::new();
    for path in files_below(&tree)? {
        let below = path.strip_prefix(&tree).unwrap_or(&path).to_string_lossy().into_owned();
        if let Some(place) = place(&below) {
            files.insert(place, path);
        }
    }
    if files.is_empty() {
        bail!("there is nothing in Debian's packages for {}", arch.name());
    }
    // A package's scripts would choose the meaning of these names.
    let plain = iptables().filter(|name| !name.contains("-nft") && !name.contains("-legacy"));
    let links = plain.map(|name| (format!("usr/bin/{name}"), nft(&name))).collect();
    let busybox = run::find_program("busybox").context("busybox is missing: install busybox-static")?;
    let applets = run::captured("busybox", Command::new(busybox).arg("--list"))?.text;
    initramfs::write_base(&part, &files, links, &applets)?;
    fs::write(&listed, list).with_context(|| format!("write {}", listed.display()))?;
    remove(&tree)?;
    say::line(&format!("vm: {} packages for guests of {}", packages.len(), arch.name()));
    Ok(part)
}

/// The path of a package's file in a guest; None if guests do not have it.
fn place(below: &str) -> Option<String> {
    let found = |(from, to): &(&str, &str)| Some(format!("{to}{}", below.strip_prefix(from)?));
    FOLDERS.iter().find_map(found)
}

/// The program behind a plain name of iptables: `iptables-nft-save` for `iptables-save`.
fn nft(name: &str) -> String {
    let (program, what) = name.split_once('-').map_or((name, None), |(program, what)| (program, Some(what)));
    what.map_or_else(|| format!("{program}-nft"), |what| format!("{program}-nft-{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_libraries_are_taken() {
        assert_eq!(place("sbin/ip").as_deref(), Some("usr/bin/ip"));
        assert_eq!(place("usr/sbin/tc").as_deref(), Some("usr/bin/tc"));
        assert_eq!(
            place("lib/aarch64-linux-gnu/libc.so.6").as_deref(),
            Some("usr/lib/aarch64-linux-gnu/libc.so.6")
        );
        assert_eq!(place("usr/share/doc/bash/README"), None);
        assert_eq!(place("etc/init.d/x"), None);
    }

    #[test]
    fn plain_names_are_those_of_nftables() {
        assert_eq!(nft("iptables"), "iptables-nft");
        assert_eq!(nft("ip6tables-restore"), "ip6tables-nft-restore");
    }
}
