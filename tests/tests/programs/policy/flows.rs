//! Connections without a Service: those that are older than their flow, and those beside a Service's.

use lbr_common::conntrack::State;
use lbr_common::flow::flow_flags;
use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Packet, Parsed, flags};
use lbr_tests::testrun::{Action, Programs};

use super::{Policies, SET};
use crate::world::{
    CLIENT, ELSEWHERE, PORT, PROTOS, SCTP, TCP, World, answering, at, expect, expect_drop, expect_ends,
    expect_untouched, nets, opening, packet, syn, tuple,
};

/// The client of a mid-stream segment is unknown, so one of the two directions must be allowed.
#[test]
fn mid_stream_segment_passes_if_either_direction_is_allowed() {
    for net in nets() {
        let mut world = World::new("midflow");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
        policies.allow(SET, direction::EGRESS, TCP, 80);
        policies.allow(SET, direction::INGRESS, TCP, 90);
        policies.apply(&mut world);
        let pod = |port| at(net.client, port);
        let other = |port| at(net.other, port);
        // Segments of the pod as a client and as a server; then segments to it.
        for (from, to) in [(pod(PORT), other(80)), (pod(90), other(PORT))] {
            for bits in [flags::ACK, flags::SYN | flags::ACK, flags::FIN | flags::ACK] {
                let (sent, got) = (Packet::tcp(from, to, bits).build(), Packet::tcp(to, from, bits).build());
                expect_untouched(&world.send(&sent), Verdict::Allowed, &sent);
                let flow = world.flow(tuple(TCP, from, to));
                assert_eq!(flow.flags & flow_flags::PICKED_UP, flow_flags::PICKED_UP);
                world.reset();
                expect_untouched(&world.deliver(&got), Verdict::Allowed, &got);
                // One of its entries is enough for the other direction.
                expect_untouched(&world.send(&sent), Verdict::Allowed, &sent);
                world.reset();
            }
            // A reset may pass, and begins no flow.
            for bits in [flags::RST, flags::RST | flags::ACK, flags::RST | flags::SYN] {
                let (sent, got) = (Packet::tcp(from, to, bits).build(), Packet::tcp(to, from, bits).build());
                expect_untouched(&world.send(&sent), Verdict::StrayReset, &sent);
                expect_untouched(&world.deliver(&got), Verdict::StrayReset, &got);
                assert!(world.programs.flows.is_empty());
            }
        }
        for (from, to) in [(pod(PORT), other(81)), (pod(91), other(PORT)), (pod(80), other(90))] {
            for bits in [flags::ACK, flags::SYN | flags::ACK, flags::FIN | flags::ACK, flags::RST] {
                let sent = Packet::tcp(from, to, bits).build();
                expect_drop(&world.send(&sent), Verdict::EgressDenied, &sent);
                let got = Packet::tcp(to, from, bits).build();
                expect_drop(&world.deliver(&got), Verdict::IngressDenied, &got);
            }
        }
        // A SYN shows which side opens the connection.
        let sent = syn(pod(90), other(PORT)).build();
        expect_drop(&world.send(&sent), Verdict::EgressDenied, &sent);
        let got = syn(other(80), pod(PORT)).build();
        expect_drop(&world.deliver(&got), Verdict::IngressDenied, &got);

        // When it is judged again, both directions are tried too, for packets of either side.
        let (sent, got) =
            (packet(TCP, pod(90), other(PORT)).build(), packet(TCP, other(PORT), pod(90)).build());
        expect_untouched(&world.send(&sent), Verdict::Allowed, &sent);
        world.raise_epoch();
        expect_untouched(&world.deliver(&got), Verdict::Allowed, &got);
        expect_untouched(&world.send(&sent), Verdict::Allowed, &sent);
        policies.revoke();
        policies.apply(&mut world);
        expect_drop(&world.send(&sent), Verdict::EgressDenied, &sent);
        expect_drop(&world.deliver(&got), Verdict::EgressDenied, &got);
    }
}

/// One client port, to a Service and to its backend directly: the first connection keeps the port, whether the agent knows
/// the pods or not.
#[test]
fn beside_a_flow_to_a_service_with_the_same_backend() {
    for net in nets() {
        for proto in PROTOS {
            for (service_first, knows_pods) in [(true, true), (true, false), (false, true), (false, false)] {
                let mut world = World::new("beside");
                let _policies = knows_pods.then(|| Policies::pods(&mut world, &net));
                let (client, service) = (at(net.client, PORT), at(net.service, 80));
                let backend = at(net.remote, 8080);
                world.service(service, proto, &[backend]);
                let order = if service_first { [service, backend] } else { [backend, service] };
                let sources = order.map(|to| {
                    let frame = opening(proto, client, to).build();
                    let ran = world.send(&frame);
                    let is_first_plain = to == backend && !service_first;
                    let verdict = if is_first_plain { Verdict::Allowed } else { Verdict::ToBackend };
                    let out = expect(&ran, verdict, Action::Pass);
                    expect_ends(&frame, &out, out.src, backend);
                    out.src
                });
                assert_eq!(sources[0], client, "the first one keeps its port");
                assert_eq!(sources[1].ip(), client.ip());
                assert!(sources[1].port() >= 61_000, "{sources:?}");
                for answer in [answering, packet] {
                    for (to, source) in order.into_iter().zip(sources) {
                        let frame = answer(proto, backend, source).build();
                        let verdict = if to == backend && !service_first {
                            Verdict::Allowed
                        } else {
                            Verdict::ToClient
                        };
                        let out = expect(&world.deliver(&frame), verdict, Action::Pass);
                        expect_ends(&frame, &out, to, client);
                        let frame = packet(proto, client, to).build();
                        assert_eq!(
                            Parsed::frame(&world.send(&frame).packet).unwrap().src,
                            source,
                            "it keeps its port"
                        );
                    }
                }
            }
        }
    }
}

/// A limit: a connection between pods that the agent does not know, and whose begin lbr did not see, is no flow. A connection to
/// a Service takes its port.
#[test]
fn an_older_connection_of_an_unknown_pod_gives_way() {
    for net in nets() {
        let mut world = World::new("beside-older");
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let backend = at(net.remote, 8080);
        world.service(service, TCP, &[backend]);
        let older = packet(TCP, client, backend).build();
        expect_untouched(&world.send(&older), Verdict::NotService, &older);
        let out = expect(&world.send(&syn(client, service).build()), Verdict::ToBackend, Action::Pass);
        assert_eq!((out.src, out.dst), (client, backend));
        let out = expect(&world.send(&older), Verdict::ToBackend, Action::Pass);
        assert!(out.src.port() >= 61_000, "{out:?}");
        let answer = packet(TCP, backend, client).build();
        assert_eq!(expect(&world.deliver(&answer), Verdict::ToClient, Action::Pass).src, service);
    }
}

/// Rules apply to the endpoint's port, not to the Service's.
#[test]
fn to_a_service_the_port_of_its_endpoint_counts() {
    for net in nets() {
        for proto in PROTOS {
            for (port, passes) in [(8080, true), (80, false)] {
                let mut world = World::new("target-port");
                let mut policies = Policies::pods(&mut world, &net);
                policies.pod(&world, 0, net.client, policy_flags::ISOLATED_OUT);
                policies.pod(&world, 1, net.local, policy_flags::ISOLATED_IN);
                policies.allow(SET, direction::EGRESS, proto, port);
                policies.allow(SET, direction::INGRESS, proto, 8080);
                policies.apply(&mut world);
                world.service(at(net.service, 80), proto, &[at(net.local, 8080)]);
                let (client, service) = (at(net.client, PORT), at(net.service, 80));
                let first = opening(proto, client, service);
                let expected = if passes { Verdict::ToBackend } else { Verdict::EgressDenied };
                assert_eq!(world.send(&first.build()).verdict, expected, "{proto} {port}");
            }
        }
    }
}

/// A client that asked before the Service existed asks again from the same port.
#[test]
fn an_address_that_becomes_a_service_is_seen() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("becomes");
            let _policies = Policies::pods(&mut world, &net);
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let frame = opening(proto, client, service).build();
            expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
            world.service(service, proto, &[at(net.local, 8080)]);
            world.raise_epoch();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            expect_ends(&frame, &out, client, at(net.local, 8080));
            let answer = packet(proto, at(net.local, 8080), client).build();
            let out = expect(&world.answer(&answer), Verdict::ToClient, Action::Redirect);
            expect_ends(&answer, &out, service, client);
        }
    }
}

/// A connection that was picked up may be dead: it is kept for five minutes. Echo and other protocols are kept for
/// half a minute, and for ten minutes once they are established.
#[test]
fn flows_without_a_service_have_their_lifetime() {
    for net in nets() {
        let mut world = World::new("plain-lifetimes");
        let _policies = Policies::pods(&mut world, &net);
        let (client, other) = (at(net.client, PORT), at(net.other, 80));
        let (pod, host) = (client.ip(), other.ip());
        let icmp = if net.family.is_v6() { 58 } else { 1 };
        let echo = tuple(icmp, at(pod, 7), at(host, 0));
        let raw = tuple(99, at(pod, 0), at(host, 0));
        let to = |proto: u8| match proto {
            TCP | SCTP => packet(proto, client, other),
            99 => Packet::raw(pod, host, 99).payload(b"whatever"),
            _ => Packet::echo(pod, host, 7, 1),
        };
        let back = |proto: u8| match proto {
            99 => Packet::raw(host, pod, 99).payload(b"whatever"),
            _ => Packet::echo_reply(host, pod, 7, 1),
        };
        for (key, state, seconds) in [
            (tuple(TCP, client, other), State::PickedUp, 300),
            (tuple(SCTP, client, other), State::PickedUp, 210),
            (echo, State::New, 30),
            (echo, State::Replied, 30),
            (echo, State::Established, 600),
            (raw, State::New, 30),
            (raw, State::Replied, 30),
            (raw, State::Established, 600),
        ] {
            for (age, lives) in [(seconds - 1, true), (seconds + 1, false)] {
                let frame = to(key.proto).build();
                world.send(&frame);
                if matches!(state, State::Replied | State::Established) {
                    world.deliver(&back(key.proto).build());
                }
                if state == State::Established {
                    world.age(key, 3);
                    world.send(&frame);
                }
                assert_eq!(world.state(key), state);
                // A new flow does not have this mark.
                let mut flow = world.flow(key);
                flow.audited = 77;
                world.programs.flows.insert(&key, &flow).unwrap();
                world.age(key, age);
                expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
                assert_eq!(world.flow(key).audited == 77, lives, "{key:?} {state:?} after {age} s");
                world.reset_flows();
            }
        }
    }
}

/// The source of a packet to a pod is verified once for each interface that it comes by, in either direction.
#[test]
fn each_source_is_verified_once() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("looked-at");
            let _policies = Policies::pods(&mut world, &net);
            let (client, server, service) = (at(net.client, PORT), at(net.other, 80), at(net.service, 80));
            let (remote, own) = (at(net.remote, 8080), world.programs.links[0]);
            world.service(service, proto, &[remote]);
            for (to, from) in [(server, server), (service, remote)] {
                world.connect(proto, client, to, ELSEWHERE);
                let answer = packet(proto, from, client).build();
                for by in [Programs::WIRE, world.programs.links[2]] {
                    world.forward(by, 0, &answer);
                    let flow = world.flow(tuple(proto, from, client));
                    assert_eq!((flow.in_ifindex, flow.out_ifindex), (by, own));
                }
                assert_eq!(world.flow(tuple(proto, client, to)).in_ifindex, own);
            }
            // Begun by the other side.
            let (from, to) = (at(net.other, PORT), at(net.client, 80));
            world.establish(proto, (from, ELSEWHERE), to, CLIENT);
            world.send(&packet(proto, to, from).build());
            let flow = world.flow(tuple(proto, from, to));
            assert_eq!((flow.in_ifindex, flow.out_ifindex), (Programs::WIRE, own));
            assert_eq!(world.flow(tuple(proto, to, from)).in_ifindex, own);
        }
    }
}
