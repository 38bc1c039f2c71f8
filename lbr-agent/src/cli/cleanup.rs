//! `lbr cleanup`: prints a line for each thing that it removes.

use std::fmt::Write as _;

use super::args::cleanup::CleanupArgs;
use super::{print, print_error};
use crate::dataplane;
use crate::done::Done;
use crate::kube_proxy;

/// Cleans up and prints the result.
pub fn cleanup(args: &CleanupArgs) -> anyhow::Result<()> {
    let (what, done) = match args.kube_proxy {
        true => ("kube-proxy", kube_proxy::clean(args.dry_run)),
        false => ("lbr", dataplane::remove(&args.bpffs, args.dry_run, args.force)?),
    };
    print(&text(&done, what, args.dry_run))?;
    for error in &done.errors {
        print_error(error);
    }
    anyhow::ensure!(done.errors.is_empty(), "not everything could be removed; running it again is safe");
    Ok(())
}

fn text(done: &Done, what: &str, dry_run: bool) -> String {
    let mut text = String::new();
    let verb = if dry_run { "would remove" } else { "removed" };
    for (verb, lines) in [(verb, &done.removed), ("left", &done.left), ("note", &done.notes)] {
        for line in lines {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{verb}: {line}");
        }
    }
    if done.removed.is_empty() && done.left.is_empty() && done.errors.is_empty() {
        let _ = writeln!(text, "nothing of {what} is on this node");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_each_thing() {
        let mut done = Done {
            removed: vec!["a".into(), "b".into()],
            left: vec!["c: why".into()],
            notes: vec!["d".into()],
            errors: Vec::new(),
        };
        assert_eq!(text(&done, "lbr", false), "removed: a\nremoved: b\nleft: c: why\nnote: d\n");
        assert!(text(&done, "lbr", true).starts_with("would remove: a\n"));
        (done.removed, done.left) = Default::default();
        assert_eq!(text(&done, "kube-proxy", false), "note: d\nnothing of kube-proxy is on this node\n");
    }
}
