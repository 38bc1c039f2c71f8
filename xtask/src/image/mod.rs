//! `cargo xtask image`: lbr as a container image, without a container engine and without fetching a base image.
//!
//! The image is one file, `/lbr`, linked statically: it has no shell, no package and no library that could be
//! outdated. The list of the binary's components is beside it.

mod elf;
mod oci;
mod sbom;
mod tar;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::Digest as _;

use crate::arch::Arch;
use crate::{build, check, cross, run, say, setup};

/// Command line arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for the image and its bill of materials. Default: `image` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the image where it is loaded. Default: localhost/lbr:VERSION.
    #[arg(long, value_name = "NAME:TAG")]
    tag: Option<String>,
    /// Architecture of the image.
    #[arg(long, default_value_t = Arch::own())]
    arch: Arch,
    /// Take this static binary instead of building one.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// Version of lbr: all packages of the workspace have the same.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the image.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run_with(&args.arch.build_tools(), false)?;
    let (path, (created, revision)) = match &args.binary {
        Some(path) => (path.clone(), (None, None)),
        None => {
            let before = commit();
            let path = binary(args.arch)?;
            // After an edit during a long build, the image belongs to neither commit.
            (path, if commit() == before { before } else { (None, None) })
        }
    };
    let binary = fs::read(&path).with_context(|| path.display().to_string())?;
    if !elf::is_static(&binary).with_context(|| path.display().to_string())? {
        bail!("{} needs a dynamic linker, and the image has none: link it statically", path.display());
    }
    let tag = args.tag.clone().unwrap_or_else(|| format!("localhost/lbr:{VERSION}"));
    let arch = args.arch;
    let image = oci::Image { binary: &binary, arch, tag: &tag, version: VERSION, created, revision };
    let packed = oci::pack(&image)?;
    if arch.is_own() {
        start_in_empty_root(&packed)?;
    } else {
        say::line(&format!("image: not started for a check (it is for {})", arch.name()));
    }

    let folder = args.out.clone().map_or_else(|| check::target_folder().map(|t| t.join("image")), Ok)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let name = format!("lbr-{VERSION}-{}", arch.debian());
    let (tarball, bill) = (folder.join(format!("{name}.tar")), folder.join(format!("{name}.cdx.json")));
    write(&bill, sbom::bill(VERSION, &sha256(&binary))?.as_bytes())?;
    write(&tarball, &packed.tarball)?;
    say::line(&format!("image: {tag}, {:.1} MB, {}", packed.tarball.len() as f64 / 1e6, packed.digest));
    say::line(&format!("image: {} (`ctr -n k8s.io images import`, `docker load -i`)", tarball.display()));
    say::line(&format!("image: {} (its components)", bill.display()));
    Ok(())
}

/// SHA-256, in hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| path.display().to_string())
}

/// Builds `lbr` with the C library inside, for the machine's own triple or that of another architecture. (`--target`
/// keeps the flags away from build scripts and macros, which are loaded dynamically.)
fn binary(arch: Arch) -> Result<PathBuf> {
    let triple = if arch.is_own() { host()? } else { arch.triple().to_owned() };
    say::line("build: lbr, optimised and static (minutes at the first time)");
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    // The build path must not leak into the binary, or the same source would give different binaries. (The kernel
    // object still has whole paths of its sources: its build sets flags of its own.)
    flags.push(format!("--remap-path-prefix={}=lbr", run::root().display()));
    if let Some(home) = cargo_home() {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    // A list of strings has the same form in TOML and in JSON.
    let flags = serde_json::Value::from(flags);
    let mut command = run::cargo();
    command.args(["build", "--release", "--locked", "-p", "lbr-agent", "--bin", "lbr"]);
    if arch.is_own() {
        command.args(["--target", &triple]);
    } else {
        cross::add_target(arch)?;
        cross::for_target(&mut command, arch);
    }
    command.args(["--config", &format!("target.{triple}.rustflags={flags}")]);
    command.args(["--config", "profile.release.strip=\"debuginfo\""]);
    // Otherwise a binary would depend on the builds before it.
    command.env("CARGO_INCREMENTAL", "0");
    build::built(&mut command, "lbr")
}

/// The triple of the compiler.
fn host() -> Result<String> {
    let text = said(Command::new("rustc").arg("-vV").current_dir(run::root()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("`rustc -vV` names no host")?.to_owned())
}

fn cargo_home() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home)
}

/// Time and id of the commit, if the working tree equals it; otherwise none.
fn commit() -> (Option<String>, Option<String>) {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        said(command.args(words).current_dir(run::root()).env("TZ", "UTC"))
    };
    if !git(&["status", "--porcelain"]).is_ok_and(|text| text.trim().is_empty()) {
        return (None, None);
    }
    let log = |format: &str| git(&["log", "-1", "--date=format-local:%Y-%m-%dT%H:%M:%SZ", format]).ok();
    let line = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    (line(log("--format=%cd")), line(log("--format=%H")))
}

/// The output of a program.
fn said(command: &mut Command) -> Result<String> {
    let name = run::text(command);
    let output = command.output().with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        bail!("`{name}`: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Unpacks the layer into an empty folder, and starts the program in it as a container runtime would, to print its
/// version. Needs root; without root it is skipped with a message.
fn start_in_empty_root(packed: &oci::Packed) -> Result<()> {
    if !run::is_root() {
        say::line("image: not started for a check (that needs root)");
        return Ok(());
    }
    let root = std::env::temp_dir().join(format!("lbr-image-{}", std::process::id()));
    fs::create_dir(&root).with_context(|| root.display().to_string())?;
    let version = unpack_and_start(&packed.layer, &root);
    fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    let version = version.context("the image does not start")?;
    if !version.contains(VERSION) {
        bail!("the image says that it is {}, and this is {VERSION}", version.trim_end());
    }
    say::line(&format!("image: {} starts in an empty root", version.trim_end()));
    Ok(())
}

fn unpack_and_start(layer: &[u8], root: &Path) -> Result<String> {
    let file = root.join("layer");
    write(&file, layer)?;
    said(Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(root))?;
    fs::remove_file(&file)?;
    said(Command::new("chroot").arg(root).args(["/lbr", "--version"]))
}
