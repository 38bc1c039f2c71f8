//! Leftovers of killed processes.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::mounts::remove_folder;
use crate::netns;
use crate::process;

/// The prefix of every name of a bed; the process id follows.
pub(crate) const PREFIX: &str = "lbr-";

/// Removes namespaces, mounts, folders and cgroups of beds whose process is gone. Best effort: another process may be
/// doing the same.
pub fn reap() {
    for name in dead(Path::new(netns::FOLDER)) {
        let _ = process::run(Command::new("ip").args(["netns", "del", &name]));
    }
    let temp = std::env::temp_dir();
    for name in dead(&temp) {
        let folder = temp.join(name);
        if let Ok(own) = super::cgroup::own(&folder.join("cgroup")) {
            for cgroup in dead(&own) {
                let _ = fs::remove_dir(own.join(cgroup));
            }
        }
        remove_folder(&folder);
    }
}

/// Entries of a folder that belong to a bed of a dead process.
fn dead(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()))
        .collect()
}

/// The process id in a name.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    // The counter must be one too, as other tools may make names with this prefix.
    parts.next()?.parse::<u32>().ok()?;
    parts.next().map(|_| pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_is_read_from_names_of_beds_only() {
        assert_eq!(owner("lbr-42-1-demo-fabric"), Some(42));
        assert_eq!(owner("lbr-42-x-demo"), None);
        assert_eq!(owner("lbr-demo"), None);
        assert_eq!(owner("other-42-1-demo"), None);
    }
}
