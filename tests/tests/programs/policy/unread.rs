//! Packets that cannot be judged, as lbr does not parse them further: they neither enter nor leave an isolated pod.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Ext, Packet};

use super::Policies;
use crate::world::{PORT, PROTOS, UDP, World, at, expect_drop, expect_untouched, nets, packet};

/// Kinds of them between two ends, with their verdict where no pod is isolated.
fn kinds(src: std::net::SocketAddr, dst: std::net::SocketAddr) -> Vec<(Verdict, Vec<u8>)> {
    let mut kinds = Vec::new();
    for proto in PROTOS {
        let tagged = packet(proto, src, dst).vlan(5);
        kinds.push((Verdict::VlanTagged, tagged.build()));
        kinds.push((Verdict::VlanTagged, tagged.vlan(6).build()));
    }
    let later = Packet::udp(src, dst).payload(&[5; 2000]).fragments(7, 1024).remove(1);
    kinds.push((Verdict::FragmentNotTracked, later));
    if dst.is_ipv6() {
        let routing = Ext::Routing { kind: 2, segments_left: 1, data: vec![0; 20] };
        kinds.push((Verdict::RoutingHeader, packet(UDP, src, dst).ext(routing).build()));
    }
    kinds
}

#[test]
fn unparsed_packets_pass_only_without_isolation() {
    for net in nets() {
        for (flags, isolated_in, isolated_out) in [
            (0, false, false),
            (policy_flags::ISOLATED_IN, true, false),
            (policy_flags::ISOLATED_OUT, false, true),
            (policy_flags::AUDIT_IN | policy_flags::AUDIT_OUT, false, false),
        ] {
            let mut world = World::new("unread");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, flags);
            policies.apply(&mut world);
            let (pod, other) = (at(net.client, PORT), at(net.other, 80));
            let ways = [(Hook::FromPod, pod, other, isolated_out), (Hook::ToPod, other, pod, isolated_in)];
            for (hook, src, dst, is_isolated) in ways {
                for (verdict, frame) in kinds(src, dst) {
                    let ran = world.run(hook, 0, &frame);
                    if verdict == Verdict::VlanTagged && hook == Hook::FromPod {
                        // Its source could not be checked later.
                        expect_drop(&ran, Verdict::TaggedByPod, &frame);
                    } else if is_isolated {
                        expect_drop(&ran, Verdict::NotJudged, &frame);
                    } else {
                        expect_untouched(&ran, verdict, &frame);
                    }
                    // The node is not judged.
                    if hook == Hook::ToPod {
                        let link = world.programs.links[0];
                        let ran = world.programs.run_from_node(link, &frame).unwrap();
                        expect_untouched(&ran, verdict, &frame);
                    }
                }
            }
        }
    }
}
