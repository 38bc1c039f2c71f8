//! Runs other programs.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::say;

/// The result of a captured program.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Exit code 0.
    pub(crate) ok: bool,
    /// Standard output and standard error in the order they were written.
    pub(crate) text: String,
    /// How long it took.
    pub(crate) took: Duration,
}

/// Without a terminal, a silent program is reported this often.
const REMINDER: Duration = Duration::from_secs(60);

/// Runs a program and captures its output, showing the newest line.
pub(crate) fn captured(label: &str, command: &mut Command) -> Result<Outcome> {
    let start = Instant::now();
    let (reader, writer) = std::io::pipe().context("pipe")?;
    let name = text(command);
    let child = command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn();
    let mut child = child.with_context(|| format!("cannot start `{name}`"))?;
    // The command holds the writing end too, so the reader would never see the end of the output.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    say::status(label);
    let mut text = String::new();
    let mut newest = String::new();
    loop {
        match lines.recv_timeout(REMINDER) {
            Ok(line) => {
                say::status(&format!("{label}: {line}"));
                text.push_str(&line);
                text.push('\n');
                newest = line;
            }
            Err(mpsc::RecvTimeoutError::Timeout) if !say::is_terminal() => {
                let seconds = start.elapsed().as_secs();
                say::line(&format!("  {label}: still running after {seconds} s; last line: {newest}"));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().with_context(|| format!("`{name}`"))?;
    say::clear();
    Ok(Outcome { ok: status.success(), text, took: start.elapsed() })
}

/// Runs a program with direct access to the terminal; an error if its exit code is not 0.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let name = text(command);
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// Whether a program runs and exits with 0; shows no output.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// `cargo` in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The same command with a lower priority: it takes the time that others leave.
pub(crate) fn niced(plain: &Command) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10"]).arg(plain.get_program()).args(plain.get_args());
    if let Some(folder) = plain.get_current_dir() {
        command.current_dir(folder);
    }
    command
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// The path of a program of this name. The administrator's folders are searched too: they are missing in an ordinary
/// user's `PATH`, but not in that of `sudo`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// A command as a user would type it.
pub(crate) fn text(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_both_streams_and_the_exit_code() {
        let outcome = captured("test", Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let outcome = outcome.unwrap();
        assert!(!outcome.ok);
        assert_eq!(outcome.text, "out\nerr\n");
    }

    #[test]
    fn a_niced_command_is_the_same_one() {
        let mut plain = Command::new("sh");
        plain.args(["-c", "pwd; nice"]).current_dir("/");
        let (own, niced) =
            (captured("test", &mut plain).unwrap(), captured("test", &mut niced(&plain)).unwrap());
        let value = |text: &str| text.strip_prefix("/\n").and_then(|rest| rest.trim().parse::<i32>().ok());
        assert!(value(&niced.text).unwrap() > value(&own.text).unwrap(), "{} {}", own.text, niced.text);
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = captured("test", &mut Command::new("no-such-program-here")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
        assert!(find_program("no-such-program-here").is_none());
        assert!(find_program("sh").is_some());
    }
}
