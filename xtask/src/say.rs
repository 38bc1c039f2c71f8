//! Output for the user: lines on standard output, and one moving status line on a terminal.

use std::io::{IsTerminal as _, Write as _};

/// Prints a line.
pub(crate) fn line(text: &str) {
    clear();
    // A closed pipe is no reason to stop in the middle of an installation.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Shows the current activity in place of the previous one. Nothing if standard output is no terminal.
pub(crate) fn status(text: &str) {
    if is_terminal() {
        let short: String = text.chars().filter(|c| !c.is_control()).take(100).collect();
        let mut out = std::io::stdout();
        let _ = write!(out, "\r\x1b[2K{short}");
        let _ = out.flush();
    }
}

/// Removes the status line.
pub(crate) fn clear() {
    if is_terminal() {
        let mut out = std::io::stdout();
        let _ = write!(out, "\r\x1b[2K");
        let _ = out.flush();
    }
}

/// For success.
pub(crate) fn green(text: &str) -> String {
    paint(text, "32")
}

/// For failure.
pub(crate) fn red(text: &str) -> String {
    paint(text, "31")
}

/// For what needs attention.
pub(crate) fn yellow(text: &str) -> String {
    paint(text, "33")
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

fn paint(text: &str, code: &str) -> String {
    if is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Prints an error on standard error, outermost reason first.
pub(crate) fn error(error: &anyhow::Error) {
    clear();
    let _ = writeln!(std::io::stderr(), "{} {error:#}", paint("error:", "31"));
}
