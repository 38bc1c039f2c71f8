//! The socket programs, attached to a cgroup2 hierarchy. They check each socket's network namespace themselves, so they
//! are attached to the root of the hierarchy.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use nix::sys::statfs;

use super::pins::Pins;

/// The programs, by their name in the object.
pub(super) const PROGRAMS: [&str; 10] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "bind4",
    "bind6",
];

/// Inode of the root of the hierarchy, in every mount of it (the kernel's `cgroup_setup_root` asserts it).
const ROOT_INODE: u64 = 1;

/// Where the whole cgroup2 hierarchy is mounted, with all processes of the node. A container sees its own cgroup as a
/// root, and paths relative to it, so the inode decides, not the path.
pub fn find_cgroup2() -> Option<PathBuf> {
    let is_root = |folder: &PathBuf| fs::metadata(folder).is_ok_and(|folder| folder.ino() == ROOT_INODE);
    mounts("cgroup2").into_iter().find(is_root)
}

/// Where filesystems of a type are mounted.
pub(super) fn mounts(filesystem: &str) -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    mount_points(&mountinfo, filesystem)
}

/// Mount points of a type (proc(5)).
fn mount_points(mountinfo: &str, wanted: &str) -> Vec<PathBuf> {
    let point = |line: &str| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        (filesystem.split(' ').next() == Some(wanted)).then(|| PathBuf::from(unescape(point)))
    };
    mountinfo.lines().filter_map(point).collect()
}

/// Fails if the folder of `--cgroup` cannot be one of a cgroup2 mount; before anything is loaded.
pub(super) fn check(cgroup: &Path) -> anyhow::Result<()> {
    let shown = cgroup.display();
    let advice = match mounts("cgroup2").as_slice() {
        [] => "mount one (`mkdir DIR && mount -t cgroup2 none DIR`), or give --socket-lb=off".to_owned(),
        all => {
            let all: Vec<_> = all.iter().map(|at| at.display().to_string()).collect();
            format!("leave the flag out, or give the folder of one: {}", all.join(", "))
        }
    };
    match statfs::statfs(cgroup) {
        Ok(stat) if stat.filesystem_type() == statfs::CGROUP2_SUPER_MAGIC && cgroup.is_dir() => Ok(()),
        Ok(_) => bail!("--cgroup {shown}: is not the folder of a cgroup2 mount: {advice}"),
        Err(nix::errno::Errno::ENOENT) => bail!("--cgroup {shown}: does not exist: {advice}"),
        Err(error) => bail!("--cgroup {shown}: {error}: {advice}"),
    }
}

/// mountinfo writes spaces and the like in octal.
fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Attaches the loaded programs. An earlier run's go only after their successors are in place: in between both run, and
/// the second finds nothing left to translate.
pub(super) fn attach(ebpf: &mut Ebpf, pins: &Pins, cgroup: &Path) -> anyhow::Result<()> {
    let folder = File::open(cgroup).with_context(|| format!("open the cgroup {}", cgroup.display()))?;
    for name in PROGRAMS {
        let program =
            ebpf.program_mut(name).with_context(|| format!("the kernel object has no program {name}"))?;
        let program: &mut CgroupSockAddr = program.try_into()?;
        // A link takes no flags, and always allows others beside it.
        let id = program.attach(&folder, CgroupAttachMode::Single).with_context(|| {
            format!("attach {name} to {}: is it the folder of a cgroup2 mount?", cgroup.display())
        })?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        let (pin, fresh) = (pins.link(name), pins.link(&format!("{name}_new")));
        pins.remove_link(&format!("{name}_new"))?;
        link.pin(&fresh).with_context(|| format!("pin {}", fresh.display()))?;
        Pins::protect(&fresh)?;
        fs::rename(&fresh, &pin).with_context(|| format!("pin {}", pin.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
26 23 0:22 / /sys/fs/cgroup rw,nosuid shared:5 - tmpfs tmpfs rw,mode=755
27 26 0:23 / /sys/fs/cgroup/unified rw,nosuid shared:6 - cgroup2 cgroup2 rw
28 26 0:24 / /sys/fs/cgroup/cpu rw,nosuid shared:7 - cgroup cgroup rw,cpu
";

    #[test]
    fn mounts_of_cgroup2_only() {
        assert_eq!(mount_points(HYBRID, "cgroup2"), [PathBuf::from("/sys/fs/cgroup/unified")]);
        assert!(mount_points("", "cgroup2").is_empty());
        let part = "27 26 0:23 /../.. /run/cgroup2 rw - cgroup2 cgroup2 rw\n";
        let expected = ["/run/cgroup2", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(mount_points(&format!("{part}{HYBRID}"), "cgroup2"), expected);
    }

    #[test]
    fn octal_in_paths() {
        let line = "27 26 0:23 / /run/my\\040group rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_points(line, "cgroup2"), [PathBuf::from("/run/my group")]);
    }
}
