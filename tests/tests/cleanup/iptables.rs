//! `lbr cleanup --kube-proxy` beside rules of other programs.

use std::io::Write as _;
use std::process::Stdio;

use lbr_common::addr::Family;
use lbr_tests::netns::Netns;
use lbr_tests::topology::Bed;

use crate::rules::{OTHER_TABLES, OTHERS, iptables, nftables};
use crate::{cleanup, output};

/// Feeds text to a command; an error has the command's output.
fn feed(ns: &Netns, program: &str, arguments: &[&str], text: &str) -> Result<(), String> {
    let mut command = ns.command(program).unwrap();
    command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn restore(ns: &Netns, family: Family, text: &str) {
    let program = if family.is_v6() { "ip6tables-nft-restore" } else { "iptables-nft-restore" };
    feed(ns, program, &["--noflush"], text).unwrap();
}

fn ruleset(ns: &Netns) -> String {
    output(ns.command("nft").unwrap().args(["list", "ruleset"]))
}

/// A node with rules of other programs only.
fn others(bed: &mut Bed) -> Netns {
    // Without interfaces, so no packet raises a counter.
    let ns = bed.namespace("n").unwrap();
    for family in Family::ALL {
        restore(&ns, family, OTHERS);
    }
    // The kernel's chains stay when their last rule is removed, as they do with kube-proxy.
    for family in Family::ALL {
        let chains = "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n";
        restore(&ns, family, chains);
    }
    feed(&ns, "nft", &["-f", "-"], OTHER_TABLES).unwrap();
    ns
}

/// A dry run, a run, and a second run.
fn removes_all_but(ns: &Netns, expected: &str) -> String {
    let full = ruleset(ns);
    assert_ne!(full, expected);
    let (ok, would, errors) = cleanup(ns, &["--kube-proxy", "--dry-run"]);
    assert!(ok, "{errors}");
    assert_eq!(ruleset(ns), full, "a dry run changes nothing");
    let (ok, did, errors) = cleanup(ns, &["--kube-proxy"]);
    assert!(ok, "{errors}");
    assert_eq!(ruleset(ns), expected, "{did}");
    assert_eq!(would.replace("would remove:", "removed:"), did);
    let (ok, again, errors) = cleanup(ns, &["--kube-proxy"]);
    assert!(ok && !again.contains("removed:"), "{again}{errors}");
    assert_eq!(ruleset(ns), expected);
    did
}

#[test]
fn iptables_mode() {
    let mut bed = Bed::new("cki").unwrap();
    let ns = others(&mut bed);
    let expected = ruleset(&ns);
    for family in Family::ALL {
        restore(&ns, family, &iptables(family, 3));
    }
    let did = removes_all_but(&ns, &expected);
    for line in [
        "removed: rule in ip nat (nf_tables) PREROUTING: jump to KUBE-SERVICES\n",
        "removed: rule in ip6 filter (nf_tables) FORWARD: jump to KUBE-FORWARD\n",
        "removed: chain ip nat (nf_tables) KUBE-SEP-BAAAAAAAAAAAAAAA\n",
        "removed: chain ip6 mangle (nf_tables) KUBE-PROXY-CANARY\n",
    ] {
        assert!(did.contains(line), "{line}: {did}");
    }
    assert!(!did.contains("KUBE-FIREWALL") && !did.contains("KUBE-ROUTER"), "{did}");
    assert!(cleanup(&ns, &["--kube-proxy"]).1.contains("nothing of kube-proxy is on this node"));
}

#[test]
fn nftables_mode() {
    let mut bed = Bed::new("ckn").unwrap();
    let ns = others(&mut bed);
    let expected = ruleset(&ns);
    for family in Family::ALL {
        feed(&ns, "nft", &["-f", "-"], &nftables(family)).unwrap();
    }
    let did = removes_all_but(&ns, &expected);
    assert!(
        did.contains("removed: nftables table ip kube-proxy\nremoved: nftables table ip6 kube-proxy\n"),
        "{did}"
    );
}

/// Larger than the usual buffers of a socket.
#[test]
fn thousands_of_services() {
    let mut bed = Bed::new("ckl").unwrap();
    let ns = others(&mut bed);
    let expected = ruleset(&ns);
    restore(&ns, Family::V4, &iptables(Family::V4, 5_000));
    let start = std::time::Instant::now();
    let (ok, did, errors) = cleanup(&ns, &["--kube-proxy"]);
    let took = start.elapsed();
    assert!(ok, "{errors}");
    assert!(did.lines().count() > 15_000);
    let left = ruleset(&ns);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert!(
        left == expected,
        "{:?}",
        lines(&left).symmetric_difference(&lines(&expected)).take(20).collect::<Vec<_>>()
    );
    println!("took {took:?}");
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
}

#[test]
fn chain_with_a_foreign_jump_stays_and_is_reported() {
    let mut bed = Bed::new("ckk").unwrap();
    let ns = others(&mut bed);
    restore(
        &ns,
        Family::V4,
        "*nat\n:KUBE-MARK-MASQ - [0:0]\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n-A CNI-HOSTPORT-DNAT -j KUBE-MARK-MASQ\nCOMMIT\n",
    );
    let expected = ruleset(&ns);
    let more = iptables(Family::V4, 2)
        .replace(":KUBE-MARK-MASQ - [0:0]\n", "")
        .replace("-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n", "");
    restore(&ns, Family::V4, &more);
    let did = removes_all_but(&ns, &expected);
    assert!(
        did.contains("left: chain ip nat (nf_tables) KUBE-MARK-MASQ: chain CNI-HOSTPORT-DNAT has a rule that jumps to it"),
        "{did}"
    );
}

/// The rules without counters and comments.
fn legacy_rules(ns: &Netns, program: &str) -> String {
    let saved = output(&mut ns.command(program).unwrap());
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
fn older_iptables() {
    let mut bed = Bed::new("ckb").unwrap();
    let ns = bed.add_node("n").unwrap().ns;
    if let Err(said) = feed(&ns, "iptables-legacy-restore", &["--noflush"], OTHERS) {
        assert!(!std::path::Path::new("/proc/net/ip_tables_names").exists(), "{said}");
        println!("skipped: this kernel has only nf_tables: {said}");
        return;
    }
    feed(&ns, "ip6tables-legacy-restore", &["--noflush"], OTHERS).unwrap();
    let saves = ["iptables-legacy-save", "ip6tables-legacy-save"];
    let all = || saves.map(|save| legacy_rules(&ns, save));
    let expected = all();
    feed(&ns, "iptables-legacy-restore", &["--noflush"], &iptables(Family::V4, 3)).unwrap();
    feed(&ns, "ip6tables-legacy-restore", &["--noflush"], &iptables(Family::V6, 3)).unwrap();
    let full = all();
    let (ok, would, errors) = cleanup(&ns, &["--kube-proxy", "--dry-run"]);
    assert!(
        ok && would.contains("would remove: chain ip6tables nat (legacy) KUBE-SERVICES"),
        "{would}{errors}"
    );
    assert_eq!(all(), full);

    let mut without = ns.command(lbr_tests::agent::binary().unwrap()).unwrap();
    let said = output(without.args(["cleanup", "--kube-proxy"]).env("PATH", "/nowhere"));
    assert!(
        said.contains("left: iptables-legacy table nat") && said.contains("iptables-legacy-save -t nat"),
        "{said}"
    );
    assert_eq!(all(), full);

    let (ok, did, errors) = cleanup(&ns, &["--kube-proxy"]);
    assert!(
        ok && did.contains("removed: rule in iptables nat (legacy) PREROUTING: jump to KUBE-SERVICES"),
        "{did}{errors}"
    );
    assert_eq!(all(), expected, "{did}");
    let (ok, again, errors) = cleanup(&ns, &["--kube-proxy"]);
    assert!(ok && again.contains("nothing of kube-proxy"), "{again}{errors}");
}

/// An interface with that name and another type belongs to another program.
#[test]
fn ipvs_interface_is_identified_by_its_type() {
    let mut bed = Bed::new("ckv").unwrap();
    let ns = bed.add_node("n").unwrap().ns;
    ns.ip(["link add kube-ipvs0 type bridge"]).unwrap();
    let (ok, said, errors) = cleanup(&ns, &["--kube-proxy"]);
    assert!(ok && said.contains("left: interface kube-ipvs0: is of type bridge"), "{said}{errors}");
    ns.ifindex("kube-ipvs0").unwrap();
    ns.ip(["link del kube-ipvs0"]).unwrap();
    // Not every kernel has interfaces of type dummy.
    if ns.ip(["link add kube-ipvs0 type dummy", "addr add 10.96.0.1/32 dev kube-ipvs0"]).is_ok() {
        let (ok, said, errors) = cleanup(&ns, &["--kube-proxy"]);
        assert!(ok && said.contains("removed: interface kube-ipvs0"), "{said}{errors}");
        ns.ifindex("kube-ipvs0").unwrap_err();
    }
}
