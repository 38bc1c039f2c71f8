use std::net::{IpAddr, SocketAddr};

use lbr_common::addr::Family;

use super::*;

fn ends(family: Family) -> (SocketAddr, SocketAddr) {
    match family {
        Family::V4 => ("10.244.1.2:4000".parse().unwrap(), "10.96.0.10:80".parse().unwrap()),
        Family::V6 => ("[fd00:10:244:1::2]:4000".parse().unwrap(), "[fd00:10:96::a]:80".parse().unwrap()),
    }
}

fn read(frame: &[u8]) -> Parsed {
    let parsed = Parsed::frame(frame).unwrap();
    assert!(parsed.checksums_ok(), "{parsed:?}");
    parsed
}

#[test]
fn built_packet_is_read_back() {
    for (src, dst) in Family::ALL.map(ends) {
        let tcp = Packet::tcp(src, dst, flags::SYN).numbers(7, 9).tcp_options(&[2, 4, 5, 180]);
        let tcp = read(&tcp.payload(b"odd").ttl(9).vlan(5).build());
        assert_eq!((tcp.src, tcp.dst, tcp.ttl, tcp.vlans.as_slice()), (src, dst, 9, &[5][..]));
        assert_eq!(tcp.transport, Transport::Tcp { flags: flags::SYN, seq: 7, ack: 9 });
        assert_eq!(tcp.payload, b"odd");
        let udp = read(&Packet::udp(src, dst).payload(b"x").build());
        assert_eq!((udp.src, udp.dst, udp.transport, udp.payload), (src, dst, Transport::Udp, b"x".to_vec()));
        let echo = read(&Packet::echo(src.ip(), dst.ip(), 3, 4).build());
        assert!(matches!(echo.transport, Transport::Icmp { kind: 8 | 128, rest: 0x0003_0004, .. }));
        let raw = read(&Packet::raw(src.ip(), dst.ip(), 132).payload(&[1; 12]).build());
        assert_eq!((raw.protocol, raw.payload.len()), (132, 12));
    }
}

/// A datagram from 192.168.0.1:1234 to 192.168.0.199:53, with checksums computed by hand.
#[test]
fn a_known_packet_has_known_checksums() {
    let bytes = Packet::udp("192.168.0.1:1234".parse().unwrap(), "192.168.0.199:53".parse().unwrap())
        .payload(b"hi")
        .build_ip();
    // 45 00 00 1e 12 34 00 00 40 11 -> words by hand: 4500+001e+1234+0000+4011+c0a8+0001+c0a8+00c7 = 219 7b.
    let by_hand: u32 = [0x4500, 0x1e, 0x1234, 0, 0x4011, 0xc0a8, 1, 0xc0a8, 0xc7].iter().sum();
    let folded = (by_hand & 0xffff) + (by_hand >> 16);
    assert_eq!(u32::from(u16::from_be_bytes([bytes[10], bytes[11]])), 0xffff - folded);
    let by_hand: u32 = [0xc0a8, 1, 0xc0a8, 0xc7, 17, 10, 1234, 53, 10, 0x6869].iter().sum();
    let folded = (by_hand & 0xffff) + (by_hand >> 16);
    assert_eq!(u32::from(u16::from_be_bytes([bytes[26], bytes[27]])), 0xffff - folded);
}

#[test]
fn any_flipped_bit_is_found() {
    for (src, dst) in Family::ALL.map(ends) {
        let frame = Packet::tcp(src, dst, flags::ACK).payload(b"data").build();
        let addresses = if src.is_ipv4() { 26..34 } else { 22..54 };
        for at in addresses.chain(frame.len() - 4..frame.len()) {
            let mut bad = frame.clone();
            bad[at] ^= 0x10;
            assert!(!Parsed::frame(&bad).unwrap().checksums_ok(), "byte {at}");
        }
    }
}

#[test]
fn options_and_extension_headers() {
    let (src, dst) = ends(Family::V4);
    let packet = read(&Packet::udp(src, dst).ip_options(&[7, 3, 4]).build());
    assert_eq!(packet.options, [7, 3, 4, 0]);
    let (src, dst) = ends(Family::V6);
    let packet = Packet::udp(src, dst)
        .ext(Ext::HopByHop(vec![]))
        .ext(Ext::DestOpts(vec![0x1e, 3, 1, 2, 3]))
        .ext(Ext::Routing { kind: 2, segments_left: 0, data: vec![0; 20] })
        .ext(Ext::Fragment { id: 9, offset: 0, more: false });
    let packet = read(&packet.payload(b"x").build());
    assert_eq!(packet.exts, [0, 60, 43, 44]);
    assert_eq!(packet.fragment, Some(Fragment { id: 9, offset: 0, more: false }));
    assert_eq!((packet.dst, packet.payload), (dst, b"x".to_vec()));
}

#[test]
fn fragments_make_the_whole() {
    for (src, dst) in Family::ALL.map(ends) {
        let packet = Packet::udp(src, dst).payload(&crate::probe::pattern(3_000));
        let parts: Vec<Parsed> = packet.fragments(77, 1_000).iter().map(|f| read(f)).collect();
        assert_eq!(parts.len(), 4);
        assert_eq!(parts[0].dst, dst);
        let places: Vec<_> = parts.iter().filter_map(|p| p.fragment).map(|f| (f.offset, f.more)).collect();
        assert_eq!(places, [(0, true), (1_000, true), (2_000, true), (3_000, false)]);
        let joined: Vec<u8> = parts.iter().flat_map(|p| p.payload.clone()).collect();
        assert_eq!(joined, crate::probe::pattern(3_000));
    }
}

#[test]
fn errors_quote() {
    for (src, dst) in Family::ALL.map(ends) {
        let router: IpAddr =
            if src.is_ipv4() { "10.0.0.1".parse().unwrap() } else { "fd00::1".parse().unwrap() };
        let quoted = Packet::tcp(src, dst, flags::ACK).payload(&[9; 100]).build_ip();
        for len in [28, 68, quoted.len()] {
            let cut = &quoted[..len.max(if src.is_ipv4() { 28 } else { 48 })];
            let error = Packet::icmp_error(router, src.ip(), Reason::TooBig { mtu: 1400 }, cut).build();
            let error = read(&error);
            let inner = error.quoted().unwrap();
            assert_eq!((inner.src, inner.dst), (src, dst));
            assert!(matches!(error.transport, Transport::IcmpError { rest: 1400, .. }), "{error:?}");
        }
        let mut damaged = quoted.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let error = Packet::icmp_error(router, src.ip(), Reason::PortUnreachable, &damaged).build();
        let error = Parsed::frame(&error).unwrap();
        assert_eq!(error.checksum_errors().len(), 1, "{error:?}");
        assert!(error.checksum_errors()[0].starts_with("quoted TCP"), "{error:?}");
    }
}

#[test]
fn nothing_makes_the_reader_panic() {
    for (src, dst) in Family::ALL.map(ends) {
        let quoted = Packet::udp(src, dst).payload(b"x").build_ip();
        let frames = [
            Packet::tcp(src, dst, flags::SYN).tcp_options(&[1; 8]).ip_options(&[1; 4]).build(),
            Packet::udp(src, dst).ext(Ext::HopByHop(vec![])).payload(b"x").build(),
            Packet::icmp_error(dst.ip(), src.ip(), Reason::PortUnreachable, &quoted).vlan(1).build(),
        ];
        for frame in frames {
            for len in 0..frame.len() {
                let _ = Parsed::frame(&frame[..len]);
            }
            for at in 0..frame.len() {
                for value in [0, 1, 0x4f, 0x7f, 0xff] {
                    let mut bad = frame.clone();
                    bad[at] = value;
                    let _ = Parsed::frame(&bad);
                }
            }
        }
    }
}

#[test]
fn text_for_people() {
    let (src, dst) = ends(Family::V4);
    let packet = read(&Packet::tcp(src, dst, flags::SYN | flags::ACK).build());
    assert_eq!(
        format!("{packet:?}"),
        "10.244.1.2:4000 > 10.96.0.10:80 TCP [SYN ACK] seq 1000 ack 0 ttl 64, 0 bytes"
    );
}

/// The check value of the catalogue of CRCs.
#[test]
fn crc32c_of_the_check_string() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
