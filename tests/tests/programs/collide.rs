//! Flows whose answers must be told apart, and a pod that is its own backend.

use std::collections::BTreeSet;

use lbr_common::flow::flow_flags;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::Packet;
use lbr_tests::packet::flags;
use lbr_tests::testrun::Action;

use super::world::{
    PORT, PROTOS, TCP, UDP, World, at, expect, expect_drop, expect_ends, nets, packet, syn, tuple,
};

/// The pod would not take a packet from its own address, so it gets one from the frontend's.
#[test]
fn a_pod_reaches_itself() {
    World::both("hairpin", |world| {
        for net in nets() {
            for proto in PROTOS {
                for target in [80, 8080] {
                    let (client, service) = (at(net.client, PORT), at(net.service, 80));
                    let backend = at(net.client, target);
                    world.service(service, proto, &[backend]);
                    for _ in 0..2 {
                        let frame = packet(proto, client, service).build();
                        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                        let seen = at(net.service, PORT);
                        expect_ends(&frame, &out, seen, backend);
                        let frame = packet(proto, backend, seen).build();
                        let out = expect(&world.send(&frame), Verdict::ToClient, Action::Redirect);
                        expect_ends(&frame, &out, service, client);
                    }
                    let flow = world.flow(tuple(proto, client, service));
                    assert_eq!(flow.flags & flow_flags::HAIRPIN, flow_flags::HAIRPIN);
                    assert_eq!(
                        (flow.link, flow.twin_link),
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
                    let frame = packet(proto, client, service).build();
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    let source = out.src;
                    expect_ends(&frame, &out, source, backend);
                    assert_eq!(source.ip(), client.ip());
                    assert!(ports.insert(source.port()), "port {} again", source.port());
                    let again = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    assert_eq!(again.src, source, "a flow keeps its port");
                    let frame = packet(proto, backend, source).build();
                    let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                    expect_ends(&frame, &out, service, client);
                }
                assert!(ports.remove(&PORT), "the first flow keeps its port");
                assert!(ports.iter().all(|p| *p >= 61_000), "{ports:?}");
            }
        }
    });
}

/// With another backend to choose, the port stays what it is.
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
                    let frame = packet(proto, client, service).build();
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    let backend = out.dst;
                    expect_ends(&frame, &out, client, backend);
                    assert!(seen.insert(backend), "{backend} again");
                    let frame = packet(proto, backend, client).build();
                    let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                    expect_ends(&frame, &out, service, client);
                }
            }
        }
    }
}

/// No free port is found any more: dropped, and no flow is harmed.
#[test]
fn ports_exhausted() {
    let mut world = World::new("exhausted");
    for net in nets() {
        let client = at(net.client, PORT);
        let backend = at(net.local, 8080);
        let first = at(net.service, 80);
        world.service(first, UDP, &[backend]);
        expect(&world.send(&packet(UDP, client, first).build()), Verdict::ToBackend, Action::Redirect);
        // Every spare port leads elsewhere.
        let entry = world.flow(tuple(UDP, backend, client));
        for port in 61_000..=u16::MAX {
            world.programs.flows.insert(tuple(UDP, backend, at(net.client, port)), entry, 0).unwrap();
        }
        let second = at(net.service2, 80);
        world.service(second, UDP, &[backend]);
        let frame = packet(UDP, client, second).build();
        expect_drop(&world.send(&frame), Verdict::PortsExhausted, &frame);
        assert!(!world.has_flow(tuple(UDP, client, second)));
        // Flows that are over give way.
        world.age(tuple(UDP, backend, client), 200);
        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
        expect_ends(&frame, &out, client, backend);
        world.reset();
    }
}

/// A closed connection's port may be used again at once, by another frontend too.
#[test]
fn a_closed_connection_gives_its_port_away() {
    let mut world = World::new("closed");
    for net in nets() {
        for bits in [flags::RST, flags::FIN | flags::ACK] {
            let (client, backend) = (at(net.client, PORT), at(net.local, 8080));
            let services = [at(net.service, 80), at(net.service2, 80)];
            for service in services {
                world.service(service, TCP, &[backend]);
            }
            expect(&world.send(&syn(client, services[0]).build()), Verdict::ToBackend, Action::Redirect);
            let end = Packet::tcp(client, services[0], bits).build();
            expect(&world.send(&end), Verdict::ToBackend, Action::Redirect);
            let end = Packet::tcp(backend, client, bits).build();
            expect(&world.answer(&end), Verdict::ToClient, Action::Redirect);
            let frame = syn(client, services[1]).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            expect_ends(&frame, &out, client, backend);
            let frame = packet(TCP, backend, client).build();
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
    for net in nets() {
        let (client, backend) = (at(net.client, PORT), at(net.local, 8080));
        let services = [at(net.service, 80), at(net.service2, 80)];
        for service in services {
            world.service(service, TCP, &[backend]);
        }
        expect(&world.send(&syn(client, services[0]).build()), Verdict::ToBackend, Action::Redirect);
        world.programs.flows.remove(&tuple(TCP, client, services[0])).unwrap();
        let out =
            expect(&world.send(&syn(client, services[1]).build()), Verdict::ToBackend, Action::Redirect);
        assert_ne!(out.src.port(), PORT, "the tuple of a living connection was given away");
        let frame = packet(TCP, backend, client).build();
        let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
        expect_ends(&frame, &out, services[0], client);
        world.reset();
    }
}
