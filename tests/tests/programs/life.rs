//! How long a flow lives, and how half of one becomes whole again.

use lbr_agent::dataplane::Dataplane as _;
use lbr_common::flow::flow_flags;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Packet, flags};
use lbr_tests::testrun::Action;

use super::world::{PORT, PROTOS, TCP, UDP, World, at, expect, expect_ends, nets, packet, syn, tuple};

/// Datagrams move to a living backend, connections are left alone.
#[test]
fn a_removed_backend() {
    let mut world = World::new("removed");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
            let ids = world.service(service, proto, &[old]);
            let frame = packet(proto, client, service).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            assert_eq!(out.dst, old);
            world.service(service, proto, &[new]);
            world.remove_backend(ids[0]);
            let wanted = if proto == UDP { new } else { old };
            for _ in 0..2 {
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, wanted);
                let frame = packet(proto, wanted, client).build();
                let out = expect(&world.deliver(&frame), Verdict::ToClient, Action::Pass);
                expect_ends(&frame, &out, service, client);
            }
        }
    }
}

/// Nobody is left: datagrams are refused, connections are not.
#[test]
fn the_last_backend_removed() {
    let mut world = World::new("last-removed");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let old = at(net.remote, 8080);
            let ids = world.service(service, proto, &[old]);
            let frame = packet(proto, client, service).build();
            expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            world.service(service, proto, &[]);
            world.remove_backend(ids[0]);
            if proto == UDP {
                expect(&world.send(&frame), Verdict::NoEndpoint, Action::Redirect);
            } else {
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, old);
            }
        }
    }
}

/// Another backend was removed: flows look once whether theirs is there, and stay.
#[test]
fn a_backend_that_stays() {
    let mut world = World::new("stays");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let kept = at(net.remote, 8080);
            world.service(service, proto, &[kept]);
            let frame = packet(proto, client, service).build();
            expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            // It keeps its flows, new ones go elsewhere.
            world.service(service, proto, &[at(net.remote2, 8080)]);
            world.programs.kernel.raise_epoch().unwrap();
            for _ in 0..2 {
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, kept);
            }
        }
    }
}

/// The same address with another port is another backend, also under the same id.
#[test]
fn a_backend_whose_port_changed() {
    let mut world = World::new("port-changed");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote, 9090));
        let ids = world.service(service, UDP, &[old]);
        let frame = packet(UDP, client, service).build();
        expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
        let entries = world.programs.kernel.backends().entries().unwrap();
        let (id, mut backend) = entries.into_iter().find(|(id, _)| *id == ids[0]).unwrap();
        backend.port = new.port();
        world.programs.kernel.backends().insert(&id, &backend).unwrap();
        world.programs.kernel.raise_epoch().unwrap();
        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
        expect_ends(&frame, &out, client, new);
    }
}

/// A port that is used again after its connection ended is a new connection: it may go elsewhere.
#[test]
fn a_syn_after_the_end() {
    let mut world = World::new("syn-after-end");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        for from_client in [true, false] {
            for bits in [flags::RST, flags::RST | flags::ACK, flags::FIN | flags::ACK] {
                world.service(service, TCP, &[old]);
                expect(&world.send(&syn(client, service).build()), Verdict::ToBackend, Action::Pass);
                // A reset of either side ends it, a FIN only together with the other side's.
                let both = bits & flags::RST == 0;
                if from_client || both {
                    let end = Packet::tcp(client, service, bits).build();
                    expect(&world.send(&end), Verdict::ToBackend, Action::Pass);
                }
                if !from_client || both {
                    let end = Packet::tcp(old, client, bits).build();
                    expect(&world.deliver(&end), Verdict::ToClient, Action::Pass);
                }
                world.service(service, TCP, &[new]);
                // Its last segments still find it,
                let frame = packet(TCP, client, service).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, old);
                // the next connection does not,
                let frame = syn(client, service).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, new);
                // and is not over itself.
                world.service(service, TCP, &[old]);
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, new);
                world.reset();
            }
        }
    }
}

/// Half closed is not over: what is still to come must find its way.
#[test]
fn a_syn_after_one_side_closed() {
    let mut world = World::new("syn-half-closed");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        for from_client in [true, false] {
            world.service(service, TCP, &[old]);
            expect(&world.send(&syn(client, service).build()), Verdict::ToBackend, Action::Pass);
            let bits = flags::FIN | flags::ACK;
            if from_client {
                expect(
                    &world.send(&Packet::tcp(client, service, bits).build()),
                    Verdict::ToBackend,
                    Action::Pass,
                );
            } else {
                expect(
                    &world.deliver(&Packet::tcp(old, client, bits).build()),
                    Verdict::ToClient,
                    Action::Pass,
                );
            }
            world.service(service, TCP, &[old, new]);
            let frame = syn(client, service).build();
            expect_ends(&frame, &expect(&world.send(&frame), Verdict::ToBackend, Action::Pass), client, old);
            world.reset();
        }
    }
}

/// The same backend again: the flow must not still count as over, or the next SYN retransmitted would begin anew.
#[test]
fn a_syn_after_the_end_to_the_same_backend() {
    let mut world = World::new("syn-same");
    for net in nets() {
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, TCP, &[backend]);
        let frame = syn(client, service).build();
        expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
        expect(
            &world.send(&Packet::tcp(client, service, flags::RST).build()),
            Verdict::ToBackend,
            Action::Redirect,
        );
        expect(
            &world.answer(&Packet::tcp(backend, client, flags::RST).build()),
            Verdict::ToClient,
            Action::Redirect,
        );
        expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
        assert_eq!(world.flow(tuple(TCP, client, service)).flags & (flow_flags::FIN | flow_flags::RST), 0);
        assert_eq!(world.flow(tuple(TCP, backend, client)).flags & (flow_flags::FIN | flow_flags::RST), 0);
    }
}

/// Nothing is established yet, so nothing is lost by another backend.
#[test]
fn a_syn_to_a_removed_backend() {
    let mut world = World::new("syn-removed");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        let ids = world.service(service, TCP, &[old]);
        let frame = syn(client, service).build();
        expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
        world.service(service, TCP, &[new]);
        world.remove_backend(ids[0]);
        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
        expect_ends(&frame, &out, client, new);
    }
}

/// The kernel evicts single entries. Whichever is left brings the other one back, at the latest a second after
/// it was last looked at.
#[test]
fn the_other_direction_restores_an_evicted_entry() {
    let mut world = World::new("evicted");
    for net in nets() {
        for proto in PROTOS {
            for backend in [at(net.local, 8080), at(net.client, 8080)] {
                let (client, service) = (at(net.client, PORT), at(net.service, 80));
                world.service(service, proto, &[backend]);
                let request = packet(proto, client, service).build();
                let seen = expect(&world.send(&request), Verdict::ToBackend, Action::Redirect).src;
                let answer = packet(proto, backend, seen).build();
                expect(&world.answer(&answer), Verdict::ToClient, Action::Redirect);
                let keys = [tuple(proto, client, service), tuple(proto, backend, seen)];
                let before = keys.map(|key| world.flow(key));
                // Another backend would be chosen now.
                world.service(service, proto, &[at(net.remote, 9090)]);
                for (gone, other, packet) in [(0, 1, &answer), (1, 0, &request)] {
                    world.programs.flows.remove(&keys[gone]).unwrap();
                    world.age(keys[other], 2);
                    let ran = world.send(packet);
                    assert_eq!(ran.action, Action::Redirect);
                    let after = keys.map(|key| world.flow(key));
                    for (a, b) in before.iter().zip(after) {
                        assert!(b.last_seen >= a.last_seen);
                        assert_eq!(*a, lbr_common::flow::Flow { last_seen: a.last_seen, from: a.from, ..b });
                    }
                }
                world.reset();
            }
        }
    }
}

/// A recently seen flow is not looked at twice: the price of a packet.
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

/// Without the entry of its direction a connection gets the backend that it had, as long as the set is the same.
#[test]
fn the_same_choice_again() {
    let mut world = World::new("same-choice");
    for net in nets() {
        for proto in PROTOS {
            let service = at(net.service, 80);
            let backends: Vec<_> = (0..7).map(|n| at(net.remote, 8080 + n)).collect();
            world.service(service, proto, &backends);
            for port in PORT..PORT + 100 {
                let client = at(net.client, port);
                let frame = packet(proto, client, service).build();
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

/// A flow that got a stand-in source port keeps it when its forward entry is lost: the answer's entry brings it
/// back. Without that, a request may take another port, but never one that leads elsewhere.
#[test]
fn a_stand_in_port_after_eviction() {
    let mut world = World::new("stand-in");
    for net in nets() {
        for proto in PROTOS {
            let (client, backend) = (at(net.client, PORT), at(net.local, 8080));
            let services = [at(net.service, 80), at(net.service2, 80)];
            for service in services {
                world.service(service, proto, &[backend]);
                let frame = packet(proto, client, service).build();
                expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            }
            let key = tuple(proto, client, services[1]);
            let before = world.flow(key);
            assert_ne!(before.to.src_port, PORT);
            world.programs.flows.remove(&key).unwrap();
            let frame = packet(proto, client, services[1]).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            assert_eq!(out.src.port(), before.to.src_port, "the same tries in the same order");
            let frame = packet(proto, backend, out.src).build();
            let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
            expect_ends(&frame, &out, services[1], client);
        }
    }
}
