//! A configuration of apt apart from the machine's own: other suites and lists, the same mirror.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::arch::Arch;

/// The machine's own sources.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d"];
/// Debian's keys. Without this file, apt uses the keys that the machine trusts.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The releases of Debian with the kernels for guests, oldest first, by their names at the mirror.
const SUITES: [&str; 6] =
    ["bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "forky"];
/// The same at the mirror of security updates.
const SECURITY: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// Settings of the machine for access to the mirror.
const KEPT: [&str; 4] = ["Acquire::http", "Acquire::Retries", "Acquire::ForceIPv4", "Acquire::ForceIPv6"];

/// Addresses of packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirror {
    /// Of Debian's releases.
    main: String,
    /// Of their security updates.
    security: String,
}

impl Mirror {
    /// The mirror from the command line.
    pub(super) fn at(address: &str) -> Self {
        let main = address.trim_end_matches('/').to_owned();
        let security = format!("{main}-security");
        Self { main, security }
    }

    /// The machine's own mirror.
    pub(super) fn of_this_machine() -> Result<Self> {
        let mut text = String::new();
        for file in SOURCES.map(PathBuf::from).into_iter().flat_map(files_at) {
            let own = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            text.push_str(&own);
            text.push_str("\n\n");
        }
        let found = Self::read(&text);
        found.with_context(|| {
            format!("no mirror of Debian in {}: name one with --mirror URL", SOURCES.join(" or "))
        })
    }

    /// Finds it in sources of either format.
    fn read(text: &str) -> Option<Self> {
        let (mut main, mut security) = (None, None);
        for address in addresses(text) {
            match address.rsplit('/').next() {
                Some("debian") => main = main.or(Some(address)),
                Some("debian-security") => security = security.or(Some(address)),
                _ => {}
            }
        }
        let mirror = Self::at(main?);
        Some(Self { security: security.map_or(mirror.security, str::to_owned), ..mirror })
    }

    /// The list of sources: every suite with kernels.
    fn sources(&self, keys: Option<&Path>) -> String {
        let option = keys.map(|file| format!("[signed-by={}] ", file.display())).unwrap_or_default();
        let main = SUITES.iter().map(|suite| (&self.main, suite));
        let security = SECURITY.iter().map(|suite| (&self.security, suite));
        main.chain(security).map(|(at, suite)| format!("deb {option}{at} {suite} main\n")).collect()
    }
}

/// apt's files for guests of an architecture.
#[derive(Debug)]
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Writes the configuration to a folder of its own. `dump`: the output of `apt-config dump` on this machine.
    pub(super) fn write(folder: &Path, mirror: &Mirror, arch: Arch, dump: &str) -> Result<Self> {
        for name in ["lists/partial", "archives/partial", "none"] {
            let path = folder.join(name);
            std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        }
        let keys = Path::new(KEYS);
        let files = [
            ("status", String::new()),
            ("sources.list", mirror.sources(keys.exists().then_some(keys))),
            ("apt.conf", configuration(folder, arch, dump)?),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The folder where `apt-get install` puts packages before their installation.
    pub(super) fn archives(&self) -> PathBuf {
        self.folder.join("archives")
    }

    /// A program of apt with this configuration instead of the machine's.
    pub(super) fn command(&self, program: &str, words: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.args(words).env("APT_CONFIG", self.folder.join("apt.conf")).current_dir(&self.folder);
        command
    }
}

/// The text of the configuration.
fn configuration(folder: &Path, arch: Arch, dump: &str) -> Result<String> {
    let at = folder.to_str().filter(|text| !text.contains(['"', '\\']));
    let Some(at) = at else { bail!("apt cannot work in {}: its name has odd characters", folder.display()) };
    let debian = arch.debian();
    let mut text: String = dump
        .lines()
        .filter(|line| KEPT.iter().any(|prefix| line.starts_with(prefix)))
        .fold(String::new(), |text, line| text + line + "\n");
    let settings = [
        ("Dir::State", "."),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "."),
        ("Dir::Cache::archives", "archives"),
        ("Dir::Etc", "none"),
        ("Dir::Etc::parts", "none"),
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::Etc::sourceparts", "none"),
        ("Dir::Etc::preferencesparts", "none"),
    ];
    for (name, below) in settings {
        let path = if below == "." { at.to_owned() } else { format!("{at}/{below}") };
        let _ = writeln!(text, "{name} \"{path}\";");
    }
    let _ = writeln!(text, "APT::Architecture \"{debian}\";\nAPT::Architectures {{\"{debian}\";}};");
    // If root runs apt, it downloads as another user, and the folder may be closed to that user.
    text.push_str("APT::Sandbox::User \"\";\nAcquire::Languages \"none\";\n");
    // Lists of unmaintained releases are not signed again; an old signature is sufficient here.
    text.push_str("Acquire::Check-Valid-Until \"false\";\n");
    Ok(text)
}

/// The files at a path: itself, or those in it that apt would read.
fn files_at(path: PathBuf) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path];
    }
    let entries = path.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|file| file.extension().is_some_and(|e| e == "list" || e == "sources")).collect();
    files.sort();
    files
}

/// Every address in sources of either format, without the final `/`.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(|line| {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let rest = words.filter(move |_| matches!(first, "deb" | "URIs:"));
        rest.filter(|word| word.contains("://")).map(|word| word.trim_end_matches('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_sources_are_read() {
        let stanzas = "Types: deb\n# URIs: http://old.example/debian\nURIs: http://a.example/debian/\n\
                       Suites: trixie\n\nTypes: deb\nURIs: http://s.example/debian-security\n";
        let mirror = Mirror::read(stanzas).unwrap();
        assert_eq!(mirror.main, "http://a.example/debian");
        assert_eq!(mirror.security, "http://s.example/debian-security");
        let line = "deb [arch=amd64] https://a.example/debian bookworm main\ndeb http://b.example/x y main\n";
        assert_eq!(Mirror::read(line), Some(Mirror::at("https://a.example/debian/")));
        assert_eq!(Mirror::read("deb http://a.example/other noble main"), None);
    }

    #[test]
    fn every_suite_is_a_source() {
        let text = Mirror::at("http://a.example/debian").sources(Some(Path::new("/k.gpg")));
        assert_eq!(text.lines().count(), SUITES.len() + SECURITY.len());
        assert!(text.contains("deb [signed-by=/k.gpg] http://a.example/debian forky main\n"));
        assert!(text.contains(" http://a.example/debian-security bookworm-security main\n"));
    }

    #[test]
    fn only_settings_for_the_mirror_are_kept() {
        let dump = "Acquire::http::Proxy \"http://p:1\";\nAPT::Update::Post-Invoke:: \"rm x\";\n";
        let text = configuration(Path::new("/t/apt"), Arch::X86_64, dump).unwrap();
        assert!(text.contains("Acquire::http::Proxy \"http://p:1\";"));
        assert!(!text.contains("Post-Invoke"));
        assert!(text.contains("Dir::State::lists \"/t/apt/lists\";"));
        assert!(configuration(Path::new("/t/\"apt"), Arch::X86_64, dump).is_err());
    }
}
