//! Random clusters on the real maps: whether the programs decide as the specification does.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use lbr_agent::compile::{Ids, compile};
use lbr_agent::dataplane::{Count, Pinned};
use lbr_agent::desired::{Desired, EndpointPolicy};
use lbr_agent::reconcile::Reconciler;
use lbr_common::policy::{DenialKey, Policy, direction, policy_flags};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::agent::binary;
use lbr_tests::oracle::{Case, tuple_text};
use lbr_tests::packet::Packet;
use lbr_tests::testrun::Action;

use super::world::{PORT, World, at, nets, syn};

const CLUSTERS: u64 = 1_400;
const TUPLES: usize = 100;
/// What has to come together: the connections that concern no pod of the node meet no program.
const AT_LEAST: usize = 100_000;
/// Of an echo.
const ID: u16 = 7;

/// The first packet of a connection, and the tuple that the program sees.
fn first_packet(tuple: &Tuple) -> (Vec<u8>, Tuple) {
    let (src, dst): (IpAddr, IpAddr) = (tuple.src.into(), tuple.dst.into());
    let (from, to) = (SocketAddr::new(src, tuple.src_port), SocketAddr::new(dst, tuple.dst_port));
    match tuple.proto {
        proto::TCP => (syn(from, to).build(), *tuple),
        proto::UDP => (Packet::udp(from, to).build(), *tuple),
        proto::SCTP => {
            let ports = [tuple.src_port.to_be_bytes(), tuple.dst_port.to_be_bytes()].concat();
            // Verification tag and checksum, which nobody looks at.
            let header = [ports, vec![0; 8]].concat();
            (Packet::raw(src, dst, proto::SCTP).payload(&header).build(), *tuple)
        }
        proto::ICMP | proto::ICMPV6 => {
            let seen = Tuple { src_port: ID, dst_port: 0, ..*tuple };
            (Packet::echo(src, dst, ID, 1).build(), seen)
        }
        other => {
            let seen = Tuple { src_port: 0, dst_port: 0, ..*tuple };
            (Packet::raw(src, dst, other).payload(b"whatever").build(), seen)
        }
    }
}

/// One agent sees one cluster after the other, so every switch from one to the next is tried too.
#[test]
fn decide_as_the_specification_does() {
    let mut world = World::new("policy");
    let link = world.programs.links[0];
    let mut reconciler = Reconciler::load(&mut world.programs.kernel).unwrap();
    let links = reconciler.actual().links;
    let mut ids = Ids::new();
    let (mut asked, mut denied) = (0, 0);
    for seed in 0..CLUSTERS {
        let case = Case::random(seed);
        let mut tables = compile(case.store().unwrap().state(), &case.node, &mut ids);
        tables.links = links.clone();
        // All pods stand behind the one link that the packets come from.
        tables.link_policy.clear();
        tables.endpoints.values_mut().for_each(|endpoint| endpoint.link = link);
        let outcome = reconciler.apply(tables.clone(), true, &mut world.programs.kernel);
        assert!(outcome.is_converged(), "seed {seed}: {:?}", outcome.problems);

        let is_pod = |addr: &lbr_common::addr::Addr| {
            tables.endpoints.get(addr).is_some_and(|endpoint| endpoint.policy.flags & policy_flags::POD != 0)
        };
        for tuple in case.tuples(seed, TUPLES) {
            let hook = match (is_pod(&tuple.src), is_pod(&tuple.dst)) {
                (true, _) => Hook::FromPod,
                (false, true) => Hook::ToPod,
                (false, false) => continue,
            };
            let (frame, seen) = first_packet(&tuple);
            let ran = world.run(hook, 0, &frame);
            let expected = case.expected(&tuple);
            let (verdict, action) = if !expected.egress.passes() {
                (Some(Verdict::EgressDenied), Action::Drop)
            } else if !expected.ingress.passes() {
                (Some(Verdict::IngressDenied), Action::Drop)
            } else {
                (None, Action::Pass)
            };
            let is_right = ran.action == action && verdict.is_none_or(|verdict| verdict == ran.verdict);
            assert!(
                is_right,
                "seed {seed}: {}\nexpected {expected:?}\ngot {:?}, {:?}\n{}",
                tuple_text(&tuple),
                ran.verdict,
                ran.action,
                case.yaml()
            );
            // The next one is judged, whatever this one began.
            for key in [seen, seen.reversed()] {
                let _ = world.programs.flows.remove(&key);
            }
            asked += 1;
            denied += usize::from(verdict.is_some());
        }
    }
    println!("{asked} connections, {denied} of them denied");
    assert!(asked >= AT_LEAST && denied * 5 > asked, "{asked} connections, {denied} of them denied");
}

/// What audited policies would deny passes, and is counted for the set and as a verdict of its own.
#[test]
fn what_would_be_denied_is_counted_and_passes() {
    let mut world = World::new("audit");
    let link = world.programs.links[0];
    let [net, _] = nets();
    let mut wanted = Desired::default();
    for (addr, link, audit, flag) in
        [(net.client, link, 9, policy_flags::AUDIT_OUT), (net.other, 0, 8, policy_flags::AUDIT_IN)]
    {
        let policy = Policy { set: 0, audit, flags: policy_flags::POD | flag };
        wanted.endpoints.insert(addr.into(), EndpointPolicy { link, policy });
    }
    let mut reconciler = Reconciler::load(&mut world.programs.kernel).unwrap();
    wanted.links = reconciler.actual().links;
    assert!(reconciler.apply(wanted, true, &mut world.programs.kernel).is_converged());

    let frame = syn(at(net.client, PORT), at(net.other, 80)).build();
    for _ in 0..2 {
        // The second one belongs to a flow, and is not judged again.
        let ran = world.send(&frame);
        assert_eq!((ran.verdict, ran.action), (Verdict::Allowed, Action::Pass));
    }
    let pinned = Pinned::open(world.programs.pins()).unwrap();
    let key = |set, way| DenialKey { set, direction: way as u16, audited: 1 };
    let mut denials: Vec<_> = pinned.denials().unwrap().into_iter().map(|(k, c)| (k, c.packets)).collect();
    denials.sort_by_key(|(key, _)| key.set);
    assert_eq!(denials, [(key(8, direction::INGRESS), 1), (key(9, direction::EGRESS), 1)]);
    for verdict in [Verdict::EgressAudited, Verdict::IngressAudited] {
        let audited = |count: &&Count| count.verdict == verdict;
        assert_eq!(
            pinned.counters().unwrap().iter().find(audited).unwrap().counter.packets,
            1,
            "{verdict:?}"
        );
    }
}

/// Until a pod is known it may have any address, but none that is somebody else's.
#[test]
fn a_link_without_a_known_pod_sends_from_addresses_of_nobody() {
    let mut world = World::new("unknown");
    let [net, _] = nets();
    let mut wanted = Desired::default();
    let (pod, node) = (policy_flags::POD, policy_flags::NODE);
    for (addr, link, flags) in [(net.remote, 9999, pod), (net.remote2, 9999, pod), (net.router, 0, node)] {
        let policy = Policy { flags, ..Policy::default() };
        wanted.endpoints.insert(addr.into(), EndpointPolicy { link, policy });
    }
    let mut reconciler = Reconciler::load(&mut world.programs.kernel).unwrap();
    wanted.links = reconciler.actual().links;
    assert!(reconciler.apply(wanted, true, &mut world.programs.kernel).is_converged());
    // To a pod, so that each connection is a flow.
    let mut send = |from| world.send(&syn(at(from, PORT), at(net.remote2, 80)).build()).verdict;
    assert_eq!([net.remote, net.router].map(&mut send), [Verdict::SpoofedSource; 2]);
    assert_eq!(send(net.client), Verdict::Allowed);
}

/// A denial reaches whoever watches, with what is known of it.
#[test]
fn the_monitor_prints_a_denial() {
    let mut world = World::new("monitor");
    let link = world.programs.links[0];
    let [net, _] = nets();
    let policy = Policy { set: 9, audit: 0, flags: policy_flags::POD | policy_flags::ISOLATED_OUT };
    let mut wanted = Desired::default();
    wanted.endpoints.insert(net.client.into(), EndpointPolicy { link, policy });
    wanted.link_policy.insert(link, policy.flags);
    let mut reconciler = Reconciler::load(&mut world.programs.kernel).unwrap();
    wanted.links = reconciler.actual().links;
    assert!(reconciler.apply(wanted, true, &mut world.programs.kernel).is_converged());

    let mut monitor = Command::new(binary().unwrap());
    monitor.args(["monitor", "--json", "--bpffs"]).arg(world.programs.pins()).stdout(Stdio::piped());
    let mut monitor = monitor.spawn().unwrap();
    let (tell, lines) = std::sync::mpsc::channel();
    let output = BufReader::new(monitor.stdout.take().unwrap());
    std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| tell.send(line).is_ok()));
    // It leaves out what happened before it was ready, so it is shown more than one.
    let frame = syn(at(net.client, PORT), at(net.other, 80)).build();
    let line = (0..100).find_map(|_| {
        assert_eq!(world.send(&frame).verdict, Verdict::EgressDenied);
        lines.recv_timeout(Duration::from_millis(100)).ok()
    });
    let spoofed = syn(at(net.remote, PORT), at(net.other, 81)).build();
    // Each right behind a denial, of which the program's work space still knows.
    let ran = [(); 5].map(|()| (world.send(&frame).verdict, world.send(&spoofed).verdict));
    let others: Vec<String> = std::iter::from_fn(|| lines.recv_timeout(Duration::from_secs(5)).ok())
        .filter(|line| line.contains("spoofed_source"))
        .take(ran.len())
        .collect();
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    let line: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
    assert!(line.to_string().contains("egress_denied") && line.to_string().contains("10.244.1.2"), "{line}");
    let denials = Pinned::open(world.programs.pins()).unwrap().denials().unwrap();
    let keys: Vec<_> = denials.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [DenialKey { set: 9, direction: direction::EGRESS as u16, audited: 0 }]);

    // Of a packet that nobody's policies were asked about nothing is told but what is in it.
    assert_eq!(ran, [(Verdict::EgressDenied, Verdict::SpoofedSource); 5]);
    assert_eq!(others.len(), ran.len());
    for line in others {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["source"], at(net.remote, PORT).to_string());
        assert_eq!((&line["judged_pod"], &line["policies"]), (&"".into(), &serde_json::json!([])));
    }
}
