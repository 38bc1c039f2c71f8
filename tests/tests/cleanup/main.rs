//! `lbr cleanup`: it removes lbr's and kube-proxy's traces, and leaves those of other programs.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod iptables;
mod own;
mod rules;

use std::process::Command;

use lbr_tests::agent::binary;
use lbr_tests::netns::Netns;

/// `lbr cleanup` in a namespace: whether it succeeded, its output, and its error messages.
fn cleanup(ns: &Netns, arguments: &[&str]) -> (bool, String, String) {
    let mut command = ns.command(binary().unwrap()).unwrap();
    let output = command.arg("cleanup").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// The output of a command.
fn output(command: &mut Command) -> String {
    String::from_utf8(lbr_tests::process::run(command).unwrap().stdout).unwrap()
}
