//! Requests for link addresses. A request also announces the sender's own link address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Packet, pseudo_sum, sum};

/// A broadcast request for `target` (ARP) from `sender`. Announces `sender` if both are the same.
pub fn arp_request(sender: Ipv4Addr, mac: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    // Ethernet: broadcast. ARP: Ethernet, IPv4, request.
    let mut frame = [[0xff; 6], mac].concat();
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A neighbour solicitation (RFC 4861 4.3) for `target`, sent to it, from `sender`.
pub fn solicitation(sender: Ipv6Addr, mac: [u8; 6], target: Ipv6Addr, target_mac: [u8; 6]) -> Vec<u8> {
    let (src, dst) = (IpAddr::V6(sender), IpAddr::V6(target));
    // Type 135, then the target, and the option "source link address".
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([1, 1]);
    message.extend(mac);
    let checksum = !sum(pseudo_sum(src, dst, 58, message.len()), &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    Packet::raw(src, dst, 58).payload(&message).ttl(255).macs(mac, target_mac).build()
}
