//! Fragmented datagrams: later fragments use the ports of the first one.

use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Ext, Packet, Parsed};
use lbr_tests::testrun::Action;

use super::policy::{Policies, SET};
use super::world::{
    LOCAL, PORT, PROTOS, SCTP, TCP, UDP, World, at, expect, expect_drop, expect_untouched, nets, packet,
};

/// The transport datagram of these fragments.
fn join(frames: &[Vec<u8>], l4: usize) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame[l4..].to_vec()).collect()
}

#[test]
fn there_and_back() {
    World::both("fragments", |world| {
        for net in nets() {
            for proto in PROTOS {
                for (len, size) in [(2000, 1448), (60_000, 1448), (30, 8), (41, 24)] {
                    let (client, service) = (at(net.client, PORT), at(net.service, 80));
                    // SCTP's checksum covers fragments to come, so its ports stay.
                    let target = if proto == SCTP { 80 } else { 8080 };
                    let (backend, id) = (at(net.local, target), 0x1000 + len);
                    world.service(service, proto, &[backend]);
                    world.reset_flows();
                    world.connect(proto, client, service, LOCAL);
                    let payload: Vec<u8> = (0..len).map(|n: u32| n as u8).collect();
                    // The first fragment must hold all of the header that the program reads.
                    let size = if proto == UDP { size } else { size.max(24) };
                    let directions = [(client, service, client, backend), (backend, client, service, client)];
                    for (src, dst, new_src, new_dst) in directions {
                        let verdict = if src == client { Verdict::ToBackend } else { Verdict::ToClient };
                        let mut translated = Vec::new();
                        for frame in packet(proto, src, dst).payload(&payload).fragments(id, size) {
                            let ran = if src == client { world.send(&frame) } else { world.answer(&frame) };
                            let (got, sent) =
                                (expect(&ran, verdict, Action::Redirect), Parsed::frame(&frame).unwrap());
                            assert_eq!((got.src.ip(), got.dst.ip()), (new_src.ip(), new_dst.ip()));
                            assert_eq!((got.fragment, &got.exts), (sent.fragment, &sent.exts));
                            assert_eq!(got.payload, sent.payload);
                            translated.push(ran.packet);
                        }
                        let whole = join(&translated, if net.family.is_v6() { 62 } else { 34 });
                        let wanted = packet(proto, new_src, new_dst).payload(&payload).build();
                        assert_eq!(
                            whole,
                            wanted[if net.family.is_v6() { 54 } else { 34 }..],
                            "{proto} {len} {size}"
                        );
                    }
                }
            }
        }
    });
}

/// The checksum of an SCTP packet whose ports change cannot be made from its first fragment.
#[test]
fn of_sctp_with_other_ports() {
    for net in nets() {
        let mut world = World::new("fragments-sctp");
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, SCTP, &[backend]);
        world.connect(SCTP, client, service, LOCAL);
        let frames = packet(SCTP, client, service).payload(&[1; 500]).fragments(9, 256);
        expect_drop(&world.send(&frames[0]), Verdict::SctpFragment, &frames[0]);
        expect_drop(&world.send(&frames[1]), Verdict::FragmentUnknown, &frames[1]);
    }
}

/// A pod that is isolated for egress sends fragmented datagrams to each end that its policies allow: to its own node too,
/// whose packets have no flow. Later fragments have no ports that could be judged.
#[test]
fn from_an_isolated_pod_to_every_end() {
    for net in nets() {
        let mut world = World::new("fragments-isolated");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_OUT);
        policies.allow(SET, direction::EGRESS, UDP, 8080);
        policies.apply(&mut world);
        let ends = [
            (net.router, Verdict::Node),
            (net.local, Verdict::Allowed),
            (net.remote, Verdict::Allowed),
            (net.other, Verdict::Allowed),
        ];
        for (id, (ip, verdict)) in (1..).zip(ends) {
            let fragments = |port| {
                let whole = Packet::udp(at(net.client, PORT), at(ip, port)).payload(&[7; 4000]);
                whole.fragments(id + u32::from(port), 1448)
            };
            for frame in fragments(8080) {
                expect_untouched(&world.send(&frame), verdict, &frame);
            }
            // Policies do not keep a pod from its own node.
            if verdict == Verdict::Node {
                continue;
            }
            let denied = fragments(53);
            expect_drop(&world.send(&denied[0]), Verdict::EgressDenied, &denied[0]);
            for frame in &denied[1..] {
                expect_drop(&world.send(frame), Verdict::NotJudged, frame);
            }
        }
    }
}

/// By the stack, to the client's pod.
#[test]
fn an_answer_from_elsewhere() {
    let mut world = World::new("fragments-remote");
    for net in nets() {
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.remote, 8080));
        world.service(service, UDP, &[backend]);
        expect(&world.send(&packet(UDP, client, service).build()), Verdict::ToBackend, Action::Pass);
        for frame in Packet::udp(backend, client).payload(&[3; 4000]).fragments(99, 1448) {
            let out = expect(&world.deliver(&frame), Verdict::ToClient, Action::Pass);
            assert_eq!((out.src.ip(), out.dst.ip()), (service.ip(), client.ip()));
        }
    }
}

/// A fragment without its first one cannot be translated, and must not leave untranslated.
#[test]
fn without_the_first() {
    let mut world = World::new("fragments-unknown");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        world.service(service, UDP, &[at(net.local, 8080)]);
        let frames = |dst, id| Packet::udp(client, dst).payload(&[3; 4000]).fragments(id, 1448);
        let unknown = frames(service, 1);
        expect_drop(&world.send(&unknown[1]), Verdict::FragmentUnknown, &unknown[1]);
        // Out of order: fragments behind the first one are translated.
        expect(&world.send(&unknown[0]), Verdict::ToBackend, Action::Redirect);
        expect(&world.send(&unknown[2]), Verdict::ToBackend, Action::Redirect);
        expect(&world.send(&unknown[1]), Verdict::ToBackend, Action::Redirect);
        // Another datagram needs a first fragment of its own.
        let other = frames(service, 2);
        expect_drop(&world.send(&other[2]), Verdict::FragmentUnknown, &other[2]);
        // Datagrams without a Service pass, with their first fragment and without.
        for frame in frames(at(net.other, 80), 1) {
            expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
        }
        let lone = frames(at(net.other, 80), 2).remove(1);
        expect_untouched(&world.send(&lone), Verdict::FragmentNotTracked, &lone);
        expect_untouched(&world.deliver(&lone), Verdict::FragmentNotTracked, &lone);
    }
}

/// A later fragment of an ICMP message has no type. Its bytes at the place of the type must not make it an error.
#[test]
fn later_fragments_of_icmp() {
    let mut world = World::new("fragments-icmp");
    for net in nets() {
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, UDP, &[backend]);
        expect(&world.send(&packet(UDP, client, service).build()), Verdict::ToBackend, Action::Redirect);
        // The second fragment's payload reads like an error about the flow.
        let quoted = Packet::udp(client, backend).payload(b"x").build_ip();
        let payload = [&[0; 16][..], &[0; 8], &quoted].concat();
        let frames = Packet::echo(net.other, net.client, 1, 1).payload(&payload).fragments(5, 24);
        expect_untouched(&world.deliver(&frames[1]), Verdict::FragmentNotTracked, &frames[1]);
        let frames = Packet::echo(net.client, net.other, 1, 1).payload(&payload).fragments(5, 24);
        expect_untouched(&world.send(&frames[1]), Verdict::FragmentNotTracked, &frames[1]);
        let frames = Packet::echo(net.client, net.service, 1, 1).payload(&payload).fragments(5, 24);
        expect_drop(&world.send(&frames[1]), Verdict::FragmentUnknown, &frames[1]);
    }
}

/// A fragment header on a whole datagram (RFC 6946), and one behind other headers.
#[test]
fn atomic_and_nested() {
    World::both("fragments-atomic", |world| {
        let [_, net] = nets();
        for proto in PROTOS {
            let target = if proto == SCTP { 80 } else { 8080 };
            let (client, service, backend) =
                (at(net.client, PORT), at(net.service, 80), at(net.local, target));
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            let atomic = Ext::Fragment { id: 7, offset: 0, more: false };
            let frame = packet(proto, client, service).ext(Ext::HopByHop(vec![])).ext(atomic).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            assert_eq!((out.src, out.dst), (client, backend));
            let nested = packet(proto, client, service).ext(Ext::DestOpts(vec![0; 20])).payload(&[1; 500]);
            for frame in nested.fragments(8, 104) {
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                assert_eq!((out.src.ip(), out.dst.ip()), (client.ip(), backend.ip()));
            }
        }
    });
}

/// No sender puts the ports into the second fragment only, so they are not guessed.
#[test]
fn a_first_fragment_without_ports() {
    let mut world = World::new("fragments-tiny");
    let [_, net] = nets();
    let (client, service) = (at(net.client, PORT), at(net.service, 80));
    world.service(service, TCP, &[at(net.local, 8080)]);
    let frames = packet(TCP, client, service).fragments(9, 8);
    expect_drop(&world.send(&frames[0]), Verdict::Malformed, &frames[0]);
    expect_drop(&world.send(&frames[1]), Verdict::FragmentUnknown, &frames[1]);
}
