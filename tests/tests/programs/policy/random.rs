//! Random clusters on the real maps: the programs decide as the specification does.

use std::net::IpAddr;

use lbr_agent::compile::compile;
use lbr_agent::dataplane::Dataplane as _;
use lbr_agent::ids::Ids;
use lbr_agent::reconcile::Reconciler;
use lbr_common::link::{Link, link_flags};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::oracle::{Answer, Case, Expected, tuple_text};
use lbr_tests::testrun::{self, Action};

use crate::packets::{ECHO_ID, first_packet};
use crate::world::{World, part};

const CLUSTERS: u64 = 1_400;
const TUPLES: usize = 100;
/// Connections that must have met a program: those that concern no pod of the node meet none.
const AT_LEAST: usize = 100_000;
/// Interface indexes that random clusters have.
const LINKS: std::ops::Range<u32> = 9..21;

/// The tuple that the program sees.
fn seen(tuple: &Tuple) -> Tuple {
    match tuple.proto {
        proto::TCP | proto::UDP | proto::SCTP => *tuple,
        proto::ICMP | proto::ICMPV6 => Tuple { src_port: ECHO_ID, dst_port: 0, ..*tuple },
        _ => Tuple { src_port: 0, dst_port: 0, ..*tuple },
    }
}

/// The expected verdict, action and audits.
fn wanted(case: &Case, tuple: &Tuple, expected: &Expected) -> (Verdict, Action, Vec<Verdict>) {
    if expected.egress == Answer::Denied {
        return (Verdict::EgressDenied, Action::Drop, Vec::new());
    }
    if expected.ingress == Answer::Denied {
        return (Verdict::IngressDenied, Action::Drop, Vec::new());
    }
    let to_node = case.node.links.node_addresses.contains(&tuple.dst.into());
    let sides = [
        (&expected.audited_egress, Verdict::EgressAudited),
        (&expected.audited_ingress, Verdict::IngressAudited),
    ];
    let audits = sides.into_iter().filter(|(answer, _)| **answer == Answer::Denied);
    let verdict = if to_node { Verdict::Node } else { Verdict::Allowed };
    (verdict, Action::Pass, audits.map(|(_, verdict)| verdict).collect())
}

/// One agent sees one cluster after the other, so every switch from one to the next is tested too.
#[test]
fn programs_decide_as_the_specification_does() {
    let mut world = World::new("policy");
    // All links that a cluster may have exist from the start, so that programs are attached once only.
    for index in LINKS {
        world.programs.veth(index).unwrap();
        let link = Link { flags: link_flags::PEER, master: 0 };
        world.programs.kernel.tables().links.insert(&index, &link).unwrap();
    }
    // A bridge port with an unknown pod behind it.
    let unknown = world.programs.links[2];
    let mut reconciler = Reconciler::load(&mut world.programs.kernel).unwrap();
    let links = reconciler.actual().links;
    let mut ids = Ids::new();
    let (mut asked, mut denied, mut audited) = (0, 0, 0);
    for seed in 0..CLUSTERS / part() as u64 {
        let case = Case::random(seed);
        let mut tables = compile(case.store().unwrap().state(), &case.node, &mut ids);
        assert!(tables.links.keys().all(|index| LINKS.contains(index)));
        tables.links = links.clone();
        let outcome = reconciler.apply(tables, true, &mut world.programs.kernel);
        assert!(outcome.is_converged(), "seed {seed}: {:?}", outcome.problems);

        for tuple in case.tuples(seed, TUPLES) {
            let (src, dst): (IpAddr, IpAddr) = (tuple.src.into(), tuple.dst.into());
            let (hook, addr, pod) = match (case.local_pod(src), case.local_pod(dst)) {
                (Some(pod), _) => (Hook::FromPod, src, pod),
                (None, Some(pod)) => (Hook::ToPod, dst, pod),
                (None, None) => continue,
            };
            // All addresses of a pod are behind one link.
            let known = &case.node.links.addresses;
            let link = [addr].iter().chain(&pod).find_map(|addr| known.get(addr)).copied().unwrap_or(unknown);
            let (frame, seen) = (first_packet(&tuple, &[]).build(), seen(&tuple));
            // A packet from an address behind a link came by that link.
            let entered_by = match (hook, known.get(&src)) {
                (Hook::FromPod, _) => link,
                (_, by) => by.copied().unwrap_or(testrun::Programs::WIRE),
            };
            let ran = world.programs.run_at(hook, link, entered_by, &frame).unwrap();
            let expected = case.expected(&tuple);
            let wanted = wanted(&case, &tuple, &expected);
            denied += usize::from(wanted.1 == Action::Drop);
            audited += wanted.2.len();
            let got = (ran.verdict, ran.action, ran.audits);
            assert_eq!(
                got,
                wanted,
                "seed {seed}: {}\nexpected {expected:?}\n{}",
                tuple_text(&tuple),
                case.yaml()
            );
            // The next connection is judged regardless of the flow of this one.
            for key in [seen, seen.reversed()] {
                let _ = world.programs.flows.remove(&key);
            }
            asked += 1;
        }
    }
    println!("{asked} connections, {denied} of them denied, {audited} audits");
    let least = if part() == 1 { AT_LEAST } else { 1 };
    assert!(asked >= least && denied * 5 > asked, "{asked} connections, {denied} of them denied");
    assert!(audited * 50 > asked, "{audited} audits");
}
