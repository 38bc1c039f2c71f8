//! Random packets: valid ones of every kind that the programs know, and damaged ones.

use std::net::{IpAddr, SocketAddr};

use lbr_tests::packet::{Ext, Packet, Reason, sum};

use super::world::{Net, PORT, at};

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers from the same seed everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    fn bytes(&mut self, less_than: usize) -> Vec<u8> {
        (0..self.below(less_than)).map(|_| self.byte()).collect()
    }
}

/// A frame: two thirds of them as built, the others damaged.
pub(crate) fn frame(random: &mut Random, net: &Net) -> Vec<u8> {
    let mut frame = intact(random, net);
    if random.once_in(3) {
        for _ in 0..=random.below(3) {
            damage(random, &mut frame, net);
        }
        // Half of the damaged ones get through the first checks.
        if frame.len() >= 34 && !net.family.is_v6() && random.once_in(2) {
            set_ip_sum(&mut frame);
        }
    }
    frame
}

/// A source or destination: few of them, so that packets meet.
fn end(random: &mut Random, net: &Net) -> SocketAddr {
    let ports = [80, 81, 53, 8080, 8081, PORT];
    let hosts = [net.service, net.service2, net.local, net.remote, net.client, net.other];
    at(random.pick(&hosts), random.pick(&ports))
}

fn client(random: &mut Random, net: &Net) -> SocketAddr {
    at(net.client, PORT + random.below(12) as u16)
}

/// Source and destination of a packet that likely belongs to a flow, or begins one.
fn ends(random: &mut Random, net: &Net) -> (SocketAddr, SocketAddr) {
    let client = client(random, net);
    match random.below(10) {
        0 => (end(random, net), end(random, net)),
        1..4 => (at(random.pick(&[net.local, net.remote, net.client]), random.pick(&[8080, 53])), client),
        4 => (at(net.client, 8080), at(random.pick(&[net.service, net.service2]), client.port())),
        5 => (client, at(random.pick(&[net.local, net.remote]), 8080)),
        _ => (client, at(random.pick(&[net.service, net.service2]), random.pick(&[80, 80, 53, 81, 90]))),
    }
}

fn intact(random: &mut Random, net: &Net) -> Vec<u8> {
    let plain = plain(random, net);
    let packet = around(random, net, plain);
    if random.once_in(8) {
        let frames = packet.fragments(random.below(16) as u32, 24 + random.below(64));
        // A packet of nothing but an IP header has none.
        let which = random.below(frames.len().min(3));
        return frames.get(which).cloned().unwrap_or_else(|| packet.build());
    }
    packet.build()
}

fn transport(random: &mut Random, (src, dst): (SocketAddr, SocketAddr)) -> Packet {
    let packet = if random.once_in(2) {
        let options = random.bytes(12);
        Packet::tcp(src, dst, random.byte() & 0x3f).tcp_options(&options)
    } else if src.is_ipv4() && random.once_in(4) {
        Packet::udp(src, dst).without_checksum()
    } else {
        Packet::udp(src, dst)
    };
    let len = random.pick(&[1, 3, 20, 200]);
    packet.payload(&random.bytes(len))
}

fn plain(random: &mut Random, net: &Net) -> Packet {
    match random.below(20) {
        0..12 => {
            let ends = ends(random, net);
            transport(random, ends)
        }
        12..18 => {
            let client = client(random, net);
            let ends = match random.below(8) {
                0 => ends(random, net),
                1 | 2 => (at(random.pick(&[net.service, net.service2]), 80), client),
                _ => (client, at(random.pick(&[net.local, net.remote]), 8080)),
            };
            let inner = transport(random, ends);
            let inner = around(random, net, inner);
            let mut quoted = if random.once_in(8) {
                inner.fragments(3, 64).remove(0)[14..].to_vec()
            } else {
                inner.build_ip()
            };
            if random.once_in(2) {
                let least = if net.family.is_v6() { 48 } else { 28 };
                quoted.truncate(least + random.below(40));
            }
            let reasons = [
                Reason::PortUnreachable,
                Reason::HostUnreachable,
                Reason::TooBig { mtu: 1280 },
                Reason::TimeExceeded,
            ];
            let from = random.pick(&[net.router, net.local, net.remote, net.client]);
            let to = random.pick(&[net.client, net.client, net.service, net.service2, net.local]);
            Packet::icmp_error(from, to, random.pick(&reasons), &quoted)
        }
        _ => {
            let (src, dst): (IpAddr, IpAddr) = (net.client, end(random, net).ip());
            if random.once_in(2) {
                Packet::echo(src, dst, 1, 1).payload(&random.bytes(100))
            } else {
                Packet::raw(src, dst, random.byte()).payload(&random.bytes(100))
            }
        }
    }
}

/// IP options or extension headers, and seldom a VLAN tag.
fn around(random: &mut Random, net: &Net, mut packet: Packet) -> Packet {
    if random.once_in(50) {
        packet = packet.vlan(random.below(4096) as u16);
    }
    if !random.once_in(4) {
        return packet;
    }
    if !net.family.is_v6() {
        return packet.ip_options(&random.bytes(40));
    }
    let most = if random.once_in(10) { 10 } else { 4 };
    for _ in 0..random.below(most) {
        let data = random.bytes(30);
        packet = packet.ext(match random.below(5) {
            0 => Ext::Routing { kind: random.byte(), segments_left: 0, data },
            1 => Ext::Routing { kind: 4, segments_left: random.byte(), data },
            2 => Ext::Fragment { id: random.below(4) as u32, offset: 0, more: random.once_in(2) },
            3 => Ext::HopByHop(data),
            _ => Ext::DestOpts(data),
        });
    }
    packet
}

fn damage(random: &mut Random, frame: &mut Vec<u8>, net: &Net) {
    let headers = frame.len().min(120);
    let mut set = |at: usize, value: u8| {
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    };
    match random.below(9) {
        0 => {
            let at = random.below(headers);
            set(at, random.byte());
        }
        1 => {
            let at = random.below(headers);
            let flipped = 1 << random.below(8);
            frame[at] ^= flipped;
        }
        2 => frame.truncate((if net.family.is_v6() { 54 } else { 34 }).max(random.below(frame.len() + 1))),
        3 => frame.extend(random.bytes(64)),
        // Header length; fragment field; lengths; protocol.
        4 => set(14, if net.family.is_v6() { random.byte() } else { 0x40 | random.byte() & 15 }),
        5 if !net.family.is_v6() => set(20 + random.below(2), random.byte()),
        6 => set(if net.family.is_v6() { 18 } else { 16 } + random.below(2), random.byte()),
        7 => set(
            if net.family.is_v6() { 20 } else { 23 },
            random.pick(&[0, 1, 6, 17, 43, 44, 51, 58, 59, 60, 132]),
        ),
        // Type of an ICMP message, or length and next header of an extension header.
        _ => set(if net.family.is_v6() { 54 } else { 34 } + random.below(2), random.byte()),
    }
}

pub(crate) fn set_ip_sum(frame: &mut [u8]) {
    let end = (14 + usize::from(frame[14] & 15) * 4).min(frame.len());
    frame[24..26].fill(0);
    let check = !sum(0, &frame[14..end.max(26)]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}
