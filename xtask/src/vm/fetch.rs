//! Kernels from Debian's mirror, kept below cargo's target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::mirror::{Apt, Mirror};
use super::{kernels, modules};
use crate::arch::Arch;
use crate::{run, say};

/// A kernel that guests can boot.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// The output of `uname -r` in the guest.
    pub(super) release: String,
    /// The image.
    pub(super) image: PathBuf,
    /// The part of the initramfs with its modules.
    pub(super) modules: PathBuf,
}

/// The folder of kernels and apt's lists.
#[derive(Debug)]
pub(super) struct Store {
    /// The folder of everything that virtual machines need.
    folder: PathBuf,
    arch: Arch,
    mirror: Option<String>,
    /// Whether to ask the mirror even if a kernel is already downloaded.
    update: bool,
    /// Packages that apt knows, after the first request.
    names: Option<Vec<String>>,
}

impl Store {
    /// A store in a folder, which need not exist yet. `mirror`: replaces the machine's own.
    pub(super) fn new(folder: &Path, arch: Arch, mirror: Option<String>, update: bool) -> Self {
        Self { folder: folder.to_owned(), arch, mirror, update, names: None }
    }

    /// The kernel for a word on the command line, downloaded if necessary.
    pub(super) fn kernel(&mut self, wanted: &str) -> Result<Kernel> {
        let own = self.at_hand(wanted)?;
        let release = match own {
            Some(release) if !self.update => release,
            _ => self.offered(wanted)?,
        };
        let packages = self.packages(&release);
        let kernel = Kernel {
            image: packages.join("vmlinuz"),
            modules: packages.join("modules.cpio"),
            release: release.clone(),
        };
        if !has_packages(&packages) {
            self.download(&release, &packages)?;
        }
        let list = modules::list(self.arch);
        let listed = packages.join("modules.list");
        if std::fs::read_to_string(&listed).is_ok_and(|text| text == list) {
            return Ok(kernel);
        }
        say::status(&format!("{release}: unpacking"));
        unpack(&packages, &kernel, self.arch).with_context(|| {
            format!("unpacking the packages of {release} failed; remove {} to try again", packages.display())
        })?;
        std::fs::write(&listed, list).with_context(|| format!("write {}", listed.display()))?;
        say::line(&format!("vm: {release} is at hand"));
        Ok(kernel)
    }

    /// The folder of a release.
    fn packages(&self, release: &str) -> PathBuf {
        self.folder.join("kernels").join(release)
    }

    /// The newest release of a version whose packages were downloaded before.
    fn at_hand(&self, wanted: &str) -> Result<Option<String>> {
        let folder = self.folder.join("kernels");
        if !folder.is_dir() {
            return Ok(None);
        }
        let mut releases = Vec::new();
        for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            releases.extend(name.filter(|_| has_packages(&path)).map(str::to_owned));
        }
        let all = releases.iter().map(String::as_str);
        Ok(kernels::newest_of(wanted, self.arch.debian(), all).map(str::to_owned))
    }

    /// The release that the mirror offers for a version.
    fn offered(&mut self, wanted: &str) -> Result<String> {
        let debian = self.arch.debian();
        let names = self.names()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        kernels::release(wanted, debian, &names).with_context(|| {
            let all = kernels::versions(debian, &names).join(", ");
            format!("Debian has no cloud kernel {wanted} with its modules; it has {all}")
        })
    }

    /// The names of packages that apt knows; asks the mirror once.
    fn names(&mut self) -> Result<&[String]> {
        if self.names.is_none() {
            let apt = self.apt()?;
            let update = run::captured("apt-get update", &mut apt.command("apt-get", &["update", "-q"]))?;
            let list = run::captured("apt-cache", &mut apt.command("apt-cache", &["pkgnames", "linux-"]))?;
            let names: Vec<String> = list.text.lines().map(str::to_owned).collect();
            if !update.ok && names.is_empty() {
                say::line(update.text.trim_end());
                bail!("Debian's mirror cannot be reached: see apt's output above");
            }
            self.names = Some(names);
        }
        Ok(self.names.as_deref().unwrap_or_default())
    }

    /// Downloads packages and all their dependencies, as if nothing were installed.
    pub(super) fn download_with_dependencies(&mut self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        self.names()?;
        let apt = self.apt()?;
        let words = ["install", "-y", "-q", "--download-only", "--no-install-recommends"];
        let mut command = apt.command("apt-get", &[&words[..], packages].concat());
        let outcome = run::captured("apt-get install --download-only", &mut command)?;
        if !outcome.ok {
            say::line(outcome.text.trim_end());
            bail!("tools for guests cannot be downloaded: see apt's output above");
        }
        Ok(packages_in(&apt.archives()))
    }

    fn apt(&self) -> Result<Apt> {
        if !crate::machine::has_apt() {
            bail!("kernels come in Debian's packages, and this machine has no apt-get");
        }
        let mirror = match &self.mirror {
            Some(address) => Mirror::at(address),
            None => Mirror::of_this_machine()?,
        };
        let dump = run::captured("apt-config", Command::new("apt-config").arg("dump"))?;
        Apt::write(&self.folder.join("apt").join(self.arch.debian()), &mirror, self.arch, &dump.text)
    }

    /// Downloads the packages of a release into its folder: all of them, or none.
    fn download(&mut self, release: &str, folder: &Path) -> Result<()> {
        let names = self.names()?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let packages = kernels::packages(release, &names);
        let packages = packages.with_context(|| format!("Debian no longer has the packages of {release}"))?;
        let partial = folder.with_extension("partial");
        remove(&partial)?;
        std::fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
        let words: Vec<&str> =
            ["download", "-q"].into_iter().chain(packages.iter().map(String::as_str)).collect();
        let mut command = self.apt()?.command("apt-get", &words);
        let outcome = run::captured(&format!("apt-get download {release}"), command.current_dir(&partial))?;
        if !outcome.ok {
            say::line(outcome.text.trim_end());
            bail!("{} cannot be downloaded: see apt's output above", packages.join(" and "));
        }
        remove(folder)?;
        std::fs::rename(&partial, folder).with_context(|| format!("make {}", folder.display()))?;
        say::line(&format!(
            "vm: downloaded {} ({:.0} s)",
            packages.join(" and "),
            outcome.took.as_secs_f64()
        ));
        Ok(())
    }
}

/// Whether a folder of a release has its packages. An interrupted download has another folder.
fn has_packages(folder: &Path) -> bool {
    folder.extension().is_none_or(|e| e != "partial") && !packages_in(folder).is_empty()
}

/// The package files in a folder.
fn packages_in(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|e| e == "deb")).collect()
}

/// Extracts the image and the modules of a release from its packages.
fn unpack(folder: &Path, kernel: &Kernel, arch: Arch) -> Result<()> {
    let files = folder.join("files");
    remove(&files)?;
    for package in packages_in(folder) {
        must(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&files))?;
    }
    let release = &kernel.release;
    let places = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let image = places.iter().map(|place| files.join(place)).find(|path| path.is_file());
    let image = image.context("there is no kernel image in them")?;
    std::fs::copy(&image, &kernel.image).with_context(|| format!("copy {}", image.display()))?;
    let places = ["lib/modules", "usr/lib/modules"].map(|place| files.join(place).join(release));
    let tree =
        places.into_iter().find(|path| path.join("kernel").is_dir()).context("there are no modules")?;
    modules::pack(&tree, release, arch, &kernel.modules)?;
    remove(&files)
}

/// Runs a program that should not fail.
pub(super) fn must(command: &mut Command) -> Result<()> {
    let outcome = run::captured(&run::text(command), command)?;
    if !outcome.ok {
        bail!("`{}` failed: {}", run::text(command), outcome.text.trim_end());
    }
    Ok(())
}

/// Removes a folder if it exists.
pub(super) fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(())
}
