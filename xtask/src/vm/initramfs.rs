//! The first filesystem of a guest: this machine's tools with their libraries, the kernel's modules, and the programs
//! of one suite. Each is an archive of its own, and only the last is made for each run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cpio::{Archive, files_below};
use super::fetch::Store;
use super::foreign;
use super::suite::Suite;
use crate::arch::Arch;
use crate::run;

/// Programs of this machine that suites run. busybox replaces all others.
const TOOLS: [&str; 14] = [
    "bash",
    "bpftool",
    "bridge",
    "conntrack",
    "ethtool",
    "ip",
    "iperf3",
    "ipset",
    "ipvsadm",
    "modprobe",
    "nft",
    "setpriv",
    "ss",
    "tc",
];
/// Every suite needs these. The others are left to the tests, which report missing programs.
const NEEDED: [&str; 5] = ["bash", "ip", "tc", "bpftool", "modprobe"];
/// Folders of the repository that tests read.
const REPOSITORY: [&str; 4] = ["tests/scenarios", "deploy", "docs", "examples"];

/// Files in a guest, by their path there.
pub(super) type Files = BTreeMap<String, PathBuf>;

/// The archive of the guests' tools, written again only after a change of one of them. `folder`: where it is kept.
pub(super) fn base(folder: &Path, arch: Arch, store: &mut Store) -> Result<PathBuf> {
    if !arch.is_own() {
        return foreign::base(folder, arch, store);
    }
    let mut files = Files::new();
    let mut links = BTreeMap::new();
    for tool in TOOLS.into_iter().map(str::to_owned).chain(iptables()) {
        match run::find_program(&tool) {
            Some(path) => program(&path, &tool, &mut files, &mut links)?,
            None if NEEDED.contains(&tool.as_str()) => {
                bail!("{tool} is missing: `cargo xtask setup` installs it")
            }
            None => {}
        }
    }
    // iptables loads its extensions at run time.
    let debian = format!("/usr/lib/{}/xtables", arch.multiarch());
    for folder in [&debian, "/usr/lib64/xtables", "/usr/lib/xtables"].map(Path::new) {
        if folder.is_dir() {
            files.extend(files_below(folder)?.into_iter().map(|path| (place(&path), path)));
        }
    }
    let busybox = run::find_program("busybox").context("busybox is missing: install busybox-static")?;
    program(&busybox, "busybox", &mut files, &mut links)?;
    for path in ["/etc/protocols", "/etc/services"].map(PathBuf::from) {
        if path.is_file() {
            files.insert(place(&path), path);
        }
    }
    let part = folder.join("base.cpio");
    let listed = folder.join("base.list");
    let list = describe(&files)?;
    if part.is_file() && fs::read_to_string(&listed).is_ok_and(|text| text == list) {
        return Ok(part);
    }
    let _ = fs::remove_file(&listed);
    let applets = run::captured("busybox", Command::new(&busybox).arg("--list"))?.text;
    write_base(&part, &files, links, &applets)?;
    fs::write(&listed, list).with_context(|| format!("write {}", listed.display()))?;
    Ok(part)
}

/// Writes an archive of tools. `links`: names and their targets. `applets`: names of busybox, one on a line.
pub(super) fn write_base(
    part: &Path,
    files: &Files,
    links: BTreeMap<String, String>,
    applets: &str,
) -> Result<()> {
    let file = File::create(part).with_context(|| format!("write {}", part.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for name in ["proc", "sys", "dev", "run", "tmp", "root", "var", "usr/bin", "usr/lib", "usr/lib64"] {
        archive.folder(name)?;
    }
    let merged = [("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];
    for (name, target) in merged.into_iter().chain([("usr/sbin", "bin"), ("var/run", "/run")]) {
        archive.link(name, target)?;
    }
    // The kernel opens it before the first process could make it.
    archive.device("dev/console", 5, 1)?;
    archive.device("dev/null", 1, 3)?;
    archive.text("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\n")?;
    archive.text("etc/group", 0o644, "root:x:0:\n")?;
    archive.text("etc/hosts", 0o644, "127.0.0.1 localhost vm\n::1 localhost\n")?;
    for (path, source) in files {
        archive.copy(source, path)?;
    }
    let mut links = links;
    links.insert("usr/bin/sh".to_owned(), "bash".to_owned());
    for applet in applets.lines() {
        let path = format!("usr/bin/{applet}");
        if !files.contains_key(&path) {
            links.entry(path).or_insert_with(|| "busybox".to_owned());
        }
    }
    for (path, target) in &links {
        archive.link(path, target)?;
    }
    archive.finish()
}

/// The suite's own files: its script, its binaries, and the folders that tests read, with the same path in the guest
/// as here.
fn own(part: &Path, run: &Run<'_>) -> Result<()> {
    let Run { suite, release, binaries, root } = run;
    let file = File::create(part).with_context(|| format!("write {}", part.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    archive.text("init", 0o755, include_str!("guest/init.sh"))?;
    archive.text("lbr/suite.sh", 0o644, suite.script())?;
    let arguments: String = suite.arguments(release).iter().map(|word| format!("{word}\n")).collect();
    archive.text("lbr/arguments", 0o644, &arguments)?;
    let mut files = Files::new();
    for (name, path) in *binaries {
        files.insert(format!("lbr/{name}"), path.clone());
        files.extend(libraries(path)?.into_iter().map(|library| (place(&library), library)));
    }
    for (place, path) in &files {
        archive.copy(path, place)?;
    }
    for folder in REPOSITORY.map(|name| root.join(name)).into_iter().filter(|path| path.is_dir()) {
        for path in files_below(&folder)? {
            let below = path.to_string_lossy();
            archive.copy(&path, below.trim_start_matches('/'))?;
        }
    }
    archive.finish()
}

/// The task of a guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    /// Its suite.
    pub(super) suite: &'a Suite,
    /// Its kernel.
    pub(super) release: &'a str,
    /// Files by their names in the guest.
    pub(super) binaries: &'a [(&'static str, PathBuf)],
    /// The repository that they were built from.
    pub(super) root: &'a Path,
}

/// Writes the initramfs of a run.
pub(super) fn write(to: &Path, parts: [&Path; 2], run: &Run<'_>) -> Result<()> {
    own(to, run)?;
    let mut joined = File::options().append(true).open(to).with_context(|| to.display().to_string())?;
    for part in parts {
        let mut file = File::open(part).with_context(|| part.display().to_string())?;
        io::copy(&mut file, &mut joined).with_context(|| format!("write {}", to.display()))?;
    }
    joined.flush().with_context(|| format!("write {}", to.display()))
}

/// The libraries of a program of this machine, for guests.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = run::captured("ldd", Command::new("ldd").arg(program))?.text;
    Ok(paths(&text).map(PathBuf::from).collect())
}

/// The names of iptables: for either family, with either backend in the kernel.
pub(super) fn iptables() -> impl Iterator<Item = String> {
    let names = ["iptables", "ip6tables"].into_iter();
    let parts = names.flat_map(|name| ["", "-nft", "-legacy"].map(|part| format!("{name}{part}")));
    parts.flat_map(|name| ["", "-save", "-restore"].map(|what| format!("{name}{what}")))
}

/// Adds a program under a name, with its libraries. If the name is a link, both are added: programs with many names
/// check the name that they are called by.
fn program(path: &Path, name: &str, files: &mut Files, links: &mut BTreeMap<String, String>) -> Result<()> {
    let real = path.canonicalize().with_context(|| path.display().to_string())?;
    let own = real.file_name().map_or(name.into(), |own| own.to_string_lossy().into_owned());
    if own != name {
        links.insert(format!("usr/bin/{name}"), own.clone());
    }
    files.insert(format!("usr/bin/{own}"), real.clone());
    for library in libraries(&real)? {
        files.insert(place(&library), library);
    }
    Ok(())
}

/// The guest's path of a file of this machine: the same path, with `/usr` in front if it lacks that.
fn place(path: &Path) -> String {
    let text = path.to_string_lossy();
    let below = text.trim_start_matches('/');
    if below.starts_with("lib") { format!("usr/{below}") } else { below.to_owned() }
}

/// The paths in the output of ldd.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'))
}

/// Files with their sizes and times: as long as this text is unchanged, so is the archive.
fn describe(files: &Files) -> Result<String> {
    let line = |(place, path): (&String, &PathBuf)| {
        let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
        Ok(format!("{place} {} {}\n", metadata.len(), metadata.mtime()))
    };
    files.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f3a)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f4c)\n";
        let found: Vec<&str> = paths(text).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(paths("\tnot a dynamic executable\n").count(), 0);
    }

    #[test]
    fn merged_folders_are_where_guests_have_them() {
        assert_eq!(place(Path::new("/lib64/ld.so")), "usr/lib64/ld.so");
        assert_eq!(place(Path::new("/usr/lib/x/libc.so")), "usr/lib/x/libc.so");
        assert_eq!(place(Path::new("/etc/services")), "etc/services");
    }
}
