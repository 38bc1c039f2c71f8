//! `lbr monitor` on what the shipped programs report.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use lbr_common::policy::policy_flags;
use lbr_common::verdict::Verdict;
use lbr_tests::agent::binary;

use super::Policies;
use crate::world::{PORT, World, at, nets, syn};

/// How many connections are opened, one every 100 ms: more than the monitor takes to start in software emulation.
const CONNECTIONS: u16 = 1_200;

/// The first line of the monitor. Connections are opened until it comes, as the monitor leaves out events from before
/// it was ready.
fn first_line(world: &mut World, args: &[&str], mut open: impl FnMut(&mut World, u16)) -> serde_json::Value {
    let mut monitor = Command::new(binary().unwrap());
    monitor.arg("monitor").args(args).args(["--json", "--bpffs"]).arg(world.programs.pins());
    let mut monitor = monitor.stdout(Stdio::piped()).spawn().unwrap();
    let (tell, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(monitor.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
    let line = (PORT..PORT + CONNECTIONS).find_map(|port| {
        open(world, port);
        lines.recv_timeout(Duration::from_millis(100)).ok()
    });
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    serde_json::from_str(&line.unwrap()).unwrap()
}

#[track_caller]
fn expect(line: &serde_json::Value, verdict: Verdict) {
    assert_eq!(line["verdict"], verdict.name(), "{line}");
    assert_eq!(line["direction"], "egress", "{line}");
    assert!(line.to_string().contains("10.244.1.2"), "{line}");
}

/// A denial reaches a running monitor with its details.
#[test]
fn prints_a_denial() {
    let mut world = World::new("monitor");
    let [net, _] = nets();
    let mut policies = Policies::pods(&mut world, &net);
    policies.pod(&world, 0, net.client, policy_flags::ISOLATED_OUT);
    policies.apply(&mut world);
    let line = first_line(&mut world, &[], |world, port| {
        let ran = world.send(&syn(at(net.client, port), at(net.other, 80)).build());
        assert_eq!(ran.verdict, Verdict::EgressDenied);
    });
    expect(&line, Verdict::EgressDenied);
}

/// `--audit` prints audited connections, and no denials.
#[test]
fn prints_an_audit() {
    let mut world = World::new("monitor-audit");
    let [net, _] = nets();
    let mut policies = Policies::pods(&mut world, &net);
    policies.pod(&world, 0, net.client, policy_flags::AUDIT_OUT);
    policies.pod(&world, 1, net.local, policy_flags::ISOLATED_OUT);
    policies.apply(&mut world);
    let line = first_line(&mut world, &["--audit"], |world, port| {
        let ran = world.answer(&syn(at(net.local, port), at(net.other, 80)).build());
        assert_eq!(ran.verdict, Verdict::EgressDenied);
        let ran = world.send(&syn(at(net.client, port), at(net.other, 80)).build());
        assert_eq!((ran.verdict, &ran.audits[..]), (Verdict::Allowed, &[Verdict::EgressAudited][..]));
    });
    expect(&line, Verdict::EgressAudited);
}
