//! A connection in which only one side takes part.

use std::net::SocketAddr;

use lbr_common::conntrack::State;
use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::flags;
use lbr_tests::testrun::Action;

use super::STRAY;
use crate::policy::{Policies, SET};
use crate::wire::Wire;
use crate::world::{
    ACKNOWLEDGED, CLIENT, ELSEWHERE, LOCAL, PORT, TCP, UDP, World, answering, at, expect, expect_drop,
    expect_untouched, nets, packet, segment, syn, syn_ack, tuple,
};

/// A segment that may belong to an older connection is picked up, as the pod may have opened that. A SYN on its ports
/// is judged for itself, whatever the pod answered.
#[test]
fn a_syn_behind_a_stray_segment() {
    for net in nets() {
        let (other, pod) = (at(net.other, PORT), at(net.client, 80));
        let opening = syn(other, pod).build();
        for bits in STRAY {
            for answer in [None, Some(flags::RST), Some(flags::RST | flags::ACK), Some(flags::ACK)] {
                let mut world = World::new("stray");
                let mut policies = Policies::pods(&mut world, &net);
                policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
                policies.apply(&mut world);
                expect_drop(&world.deliver(&opening), Verdict::IngressDenied, &opening);
                let stray = segment(other, pod, bits).build();
                let is_reset = bits & flags::RST != 0;
                let passed = if is_reset { Verdict::StrayReset } else { Verdict::Allowed };
                expect_untouched(&world.deliver(&stray), passed, &stray);
                assert_eq!(world.has_flow(tuple(TCP, other, pod)), !is_reset);
                if let Some(bits) = answer {
                    let answer = segment(pod, other, bits).build();
                    assert_eq!(world.send(&answer).action, Action::Pass);
                }
                for _ in 0..2 {
                    expect_drop(&world.deliver(&opening), Verdict::IngressDenied, &opening);
                    expect_untouched(&world.deliver(&stray), passed_again(bits, answer), &stray);
                }
                expect_drop(&world.deliver(&opening), Verdict::IngressDenied, &opening);
                // The same from a pod of this node, by its own link.
                let opening = syn(at(net.local, PORT), pod).build();
                let stray = segment(at(net.local, PORT), pod, bits).build();
                expect_untouched(&world.answer(&stray), passed, &stray);
                expect_drop(&world.answer(&opening), Verdict::IngressDenied, &opening);
            }
        }
    }
}

/// A reset of a connection that the pod took part in belongs to that connection.
fn passed_again(bits: u8, answer: Option<u8>) -> Verdict {
    let begins = bits & flags::RST == 0 || answer.is_some_and(|bits| bits & flags::RST == 0);
    if begins { Verdict::Allowed } else { Verdict::StrayReset }
}

/// A segment with SYN and without ACK and RST is a SYN, whatever else is set: its receiver may accept it (RFC 9293,
/// 3.10.7.2: in LISTEN only RST, ACK and SYN are checked).
#[test]
fn a_syn_with_something_else() {
    const URG: u8 = 32;
    for net in nets() {
        for more in [flags::FIN, flags::PSH, URG, flags::FIN | flags::PSH | URG] {
            let mut world = World::new("syn-more");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
            policies.pod(&world, 1, net.local, policy_flags::ISOLATED_OUT);
            policies.apply(&mut world);
            let (other, pod) = (at(net.other, PORT), at(net.client, 80));
            for payload in [&b""[..], b"early data"] {
                let opening = segment(other, pod, flags::SYN | more).payload(payload).build();
                expect_drop(&world.deliver(&opening), Verdict::IngressDenied, &opening);
                let opening = segment(at(net.local, PORT), other, flags::SYN | more).payload(payload).build();
                expect_drop(&world.answer(&opening), Verdict::EgressDenied, &opening);
            }
        }
    }
}

/// A pod that is isolated for egress cannot open a connection behind its answers either.
#[test]
fn a_syn_behind_an_answer() {
    for net in nets() {
        let mut world = World::new("behind-answer");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_OUT);
        policies.apply(&mut world);
        let (other, pod) = (at(net.other, PORT), at(net.client, 80));
        let opening = syn(pod, other).build();
        expect_drop(&world.send(&opening), Verdict::EgressDenied, &opening);
        // It is a server: its segments pass, with and without a connection.
        let answer = segment(pod, other, flags::ACK).build();
        expect_untouched(&world.send(&answer), Verdict::Allowed, &answer);
        expect_drop(&world.send(&opening), Verdict::EgressDenied, &opening);
        world.reset_flows();
        world.establish(TCP, (other, ELSEWHERE), pod, CLIENT);
        expect_drop(&world.send(&opening), Verdict::EgressDenied, &opening);
        assert_eq!(
            world.state(tuple(TCP, other, pod)),
            State::Established,
            "the connection is left as it is"
        );
        let data = packet(TCP, pod, other).build();
        expect_untouched(&world.send(&data), Verdict::Allowed, &data);
        // Where policy allows it, the SYN is a segment of the existing connection.
        policies.allow(SET, direction::EGRESS, TCP, PORT);
        policies.apply(&mut world);
        expect_untouched(&world.send(&opening), Verdict::Allowed, &opening);
        assert_eq!(world.state(tuple(TCP, other, pod)), State::Established);
    }
}

/// A sender that does not receive the SYN/ACK cannot acknowledge its number, so its flow stays unconfirmed.
#[test]
fn a_forged_ack() {
    let wrong = [0, 1, ACKNOWLEDGED - 1, ACKNOWLEDGED + 1, !ACKNOWLEDGED, u32::MAX];
    for net in nets() {
        let mut world = World::new("forged-ack");
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, TCP, &[backend]);
        let keys = [tuple(TCP, client, service), tuple(TCP, backend, client)];
        let is_unproven = |world: &World, state| {
            assert_eq!(keys.map(|key| world.state(key)), [state; 2]);
            assert_eq!(keys.map(|key| world.programs.flows.is_confirmed(&key)), [false; 2]);
        };
        // Before there is an answer, the right number is no proof.
        world.send(&syn(client, service).build());
        for ack in wrong.into_iter().chain([ACKNOWLEDGED]) {
            forge(&mut world, (client, service), ack);
            is_unproven(&world, State::New);
        }
        expect(&world.answer(&syn_ack(backend, client).build()), Verdict::ToClient, Action::Redirect);
        for ack in wrong {
            forge(&mut world, (client, service), ack);
            is_unproven(&world, State::Replied);
        }
        // A challenge ACK carries no data.
        world.answer(&segment(backend, client, flags::ACK).build());
        is_unproven(&world, State::Replied);
        // With SYN cookies, another SYN/ACK has another number.
        let again = syn_ack(backend, client).numbers(u32::MAX, ACKNOWLEDGED).build();
        expect(&world.answer(&again), Verdict::ToClient, Action::Redirect);
        forge(&mut world, (client, service), ACKNOWLEDGED);
        is_unproven(&world, State::Replied);
        // The number wraps.
        let last = segment(client, service, flags::ACK).numbers(ACKNOWLEDGED, 0).build();
        expect(&world.send(&last), Verdict::ToBackend, Action::Redirect);
        assert_eq!(keys.map(|key| world.state(key)), [State::Established; 2]);
        assert_eq!(keys.map(|key| world.programs.flows.is_confirmed(&key)), [true; 2]);
        // From now on only the ends check numbers.
        world.answer(&again);
        forge(&mut world, (client, service), 5);
        assert_eq!(world.state(keys[0]), State::FinOriginal);
    }
}

/// Sends ACK, data and FIN that acknowledge this number.
#[track_caller]
fn forge(world: &mut World, (src, dst): (SocketAddr, SocketAddr), ack: u32) {
    for (bits, payload) in
        [(flags::ACK, &b""[..]), (flags::ACK | flags::PSH, b"data"), (flags::FIN | flags::ACK, b"")]
    {
        let frame = segment(src, dst, bits).numbers(ACKNOWLEDGED, ack).payload(payload).build();
        expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
    }
}

/// The same by the wire, where a client's address is easily forged.
#[test]
fn a_forged_client_by_the_wire() {
    for net in nets() {
        let mut wire = Wire::new("forged-wire");
        let (client, service) = (at(net.other, PORT), at(net.service, 80));
        wire.world.service(service, TCP, &[at(net.remote, 8080)]);
        let key = tuple(TCP, client, service);
        let sent = wire.run(Hook::FromNetdev, &syn(client, service).build());
        let sent = expect(&sent, Verdict::ToBackend, Action::Redirect);
        wire.run(Hook::FromNetdev, &answering(TCP, sent.dst, sent.src).build());
        for ack in [0, ACKNOWLEDGED - 1, ACKNOWLEDGED + 1] {
            for bits in [flags::ACK, flags::PSH | flags::ACK, flags::FIN | flags::ACK] {
                let frame = segment(client, service, bits).numbers(ACKNOWLEDGED, ack).build();
                expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
                assert_eq!(wire.world.state(key), State::Replied);
            }
        }
        assert_eq!(wire.world.programs.flows.len(), (0, 2));
        // The host whose address was forged answers with a reset, which ends the flow.
        let reset = segment(client, service, flags::RST).build();
        wire.run(Hook::FromNetdev, &reset);
        assert_eq!(wire.world.state(key), State::Refused);
    }
}

/// Datagrams of one side are no conversation, however many, and for however long. Neither are immediate answers.
#[test]
fn a_stream_of_one_side() {
    for net in nets() {
        let mut world = World::new("one-sided");
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, UDP, &[backend]);
        let key = tuple(UDP, client, service);
        let (request, answer) = (packet(UDP, client, service).build(), packet(UDP, backend, client).build());
        for _ in 0..5 {
            world.send(&request);
            assert_eq!(world.state(key), State::New);
            world.age(key, 3);
        }
        world.reset_flows();
        world.send(&request);
        for _ in 0..5 {
            world.answer(&answer);
            world.send(&request);
            assert_eq!(world.state(key), State::Replied);
            assert!(!world.programs.flows.is_confirmed(&key));
        }
        // Both directions, over two seconds: by a packet of either side.
        world.age(key, 3);
        world.answer(&answer);
        assert_eq!(world.state(key), State::Established);
        assert!(world.programs.flows.is_confirmed(&key));
        assert!(world.programs.flows.is_confirmed(&tuple(UDP, backend, client)));
    }
}

/// A server that sends on after its SYN/ACK has accepted the client, also if the last segment of the handshake was
/// lost before it came by here.
#[test]
fn a_server_that_goes_on_confirms() {
    for net in nets() {
        for (bits, payload, state) in [
            (flags::PSH | flags::ACK, &b"banner"[..], State::Established),
            (flags::FIN | flags::ACK, b"", State::FinReply),
            (flags::ACK, b"", State::Replied),
        ] {
            for is_answered in [true, false] {
                let mut world = World::new("server-goes-on");
                let (client, service, backend) =
                    (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
                world.service(service, TCP, &[backend]);
                world.send(&syn(client, service).build());
                if is_answered {
                    world.answer(&syn_ack(backend, client).build());
                }
                world.answer(&segment(backend, client, bits).payload(payload).build());
                let wanted = if is_answered { state } else { State::New };
                let key = tuple(TCP, client, service);
                assert_eq!(world.state(key), wanted);
                assert_eq!(world.programs.flows.is_confirmed(&key), wanted.is_confirmed());
            }
        }
    }
}

/// After a policy change, any packet of a connection has it judged in its original direction. A SYN on its ports is
/// not its beginning.
#[test]
fn a_syn_in_an_established_connection() {
    for net in nets() {
        let mut world = World::new("syn-established");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
        policies.apply(&mut world);
        let (client, server) = (at(net.client, PORT), at(net.other, 80));
        world.connect(TCP, client, server, ELSEWHERE);
        let before = world.flow(tuple(TCP, client, server));
        let forged = syn(server, client).build();
        expect_drop(&world.deliver(&forged), Verdict::IngressDenied, &forged);
        assert_eq!(
            world.flow(tuple(TCP, client, server)),
            before,
            "denied, it leaves the connection as it is"
        );
        let data = packet(TCP, server, client).build();
        expect_untouched(&world.deliver(&data), Verdict::Allowed, &data);
        // The client's own SYN belongs to it.
        let again = syn(client, server).build();
        expect_untouched(&world.send(&again), Verdict::Allowed, &again);
        assert_eq!(world.state(tuple(TCP, client, server)), State::Established);
        // With a Service, the server may not open a connection to the client's port either.
        world.reset_flows();
        let (service, backend) = (at(net.service, 80), at(net.local, 8080));
        world.service(service, TCP, &[backend]);
        world.connect(TCP, client, service, LOCAL);
        let forged = syn(backend, client).build();
        expect_drop(&world.answer(&forged), Verdict::IngressDenied, &forged);
        assert_eq!(world.state(tuple(TCP, client, service)), State::Established);
    }
}
