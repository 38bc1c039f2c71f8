//! From client to backend and back.

use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, Parsed, flags};
use lbr_tests::testrun::{Action, say};

use super::world::{
    ELSEWHERE, LOCAL, PORT, PROTOS, TCP, TURNS, UDP, World, at, expect, expect_drop, expect_ends,
    expect_untouched, nets, packet, syn, tuple,
};

/// Ports of the frontend and of the backend: other ones, the same one.
const PORTS: [(u16, u16); 2] = [(80, 8080), (53, 53)];

#[test]
fn to_a_backend_on_this_node_and_back() {
    World::both("local", |world| {
        for net in nets() {
            for proto in PROTOS {
                for (port, target) in PORTS {
                    let (client, service) = (at(net.client, PORT), at(net.service, port));
                    let backend = at(net.local, target);
                    world.service(service, proto, &[backend]);
                    for [request, answer] in TURNS {
                        let frame = request(proto, client, service).build();
                        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                        expect_ends(&frame, &out, client, backend);
                        let frame = answer(proto, backend, client).build();
                        let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                        expect_ends(&frame, &out, service, client);
                    }
                    let flow = world.flow(tuple(proto, client, service));
                    let links = &world.programs.links;
                    assert_eq!((flow.redirect_to, flow.twin_redirect_to), (links[1], links[0]));
                }
            }
        }
    });
}

#[test]
fn to_a_backend_elsewhere_and_back() {
    World::both("remote", |world| {
        for net in nets() {
            for proto in PROTOS {
                for (port, target) in PORTS {
                    let (client, service) = (at(net.client, PORT), at(net.service, port));
                    let backend = at(net.remote, target);
                    world.service(service, proto, &[backend]);
                    for [request, answer] in TURNS {
                        let frame = request(proto, client, service).build();
                        let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                        expect_ends(&frame, &out, client, backend);
                        let frame = answer(proto, backend, client).build();
                        let out = expect(&world.deliver(&frame), Verdict::ToClient, Action::Pass);
                        expect_ends(&frame, &out, service, client);
                    }
                }
            }
        }
    });
}

/// The answer of a local backend to a client behind a bridge goes by the stack, and must be translated once.
#[test]
fn the_answer_to_a_client_behind_a_bridge_passes() {
    let mut world = World::new("bridge");
    for net in nets() {
        for proto in PROTOS {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, proto, &[backend]);
            for [request, answer] in TURNS {
                let frame = request(proto, client, service).build();
                let ran = world.run(Hook::FromPod, 2, &frame);
                expect_ends(&frame, &expect(&ran, Verdict::ToBackend, Action::Redirect), client, backend);
                let frame = answer(proto, backend, client).build();
                let ran = world.answer(&frame);
                expect_ends(&frame, &expect(&ran, Verdict::ToClient, Action::Pass), service, client);
                let backends_link = world.programs.links[1];
                let ran_on = world.forward(backends_link, 2, &ran.packet);
                expect_untouched(&ran_on, Verdict::Allowed, &ran.packet);
                // By any other way it is a packet from a Service's address.
                let ran_on = world.deliver(&ran.packet);
                expect_drop(&ran_on, Verdict::Martian, &ran.packet);
            }
        }
    }
}

/// A packet from elsewhere to the client's pod begins no flow of a Service at `to_pod`, nor does a delivered request.
#[test]
fn to_pod_begins_no_flow_of_a_service() {
    let mut world = World::new("to-pod");
    for net in nets() {
        for proto in PROTOS {
            let (client, service, backend) =
                (at(net.client, PORT), at(net.service, 80), at(net.remote, 8080));
            world.service(service, proto, &[backend]);
            for (src, dst) in [(client, service), (backend, client), (at(net.other, 9), client)] {
                let frame = packet(proto, src, dst).build();
                expect_untouched(&world.deliver(&frame), Verdict::NotService, &frame);
            }
            assert!(!world.has_flow(tuple(proto, client, service)));
        }
    }
}

#[test]
fn packet_to_no_service_passes_untouched() {
    World::both("other", |world| {
        for net in nets() {
            for proto in PROTOS {
                world.service(at(net.service, 80), proto, &[at(net.local, 8080)]);
                for dst in [net.other, net.local, net.remote] {
                    let frame = packet(proto, at(net.client, PORT), at(dst, 80)).build();
                    expect_untouched(&world.send(&frame), plain(proto), &frame);
                }
            }
            let echo = Packet::echo(net.client, net.other, 1, 1).payload(b"ping").build();
            expect_untouched(&world.send(&echo), Verdict::NotService, &echo);
        }
    });
}

/// The same port number is a different Service port for each protocol.
#[test]
fn protocols_are_apart() {
    let mut world = World::new("protocols");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 53));
        world.service(service, TCP, &[at(net.remote, 1053)]);
        world.service(service, UDP, &[at(net.remote2, 2053)]);
        let out = expect(&world.send(&syn(client, service).build()), Verdict::ToBackend, Action::Pass);
        assert_eq!(out.dst, at(net.remote, 1053));
        let out =
            expect(&world.send(&packet(UDP, client, service).build()), Verdict::ToBackend, Action::Pass);
        assert_eq!(out.dst, at(net.remote2, 2053));
    }
}

#[test]
fn an_established_flow_outlives_every_change_of_its_service() {
    let mut world = World::new("established");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
            world.service(service, proto, &[old]);
            world.connect(proto, client, service, ELSEWHERE);
            // The backend takes no new connections any more,
            world.service(service, proto, &[new]);
            let frame = packet(proto, client, service).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            assert_eq!(out.dst, old, "moved with the slots");
            // and then the frontend is gone.
            for (key, _) in world.frontends() {
                world.remove_frontend(&key);
            }
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            assert_eq!(out.dst, old, "moved with the frontend");
            let frame = packet(proto, old, client).build();
            let out = expect(&world.deliver(&frame), Verdict::ToClient, Action::Pass);
            assert_eq!(out.src, service);
            let frame = packet(proto, at(net.client, PORT + 1), service).build();
            expect_untouched(&world.send(&frame), plain(proto), &frame);
        }
    }
}

/// The verdict on a packet between pods that the agent does not know: a datagram begins a flow, an acknowledgement does not.
fn plain(proto: u8) -> Verdict {
    if proto == UDP { Verdict::Allowed } else { Verdict::NotService }
}

/// An absent checksum stays absent (RFC 768), and one that comes out as zero is sent as all ones.
#[test]
fn udp_checksum_zero() {
    let mut world = World::new("udp-zero");
    let [v4, v6] = nets();
    let (client, service) = (at(v4.client, PORT), at(v4.service, 80));
    let backend = at(v4.remote, 8080);
    world.service(service, UDP, &[backend]);
    for (src, dst) in [(client, service), (backend, client)] {
        let frame = Packet::udp(src, dst).without_checksum().payload(b"x").build();
        let ran = if src == client { world.send(&frame) } else { world.deliver(&frame) };
        assert_eq!(ran.packet[40..42], [0, 0], "{:?}", Parsed::frame(&ran.packet));
        assert_ne!(ran.packet, frame);
    }
    for (net, sum_at) in [(v4, 40), (v6, 60)] {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let backend = at(net.remote, 8080);
        world.service(service, UDP, &[backend]);
        // The payload that makes the checksum of the translated datagram zero.
        let plain = Packet::udp(client, backend).payload(&[0, 0]).build();
        let payload = [plain[sum_at], plain[sum_at + 1]];
        let frame = Packet::udp(client, service).payload(&payload).build();
        let ran = world.send(&frame);
        expect(&ran, Verdict::ToBackend, Action::Pass);
        assert_eq!(ran.packet[sum_at..sum_at + 2], [0xff, 0xff], "{:?}", net.family);
    }
}

/// Large packets are not linear in memory.
#[test]
fn a_large_packet() {
    let mut world = World::new("large");
    let payload: Vec<u8> = (0..60_000u32).map(|n| (n * n) as u8).collect();
    for net in nets() {
        for proto in PROTOS {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            let frame = packet(proto, client, service).payload(&payload).build();
            if frame.len() > 3_500 && !world.takes(&frame) {
                say(&format!(
                    "not run: a packet of {} bytes: this kernel makes none for a test run",
                    frame.len()
                ));
                continue;
            }
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            expect_ends(&frame, &out, client, backend);
        }
    }
}

/// A segment of a living connection is translated whatever its flags. Flags other than FIN and RST do not change the
/// connection's state.
#[test]
fn every_tcp_flag_is_kept() {
    let mut world = World::new("flags");
    for net in nets() {
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, TCP, &[backend]);
        world.connect(TCP, client, service, LOCAL);
        for bits in 0..64 {
            let frame = Packet::tcp(client, service, bits).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            expect_ends(&frame, &out, client, backend);
            // A SYN alone would open another connection where the last one was reset.
            let answer = if bits & flags::SYN == 0 { bits } else { bits | flags::ACK };
            let frame = Packet::tcp(backend, client, answer & !(flags::FIN | flags::RST)).build();
            let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
            expect_ends(&frame, &out, service, client);
        }
    }
}
