//! Audits: a connection that audited policies would deny passes, and is reported once.

use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::testrun::{Action, Ran};

use super::{AUDIT, Policies, SET, denials};
use crate::world::{PORT, PROTOS, TCP, UDP, World, at, nets, opening, packet, syn};

const OUT: Verdict = Verdict::EgressAudited;
const IN: Verdict = Verdict::IngressAudited;
const EGRESS: u32 = direction::EGRESS;
const INGRESS: u32 = direction::INGRESS;

#[track_caller]
fn expect(ran: &Ran, verdict: Verdict, audits: &[Verdict]) {
    assert_eq!((ran.verdict, &ran.audits[..]), (verdict, audits));
}

/// Counted as a verdict of its own and for the set, by the first packet of the connection only.
#[test]
fn audited_connection_passes_and_is_reported_once() {
    for net in nets() {
        let mut world = World::new("audit");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::AUDIT_OUT);
        policies.pod(&world, 1, net.local, policy_flags::AUDIT_IN);
        policies.apply(&mut world);
        let (client, local, other) = (at(net.client, PORT), at(net.local, 80), at(net.other, 80));

        let frame = syn(client, other).build();
        expect(&world.send(&frame), Verdict::Allowed, &[OUT]);
        expect(&world.send(&frame), Verdict::Allowed, &[]);
        expect(&world.deliver(&packet(TCP, other, client).build()), Verdict::Allowed, &[]);
        expect(&world.run(Hook::ToPod, 1, &syn(other, local).build()), Verdict::Allowed, &[IN]);
        assert_eq!(denials(&world), [(AUDIT, INGRESS, 1, 1), (AUDIT, EGRESS, 1, 1)]);
        // Each end is audited by itself.
        expect(&world.send(&syn(client, local).build()), Verdict::Allowed, &[OUT, IN]);
        expect(&world.answer(&syn(local, client).build()), Verdict::Allowed, &[]);
        assert_eq!(denials(&world), [(AUDIT, INGRESS, 1, 2), (AUDIT, EGRESS, 1, 2)]);

        // A connection that the audited set allows is not reported.
        policies.allow(AUDIT, EGRESS, TCP, 443);
        policies.apply(&mut world);
        expect(&world.send(&syn(client, at(net.other, 443)).build()), Verdict::Allowed, &[]);
    }
}

/// The audit would have changed nothing: the other end denies the connection.
#[test]
fn denied_connection_is_not_reported_as_audited() {
    let mut world = World::new("audit-denied");
    let [net, _] = nets();
    let mut policies = Policies::pods(&mut world, &net);
    policies.pod(&world, 0, net.client, policy_flags::AUDIT_OUT);
    policies.pod(&world, 1, net.local, policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
    policies.apply(&mut world);
    let (client, local) = (at(net.client, PORT), at(net.local, 80));
    for frame in [syn(client, local).build(), packet(TCP, client, local).build()] {
        expect(&world.send(&frame), Verdict::IngressDenied, &[]);
    }
    assert_eq!(denials(&world), [(SET, INGRESS, 0, 2)]);
}

/// The client of a mid-stream connection is unknown: the direction that is allowed is the one that is audited.
#[test]
fn mid_stream_connection_is_audited_in_its_allowed_direction() {
    let mut world = World::new("audit-midflow");
    let [net, _] = nets();
    let mut policies = Policies::pods(&mut world, &net);
    let flags = policy_flags::ISOLATED_OUT | policy_flags::AUDIT_OUT | policy_flags::AUDIT_IN;
    policies.pod(&world, 0, net.client, flags);
    policies.apply(&mut world);
    // Its egress is denied, so it is taken for an answer of the pod: only its ingress is audited.
    let frame = packet(TCP, at(net.client, 80), at(net.other, PORT)).build();
    expect(&world.send(&frame), Verdict::Allowed, &[IN]);
    expect(&world.send(&frame), Verdict::Allowed, &[]);
    assert_eq!(denials(&world), [(AUDIT, INGRESS, 1, 1)]);
}

/// A flow that begins with the second attempt is judged twice, and reported once.
#[test]
fn flow_of_a_second_attempt_is_reported_once() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("audit-attempts");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, policy_flags::AUDIT_OUT);
            policies.apply(&mut world);
            for (service, told) in [(net.service, 1), (net.service2, 2)] {
                let service = at(service, 80);
                world.service(service, proto, &[at(net.remote, 8080)]);
                let frame = opening(proto, at(net.client, PORT), service).build();
                expect(&world.send(&frame), Verdict::ToBackend, &[OUT]);
                assert_eq!(denials(&world), [(AUDIT, EGRESS, 1, told)]);
            }
        }
    }
}

/// After every change flows are judged again; only news about a connection is reported.
#[test]
fn connection_judged_again_reports_only_news() {
    for net in nets() {
        let mut world = World::new("audit-again");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::AUDIT_OUT);
        policies.apply(&mut world);
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (backend, other) = (at(net.remote, 8080), at(net.other, 80));
        world.service(service, UDP, &[backend]);
        let connections = [(service, backend, Verdict::ToBackend, Verdict::ToClient), {
            (other, other, Verdict::Allowed, Verdict::Allowed)
        }];
        let both = |world: &mut World, told: &[Verdict], answer_first: bool| {
            for (to, from, request, answer) in connections {
                let (sent, got) = (packet(UDP, client, to).build(), packet(UDP, from, client).build());
                if answer_first {
                    expect(&world.deliver(&got), answer, &[]);
                }
                expect(&world.send(&sent), request, told);
                expect(&world.deliver(&got), answer, &[]);
                expect(&world.send(&sent), request, &[]);
            }
        };
        both(&mut world, &[OUT], false);
        for answer_first in [false, true] {
            world.raise_epoch();
            both(&mut world, &[], answer_first);
        }
        assert_eq!(denials(&world), [(AUDIT, EGRESS, 1, 2)]);

        // Other policies are audited now, so the connection is reported again.
        policies.wanted.endpoints.get_mut(&net.client.into()).unwrap().policy.audit = AUDIT.next();
        policies.apply(&mut world);
        both(&mut world, &[OUT], true);
        assert_eq!(denials(&world), [(AUDIT, EGRESS, 1, 2), (AUDIT.next(), EGRESS, 1, 2)]);
        // They allow it, and then no longer.
        policies.allow_all(AUDIT.next(), EGRESS);
        policies.apply(&mut world);
        both(&mut world, &[], false);
        policies.revoke();
        policies.apply(&mut world);
        both(&mut world, &[OUT], true);
    }
}

/// A spoofed packet with the tuple of a flow does not suppress the report about that flow.
#[test]
fn spoofed_packet_does_not_suppress_a_report() {
    let mut world = World::new("audit-spoofed");
    let [net, _] = nets();
    let mut policies = Policies::pods(&mut world, &net);
    let frame = packet(UDP, at(net.client, PORT), at(net.other, 80)).build();
    expect(&world.send(&frame), Verdict::Allowed, &[]);
    policies.pod(&world, 0, net.client, policy_flags::AUDIT_OUT);
    policies.apply(&mut world);
    let ran = world.answer(&frame);
    expect(&ran, Verdict::SpoofedSource, &[]);
    assert_eq!(ran.action, Action::Drop);
    expect(&world.send(&frame), Verdict::Allowed, &[OUT]);
}
