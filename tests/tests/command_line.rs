//! Command lines that cannot work say what to do. Runs the real `lbr`.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::fs;
use std::path::Path;
use std::process::Stdio;

use lbr_tests::agent::binary;
use lbr_tests::netns::Netns;
use lbr_tests::topology::Bed;

/// The error of `lbr` with these arguments, as one line.
fn error(ns: &Netns, arguments: &[&str]) -> String {
    let mut command = ns.command(binary().unwrap()).unwrap();
    command.args(arguments).env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "lbr {arguments:?} succeeds: {said}");
    said
}

/// The line with the reason. The source, which has begun to read, may log behind it.
fn refusal(said: &str) -> &str {
    said.lines().find(|line| line.starts_with("lbr: ")).unwrap_or_default()
}

#[test]
fn run_without_a_source_names_both() {
    let mut bed = Bed::new("clr").unwrap();
    let ns = bed.namespace("n").unwrap();
    let said = error(&ns, &["run", "--socket-lb=off"]);
    assert_eq!(said.lines().count(), 1, "{said}");
    for words in ["--manifests DIR", "--kubeconfig FILE", "nothing says where"] {
        assert!(said.contains(words), "{said}");
    }
    let mut command = ns.command(binary().unwrap()).unwrap();
    command.args(["run", "--socket-lb=off"]).env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    let said =
        String::from_utf8(command.env("KUBERNETES_SERVICE_PORT", "443").output().unwrap().stderr).unwrap();
    assert!(said.contains("automountServiceAccountToken: true"), "{said}");
}

#[test]
fn a_wrong_pin_folder_says_what_to_do() {
    let mut bed = Bed::new("clb").unwrap();
    let ns = bed.namespace("n").unwrap();
    let bpffs = bed.bpffs().unwrap();
    let manifests = bed.folder().join("manifests");
    fs::create_dir(&manifests).unwrap();
    let plain = bed.folder().join("plain");
    fs::create_dir(&plain).unwrap();
    let run = |path: &Path| {
        error(
            &ns,
            &[
                "run",
                "--socket-lb=off",
                "--healthz-bind-address=",
                "--metrics-bind-address=",
                "--manifests",
                manifests.to_str().unwrap(),
                "--bpffs",
                path.to_str().unwrap(),
            ],
        )
    };
    for (path, words) in [
        (plain.join("none/lbr"), "does not exist: correct the path"),
        (plain.join("lbr"), "plain is not on a BPF filesystem: "),
        (bpffs.join("none/lbr"), "none does not exist: make it (`mkdir -p "),
        (bpffs.clone(), "is the BPF filesystem itself: give a folder in it, as "),
    ] {
        let said = run(&path);
        let refused = refusal(&said);
        assert!(refused.starts_with(&format!("lbr: --bpffs {}: ", path.display())), "{said}");
        assert!(refused.contains(words) && !refused.contains("mount -t"), "{said}");
        assert!(!plain.join("lbr").exists() && !bpffs.join("none").exists());
    }
    for (path, words) in [
        (plain.join("none"), "(the folder does not exist)"),
        (plain.clone(), "(the folder is not on a BPF filesystem)"),
        (bpffs.clone(), "(the folder has none)"),
    ] {
        for command in [&["show", "services"][..], &["why", "a/b", "c/d"], &["monitor"]] {
            let said = error(&ns, &[command, &["--bpffs", path.to_str().unwrap()]].concat());
            assert!(said.contains(&format!("no lbr maps under {} {words}", path.display())), "{said}");
        }
    }
}

#[test]
fn a_wrong_cgroup_is_refused_before_the_kernel_is_touched() {
    let mut bed = Bed::new("clc").unwrap();
    let ns = bed.namespace("n").unwrap();
    let bpffs = bed.bpffs().unwrap().join("lbr");
    let manifests = bed.folder().join("manifests");
    fs::create_dir(&manifests).unwrap();
    for (path, words) in [
        (bed.folder().join("none"), "does not exist: "),
        (bed.folder().to_owned(), "is not the folder of a cgroup2 mount: "),
    ] {
        let [manifests, cgroup, bpffs] = [&manifests, &path, &bpffs].map(|path| path.to_str().unwrap());
        let flags = ["--healthz-bind-address=", "--metrics-bind-address=", "--manifests", manifests];
        let said = error(&ns, &[&["run", "--cgroup", cgroup, "--bpffs", bpffs][..], &flags].concat());
        assert!(refusal(&said).starts_with(&format!("lbr: --cgroup {cgroup}: {words}")), "{said}");
        assert!(!Path::new(bpffs).exists());
    }
}
