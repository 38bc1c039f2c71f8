//! How long a flow lives, and how its twin restores an evicted entry.

use std::net::SocketAddr;

use lbr_common::conntrack::State;
use lbr_common::flow::Flow;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Packet, chunk, flags};
use lbr_tests::testrun::Action;

use super::world::{
    ACKNOWLEDGED, CLIENT, LOCAL, PORT, PROTOS, SCTP, TCP, UDP, World, answering, at, expect, expect_ends,
    nets, opening, packet, segment, tuple,
};

/// The lifetime of a flow without packets, in each state. After that, a packet belongs to no flow.
#[test]
fn every_state_has_its_lifetime() {
    let mut world = World::new("lifetimes");
    for net in nets() {
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        for (proto, state, seconds) in [
            (TCP, State::New, 60),
            (TCP, State::Replied, 60),
            (TCP, State::Established, 86_400),
            (TCP, State::FinOriginal, 3_600),
            (TCP, State::FinReply, 3_600),
            (TCP, State::Closed, 120),
            (TCP, State::Reset, 3_600),
            (TCP, State::Refused, 10),
            (UDP, State::New, 30),
            (UDP, State::Replied, 30),
            (UDP, State::Established, 180),
            (SCTP, State::New, 60),
            (SCTP, State::Replied, 60),
            (SCTP, State::Established, 210),
            (SCTP, State::Reset, 210),
            (SCTP, State::Refused, 10),
        ] {
            for (age, lives) in [(seconds - 1, true), (seconds + 1, false)] {
                world.service(service, proto, &[backend]);
                in_state(&mut world, proto, (client, service, backend), state);
                let key = tuple(proto, client, service);
                assert_eq!(world.state(key), state);
                assert_eq!(world.programs.flows.is_confirmed(&key), state.is_confirmed());
                world.age(key, age);
                let ran = world.answer(&packet(proto, backend, client).build());
                let wanted = if lives { Verdict::ToClient } else { Verdict::NotService };
                assert_eq!(ran.verdict, wanted, "{proto} {state:?} after {age} s");
                world.reset();
            }
        }
    }
}

/// Brings a flow from the client's pod to a backend here into `state`, by packets only.
fn in_state(
    world: &mut World,
    proto: u8,
    (client, service, backend): (SocketAddr, SocketAddr, SocketAddr),
    state: State,
) {
    if state.is_confirmed() {
        world.connect(proto, client, service, LOCAL);
    } else {
        world.send(&opening(proto, client, service).build());
        if state == State::Replied {
            world.answer(&answering(proto, backend, client).build());
        }
    }
    let by_client = |bits| segment(client, service, bits).build();
    let by_server = |bits| segment(backend, client, bits).build();
    let fin = flags::FIN | flags::ACK;
    match state {
        State::FinOriginal | State::Closed => drop(world.send(&by_client(fin))),
        State::FinReply => drop(world.answer(&by_server(fin))),
        State::Reset | State::Refused if proto == SCTP => {
            world.answer(&Packet::sctp(backend, client, chunk::ABORT).tags(0, ACKNOWLEDGED).build());
        }
        State::Reset | State::Refused => drop(world.answer(&by_server(flags::RST | flags::ACK))),
        _ => {}
    }
    if state == State::Closed {
        world.answer(&by_server(fin));
    }
}

/// The kernel evicts single entries. The other entry restores an evicted one, at the latest a second after its last
/// check.
#[test]
fn the_other_direction_restores_an_evicted_entry() {
    let mut world = World::new("evicted");
    for net in nets() {
        for proto in PROTOS {
            for backend in [at(net.local, 8080), at(net.client, 8080)] {
                let (client, service) = (at(net.client, PORT), at(net.service, 80));
                world.service(service, proto, &[backend]);
                let server = if backend.ip() == net.local { LOCAL } else { CLIENT };
                let (seen, _) = world.establish(proto, (client, CLIENT), service, server);
                let request = packet(proto, client, service).build();
                let answer = packet(proto, backend, seen).build();
                expect(&world.run(server.0, server.1, &answer), Verdict::ToClient, Action::Redirect);
                let keys = [tuple(proto, client, service), tuple(proto, backend, seen)];
                let before = keys.map(|key| world.flow(key));
                // Another backend would be chosen now.
                world.service(service, proto, &[at(net.remote, 9090)]);
                for (gone, other, packet, by) in [(0, 1, &answer, server), (1, 0, &request, CLIENT)] {
                    world.programs.flows.remove(&keys[gone]).unwrap();
                    world.age(keys[other], 2);
                    let ran = world.run(by.0, by.1, packet);
                    assert_eq!(ran.action, Action::Redirect);
                    let after = keys.map(|key| world.flow(key));
                    for (a, b) in before.iter().zip(after) {
                        assert!(b.last_seen >= a.last_seen);
                        // For datagrams the proof is a time.
                        let proof = if proto == UDP { a.proof } else { b.proof };
                        // The other entry may know more of the links that its packets use.
                        assert!(
                            [0, b.in_ifindex].contains(&a.in_ifindex)
                                && [0, b.out_ifindex].contains(&a.out_ifindex)
                        );
                        let (from, at) = (a.in_ifindex, a.out_ifindex);
                        let last_seen = a.last_seen;
                        // What comes back has not been checked yet.
                        let b =
                            Flow { last_seen, proof, in_ifindex: from, out_ifindex: at, epoch: a.epoch, ..b };
                        assert_eq!(*a, b);
                    }
                }
                world.reset();
            }
        }
    }
}

/// A flow seen within the last second is not written again, which keeps packets cheap.
#[test]
fn time_stamps_move_once_a_second() {
    let mut world = World::new("stamps");
    let [net, _] = nets();
    let (client, service) = (at(net.client, PORT), at(net.service, 80));
    world.service(service, UDP, &[at(net.local, 8080)]);
    let (frame, key) = (packet(UDP, client, service).build(), tuple(UDP, client, service));
    expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
    let first = world.flow(key).last_seen;
    expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
    assert_eq!(world.flow(key).last_seen, first);
    world.age(key, 2);
    expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
    assert!(world.flow(key).last_seen >= first);
}

/// Without the entry of its direction, a connection gets its former backend, as long as the set of backends is the
/// same.
#[test]
fn evicted_connection_gets_the_same_backend() {
    let mut world = World::new("same-choice");
    for net in nets() {
        for proto in PROTOS {
            let service = at(net.service, 80);
            let backends: Vec<_> = (0..7).map(|n| at(net.remote, 8080 + n)).collect();
            world.service(service, proto, &backends);
            for port in PORT..PORT + 100 {
                let client = at(net.client, port);
                let frame = opening(proto, client, service).build();
                let chosen = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass).dst;
                let keys = [tuple(proto, client, service), tuple(proto, chosen, client)];
                for gone in [&keys[..1], &keys[..]] {
                    for key in gone {
                        world.programs.flows.remove(key).unwrap();
                    }
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                    expect_ends(&frame, &out, client, chosen);
                }
            }
        }
    }
}

/// A flow with a substitute source port keeps it when its forward entry is evicted.
#[test]
fn substitute_port_survives_eviction() {
    let mut world = World::new("stand-in");
    for net in nets() {
        for proto in PROTOS {
            let (client, backend) = (at(net.client, PORT), at(net.local, 8080));
            let services = [at(net.service, 80), at(net.service2, 80)];
            for service in services {
                world.service(service, proto, &[backend]);
                let frame = opening(proto, client, service).build();
                expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            }
            let key = tuple(proto, client, services[1]);
            let before = world.flow(key);
            assert_ne!(before.to.src_port, PORT);
            world.programs.flows.remove(&key).unwrap();
            let frame = opening(proto, client, services[1]).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            assert_eq!(out.src.port(), before.to.src_port, "the same tries in the same order");
            let frame = answering(proto, backend, out.src).build();
            let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
            expect_ends(&frame, &out, services[1], client);
        }
    }
}
