//! A connection that the server opens on the ports of an ended one is a connection of its own.

use lbr_common::conntrack::State;
use lbr_common::flow::flow_flags;
use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::Verdict;
use lbr_tests::packet::flags;
use lbr_tests::testrun::Action;

use super::{Policies, SET};
use crate::world::{
    ELSEWHERE, LOCAL, Net, PORT, TCP, UDP, World, at, expect, expect_drop, expect_untouched, nets, packet,
    segment, syn, tuple,
};

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Both sides close.
    Closed,
    ResetByClient,
    ResetByServer,
}

const ENDS: [End; 3] = [End::Closed, End::ResetByClient, End::ResetByServer];

impl End {
    /// Flags of the last segments of client and server.
    fn flags(self) -> [Option<u8>; 2] {
        match self {
            Self::Closed => [Some(flags::FIN | flags::ACK); 2],
            Self::ResetByClient => [Some(flags::RST), None],
            Self::ResetByServer => [None, Some(flags::RST | flags::ACK)],
        }
    }
}

/// The client is isolated for ingress.
fn closed_client(world: &mut World, net: &Net) -> Policies {
    let mut policies = Policies::pods(world, net);
    policies.pod(world, 0, net.client, policy_flags::ISOLATED_IN);
    policies.apply(world);
    policies
}

#[test]
fn after_a_tcp_connection() {
    for net in nets() {
        for end in ENDS {
            let mut world = World::new("reverse-tcp");
            let mut policies = closed_client(&mut world, &net);
            let (client, server) = (at(net.client, PORT), at(net.other, 80));
            let (forth, back) = (tuple(TCP, client, server), tuple(TCP, server, client));
            let opened = syn(server, client).build();
            expect_drop(&world.deliver(&opened), Verdict::IngressDenied, &opened);

            world.connect(TCP, client, server, ELSEWHERE);
            expect_drop(&world.deliver(&opened), Verdict::IngressDenied, &opened);
            let [by_client, by_server] = end.flags();
            if let Some(bits) = by_client {
                let last = segment(client, server, bits).build();
                expect_untouched(&world.send(&last), Verdict::Allowed, &last);
            }
            if let Some(bits) = by_server {
                let last = segment(server, client, bits).build();
                expect_untouched(&world.deliver(&last), Verdict::Allowed, &last);
            }
            assert_eq!(world.flow(back).flags & flow_flags::REPLY, flow_flags::REPLY);
            expect_drop(&world.deliver(&opened), Verdict::IngressDenied, &opened);

            // Where policy allows it, the server is the client of the new connection.
            policies.allow(SET, direction::INGRESS, TCP, PORT);
            policies.apply(&mut world);
            expect_untouched(&world.deliver(&opened), Verdict::Allowed, &opened);
            for (key, reply) in [(back, 0), (forth, flow_flags::REPLY)] {
                let flow = world.flow(key);
                assert_eq!((flow.flags & flow_flags::REPLY, flow.state()), (reply, State::New), "{end:?}");
            }
            // So it ends with what allowed it, although the pod's egress is not isolated.
            policies.revoke();
            policies.apply(&mut world);
            let answer = packet(TCP, client, server).build();
            expect_drop(&world.send(&answer), Verdict::IngressDenied, &answer);
        }
    }
}

#[test]
fn after_silence() {
    for net in nets() {
        let mut world = World::new("reverse-udp");
        let mut policies = closed_client(&mut world, &net);
        let (client, server) = (at(net.client, PORT), at(net.other, 80));
        let (forth, back) = (tuple(UDP, client, server), tuple(UDP, server, client));
        world.connect(UDP, client, server, ELSEWHERE);
        let answer = packet(UDP, server, client).build();
        expect_untouched(&world.deliver(&answer), Verdict::Allowed, &answer);
        world.age(forth, 170);
        expect_untouched(&world.deliver(&answer), Verdict::Allowed, &answer);
        // The answer refreshed the flow.
        world.age(forth, 170);
        expect_untouched(&world.deliver(&answer), Verdict::Allowed, &answer);
        world.age(forth, 181);
        expect_drop(&world.deliver(&answer), Verdict::IngressDenied, &answer);

        policies.allow(SET, direction::INGRESS, UDP, PORT);
        policies.apply(&mut world);
        expect_untouched(&world.deliver(&answer), Verdict::Allowed, &answer);
        assert_eq!(world.flow(back).flags & flow_flags::REPLY, 0);
        assert_eq!(world.flow(forth).flags & flow_flags::REPLY, flow_flags::REPLY);
    }
}

/// A Service's answers were translated; a connection on the same ports is for the pod that it addresses.
#[test]
fn after_a_connection_to_a_service() {
    for net in nets() {
        for end in ENDS {
            let mut world = World::new("reverse-service");
            let mut policies = closed_client(&mut world, &net);
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let backend = at(net.local, 8080);
            world.service(service, TCP, &[backend]);
            let opened = syn(backend, client).build();
            expect_drop(&world.answer(&opened), Verdict::IngressDenied, &opened);

            world.connect(TCP, client, service, LOCAL);
            expect_drop(&world.answer(&opened), Verdict::IngressDenied, &opened);
            let [by_client, by_server] = end.flags();
            if let Some(bits) = by_client {
                let last = segment(client, service, bits).build();
                expect(&world.send(&last), Verdict::ToBackend, Action::Redirect);
            }
            if let Some(bits) = by_server {
                let last = segment(backend, client, bits).build();
                expect(&world.answer(&last), Verdict::ToClient, Action::Redirect);
            }
            let back = tuple(TCP, backend, client);
            assert_eq!(world.flow(back).flags & flow_flags::REPLY, flow_flags::REPLY);
            expect_drop(&world.answer(&opened), Verdict::IngressDenied, &opened);

            policies.allow(SET, direction::INGRESS, TCP, PORT);
            policies.apply(&mut world);
            expect_untouched(&world.answer(&opened), Verdict::Allowed, &opened);
            let flow = world.flow(back);
            assert_eq!((flow.flags & flow_flags::REPLY, flow.state()), (0, State::New));
            let answer = packet(TCP, client, backend).build();
            expect_untouched(&world.send(&answer), Verdict::Allowed, &answer);
        }
    }
}
