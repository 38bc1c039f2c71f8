//! The kernel modules of guests: all of the network, and their dependencies.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpio;
use super::fetch::must;
use crate::arch::Arch;
use crate::run;

/// Folders of modules that guests have, including subfolders.
const FOLDERS: [&str; 8] = [
    "net",
    "lib",
    "crypto",
    "drivers/net",
    "drivers/virtio",
    "drivers/char/hw_random",
    "drivers/block",
    "drivers/ptp",
];
/// Folders in these with drivers of real devices.
const LEFT_OUT: [&str; 9] = [
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
    "drivers/net/ethernet",
    "drivers/net/phy",
    "drivers/net/usb",
    "drivers/net/wireless",
    "drivers/net/wwan",
    "drivers/net/fddi",
];
/// Folders of the architecture's own code.
const OF_ARCH: [&str; 2] = ["crypto", "lib"];

/// The parameters of the choice as a text: modules that were packed for another choice are packed again.
pub(super) fn list(arch: Arch) -> String {
    let words = FOLDERS.iter().chain(&["but not"]).chain(&LEFT_OUT).chain(&OF_ARCH);
    words.copied().chain([arch.name()]).collect::<Vec<_>>().join("\n")
}

/// Whether guests have a module. `path`: below the folder `kernel` of a release.
fn is_wanted(path: &str, arch: Arch) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    let is_module = [".ko", ".ko.xz", ".ko.zst"].iter().any(|end| file.ends_with(end));
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let own = OF_ARCH.iter().any(|folder| below(&format!("arch/{}/{folder}", arch.kernel_folder())));
    let chosen = own || FOLDERS.into_iter().any(below);
    is_module && chosen && !LEFT_OUT.into_iter().any(below)
}

/// Writes the modules of a release, unpacked and with an index, as a part of an initramfs. `tree`: the release's
/// folder of modules.
pub(super) fn pack(tree: &Path, release: &str, arch: Arch, part: &Path) -> Result<()> {
    let stage = tree.with_extension("guest");
    let home = stage.join("lib/modules").join(release);
    let source = tree.join("kernel");
    let mut modules = Vec::new();
    for path in cpio::files_below(&source)? {
        let below = path.strip_prefix(&source).unwrap_or(&path);
        if is_wanted(&below.to_string_lossy(), arch) {
            let copy = home.join("kernel").join(below);
            let folder = copy.parent().unwrap_or(&home);
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            fs::copy(&path, &copy).with_context(|| format!("copy {}", path.display()))?;
            modules.push(copy);
        }
    }
    decompress(&modules)?;
    for name in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        // Not every release has all of them.
        let _ = fs::copy(tree.join(name), home.join(name));
    }
    let depmod = run::find_program("depmod").context("depmod is missing: install kmod")?;
    must(Command::new(depmod).arg("-b").arg(&stage).arg(release))?;

    let partial = part.with_extension("partial");
    let file = File::create(&partial).with_context(|| format!("write {}", partial.display()))?;
    let mut archive = cpio::Archive::new(BufWriter::new(file));
    for path in cpio::files_below(&home)? {
        let below = path.strip_prefix(&stage).unwrap_or(&path);
        archive.copy(&path, &format!("usr/{}", below.display()))?;
    }
    archive.finish()?;
    fs::rename(&partial, part).with_context(|| format!("write {}", part.display()))
}

/// Unpacks modules in place, as a guest in emulation would be slow at that.
fn decompress(modules: &[PathBuf]) -> Result<()> {
    let unpackers: [(&str, &[&str]); 2] = [("xz", &["xz", "-dq"]), ("zst", &["zstd", "-dq", "--rm"])];
    for (end, words) in unpackers {
        let packed: Vec<&PathBuf> =
            modules.iter().filter(|path| path.extension().is_some_and(|e| e == end)).collect();
        if !packed.is_empty() {
            must(Command::new(words[0]).args(&words[1..]).args(packed))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_modules_are_wanted_and_drivers_of_cards_are_not() {
        let wanted = |path| is_wanted(path, Arch::X86_64);
        assert!(wanted("drivers/net/veth.ko"));
        assert!(wanted("net/netfilter/nf_tables.ko.xz"));
        assert!(wanted("arch/x86/crypto/crc32c-intel.ko.zst"));
        assert!(!wanted("arch/arm64/crypto/crc.ko"));
        assert!(!wanted("drivers/net/ethernet/intel/e1000/e1000.ko"));
        assert!(!wanted("drivers/nvme/host/nvme.ko"));
        assert!(!wanted("net/modules.order"));
        assert!(!wanted("network/x.ko"));
    }
}
