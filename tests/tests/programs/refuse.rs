//! Packets that no endpoint serves: refused by the program, or dropped.

use std::net::IpAddr;

use lbr_common::service::{Frontend, frontend_flags};
use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Ext, Packet, Parsed, Reason, Transport, flags};
use lbr_tests::testrun::{Action, Ran};

use super::world::{
    ACKNOWLEDGED, PORT, PROTOS, TCP, TURNS, UDP, World, at, expect, expect_drop, expect_ends, nets, opening,
    segment,
};

/// A reset for TCP; for everything else "port unreachable" from the packet's destination to its source, about this
/// packet.
#[track_caller]
fn expect_refused(ran: &Ran, verdict: Verdict, sent: &[u8]) {
    let answer = expect(ran, verdict, Action::Redirect);
    let about = Parsed::frame(sent).unwrap();
    let v6 = about.src.is_ipv6();
    if matches!(about.transport, Transport::Tcp { .. }) && about.options.is_empty() && about.exts.is_empty() {
        return expect_reset(&answer, &about);
    }
    let (src, dst) = about.macs.unwrap();
    assert_eq!(answer.macs, Some((dst, src)), "MAC addresses are swapped");
    assert_eq!((answer.src.ip(), answer.dst.ip()), (about.dst.ip(), about.src.ip()));
    assert_eq!((answer.ttl, answer.fragment), (64, None));
    let Transport::IcmpError { kind, code, rest: 0, quoted } = &answer.transport else {
        panic!("no ICMP error: {answer:?}")
    };
    assert_eq!((*kind, *code), if v6 { (1, 4) } else { (3, 3) });
    assert_eq!((quoted.src, quoted.dst, quoted.protocol), (about.src, about.dst, about.protocol));
    // The quotation is a beginning of what was sent, up to at least eight bytes behind the network headers
    // (RFC 792; RFC 4443 wants as much as fits, which receivers do not need).
    let headers = if v6 { 48 } else { 28 };
    let quotation = &ran.packet[14 + headers..];
    assert!(sent[14..].starts_with(quotation), "{answer:?} does not quote {about:?}");
    let network = sent.len() - 14 - about.payload.len() - transport_len(&about);
    let least = (network + 8).min(sent.len() - 14) & !3;
    assert!(quotation.len() >= least, "quotes {} bytes of {network} + 8", quotation.len());
    // The length in the header is that of the packet.
    let field = |at: usize| usize::from(u16::from_be_bytes([ran.packet[at], ran.packet[at + 1]]));
    let len = if v6 { field(18) + 40 } else { field(16) };
    assert_eq!(len, ran.packet.len() - 14);
}

#[track_caller]
fn expect_reset(answer: &Parsed, about: &Parsed) {
    let Transport::Tcp { seq, ack, flags: sent } = about.transport else { panic!("no segment: {about:?}") };
    assert_eq!((answer.src, answer.dst, answer.ttl), (about.dst, about.src, 64));
    assert_eq!(answer.macs, about.macs.map(|(src, dst)| (dst, src)), "MAC addresses are swapped");
    // RFC 9293, 3.5.2: the reset begins at the acknowledged number, or at zero and acknowledges the segment.
    let reset = if sent & flags::ACK != 0 {
        Transport::Tcp { flags: flags::RST, seq: ack, ack: 0 }
    } else {
        Transport::Tcp { flags: flags::RST | flags::ACK, seq: 0, ack: seq.wrapping_add(1) }
    };
    assert_eq!((&answer.transport, answer.payload.len()), (&reset, 0), "{answer:?}");
}

fn transport_len(packet: &Parsed) -> usize {
    match packet.transport {
        Transport::Tcp { .. } if packet.payload.is_empty() => 24,
        Transport::Tcp { .. } => 20,
        Transport::Udp | Transport::Icmp { .. } | Transport::IcmpError { .. } => 8,
        Transport::Sctp { .. } => 12,
        Transport::Other | Transport::Cut => 0,
    }
}

#[test]
fn no_endpoint() {
    let mut world = World::new("no-endpoint");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            world.service(service, proto, &[]);
            let first = opening(proto, client, service);
            for packet in [first.clone(), first.clone().payload(&[]), first.payload(&[9; 1400])] {
                let frame = packet.build();
                expect_refused(&world.send(&frame), Verdict::NoEndpoint, &frame);
            }
        }
    }
}

/// Any packet to a port, or of a protocol, that the Service does not have.
#[test]
fn no_such_port() {
    let mut world = World::new("no-such-port");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 81));
            world.service(at(net.service, 80), proto, &[at(net.local, 8080)]);
            let frame = opening(proto, client, service).build();
            expect_refused(&world.send(&frame), Verdict::NoSuchPort, &frame);
        }
        let echo = Packet::echo(net.client, net.service, 1, 1).payload(b"ping").build();
        expect_refused(&world.send(&echo), Verdict::NoSuchPort, &echo);
        let other = Packet::raw(net.client, net.service, 99).build();
        expect_refused(&world.send(&other), Verdict::NoSuchPort, &other);
    }
}

#[test]
fn with_options_and_extension_headers() {
    let mut world = World::new("refuse-options");
    let [v4, v6] = nets();
    for proto in PROTOS {
        let (client, service) = (at(v4.client, PORT), at(v4.service, 80));
        world.service(service, proto, &[]);
        for words in 0..=10 {
            let frame = opening(proto, client, service).ip_options(&vec![1; words * 4]).build();
            expect_refused(&world.send(&frame), Verdict::NoEndpoint, &frame);
        }
        let (client, service) = (at(v6.client, PORT), at(v6.service, 80));
        world.service(service, proto, &[]);
        for len in [0, 6, 14, 100] {
            let frame = opening(proto, client, service).ext(Ext::DestOpts(vec![0; len])).build();
            expect_refused(&world.send(&frame), Verdict::NoEndpoint, &frame);
        }
        // More headers than an answer quotes.
        let frame = opening(proto, client, service).ext(Ext::DestOpts(vec![0; 300])).build();
        expect_drop(&world.send(&frame), Verdict::Unanswerable, &frame);
    }
}

/// A first fragment is answered, so that the sender learns of the refusal at once.
#[test]
fn fragments() {
    let mut world = World::new("refuse-fragments");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        world.service(service, UDP, &[]);
        let frames = Packet::udp(client, service).payload(&[5; 2000]).fragments(7, 1024);
        expect_refused(&world.send(&frames[0]), Verdict::NoEndpoint, &frames[0]);
        expect_drop(&world.send(&frames[1]), Verdict::FragmentUnknown, &frames[1]);
    }
}

/// Only endpoints on this node count, and there is none. Another node may have one, so the packet is not refused.
#[test]
fn local_only_is_dropped() {
    let mut world = World::new("local-only");
    for net in nets() {
        for proto in PROTOS {
            let service = at(net.service, 80);
            let value = Frontend {
                service: 900.into(),
                count: 0,
                flags: frontend_flags::LOCAL_ONLY,
                ..Frontend::default()
            };
            world.frontend(service, proto, value);
            let frame = opening(proto, at(net.client, PORT), service).build();
            expect_drop(&world.send(&frame), Verdict::NoLocalEndpoint, &frame);
        }
    }
}

/// No error answers an error, or a packet whose source is a group or no host's address (RFC 1122 3.2.2, RFC 4443 2.4
/// (e)).
#[test]
fn unanswerable_packet_is_dropped() {
    let mut world = World::new("unanswerable");
    for net in nets() {
        let service = at(net.service, 80);
        for proto in PROTOS {
            world.service(service, proto, &[]);
            let sources: &[&str] = if net.family.is_v6() {
                &["::", "ff02::1", "ff0e::5"]
            } else {
                &["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255"]
            };
            for source in sources {
                let source: IpAddr = source.parse().unwrap();
                for make in TURNS[0] {
                    let frame = make(proto, at(source, PORT), service).build();
                    expect_drop(&world.send(&frame), Verdict::Unanswerable, &frame);
                }
            }
        }
        let quoted = Packet::udp(at(net.service, 9), at(net.client, 9)).build_ip();
        for reason in [Reason::PortUnreachable, Reason::TooBig { mtu: 1400 }, Reason::TimeExceeded] {
            let frame = Packet::icmp_error(net.client, net.service, reason, &quoted).build();
            expect_drop(&world.send(&frame), Verdict::Unanswerable, &frame);
        }
    }
}

/// The slot or the backend is missing: the agent's writes and the packet crossed.
#[test]
fn backend_missing() {
    let mut world = World::new("backend-missing");
    for net in nets() {
        for proto in PROTOS {
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            world.frontend(service, proto, Frontend { service: 900.into(), count: 3, ..Frontend::default() });
            let frame = opening(proto, client, service).build();
            expect_drop(&world.send(&frame), Verdict::BackendMissing, &frame);
            // The count is already, or still, larger than the number of slots: the first slot is taken.
            let service = at(net.service2, 80);
            let backend = at(net.remote, 8080);
            world.service(service, proto, &[backend]);
            let (_, value) = world
                .frontends()
                .into_iter()
                .find(|(k, _)| k.addr == net.service2.into() && k.proto == proto)
                .unwrap();
            world.frontend(service, proto, Frontend { count: 1000, ..value });
            let frame = opening(proto, client, service).build();
            let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
            expect_ends(&frame, &out, client, backend);
        }
    }
}

/// A SYN is refused as the beginning of a connection, any other segment as part of none: with a reset, except a RST,
/// which is never answered (RFC 9293, 3.5.2). The Service may have endpoints or not.
#[test]
fn every_tcp_flag() {
    for net in nets() {
        for has_endpoint in [false, true] {
            let mut world = World::new("refuse-flags");
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let backends = [at(net.local, 8080)];
            world.service(service, TCP, if has_endpoint { &backends } else { &[] });
            for bits in 0..64 {
                let opens = bits & (flags::SYN | flags::ACK | flags::RST) == flags::SYN;
                // With a FIN: see `attack::handshake::a_syn_with_something_else`.
                if opens && (has_endpoint || bits & flags::FIN != 0) {
                    continue;
                }
                let frame = segment(client, service, bits).payload(&[1; 30]).build();
                let ran = world.send(&frame);
                if bits & flags::RST != 0 {
                    expect_drop(&ran, Verdict::Unanswerable, &frame);
                } else {
                    let verdict = if opens { Verdict::NoEndpoint } else { Verdict::NoConnection };
                    expect_refused(&ran, verdict, &frame);
                }
            }
            assert!(world.programs.flows.is_empty());
        }
    }
}

/// A reset has the numbers that the segment's sender accepts as its peer's.
#[test]
fn reset_has_the_numbers_its_receiver_accepts() {
    let mut world = World::new("refuse-numbers");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        world.service(service, TCP, &[at(net.local, 8080)]);
        for (seq, ack) in [(0, 0), (1, u32::MAX), (u32::MAX, 0x1234_5678), (0xfffe_0001, ACKNOWLEDGED)] {
            for bits in [flags::ACK, flags::PSH | flags::ACK, flags::SYN | flags::ACK, flags::FIN, 0] {
                let frame = segment(client, service, bits).numbers(seq, ack).payload(&[1; 7]).build();
                expect_refused(&world.send(&frame), Verdict::NoConnection, &frame);
            }
        }
    }
}
