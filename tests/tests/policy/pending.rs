//! C19: a pod whose link exists before its object. (No plugin calls the gate in front of a pod's start yet.)

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lbr_tests::probe::{Client, Server, is_timeout};
use lbr_tests::topology::PodOptions;
use serde_json::{Value, json};

use crate::case::{Case, Expect, Line};
use crate::packets::policies;
use crate::probe::{long, short};
use crate::world::World;

/// The longest time from a pod's link to its isolation, on a busy machine.
fn attached() -> Duration {
    lbr_tests::patience::millis(1_000)
}

/// x/a and x/c are not known yet.
fn unknown(mut case: Case) -> Case {
    for name in ["x/a", "x/c"] {
        case.pods.insert(name.to_owned(), Value::Null);
    }
    case
}

/// Isolates the late pods only.
fn isolated() -> Case {
    let late = json!([{"key": "pod", "operator": "In", "values": ["a", "c", "late"]}]);
    policies("isolated", &json!([{"in": "x", "podSelector": {"matchExpressions": late}}]))
}

fn check(world: &World, case: &Case, lines: &[(&str, Expect)]) -> Result<()> {
    world.apply(case)?;
    let parsed = lines.iter().map(|(text, expect)| Line::parse(text, *expect)).collect::<Result<Vec<_>>>()?;
    let probes = world.probes(&parsed)?;
    let wrong = world.wrong(&probes, short());
    let again: Vec<_> = wrong.into_iter().map(|(probe, _)| probe).collect();
    let wrong = world.wrong(&again, long());
    let texts: Vec<String> =
        wrong.iter().map(|(p, got)| format!("  {p}: expected {:?}, got {got:?}", p.expect)).collect();
    ensure!(texts.is_empty(), "{}", texts.join("\n"));
    Ok(())
}

const OWN_NODE: [(&str, Expect); 2] = [
    ("node-a -> x/a tcp/80 udp/80 icmp", Expect::Allowed),
    ("node-b -> x/c tcp/80 udp/80 icmp", Expect::Allowed),
];
const TO_PODS: &str = "x/b y/a y/b ext-100 -> x/a x/c tcp/80 udp/80";
const FROM_PODS: &str = "x/a x/c -> x/b y/a y/b ext-100 tcp/80 udp/80";

#[test]
fn c19_pending_allow() {
    let world = World::start("pa", &["--pending=allow"]).unwrap();
    let mut lines = vec![(TO_PODS, Expect::Allowed), (FROM_PODS, Expect::Allowed)];
    lines.extend(OWN_NODE);
    check(&world, &unknown(Case::default()), &lines).unwrap();
    // A policy that will select the pods has no effect before they are known.
    check(&world, &unknown(isolated()), &lines).unwrap();
    lines[0].1 = Expect::Denied;
    check(&world, &isolated(), &lines).unwrap();
}

#[test]
fn c19_pending_deny() {
    let world = World::start("pd", &["--pending=deny"]).unwrap();
    let mut lines = vec![(TO_PODS, Expect::Denied), (FROM_PODS, Expect::Denied)];
    lines.extend(OWN_NODE);
    check(&world, &unknown(Case::default()), &lines).unwrap();
    for node in [0, 1] {
        assert!(world.counted(node, "pod_pending").unwrap() > 0, "not counted on node {node}");
    }
    // Known, and not isolated.
    lines[..2].iter_mut().for_each(|line| line.1 = Expect::Allowed);
    check(&world, &Case::default(), &lines).unwrap();
    // Known, and isolated by an earlier policy.
    check(&world, &unknown(isolated()), &OWN_NODE).unwrap();
    lines[0].1 = Expect::Denied;
    check(&world, &isolated(), &lines).unwrap();
}

/// The object and a policy come first, the link comes later: isolated as soon as lbr has seen the link.
#[test]
fn c19_known_before_its_link() {
    let mut world = World::start("pl", &[]).unwrap();
    let ips = json!([{"ip": "10.244.1.40"}, {"ip": "fd00:10:244:1::40"}]);
    let mut case = isolated();
    case.objects.push(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "x", "name": "late", "uid": "late", "labels": {"pod": "late"}},
        "spec": {"nodeName": "node-a", "containers": []},
        "status": {"phase": "Running", "podIP": "10.244.1.40", "podIPs": ips},
    }));
    world.apply(&case).unwrap();
    let options = PodOptions { host: Some(40), ..PodOptions::default() };
    let late = world.bed.add_pod(&world.nodes[0].clone(), "x-late", options).unwrap();
    let begin = Instant::now();
    let _server = Server::pod(&late, 80).unwrap();
    for from in ["y/a", "y/b", "ext-100"] {
        let client = Client::new(&world.actor(from).unwrap().ns).timeout(short());
        for ip in late.addresses() {
            let target = (ip, 80).into();
            while client.tcp(target).is_ok() {
                assert!(begin.elapsed() < attached(), "{from} -> {target}: still not isolated");
            }
            let error = client.tcp(target).unwrap_err();
            assert!(is_timeout(&error), "{from} -> {target}: {error:#}");
        }
    }
    for ip in late.addresses() {
        Client::new(&world.nodes[0].ns).tcp((ip, 80).into()).unwrap();
    }
}
