//! Headers that a packet may have beside its ports, or lack.

use lbr_common::addr::Family;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Ext, Packet, Parsed, Reason, flags};
use lbr_tests::testrun::Action;

use super::random::set_ip_sum;
use super::world::{
    LOCAL, Net, PORT, PROTOS, UDP, World, at, expect, expect_drop, expect_ends, expect_untouched, nets,
    packet,
};

#[test]
fn ipv4_options() {
    World::both("options", |world| {
        let [net, _] = nets();
        for proto in PROTOS {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            for words in 0..=10 {
                let frame = packet(proto, client, service).ip_options(&vec![1; words * 4]).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                expect_ends(&frame, &out, client, backend);
                let frame = packet(proto, backend, client).ip_options(&vec![1; words * 4]).build();
                let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                expect_ends(&frame, &out, service, client);
            }
        }
    });
}

fn routing(kind: u8, segments_left: u8) -> Ext {
    Ext::Routing { kind, segments_left, data: vec![0; 20] }
}

#[test]
fn ipv6_extension_headers() {
    World::both("extensions", |world| {
        let [_, net] = nets();
        let chains = [
            vec![Ext::HopByHop(vec![])],
            vec![Ext::DestOpts(vec![0; 30])],
            vec![Ext::HopByHop(vec![]), Ext::DestOpts(vec![]), routing(2, 0), Ext::DestOpts(vec![])],
            vec![routing(4, 0)],
            // The most headers that lbr follows.
            vec![Ext::DestOpts(vec![]); 7],
        ];
        for proto in PROTOS {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            for chain in &chains {
                let add = |packet: Packet| chain.iter().cloned().fold(packet, Packet::ext).build();
                let frame = add(packet(proto, client, service));
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                expect_ends(&frame, &out, client, backend);
                let frame = add(packet(proto, backend, client));
                let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                expect_ends(&frame, &out, service, client);
            }
            // Segments are left: the destination is not the final one.
            for left in [1, 2, 255] {
                let frame = packet(proto, client, service).ext(routing(4, left)).build();
                expect_untouched(&world.send(&frame), Verdict::RoutingHeader, &frame);
            }
            let many = (0..9).fold(packet(proto, client, service), |p, _| p.ext(Ext::DestOpts(vec![])));
            let frame = many.build();
            expect_drop(&world.send(&frame), Verdict::TooManyHeaders, &frame);
        }
    });
}

/// The authentication header counts its length in units other than those of other extension headers (RFC 4302, 2.2).
#[test]
fn ipv6_authentication_header() {
    World::both("ah", |world| {
        let [_, net] = nets();
        for proto in PROTOS {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            for words in [1, 4, 6] {
                let header = [vec![proto, words as u8, 0, 0], vec![0; 4], vec![9; words * 4]].concat();
                let wrap = |plain: Vec<u8>| {
                    Packet::raw(client.ip(), service.ip(), 51)
                        .payload(&[header.clone(), plain].concat())
                        .build()
                };
                let frame = wrap(packet(proto, client, service).build_ip()[40..].to_vec());
                let ran = world.send(&frame);
                assert_eq!((ran.verdict, ran.action), (Verdict::ToBackend, Action::Redirect));
                let wanted = packet(proto, client, backend).build_ip();
                assert_eq!(ran.packet[14 + 24..14 + 40], wanted[24..40]);
                assert_eq!(ran.packet[14 + 40..14 + 40 + header.len()], header);
                assert_eq!(ran.packet[14 + 40 + header.len()..], wanted[40..]);
            }
        }
    });
}

/// A VLAN tag leads a packet past the source check, so a pod may not send one. lbr leaves tagged packets to a pod
/// alone.
#[test]
fn vlan_tagged_and_non_ip_frames_are_no_services() {
    let mut world = World::new("not-ip");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            world.service(service, proto, &[at(net.local, 8080)]);
            for tags in [vec![5], vec![0], vec![5, 6]] {
                let frame = tags.into_iter().fold(packet(proto, client, service), Packet::vlan).build();
                expect_drop(&world.send(&frame), Verdict::TaggedByPod, &frame);
                expect_untouched(&world.deliver(&frame), Verdict::VlanTagged, &frame);
            }
            let mut frame = packet(proto, client, service).vlan(5).build();
            frame[12..14].copy_from_slice(&[0x88, 0xa8]);
            expect_drop(&world.send(&frame), Verdict::TaggedByPod, &frame);
            expect_untouched(&world.deliver(&frame), Verdict::VlanTagged, &frame);
        }
    }
    // ARP, IEEE 802.3 with a length, EAPOL, the shortest frame.
    for (kind, len) in [([8, 6], 42), ([0, 40], 60), ([0x88, 0x8e], 60), ([8, 6], 14)] {
        let mut frame = vec![0; len];
        frame[12..14].copy_from_slice(&kind);
        expect_untouched(&world.send(&frame), Verdict::NotIp, &frame);
        expect_untouched(&world.deliver(&frame), Verdict::NotIp, &frame);
    }
}

/// One packet of every kind that lbr translates.
fn kinds(net: &Net) -> Vec<Vec<u8>> {
    let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
    let mut frames = Vec::new();
    for proto in PROTOS {
        let plain = packet(proto, client, service);
        frames.push(plain.build());
        frames.push(if net.family.is_v6() {
            plain.ext(Ext::HopByHop(vec![])).ext(Ext::DestOpts(vec![0; 20])).build()
        } else {
            plain.ip_options(&[1; 12]).build()
        });
        let quoted = packet(proto, client, backend).build_ip();
        frames.push(Packet::icmp_error(net.router, net.client, Reason::TimeExceeded, &quoted).build());
        let quoted = packet(proto, service, client).build_ip();
        frames.push(Packet::icmp_error(net.client, net.service, Reason::PortUnreachable, &quoted).build());
    }
    frames
}

fn services(world: &mut World, net: &Net) {
    for proto in PROTOS {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        world.service(service, proto, &[at(net.local, 8080)]);
        world.connect(proto, client, service, LOCAL);
    }
}

/// A packet cut at any byte contradicts the length in its IP header, so it is malformed.
#[test]
fn truncated_packet_is_malformed() {
    let mut world = World::new("cut");
    let mut runs = 0;
    for net in nets() {
        services(&mut world, &net);
        for frame in kinds(&net) {
            let runs_from = if net.family.is_v6() { 54 } else { 34 };
            for len in 14..frame.len() {
                let cut = &frame[..len];
                if len < runs_from {
                    // Some kernels reject a test packet that is cut in its IP header.
                    let link = world.programs.links[0];
                    if let Ok(ran) = world.programs.run(Hook::FromPod, link, cut) {
                        expect_drop(&ran, Verdict::Malformed, cut);
                    }
                    continue;
                }
                expect_drop(&world.send(cut), Verdict::Malformed, cut);
                expect_drop(&world.deliver(cut), Verdict::Malformed, cut);
                runs += 2;
            }
        }
    }
    println!("{runs} cut packets");
}

/// A packet cut at any byte, with a matching length in the IP header: it is never translated without its ports and
/// its checksum, and never gets a wrong checksum.
#[test]
fn short_packet_with_matching_length_is_not_half_translated() {
    let mut world = World::new("short");
    for net in nets() {
        services(&mut world, &net);
        for frame in kinds(&net) {
            for len in if net.family.is_v6() { 54..frame.len() } else { 34..frame.len() } {
                let mut short = frame[..len].to_vec();
                set_length(&mut short, net.family);
                for ran in [world.send(&short), world.deliver(&short)] {
                    match ran.action {
                        Action::Drop => assert_eq!(ran.packet, short),
                        // The transport checksum no longer covers the packet, so only its change is checked.
                        _ if ran.packet == short => {}
                        _ => {
                            let out = Parsed::frame(&ran.packet).unwrap();
                            assert!(
                                ran.verdict != Verdict::ToBackend || out.dst.ip() == net.local,
                                "{out:?}"
                            );
                            assert_eq!(sum_error(&ran.packet), sum_error(&short), "{out:?}");
                        }
                    }
                }
            }
        }
    }
}

/// The checksum errors of a packet, without those of quoted TCP segments.
fn sum_error(frame: &[u8]) -> Vec<String> {
    let parsed = Parsed::frame(frame).unwrap();
    parsed.checksum_errors().into_iter().filter(|e| !e.starts_with("quoted TCP")).collect()
}

fn set_length(frame: &mut [u8], family: Family) {
    let len = frame.len() - 14;
    if family.is_v6() {
        frame[18..20].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    } else {
        frame[16..18].copy_from_slice(&(len as u16).to_be_bytes());
        set_ip_sum(frame);
    }
}

/// Ethernet padding behind a short packet is no part of the packet.
#[test]
fn padding() {
    World::both("padding", |world| {
        for net in nets() {
            for proto in PROTOS {
                let (client, service, backend) =
                    (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
                world.service(service, proto, &[backend]);
                world.connect(proto, client, service, LOCAL);
                for pad in [1, 2, 7, 40] {
                    let mut frame = packet(proto, client, service).payload(b"x").build();
                    frame.extend(vec![0; pad]);
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                    expect_ends(&frame, &out, client, backend);
                }
            }
        }
    });
}

/// Header fields that contradict each other.
#[test]
fn contradictory_header_fields_are_malformed() {
    let mut world = World::new("lies");
    let [v4, v6] = nets();
    for proto in PROTOS {
        let frame = |net: &Net| {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            packet(proto, client, service).build()
        };
        world.service(at(v4.service, 80), proto, &[at(v4.local, 8080)]);
        world.service(at(v6.service, 80), proto, &[at(v6.local, 8080)]);
        let mut expect_malformed = |mut bad: Vec<u8>, at: usize, value: &[u8]| {
            bad[at..at + value.len()].copy_from_slice(value);
            if bad[12] == 8 {
                set_ip_sum(&mut bad);
            }
            expect_drop(&world.send(&bad), Verdict::Malformed, &bad);
        };
        // Header lengths below the minimum, or beyond the packet; other versions.
        for first in [0x40, 0x41, 0x44, 0x05, 0x55, 0x65, 0xf5] {
            expect_malformed(frame(&v4), 14, &[first]);
        }
        let end = Packet::raw(v4.client, v4.service, proto).payload(&[0; 8]).build();
        expect_malformed(end, 14, &[0x4f]);
        for first in [0x00, 0x40, 0x50, 0x70, 0xf0] {
            expect_malformed(frame(&v6), 14, &[first]);
        }
        // Lengths shorter than the headers, or longer than the packet.
        let len = frame(&v4).len() - 14;
        for total in [1, 19, len + 1, 65_535] {
            expect_malformed(frame(&v4), 16, &(total as u16).to_be_bytes());
        }
        let len = frame(&v6).len() - 54;
        for payload in [len + 1, 65_535] {
            expect_malformed(frame(&v6), 18, &(payload as u16).to_be_bytes());
        }
        // The transport header is behind the end.
        for total in [20, 27] {
            expect_malformed(frame(&v4), 16, &(total as u16).to_be_bytes());
        }
        for payload in [1, 7] {
            expect_malformed(frame(&v6), 18, &(payload as u16).to_be_bytes());
        }
        // An extension header longer than the packet, before ports, and before nothing.
        let (client, service) = (at(v6.client, PORT), at(v6.service, 80));
        let long = packet(proto, client, service).ext(Ext::DestOpts(vec![])).build();
        expect_malformed(long.clone(), 55, &[255]);
        expect_malformed(long, 54, &[59, 9]);
    }
    // Without a transport header, for a Service: an answer must not quote bytes that were not sent.
    let none = Packet::raw(v4.client, v4.service, 99).build();
    let mut bad = none.clone();
    bad[14..18].copy_from_slice(&[0x4f, 0, 0, 0]);
    set_ip_sum(&mut bad);
    expect_drop(&world.send(&bad), Verdict::Malformed, &bad);
}

/// A segment that is cut behind its flags is dropped, and not half translated.
#[test]
fn segment_cut_behind_its_flags_is_dropped() {
    let mut world = World::new("tcp-cut");
    for net in nets() {
        services(&mut world, &net);
        let whole = Packet::tcp(at(net.client, PORT), at(net.service, 80), flags::ACK).build();
        for cut in 1..=6 {
            let mut short = whole[..whole.len() - cut].to_vec();
            set_length(&mut short, net.family);
            let ran = world.send(&short);
            assert_eq!(ran.action, Action::Drop, "{:?}", Parsed::frame(&ran.packet));
            assert_eq!(ran.packet, short, "dropped half translated");
        }
    }
}

/// A protocol that no Service has is refused at a Service's address, and untouched elsewhere.
#[test]
fn other_protocols_are_refused_at_a_service() {
    let mut world = World::new("others");
    for net in nets() {
        world.service(at(net.service, 80), UDP, &[at(net.local, 8080)]);
        for protocol in [0u8, 2, 4, 33, 41, 47, 50, 89, 103, 136, 255] {
            if net.family.is_v6() && protocol == 0 {
                continue;
            }
            let frame = Packet::raw(net.client, net.other, protocol).payload(&[0; 40]).build();
            expect_untouched(&world.send(&frame), Verdict::NotService, &frame);
            let frame = Packet::raw(net.client, net.service, protocol).payload(&[0; 40]).build();
            expect(&world.send(&frame), Verdict::NoSuchPort, Action::Redirect);
        }
    }
}
