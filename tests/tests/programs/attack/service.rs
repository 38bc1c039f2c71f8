//! A packet without a Service that poses as a Service's, or the other way round.

use std::net::IpAddr;

use lbr_agent::dataplane::Dataplane as _;
use lbr_common::conntrack::State;
use lbr_common::flow::flow_flags;
use lbr_common::id::BackendId;
use lbr_common::maglev::{MaglevKey, MaglevPart, PART, PARTS};
use lbr_common::service::Frontend;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, flags};
use lbr_tests::testrun::{Action, Programs};

use super::{STRAY, a_node, beginnings, open_address, reserve_block, strays, wire_with_pods};
use crate::policy::Policies;
use crate::wire::{Wire, node};
use crate::world::{
    ELSEWHERE, PORT, PROTOS, SCTP, TCP, UDP, World, at, expect, expect_drop, expect_ends, expect_untouched,
    nets, opening, packet, segment, syn, tuple,
};

/// Where a packet for a Service may come from: a pod's link and the wire.
const WAYS: [Hook; 2] = [Hook::FromPod, Hook::FromNetdev];

fn run(wire: &mut Wire, hook: Hook, frame: &[u8]) -> lbr_tests::testrun::Ran {
    if hook == Hook::FromPod { wire.world.send(frame) } else { wire.run(hook, frame) }
}

/// A segment that opens nothing belongs to an existing connection or to none; it never begins one of a Service. At an
/// address of the node it is left to the stack; at one that only Services have, it is not.
#[test]
fn an_answer_turned_into_a_service() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("answer", &net);
        let (closed, open) = (at(net.service, 80), at(node(&net), 30_080));
        for service in [closed, open] {
            for proto in [TCP, SCTP] {
                wire.world.service(service, proto, &[at(net.remote, 8080)]);
            }
        }
        open_address(&mut wire.world, open.ip());
        for hook in WAYS {
            let client = at(if hook == Hook::FromPod { net.client } else { net.other }, PORT);
            for packet in strays(client, open) {
                let frame = packet.build();
                expect_untouched(&run(&mut wire, hook, &frame), Verdict::StackConnection, &frame);
            }
            for bits in STRAY {
                let frame = segment(client, closed, bits).build();
                let ran = run(&mut wire, hook, &frame);
                if bits & flags::RST != 0 {
                    expect_drop(&ran, Verdict::Unanswerable, &frame);
                } else {
                    expect(&ran, Verdict::NoConnection, Action::Redirect);
                }
            }
            assert!(wire.world.programs.flows.is_empty());
            // A SYN reaches the Service at both.
            for service in [closed, open] {
                let frame = syn(client, service).build();
                assert_eq!(run(&mut wire, hook, &frame).verdict, Verdict::ToBackend);
            }
            wire.world.reset_flows();
        }
    }
}

/// A Maglev table leads a connection of another node to the same backend: only mid-stream segments of a client. A
/// segment that answers or ends a connection leads nowhere.
#[test]
fn an_answer_turned_into_a_service_with_a_table() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("answer-table", &net);
        let (closed, open) = (at(net.service, 80), at(node(&net), 30_080));
        let mut id = BackendId::NONE;
        for service in [closed, open] {
            id = wire.world.service(service, TCP, &[at(net.remote, 8080)])[0];
        }
        open_address(&mut wire.world, open.ip());
        for part in 0..PARTS {
            let value = MaglevPart::new(&[id; PART as usize]);
            wire.world
                .programs
                .kernel
                .tables()
                .maglev
                .insert(&MaglevKey { table: 1.into(), part }, &value)
                .unwrap();
        }
        for (key, value) in wire.world.frontends() {
            if value.count > 0 {
                wire.world
                    .programs
                    .kernel
                    .tables()
                    .frontends
                    .insert(&key, &Frontend { maglev: 1.into(), ..value })
                    .unwrap();
            }
        }
        for service in [closed, open] {
            let client = at(net.other, PORT);
            for bits in STRAY {
                let frame = segment(client, service, bits).build();
                let ran = wire.run(Hook::FromNetdev, &frame);
                if bits & !flags::PSH == flags::ACK {
                    expect(&ran, Verdict::ToBackend, Action::Redirect);
                    let key = tuple(TCP, client, service);
                    assert_eq!(wire.world.state(key), State::PickedUp);
                    // A SYN begins a connection, whatever was picked up.
                    let frame = syn(client, service).build();
                    expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
                    assert_eq!(wire.world.state(key), State::New);
                } else if service == open {
                    expect_untouched(&ran, Verdict::StackConnection, &frame);
                } else if bits & flags::RST != 0 {
                    expect_drop(&ran, Verdict::Unanswerable, &frame);
                } else {
                    expect(&ran, Verdict::NoConnection, Action::Redirect);
                }
                wire.world.reset_flows();
            }
            // At the uplink, no connection is picked up for a pod of this node.
            let frame = segment(at(net.client, PORT), service, flags::ACK).build();
            let ran = wire.run(Hook::FromNetdev, &frame);
            assert_ne!(ran.verdict, Verdict::ToBackend);
            assert!(wire.world.programs.flows.is_empty());
        }
    }
}

/// A packet leaves the node by the uplink. Tries again if a packet of the kernel's own is counted at the same moment.
fn leave(wire: &mut Wire, entered_by: u32, frame: &[u8]) {
    let uplink = wire.uplink;
    let run = |_| wire.world.programs.run_at(Hook::ToNetdev, uplink, entered_by, frame).ok();
    assert_eq!((0..20).find_map(run).unwrap().action, Action::Pass);
}

/// A datagram of the node, or in its name, from a port that is a NodePort: its answer is left to the stack, and
/// begins nothing at the Service. From elsewhere the port is the Service's.
#[test]
fn a_datagram_that_answers_the_node() {
    for net in nets() {
        for by_pod in [false, true] {
            let (mut wire, _policies) = wire_with_pods("answer-node", &net);
            let port = at(node(&net), 30_080);
            wire.world.service(port, UDP, &[at(net.remote, 8080)]);
            open_address(&mut wire.world, port.ip());

            let (asked, stranger) = (at(net.other, 53), at(net.other, 54));
            let entered_by = if by_pod { wire.world.programs.links[0] } else { 0 };
            let request = packet(UDP, port, asked).build();
            leave(&mut wire, entered_by, &request);
            for _ in 0..3 {
                let answer = packet(UDP, asked, port).build();
                let ran = wire.run(Hook::FromNetdev, &answer);
                assert_eq!((ran.action, &ran.packet), (Action::Pass, &answer), "{:?}", ran.verdict);
                let frame = packet(UDP, stranger, port).build();
                expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
            }
            assert_ne!(wire.world.flow(tuple(UDP, asked, port)).flags & flow_flags::HOST, 0);
            // A known client keeps its Service, whatever the node sends to it.
            let request = packet(UDP, port, stranger).build();
            leave(&mut wire, entered_by, &request);
            let frame = packet(UDP, stranger, port).build();
            expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
            // Past the flow's lifetime the answer is a request.
            wire.world.age(tuple(UDP, port, asked), 31);
            let frame = packet(UDP, asked, port).build();
            expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        }
    }
}

/// The same after a conversation of a client with the Service, which is over.
#[test]
fn a_datagram_that_answers_the_node_after_a_stream() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("answer-stream", &net);
        let port = at(node(&net), 30_080);
        wire.world.service(port, UDP, &[at(net.remote, 8080)]);
        open_address(&mut wire.world, port.ip());
        let asked = at(net.other, 53);
        wire.establish(UDP, asked, port);
        wire.world.age(tuple(UDP, asked, port), 200);
        leave(&mut wire, 0, &packet(UDP, port, asked).build());
        let answer = packet(UDP, asked, port).build();
        let ran = wire.run(Hook::FromNetdev, &answer);
        assert_eq!((ran.action, &ran.packet), (Action::Pass, &answer), "{:?}", ran.verdict);
    }
}

/// No host sends from an address that only Services have: such a packet would leave an entry that later hides the
/// Service.
#[test]
fn a_shadow_over_a_service() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("shadow", &net);
        reserve_block(&mut wire.world, net.service);
        for proto in PROTOS {
            wire.world.service(at(net.service, 80), proto, &[at(net.remote, 8080)]);
        }
        // An address that has a Service, and one that has none yet.
        for source in [net.service, net.service2] {
            for port in [80, 81] {
                let from = at(source, port);
                for to in
                    [at(net.client, PORT), at(net.service, 80), at(net.other, PORT), at(net.remote, 8080)]
                {
                    for packet in beginnings(from, to) {
                        let frame = packet.build();
                        expect_drop(&wire.run(Hook::FromNetdev, &frame), Verdict::Martian, &frame);
                        expect_drop(&wire.world.send(&frame), Verdict::SpoofedSource, &frame);
                    }
                }
                // Segments that open nothing are checked where they would make an entry.
                let pod = at(net.client, PORT);
                for packet in beginnings(from, pod).into_iter().chain(strays(from, pod)) {
                    let frame = packet.build();
                    expect_drop(&wire.world.forward(Programs::WIRE, 0, &frame), Verdict::Martian, &frame);
                    let uplink = wire.uplink;
                    expect_drop(&wire.world.forward(uplink, 0, &frame), Verdict::Martian, &frame);
                }
                for packet in strays(from, at(net.service, 80)) {
                    wire.run(Hook::FromNetdev, &packet.build());
                }
            }
        }
        assert!(wire.world.programs.flows.is_empty());
    }
}

/// A node may have an address that is a frontend's, here or elsewhere: its packets are not forged.
#[test]
fn an_address_of_a_node_is_no_shadow() {
    for net in nets() {
        for proto in PROTOS {
            let (mut wire, _policies) = wire_with_pods("no-shadow", &net);
            let other_node: IpAddr = net.other;
            wire.world.service(at(other_node, 80), proto, &[at(net.remote, 8080)]);
            wire.world.service(at(net.service, 80), proto, &[at(net.remote2, 8080)]);
            let frame = opening(proto, at(other_node, PORT), at(net.service, 80)).build();
            expect_drop(&wire.run(Hook::FromNetdev, &frame), Verdict::Martian, &frame);
            a_node(&mut wire.world, other_node);
            expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        }
    }
}

/// A client that asked before the Service existed has a conversation without it. That does not hide the Service:
/// datagrams move to it when the agent has written it, and a SYN at once. An established connection ends as it began.
#[test]
fn a_shadow_that_was_there_before() {
    for net in nets() {
        for proto in PROTOS {
            for is_established in [false, true] {
                let mut world = World::new("shadow-before");
                let _policies = Policies::pods(&mut world, &net);
                let (client, service, backend) =
                    (at(net.client, PORT), at(net.service, 80), at(net.remote, 8080));
                if is_established {
                    world.connect(proto, client, service, ELSEWHERE);
                } else {
                    let frame = opening(proto, client, service).build();
                    expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
                }
                world.service(service, proto, &[backend]);
                if proto == TCP {
                    let frame = packet(proto, client, service).build();
                    expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
                } else {
                    world.raise_epoch();
                }
                let frame = opening(proto, client, service).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, backend);
                let key = tuple(proto, client, service);
                assert!(!world.programs.flows.is_confirmed(&key));
                // From now on all packets go to the Service.
                let frame = packet(proto, client, service).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, backend);
                // And no packet from the Service's address reaches the client past the Service.
                let forged = packet(proto, service, client).build();
                expect_drop(&world.deliver(&forged), Verdict::Martian, &forged);
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                expect_ends(&frame, &out, client, backend);
            }
        }
    }
}

/// The frontend belongs to another Service now: a SYN goes there, whatever entry has its ports.
#[test]
fn a_syn_to_a_frontend_of_another_service() {
    for net in nets() {
        for is_established in [false, true] {
            let mut world = World::new("other-service");
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            let (old, new) = (at(net.remote, 8080), at(net.remote2, 8080));
            world.service(service, TCP, &[old]);
            if is_established {
                world.connect(TCP, client, service, ELSEWHERE);
            } else {
                world.send(&syn(client, service).build());
            }
            for (key, _) in world.frontends() {
                world.remove_frontend(&key);
            }
            // Taken by another Service without a new epoch: after a removal it has a new number.
            world.service(service, TCP, &[new]);
            let data = packet(TCP, client, service).build();
            assert_eq!(expect(&world.send(&data), Verdict::ToBackend, Action::Pass).dst, old);
            let frame = syn(client, service).build();
            assert_eq!(expect(&world.send(&frame), Verdict::ToBackend, Action::Pass).dst, new);
            assert_eq!(expect(&world.send(&data), Verdict::ToBackend, Action::Pass).dst, new);
        }
    }
}

/// Too long for the route, and may be fragmented, which only the stack does: the sender gets the MTU all the same.
#[test]
fn a_datagram_that_may_be_cut() {
    for net in nets() {
        let mut wire = Wire::new("may-be-cut");
        let (client, service) = (at(net.other, PORT), at(net.service, 80));
        wire.world.service(service, UDP, &[at(net.remote, 8080)]);
        let of = |len: usize| {
            Packet::udp(client, service).payload(&vec![7; len - if net.family.is_v6() { 48 } else { 28 }])
        };
        let fits = of(1500).build();
        expect(&wire.run(Hook::FromNetdev, &fits), Verdict::ToBackend, Action::Redirect);
        let long = of(1501).build();
        let ran = wire.run(Hook::FromNetdev, &long);
        if net.family.is_v6() {
            expect(&ran, Verdict::TooBig, Action::Redirect);
        } else {
            expect(&ran, Verdict::NeedsFragmentation, Action::Redirect);
            let ran = wire.run(Hook::FromNetdev, &of(1501).dont_fragment().build());
            expect(&ran, Verdict::TooBig, Action::Redirect);
        }
    }
}

/// A Service's address cannot open a conversation with a client's pod.
#[test]
fn a_service_that_speaks_first() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("speaks-first");
            let _policies = Policies::pods(&mut world, &net);
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            world.service(service, proto, &[at(net.remote, 8080)]);
            for make in [opening, packet] {
                let frame = make(proto, service, client).build();
                expect_drop(&world.deliver(&frame), Verdict::Martian, &frame);
            }
            assert!(world.programs.flows.is_empty());
        }
    }
}
