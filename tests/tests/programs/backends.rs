//! Removed and replaced backends, and the flows that lead to them.

use lbr_agent::dataplane::{Concerned, Dataplane as _};
use lbr_common::conntrack::State;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::flags;
use lbr_tests::testrun::Action;

use super::world::{
    ELSEWHERE, PORT, PROTOS, TCP, UDP, World, at, expect, expect_ends, nets, opening, packet, segment, syn,
    tuple,
};

/// Datagrams move to a living backend; connections stay.
#[test]
fn a_removed_backend() {
    let mut world = World::new("removed");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
            let ids = world.service(service, proto, &[old]);
            world.connect(proto, client, service, ELSEWHERE);
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

/// Without any backend, datagrams are refused and connections are not.
#[test]
fn the_last_backend_removed() {
    let mut world = World::new("last-removed");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let old = at(net.remote, 8080);
            let ids = world.service(service, proto, &[old]);
            world.connect(proto, client, service, ELSEWHERE);
            let frame = packet(proto, client, service).build();
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

/// After the removal of another backend, flows check once that theirs is still there, and stay.
#[test]
fn a_backend_that_stays() {
    let mut world = World::new("stays");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let kept = at(net.remote, 8080);
            world.service(service, proto, &[kept]);
            world.connect(proto, client, service, ELSEWHERE);
            let frame = packet(proto, client, service).build();
            // The backend keeps its flows; new ones go elsewhere.
            world.service(service, proto, &[at(net.remote2, 8080)]);
            world.programs.kernel.raise_epoch(&Concerned::all()).unwrap();
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
        let entries = world.programs.kernel.tables().backends.entries().unwrap();
        let (id, mut backend) = entries.into_iter().find(|(id, _)| *id == ids[0]).unwrap();
        backend.port = new.port();
        world.programs.kernel.tables().backends.insert(&id, &backend).unwrap();
        world.programs.kernel.raise_epoch(&Concerned::all()).unwrap();
        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
        expect_ends(&frame, &out, client, new);
    }
}

/// No connection is established yet, so the SYN may go to another backend.
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

/// A SYN follows the tables at once, without waiting for a new epoch.
#[test]
fn syn_to_a_removed_backend_does_not_wait_for_the_epoch() {
    let mut world = World::new("syn-gone");
    for net in nets() {
        for is_established in [false, true] {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
            let ids = world.service(service, TCP, &[old]);
            if is_established {
                world.connect(TCP, client, service, ELSEWHERE);
            } else {
                world.send(&syn(client, service).build());
            }
            world.service(service, TCP, &[new]);
            let frame = syn(client, service).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            expect_ends(&frame, &out, client, old);
            world.programs.kernel.tables().backends.remove(&ids[0]).unwrap();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            expect_ends(&frame, &out, client, new);
            assert_eq!(world.state(tuple(TCP, client, service)), State::New);
            world.reset();
        }
    }
}

/// A connection or a stream that begins anew elsewhere leaves the reply entry of its former backend behind. Later
/// packets of that backend reach the client, and do not lead the client back to it.
#[test]
fn the_former_backend_does_not_take_the_client_back() {
    let mut world = World::new("former");
    for (net, proto) in nets().into_iter().flat_map(|net| PROTOS.map(|proto| (net, proto))) {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        let ids = world.service(service, proto, &[old]);
        world.connect(proto, client, service, ELSEWHERE);
        if proto == TCP {
            let fin = flags::FIN | flags::ACK;
            world.send(&segment(client, service, fin).build());
            world.deliver(&segment(old, client, fin).build());
        }
        world.service(service, proto, &[new]);
        world.remove_backend(ids[0]);
        let frame = opening(proto, client, service).build();
        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
        expect_ends(&frame, &out, client, new);
        // The former backend has not seen the last segment, or still sends data.
        world.age(tuple(proto, old, client), 5);
        let late = if proto == TCP {
            segment(old, client, flags::FIN | flags::ACK).build()
        } else {
            packet(proto, old, client).build()
        };
        world.deliver(&late);
        for frame in [packet(proto, client, service).build(), frame] {
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            expect_ends(&frame, &out, client, new);
        }
        world.reset();
    }
}
