//! ICMP errors and policy: an error passes with the connection that it belongs to, and no longer than that.

use std::net::{IpAddr, SocketAddr};

use lbr_common::flow::{Flow, flow_flags};
use lbr_common::maps::config::options;
use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, Reason, flags};
use lbr_tests::testrun::Action;

use super::{Policies, SET};
use crate::world::{
    ELSEWHERE, Net, PORT, PROTOS, TCP, UDP, World, at, expect_drop, expect_untouched, nets, opening, packet,
    segment, tuple,
};

const REASONS: [Reason; 3] = [Reason::PortUnreachable, Reason::TooBig { mtu: 1280 }, Reason::TimeExceeded];

/// Errors about a packet.
fn errors(by: IpAddr, about: &(u8, SocketAddr, SocketAddr)) -> Vec<Vec<u8>> {
    let (proto, src, dst) = *about;
    let quoted = packet(proto, src, dst).build_ip();
    REASONS.map(|reason| Packet::icmp_error(by, src.ip(), reason, &quoted).build()).into()
}

#[track_caller]
fn expect_errors(world: &mut World, hook: Hook, errors: &[Vec<u8>], verdict: Verdict) {
    for error in errors {
        match (verdict, world.run(hook, 0, error)) {
            (Verdict::IcmpError, ran) => {
                assert_eq!((ran.verdict, ran.action), (verdict, Action::Pass));
            }
            (_, ran) => expect_drop(&ran, verdict, error),
        }
    }
}

/// A pod that is isolated for ingress, and that opened a connection, which is established.
fn opened(world: &mut World, net: &Net, proto: u8, to: SocketAddr) -> Policies {
    let mut policies = Policies::pods(world, net);
    policies.pod(world, 0, net.client, policy_flags::ISOLATED_IN);
    policies.apply(world);
    let client = at(net.client, PORT);
    world.connect(proto, client, to, ELSEWHERE);
    policies
}

/// Another node sends errors about answers to its clients on to here (direct server return); they pass, translated.
#[test]
fn about_an_answer_to_a_client_of_another_node() {
    for (net, proto) in nets().into_iter().flat_map(|net| PROTOS.map(|proto| (net, proto))) {
        let mut world = World::new("relayed");
        let (pod, other) = (at(net.client, PORT), at(net.other, 80));
        let _policies = opened(&mut world, &net, proto, other);
        let key = tuple(proto, pod, other);
        let errors = errors(net.remote, &(proto, pod, other));
        let plain = world.flow(key);
        world.programs.flows.remove(&plain.twin_key()).unwrap();
        expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IngressDenied);
        let to = tuple(proto, at(net.service, 80), other);
        let answers = Flow { to, flags: flow_flags::EXTERNAL | flow_flags::REPLY, ..plain };
        world.programs.flows.insert(&key, &answers).unwrap();
        expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
    }
}

#[test]
fn about_a_flow_that_lives() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("related");
            let (client, other) = (at(net.client, PORT), at(net.other, 80));
            let _policies = opened(&mut world, &net, proto, other);
            let errors = errors(net.remote, &(proto, client, other));
            let key = tuple(proto, client, other);
            let before = world.flow(key);
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
            world.age(key, 170);
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
            // A new epoch, but no change for this flow.
            world.raise_epoch();
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
            // An error does not refresh the flow.
            let after = world.flow(key);
            let aged = before.last_seen.wrapping_sub(170_000_000_000);
            assert_eq!((after.last_seen, after.epoch), (aged, before.epoch));
            // About another connection: judged like any other packet.
            for about in [(proto, at(net.client, PORT + 1), other), (proto, client, at(net.other, 81))] {
                let errors = self::errors(net.remote, &about);
                expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IngressDenied);
            }
        }
    }
}

#[test]
fn about_a_flow_that_fell_silent() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("related-silent");
            let (client, other) = (at(net.client, PORT), at(net.other, 80));
            let _policies = opened(&mut world, &net, proto, other);
            let errors = errors(net.remote, &(proto, client, other));
            world.age(tuple(proto, client, other), 181);
            let then = if proto == UDP { Verdict::IngressDenied } else { Verdict::IcmpError };
            expect_errors(&mut world, Hook::ToPod, &errors, then);
            world.age(tuple(proto, client, other), 86_400);
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IngressDenied);
        }
    }
}

/// The last segments of a closed connection may be too big for the path like any other.
#[test]
fn about_a_connection_that_ended() {
    for net in nets() {
        for ends in [[flags::FIN | flags::ACK; 2], [flags::RST; 2]] {
            let mut world = World::new("related-ended");
            let (client, other) = (at(net.client, PORT), at(net.other, 80));
            let _policies = opened(&mut world, &net, TCP, other);
            let errors = errors(net.remote, &(TCP, client, other));
            assert_eq!(world.send(&segment(client, other, ends[0]).build()).verdict, Verdict::Allowed);
            assert_eq!(world.deliver(&segment(other, client, ends[1]).build()).verdict, Verdict::Allowed);
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
            let seconds = if ends[0] == flags::RST { 3_600 } else { 120 };
            world.age(tuple(TCP, client, other), seconds - 1);
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
            world.age(tuple(TCP, client, other), 2);
            expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IngressDenied);
        }
    }
}

/// The flow has had no packet since the change: an error may be the first packet that is judged.
#[test]
fn about_a_flow_that_is_revoked() {
    for net in nets() {
        for proto in PROTOS {
            for (options, then) in
                [(0, Verdict::IngressDenied), (options::KEEP_ESTABLISHED, Verdict::IcmpError)]
            {
                let mut world = World::with("related-revoked", options);
                let (client, other) = (at(net.client, PORT), at(net.other, 80));
                let mut policies = opened(&mut world, &net, proto, other);
                let errors = errors(net.remote, &(proto, client, other));
                policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
                policies.apply(&mut world);
                expect_errors(&mut world, Hook::ToPod, &errors, then);
                // Allowed again before one of its packets was denied: it never ended.
                policies.allow_all(SET, direction::EGRESS);
                policies.apply(&mut world);
                expect_errors(&mut world, Hook::ToPod, &errors, Verdict::IcmpError);
            }
        }
    }
}

/// Errors of an isolated pod about packets that it received.
#[test]
fn from_the_pod() {
    for net in nets() {
        let mut world = World::new("related-from-pod");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
        policies.allow(SET, direction::INGRESS, UDP, 80);
        policies.apply(&mut world);
        let (other, pod) = (at(net.other, PORT), at(net.client, 80));
        let errors = errors(net.client, &(UDP, other, pod));
        expect_errors(&mut world, Hook::FromPod, &errors, Verdict::EgressDenied);
        let request = packet(UDP, other, pod).build();
        expect_untouched(&world.deliver(&request), Verdict::Allowed, &request);
        expect_errors(&mut world, Hook::FromPod, &errors, Verdict::IcmpError);
        world.raise_epoch();
        expect_errors(&mut world, Hook::FromPod, &errors, Verdict::IcmpError);
        world.age(tuple(UDP, other, pod), 181);
        expect_errors(&mut world, Hook::FromPod, &errors, Verdict::EgressDenied);
        expect_untouched(&world.deliver(&request), Verdict::Allowed, &request);
        policies.revoke();
        policies.apply(&mut world);
        expect_errors(&mut world, Hook::FromPod, &errors, Verdict::EgressDenied);
    }
}

/// An error about a packet to a Service may quote the Service at the client's link: the backend's link translated it,
/// or its sender forged that.
#[test]
fn about_a_flow_to_a_service() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("related-service");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
            policies.apply(&mut world);
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let backend = at(net.remote, 8080);
            world.service(service, proto, &[backend]);
            let first = opening(proto, client, service);
            let key = tuple(proto, client, service);
            let about_sent = errors(net.remote2, &(proto, client, service));
            let about_translated = errors(net.remote2, &(proto, client, backend));
            let both = [about_sent, about_translated].concat();
            expect_errors(&mut world, Hook::ToPod, &both, Verdict::IngressDenied);
            assert_eq!(world.send(&first.build()).verdict, Verdict::ToBackend);
            expect_errors(&mut world, Hook::ToPod, &both, Verdict::IcmpError);
            world.raise_epoch();
            expect_errors(&mut world, Hook::ToPod, &both, Verdict::IcmpError);

            // Unreplied, past its lifetime.
            world.age(key, if proto == UDP { 31 } else { 61 });
            expect_errors(&mut world, Hook::ToPod, &both, Verdict::IngressDenied);
            world.reset_flows();
            assert_eq!(world.send(&first.build()).verdict, Verdict::ToBackend);
            expect_errors(&mut world, Hook::ToPod, &both, Verdict::IcmpError);
            policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
            policies.apply(&mut world);
            expect_errors(&mut world, Hook::ToPod, &both, Verdict::IngressDenied);
        }
    }
}
