//! When a connection has ended, and what a SYN on its ports means then.

use lbr_common::conntrack::State;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::flags;
use lbr_tests::testrun::Action;

use super::world::{
    ELSEWHERE, LOCAL, PORT, TCP, World, answering, at, expect, expect_ends, nets, packet, segment, syn, tuple,
};

/// A port that is reused after its connection ended is a new connection, which may go to another backend.
#[test]
fn a_syn_after_the_end() {
    let mut world = World::new("syn-after-end");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        for from_client in [true, false] {
            for bits in [flags::RST, flags::RST | flags::ACK, flags::FIN | flags::ACK] {
                world.service(service, TCP, &[old]);
                world.connect(TCP, client, service, ELSEWHERE);
                // A reset of either side ends the connection; a FIN only together with the other side's.
                let both = bits & flags::RST == 0;
                if from_client || both {
                    let end = segment(client, service, bits).build();
                    expect(&world.send(&end), Verdict::ToBackend, Action::Pass);
                }
                if !from_client || both {
                    let end = segment(old, client, bits).build();
                    expect(&world.deliver(&end), Verdict::ToClient, Action::Pass);
                }
                world.service(service, TCP, &[new]);
                if both {
                    // Last segments still find the flow.
                    let frame = packet(TCP, client, service).build();
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                    expect_ends(&frame, &out, client, old);
                }
                // A SYN does not.
                let frame = syn(client, service).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, new);
                assert!(!world.programs.flows.is_confirmed(&tuple(TCP, client, service)));
                // The new flow is not over.
                world.service(service, TCP, &[old]);
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, new);
                world.reset();
            }
        }
    }
}

/// A side that sends after a reset did not accept it (RFC 5961): an off-path sender may have forged it. The
/// connection returns to its former state, also for a SYN.
#[test]
fn a_reset_that_was_not_accepted() {
    let mut world = World::new("reset-ignored");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        let keys = [tuple(TCP, client, service), tuple(TCP, old, client)];
        for (by_client, goes_on_by_client) in [(true, true), (true, false), (false, true), (false, false)] {
            world.service(service, TCP, &[old]);
            world.connect(TCP, client, service, ELSEWHERE);
            if by_client {
                let reset = segment(client, service, flags::RST).build();
                expect(&world.send(&reset), Verdict::ToBackend, Action::Pass);
            } else {
                let reset = segment(old, client, flags::RST).build();
                expect(&world.deliver(&reset), Verdict::ToClient, Action::Pass);
            }
            assert_eq!(keys.map(|key| world.state(key)), [State::Reset; 2]);
            if goes_on_by_client {
                expect(&world.send(&packet(TCP, client, service).build()), Verdict::ToBackend, Action::Pass);
            } else {
                expect(&world.deliver(&packet(TCP, old, client).build()), Verdict::ToClient, Action::Pass);
            }
            assert_eq!(keys.map(|key| world.state(key)), [State::Established; 2]);
            // It lives as long as any established connection.
            world.age(keys[0], 80_000);
            world.service(service, TCP, &[old, new]);
            let frame = syn(client, service).build();
            expect_ends(&frame, &expect(&world.send(&frame), Verdict::ToBackend, Action::Pass), client, old);
            assert_eq!(keys.map(|key| world.state(key)), [State::Established; 2]);
            world.reset();
        }
    }
}

/// A half-closed connection is not over: its remaining packets must still find their backend.
#[test]
fn a_syn_after_one_side_closed() {
    let mut world = World::new("syn-half-closed");
    for net in nets() {
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
        for from_client in [true, false] {
            world.service(service, TCP, &[old]);
            world.connect(TCP, client, service, ELSEWHERE);
            let bits = flags::FIN | flags::ACK;
            let state = if from_client {
                expect(
                    &world.send(&segment(client, service, bits).build()),
                    Verdict::ToBackend,
                    Action::Pass,
                );
                State::FinOriginal
            } else {
                expect(&world.deliver(&segment(old, client, bits).build()), Verdict::ToClient, Action::Pass);
                State::FinReply
            };
            assert_eq!(world.state(tuple(TCP, client, service)), state);
            world.service(service, TCP, &[old, new]);
            let frame = syn(client, service).build();
            expect_ends(&frame, &expect(&world.send(&frame), Verdict::ToBackend, Action::Pass), client, old);
            assert_eq!(world.state(tuple(TCP, client, service)), state);
            world.reset();
        }
    }
}

/// With the same backend again, the flow must not count as over, or a retransmitted SYN would begin anew.
#[test]
fn a_syn_after_the_end_to_the_same_backend() {
    let mut world = World::new("syn-same");
    for net in nets() {
        for is_established in [true, false] {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, TCP, &[backend]);
            let frame = syn(client, service).build();
            if is_established {
                world.connect(TCP, client, service, LOCAL);
            } else {
                expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            }
            let reset = segment(client, service, flags::RST).build();
            expect(&world.send(&reset), Verdict::ToBackend, Action::Redirect);
            let reset = segment(backend, client, flags::RST).build();
            expect(&world.answer(&reset), Verdict::ToClient, Action::Redirect);
            let ended = if is_established { State::Reset } else { State::Refused };
            let keys = [tuple(TCP, client, service), tuple(TCP, backend, client)];
            assert_eq!(keys.map(|key| world.state(key)), [ended; 2]);
            expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
            assert_eq!(keys.map(|key| world.state(key)), [State::New; 2]);
            assert_eq!(keys.map(|key| world.programs.flows.is_confirmed(&key)), [false; 2]);
            world.reset();
        }
    }
}

/// Without the last segment of the handshake the client is not proven, and a FIN ends nothing.
#[test]
fn a_fin_before_the_handshake_is_complete() {
    let mut world = World::new("early-fin");
    for net in nets() {
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, TCP, &[backend]);
        let key = tuple(TCP, client, service);
        let fin = flags::FIN | flags::ACK;
        world.send(&syn(client, service).build());
        expect(&world.send(&segment(client, service, fin).build()), Verdict::ToBackend, Action::Redirect);
        expect(&world.answer(&segment(backend, client, fin).build()), Verdict::ToClient, Action::Redirect);
        assert_eq!(world.state(key), State::New, "no server has answered");
        world.answer(&answering(TCP, backend, client).build());
        let forged = segment(client, service, fin).numbers(1, 1).build();
        expect(&world.send(&forged), Verdict::ToBackend, Action::Redirect);
        assert_eq!(world.state(key), State::Replied, "no segment acknowledges the SYN/ACK");
        // It acknowledges the SYN/ACK, so it is the client's, and completes the handshake.
        expect(&world.send(&segment(client, service, fin).build()), Verdict::ToBackend, Action::Redirect);
        assert_eq!(world.state(key), State::FinOriginal);
        world.reset();
    }
}
