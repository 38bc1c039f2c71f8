//! Flows whose answers must be distinguished, and a pod that is its own backend.

use std::collections::BTreeSet;

use lbr_common::conntrack::State;
use lbr_common::flow::{Flow, flow_flags};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::flags;
use lbr_tests::testrun::Action;

use super::world::{
    LOCAL, PORT, PROTOS, TCP, TURNS, UDP, World, answering, at, expect, expect_drop, expect_ends, nets,
    opening, packet, segment, syn, tuple,
};

/// The pod would drop a packet from its own address, so the source becomes the frontend's address.
#[test]
fn a_pod_reaches_itself() {
    World::both("hairpin", |world| {
        for net in nets() {
            for proto in PROTOS {
                for target in [80, 8080] {
                    let (client, service) = (at(net.client, PORT), at(net.service, 80));
                    let backend = at(net.client, target);
                    world.service(service, proto, &[backend]);
                    for [request, answer] in TURNS {
                        let frame = request(proto, client, service).build();
                        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                        let seen = at(net.service, PORT);
                        expect_ends(&frame, &out, seen, backend);
                        let frame = answer(proto, backend, seen).build();
                        let out = expect(&world.send(&frame), Verdict::ToClient, Action::Redirect);
                        expect_ends(&frame, &out, service, client);
                    }
                    let flow = world.flow(tuple(proto, client, service));
                    assert_eq!(flow.flags & flow_flags::HAIRPIN, flow_flags::HAIRPIN);
                    assert_eq!(
                        (flow.redirect_to, flow.twin_redirect_to),
                        (world.programs.links[0], world.programs.links[0])
                    );
                    world.reset();
                }
            }
        }
    });
}

/// One client port, two frontends, one backend: the answers of both flows get back to their frontend.
#[test]
fn one_backend_behind_two_frontends() {
    World::both("two-frontends", |world| {
        for net in nets() {
            for proto in PROTOS {
                let client = at(net.client, PORT);
                let services = [at(net.service, 80), at(net.service2, 80), at(net.service2, 443)];
                let backend = at(net.local, 8080);
                let mut ports = BTreeSet::new();
                for service in services {
                    world.service(service, proto, &[backend]);
                    let frame = opening(proto, client, service).build();
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    let source = out.src;
                    expect_ends(&frame, &out, source, backend);
                    assert_eq!(source.ip(), client.ip());
                    assert!(ports.insert(source.port()), "port {} again", source.port());
                    let again = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    assert_eq!(again.src, source, "a flow keeps its port");
                    let frame = answering(proto, backend, source).build();
                    let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                    expect_ends(&frame, &out, service, client);
                }
                assert!(ports.remove(&PORT), "the first flow keeps its port");
                assert!(ports.iter().all(|p| *p >= 61_000), "{ports:?}");
            }
        }
    });
}

/// With another backend to choose, the source port does not change.
#[test]
fn two_backends_behind_two_frontends() {
    let mut world = World::new("two-backends");
    for net in nets() {
        for proto in PROTOS {
            for port in PORT..PORT + 50 {
                let client = at(net.client, port);
                let backends = [at(net.local, 8080), at(net.local, 8081)];
                let mut seen = BTreeSet::new();
                for service in [at(net.service, 80), at(net.service2, 80)] {
                    world.service(service, proto, &backends);
                    let frame = opening(proto, client, service).build();
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    let backend = out.dst;
                    expect_ends(&frame, &out, client, backend);
                    assert!(seen.insert(backend), "{backend} again");
                    let frame = answering(proto, backend, client).build();
                    let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                    expect_ends(&frame, &out, service, client);
                }
            }
        }
    }
}

/// Flows of other client ports to the same backend, in this state.
fn others(world: &mut World, key: &Tuple, state: State, ports: impl Iterator<Item = u16>) {
    let flow = world.flow(*key);
    for port in ports {
        let key = Tuple { src_port: port, ..*key };
        let to = Tuple { src_port: port, ..flow.to };
        let flow = Flow { to, state: state as u32, ..flow };
        world.programs.flows.insert(&key, &flow).unwrap();
        world.programs.flows.insert(&flow.twin_key(), &flow.twin(&key)).unwrap();
    }
}

/// Without a free port the packet is dropped, and no flow is harmed, whatever its state.
#[test]
fn ports_exhausted() {
    for state in [State::New, State::Replied, State::Established] {
        let mut world = World::new("exhausted");
        for net in nets() {
            let client = at(net.client, PORT);
            let backend = at(net.local, 8080);
            let first = at(net.service, 80);
            world.service(first, UDP, &[backend]);
            let key = tuple(UDP, client, first);
            expect(&world.send(&packet(UDP, client, first).build()), Verdict::ToBackend, Action::Redirect);
            // Every spare port leads to the first Service.
            others(&mut world, &key, state, 61_000..=u16::MAX);
            let second = at(net.service2, 80);
            world.service(second, UDP, &[backend]);
            let before = world.programs.flows.len();
            let frame = packet(UDP, client, second).build();
            expect_drop(&world.send(&frame), Verdict::PortsExhausted, &frame);
            assert!(!world.has_flow(tuple(UDP, client, second)));
            assert_eq!(world.programs.flows.len(), before);
            // Flows that are over give way.
            world.age(key, 200);
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            expect_ends(&frame, &out, client, backend);
            world.reset();
        }
    }
}

/// The port of a closed connection may be reused at once, also by another frontend. A reset frees it before the
/// handshake is complete too; a FIN does not.
#[test]
fn a_closed_connection_gives_its_port_away() {
    let mut world = World::new("closed");
    for net in nets() {
        for (bits, is_established, gives_way) in [
            (flags::RST, true, true),
            (flags::RST, false, true),
            (flags::FIN | flags::ACK, true, true),
            (flags::FIN | flags::ACK, false, false),
        ] {
            let (client, backend) = (at(net.client, PORT), at(net.local, 8080));
            let services = [at(net.service, 80), at(net.service2, 80)];
            for service in services {
                world.service(service, TCP, &[backend]);
            }
            if is_established {
                world.connect(TCP, client, services[0], LOCAL);
            } else {
                let frame = syn(client, services[0]).build();
                expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            }
            let end = segment(client, services[0], bits).build();
            expect(&world.send(&end), Verdict::ToBackend, Action::Redirect);
            let end = segment(backend, client, bits).build();
            expect(&world.answer(&end), Verdict::ToClient, Action::Redirect);
            let frame = syn(client, services[1]).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            if gives_way {
                expect_ends(&frame, &out, client, backend);
                assert!(!world.has_flow(tuple(TCP, client, services[0])), "half of it is left");
                assert!(!world.programs.flows.is_confirmed(&tuple(TCP, backend, client)));
            } else {
                assert_ne!(out.src.port(), PORT);
            }
            let frame = answering(TCP, backend, out.src).build();
            let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
            expect_ends(&frame, &out, services[1], client);
            world.reset();
        }
    }
}

/// A connection that lost one entry to eviction is alive: its tuple is not given away.
#[test]
fn an_evicted_half_is_not_an_end() {
    let mut world = World::new("half-evicted");
    for (net, proto) in nets().into_iter().flat_map(|net| PROTOS.map(|proto| (net, proto))) {
        for is_established in [true, false] {
            let (client, backend) = (at(net.client, PORT), at(net.local, 8080));
            let services = [at(net.service, 80), at(net.service2, 80)];
            for service in services {
                world.service(service, proto, &[backend]);
            }
            if is_established {
                world.connect(proto, client, services[0], LOCAL);
            } else {
                let frame = opening(proto, client, services[0]).build();
                expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            }
            world.programs.flows.remove(&tuple(proto, client, services[0])).unwrap();
            let frame = opening(proto, client, services[1]).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            assert_ne!(out.src.port(), PORT, "the tuple of a living connection was given away");
            let frame = packet(proto, backend, client).build();
            let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
            expect_ends(&frame, &out, services[0], client);
            world.reset();
        }
    }
}
