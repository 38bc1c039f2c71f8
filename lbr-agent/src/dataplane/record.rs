//! The agent's last report, beside the pins: for `lbr status`, also after the agent has ended. bpffs has no ordinary files,
//! so it is the target of a symbolic link, as the owner's name is.

use std::fs;
use std::io;
use std::path::Path;

/// Name of the symbolic link.
pub(super) const NAME: &str = "report";

/// The next report, until it takes the place of the last one.
const NEXT: &str = "report_next";

/// Replaces the report in a pin folder. At most 4,095 bytes: the length of a link's target.
pub fn write_report(dir: &Path, text: &str) -> io::Result<()> {
    let next = dir.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(text, &next)?;
    fs::rename(&next, dir.join(NAME))
}

/// The last report in a pin folder, if there is one.
pub(super) fn read(dir: &Path) -> Option<String> {
    Some(fs::read_link(dir.join(NAME)).ok()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_the_last_one() {
        let dir = std::env::temp_dir().join(format!("lbr-record-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        assert_eq!(read(&dir), None);
        // What an agent left that was killed in between does not matter.
        std::os::unix::fs::symlink("half", dir.join(NEXT)).unwrap();
        for text in ["{\"a\": 1}", "{\"a\": 2}"] {
            write_report(&dir, text).unwrap();
            assert_eq!(read(&dir).as_deref(), Some(text));
        }
        let names = fs::read_dir(&dir).unwrap().count();
        let long = write_report(&dir, &"x".repeat(5000));
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(names, 1);
        assert!(long.is_err());
    }
}
