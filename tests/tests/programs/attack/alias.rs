//! An address that stands for another one: IPv4-mapped, in an IPv6 header (RFC 4291, 2.5.5.2). Every map would take
//! it for the IPv4 host's.

use std::net::{IpAddr, Ipv4Addr};

use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Ext, Packet, Reason};

use super::{beginnings, strays, wire_with_pods};
use crate::policy::Policies;
use crate::world::{PORT, PROTOS, World, at, expect_drop, expect_untouched, nets, packet};

fn alias(ip: IpAddr) -> IpAddr {
    let IpAddr::V4(ip) = ip else { panic!("{ip} has no alias") };
    Ipv4Addr::to_ipv6_mapped(&ip).into()
}

/// As the source, as the destination, as both: of the pod itself, of others, of a Service.
#[test]
fn an_alias_of_an_address() {
    let [v4, v6] = nets();
    let (mut wire, mut policies) = wire_with_pods("alias", &v4);
    policies.pod(&wire.world, 0, v4.client, policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
    policies.apply(&mut wire.world);
    for proto in PROTOS {
        wire.world.service(at(v4.service, 80), proto, &[at(v4.local, 8080)]);
        wire.world.service(at(v6.service, 80), proto, &[at(v6.local, 8080)]);
    }
    let aliases = [v4.client, v4.local, v4.remote, v4.service, v4.router, v4.other].map(alias);
    let others = [v6.client, v6.local, v6.other, v6.service];
    let pairs = aliases.into_iter().flat_map(|alias| {
        let with_others = others.into_iter().flat_map(move |other| [(alias, other), (other, alias)]);
        with_others.chain(aliases.map(move |other| (alias, other)))
    });
    for (src, dst) in pairs {
        let (src, dst) = (at(src, PORT), at(dst, 80));
        let packets = beginnings(src, dst).into_iter().chain(strays(src, dst));
        for packet in packets.flat_map(|packet| [packet.clone(), packet.ext(Ext::DestOpts(vec![0; 20]))]) {
            let frame = packet.build();
            for (hook, link) in [(Hook::FromPod, 0), (Hook::FromPod, 1), (Hook::FromPod, 2), (Hook::ToPod, 0)]
            {
                expect_drop(&wire.world.run(hook, link, &frame), Verdict::Martian, &frame);
            }
            expect_drop(&wire.run(Hook::FromNetdev, &frame), Verdict::Martian, &frame);
            expect_untouched(&wire.run(Hook::Xdp, &frame), Verdict::LeftToTc, &frame);
        }
        // Every fragment has addresses.
        for frame in packet(17, src, dst).payload(&[1; 200]).fragments(9, 64) {
            expect_drop(&wire.world.send(&frame), Verdict::Martian, &frame);
            expect_drop(&wire.run(Hook::FromNetdev, &frame), Verdict::Martian, &frame);
        }
    }
    assert!(wire.world.programs.flows.is_empty());
}

/// An error that quotes one is related to no conversation of the IPv4 host.
#[test]
fn an_alias_in_an_error() {
    let [v4, v6] = nets();
    for proto in PROTOS {
        let mut world = World::new("alias-error");
        let mut policies = Policies::pods(&mut world, &v4);
        policies.pod(&world, 0, v4.client, 0);
        policies.pod(&world, 0, v6.client, policy_flags::ISOLATED_IN);
        policies.apply(&mut world);
        let (client, other) = (at(v4.client, PORT), at(v4.other, 80));
        world.connect(proto, client, other, crate::world::ELSEWHERE);
        let quoted = packet(proto, at(alias(client.ip()), PORT), at(alias(other.ip()), 80)).build_ip();
        let error = Packet::icmp_error(v6.other, v6.client, Reason::PortUnreachable, &quoted).build();
        expect_drop(&world.deliver(&error), Verdict::IngressDenied, &error);
    }
}
