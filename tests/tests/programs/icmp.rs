//! ICMP errors about translated packets, from everywhere and in both directions.

use std::net::{IpAddr, SocketAddr};

use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Ext, Packet, Parsed, Reason, Transport};
use lbr_tests::testrun::{Action, Ran};

use super::world::{
    Net, PORT, PROTOS, TCP, UDP, World, at, expect_drop, expect_untouched, nets, opening, packet,
};

const REASONS: [Reason; 4] =
    [Reason::PortUnreachable, Reason::HostUnreachable, Reason::TooBig { mtu: 1280 }, Reason::TimeExceeded];

/// The expected error, and the packet that it is about.
struct Wanted {
    from: IpAddr,
    to: IpAddr,
    about: (SocketAddr, SocketAddr),
}

/// Checksums are right, except that of a TCP segment or an SCTP packet quoted in full: it covers the ports, and lies
/// beyond the required quotation, so receivers ignore it.
#[track_caller]
fn expect_error(ran: &Ran, action: Action, sent: &[u8], wanted: &Wanted) {
    let got = Parsed::frame(&ran.packet).unwrap();
    assert_eq!((ran.verdict, ran.action), (Verdict::IcmpError, action), "{got:?}");
    let errors = got.checksum_errors();
    assert!(
        errors.iter().all(|e| e.starts_with("quoted TCP") || e.starts_with("quoted SCTP")),
        "{errors:?}: {got:?}"
    );
    let before = Parsed::frame(sent).unwrap();
    let quoted = got.quoted().unwrap();
    assert_eq!((got.src.ip(), got.dst.ip()), (wanted.from, wanted.to), "{got:?}");
    assert_eq!((quoted.src, quoted.dst), wanted.about, "{got:?}");
    // Nothing else changed.
    assert_eq!(ran.packet.len(), sent.len());
    assert_eq!((got.macs, got.ttl, &got.exts), (before.macs, before.ttl, &before.exts));
    let inner = before.quoted().unwrap();
    // A cut TCP header is read as payload, ports included.
    let cut = if inner.transport == Transport::Cut { 4 } else { 0 };
    assert_eq!(
        (quoted.ttl, quoted.protocol, &quoted.options, &quoted.exts, &quoted.payload[cut..]),
        (inner.ttl, inner.protocol, &inner.options, &inner.exts, &inner.payload[cut..])
    );
    assert_eq!((&quoted.transport, &quoted.fragment), (&inner.transport, &inner.fragment));
}

/// Ways to cut the quoted packet (from its IP header on): as short as RFC 792 allows, as long as it is.
fn cuts(quoted: &[u8], transport_at: usize) -> Vec<&[u8]> {
    [8, 12, 20, 28, usize::MAX]
        .iter()
        .map(|len| &quoted[..quoted.len().min(transport_at.saturating_add(*len))])
        .collect()
}

/// A flow from the client to a backend; gives the backend.
fn flow(world: &mut World, net: &Net, proto: u8, backend: IpAddr) -> (SocketAddr, SocketAddr, SocketAddr) {
    let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(backend, 8080));
    world.service(service, proto, &[backend]);
    let ran = world.send(&opening(proto, client, service).build());
    assert_eq!(ran.verdict, Verdict::ToBackend);
    (client, service, backend)
}

/// A packet to the backend could not be delivered: the client's error is about the packet that the client sent.
#[test]
fn about_a_request() {
    World::both("icmp-request", |world| {
        for net in nets() {
            for proto in PROTOS {
                for target in [net.local, net.remote] {
                    let (client, service, backend) = flow(world, &net, proto, target);
                    let quoted = packet(proto, client, backend).ttl(1).build_ip();
                    for quoted in cuts(&quoted, if net.family.is_v6() { 40 } else { 20 }) {
                        for reason in REASONS {
                            // From a router on the way, by the stack.
                            let error = Packet::icmp_error(net.router, client.ip(), reason, quoted).build();
                            let about = (client, service);
                            let wanted = Wanted { from: net.router, to: client.ip(), about };
                            expect_error(&world.deliver(&error), Action::Pass, &error, &wanted);
                            // From the backend itself, which the client knows as the Service.
                            let error = Packet::icmp_error(target, client.ip(), reason, quoted).build();
                            let wanted = Wanted { from: service.ip(), to: client.ip(), about };
                            if target == net.local {
                                expect_error(&world.answer(&error), Action::Redirect, &error, &wanted);
                            } else {
                                expect_error(&world.deliver(&error), Action::Pass, &error, &wanted);
                            }
                        }
                    }
                    world.reset();
                }
            }
        }
    });
}

/// A shorter way to the backend is not one to the Service. A pod that accepted the redirect would send all packets
/// for the Service to one backend's link address.
#[test]
fn redirects_are_not_translated() {
    let mut world = World::new("icmp-redirect");
    let [v4, _] = nets();
    for proto in PROTOS {
        let (client, service, backend) = flow(&mut world, &v4, proto, v4.local);
        let quoted = packet(proto, client, backend).build_ip();
        let error = Packet::icmp_error(v4.router, client.ip(), Reason::Redirect, &quoted).build();
        expect_untouched(&world.deliver(&error), Verdict::NotService, &error);
        let error = Packet::icmp_error(v4.router, service.ip(), Reason::Redirect, &quoted).build();
        expect_drop(&world.send(&error), Verdict::RouterMessage, &error);
    }
}

/// An answer to the client could not be delivered: the backend's error is about the packet that the backend sent.
#[test]
fn about_an_answer() {
    World::both("icmp-answer", |world| {
        for net in nets() {
            for proto in PROTOS {
                for (target, action) in [(net.local, Action::Redirect), (net.remote, Action::Pass)] {
                    let (client, service, backend) = flow(world, &net, proto, target);
                    let quoted = packet(proto, service, client).build_ip();
                    for quoted in cuts(&quoted, if net.family.is_v6() { 40 } else { 20 }) {
                        for reason in REASONS {
                            let error = Packet::icmp_error(client.ip(), service.ip(), reason, quoted).build();
                            let about = (backend, client);
                            let wanted = Wanted { from: client.ip(), to: backend.ip(), about };
                            expect_error(&world.send(&error), action, &error, &wanted);
                        }
                    }
                    world.reset();
                }
            }
        }
    });
}

/// Quoted packets with all kinds of headers between the IP header and the ports, and errors with options of their
/// own.
#[test]
fn with_options_and_extension_headers() {
    World::both("icmp-options", |world| {
        let [v4, v6] = nets();
        for proto in PROTOS {
            let (client, service, backend) = flow(world, &v4, proto, v4.remote);
            let wanted = Wanted { from: v4.router, to: client.ip(), about: (client, service) };
            for inner in 0..=10 {
                for outer in [0, 1, 10] {
                    let quoted = packet(proto, client, backend).ip_options(&vec![1; inner * 4]).build_ip();
                    for quoted in cuts(&quoted, 20 + inner * 4) {
                        let error = Packet::icmp_error(v4.router, client.ip(), Reason::TimeExceeded, quoted);
                        let error = error.ip_options(&vec![1; outer * 4]).build();
                        expect_error(&world.deliver(&error), Action::Pass, &error, &wanted);
                    }
                }
            }
            let (client, service, backend) = flow(world, &v6, proto, v6.remote);
            let wanted = Wanted { from: v6.router, to: client.ip(), about: (client, service) };
            for len in [0, 6, 30] {
                let plain = packet(proto, client, backend);
                let quoted = plain.ext(Ext::HopByHop(vec![])).ext(Ext::DestOpts(vec![0; len])).build_ip();
                let error = Packet::icmp_error(v6.router, client.ip(), Reason::TooBig { mtu: 1280 }, &quoted);
                let error = error.ext(Ext::DestOpts(vec![0; len])).build();
                expect_error(&world.deliver(&error), Action::Pass, &error, &wanted);
            }
        }
    });
}

/// The first fragment has the ports, so an error about it finds its flow.
#[test]
fn about_a_first_fragment() {
    World::both("icmp-fragment", |world| {
        for net in nets() {
            let (client, service, backend) = flow(world, &net, UDP, net.remote);
            let frames = Packet::udp(client, backend).payload(&[5; 2000]).fragments(7, 1024);
            let error =
                Packet::icmp_error(net.router, client.ip(), Reason::TimeExceeded, &frames[0][14..500]);
            let error = error.build();
            let wanted = Wanted { from: net.router, to: client.ip(), about: (client, service) };
            expect_error(&world.deliver(&error), Action::Pass, &error, &wanted);
            // A later fragment has none.
            let error =
                Packet::icmp_error(net.router, client.ip(), Reason::TimeExceeded, &frames[1][14..500]);
            let error = error.build();
            expect_untouched(&world.deliver(&error), Verdict::NotService, &error);
        }
    });
}

/// A datagram without a checksum is quoted without one.
#[test]
fn about_a_datagram_without_checksum() {
    let mut world = World::new("icmp-no-sum");
    let [net, _] = nets();
    let (client, service, backend) = flow(&mut world, &net, UDP, net.remote);
    let quoted = Packet::udp(client, backend).without_checksum().payload(b"xyz").build_ip();
    let error = Packet::icmp_error(net.router, client.ip(), Reason::PortUnreachable, &quoted).build();
    let wanted = Wanted { from: net.router, to: client.ip(), about: (client, service) };
    let ran = world.deliver(&error);
    expect_error(&ran, Action::Pass, &error, &wanted);
    // Ethernet, IP, ICMP, IP, and six bytes of UDP.
    assert_eq!(ran.packet[14 + 20 + 8 + 20 + 6..][..2], [0, 0]);
}

/// A pod that is its own backend gets an error about the packet that it sent.
#[test]
fn about_a_pods_own_service() {
    World::both("icmp-hairpin", |world| {
        for net in nets() {
            for proto in PROTOS {
                let (client, service, backend) = flow(world, &net, proto, net.client);
                let seen = at(net.service, PORT);
                let quoted = packet(proto, seen, backend).build_ip();
                let error =
                    Packet::icmp_error(backend.ip(), seen.ip(), Reason::PortUnreachable, &quoted).build();
                let wanted = Wanted { from: service.ip(), to: client.ip(), about: (client, service) };
                expect_error(&world.send(&error), Action::Redirect, &error, &wanted);
                world.reset();
            }
        }
    });
}

#[test]
fn unrelated_errors_pass_untouched() {
    World::both("icmp-unrelated", |world| {
        for net in nets() {
            flow(world, &net, TCP, net.remote);
            flow(world, &net, UDP, net.local);
            let strangers = [
                (at(net.client, PORT), at(net.other, 80)),
                (at(net.client, PORT + 1), at(net.remote, 8080)),
                (at(net.remote, 8080), at(net.client, PORT)),
            ];
            for proto in PROTOS {
                for (src, dst) in strangers {
                    let quoted = packet(proto, src, dst).build_ip();
                    for cut in [0, 7, 20, 27, quoted.len()] {
                        let quoted = &quoted[..cut];
                        let error =
                            Packet::icmp_error(net.router, net.client, Reason::PortUnreachable, quoted);
                        let error = error.build();
                        expect_untouched(&world.deliver(&error), Verdict::NotService, &error);
                        let error =
                            Packet::icmp_error(net.client, net.other, Reason::PortUnreachable, quoted);
                        let error = error.build();
                        expect_untouched(&world.send(&error), Verdict::NotService, &error);
                        // At a Service's address no host can receive the error.
                        let error = Packet::icmp_error(net.client, net.service, Reason::TimeExceeded, quoted);
                        let error = error.build();
                        expect_drop(&world.send(&error), Verdict::Unanswerable, &error);
                    }
                }
            }
            // The other family's error inside, or one about an error.
            let quoted = Packet::echo(net.client, net.other, 1, 1).build_ip();
            let error = Packet::icmp_error(net.router, net.client, Reason::TimeExceeded, &quoted).build();
            expect_untouched(&world.deliver(&error), Verdict::NotService, &error);
        }
    });
}

/// A quotation cut before the eight bytes that must be there cannot be translated.
#[test]
fn too_short_a_quotation_passes_untouched() {
    let mut world = World::new("icmp-short");
    for net in nets() {
        for proto in PROTOS {
            let (client, _, backend) = flow(&mut world, &net, proto, net.remote);
            let quoted = packet(proto, client, backend).build_ip();
            for len in 0..if net.family.is_v6() { 48 } else { 28 } {
                let error =
                    Packet::icmp_error(net.router, client.ip(), Reason::PortUnreachable, &quoted[..len]);
                let error = error.build();
                expect_untouched(&world.deliver(&error), Verdict::NotService, &error);
            }
        }
    }
}
