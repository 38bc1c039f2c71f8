//! Changes that the agent makes, from manifests to packets: one that concerns a flow holds for its next packet, and a flow
//! that it does not concern does not look again, so XDP goes on carrying it.

mod cluster;

use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::manifests::Service;
use lbr_tests::testrun::Action;

use self::cluster::{Cluster, namespaced, pod, policy, service, service_with};
use super::wire::{Wire, node};
use super::world::{
    ELSEWHERE, LOCAL, PORT, PROTOS, TCP, TCP_AND_UDP, UDP, at, expect, expect_drop, expect_ends, nets,
    packet, tuple,
};

const NODE_PORT: u16 = 30_080;

/// The change of another Service or pod: the flows at XDP do not notice, in both directions, and to a NodePort of the same
/// address too.
#[test]
fn what_does_not_concern_a_flow_is_not_seen_by_it() {
    for net in nets() {
        let mut cluster = Cluster::new("unseen", net);
        let other =
            |n: u8| if net.family.is_v6() { format!("fd00:10:96::{n}") } else { format!("10.96.0.{n}") };
        let other: [IpAddr; 2] = [other(77), other(78)].map(|ip| ip.parse().unwrap());
        let far =
            |n: u8| if net.family.is_v6() { format!("fd00:10:244:7::{n}") } else { format!("10.244.7.{n}") };
        let far: [IpAddr; 3] = [2, 3, 4].map(|n| far(n).parse().unwrap());
        let mut frames = Vec::new();
        for (port, proto) in (PORT..).zip(TCP_AND_UDP) {
            for to in [at(net.service, 80), at(node(&net), NODE_PORT)] {
                let client = at(net.other, port);
                let (seen, backend) = cluster.wire.establish(proto, client, to);
                let (request, answer) =
                    (packet(proto, client, to).build(), packet(proto, backend, seen).build());
                expect(&cluster.wire.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
                frames.push((tuple(proto, client, to), request, answer));
            }
        }
        let unseen = |cluster: &mut Cluster, what: &str, raises: bool, change: &dyn Fn(&mut Cluster)| {
            let before = cluster.epoch();
            change(cluster);
            assert_eq!(cluster.epoch() != before, raises, "{what}");
            for (key, request, answer) in &frames {
                cluster.wire.is_carried(request);
                cluster.wire.is_carried_back(answer);
                assert_eq!(cluster.wire.world.flow(*key).epoch, cluster.epoch(), "{what}");
            }
        };
        let another = |backends: &[IpAddr]| service("another", other[0], Some(30_090), backends);
        unseen(&mut cluster, "a Service comes", true, &|c| c.change("another", another(&far[..2])));
        unseen(&mut cluster, "a backend goes", true, &|c| c.change("another", another(&far[..1])));
        unseen(&mut cluster, "all its backends go", true, &|c| c.change("another", another(&[])));
        unseen(&mut cluster, "a Service comes that serves some", true, &|c| {
            let more = |service: Service| {
                service
                    .spec("type: LoadBalancer")
                    .spec("loadBalancerSourceRanges: [\"192.0.2.0/24\"]")
                    .ingress(other[1])
            };
            let more = |service: Service| if net.family.is_v6() { service } else { more(service) };
            c.change("ranges", service_with("ranges", other[1], None, &[net.local], more));
        });
        unseen(&mut cluster, "it goes", true, &|c| c.remove("ranges"));
        unseen(&mut cluster, "a Service goes", true, &|c| c.remove("another"));
        unseen(&mut cluster, "a policy of a pod comes", true, &|c| {
            c.change("policy", policy("p", "two", "server", "{namespaceSelector: {matchLabels: {team: b}}}"));
        });
        unseen(&mut cluster, "a policy with blocks", true, &|c| {
            let block = if net.family.is_v6() { "2001:db8::/32" } else { "192.0.0.0/16" };
            c.change("policy", policy("p", "two", "server", &format!("{{ipBlock: {{cidr: \"{block}\"}}}}")));
        });
        unseen(&mut cluster, "a policy of pods", true, &|c| {
            c.change("policy", policy("p", "two", "server", "{podSelector: {matchLabels: {app: peer}}}"));
        });
        unseen(&mut cluster, "a pod comes elsewhere", true, &|c| {
            c.change("peer", pod("peer", "two", "other", far[2], "app: peer"));
        });
        unseen(&mut cluster, "its labels change", true, &|c| {
            c.change("peer", pod("peer", "two", "other", far[2], "app: none"));
        });
        unseen(&mut cluster, "a pod goes here", true, &|c| c.remove("client"));
        unseen(&mut cluster, "a link goes", true, &|c| {
            let index = c.wire.world.programs.links[0];
            c.links.links.remove(&index);
            c.links.routes.retain(|_, link| *link != index);
            c.links.addresses.retain(|_, link| *link != index);
            c.apply();
        });
        unseen(&mut cluster, "nothing", false, &|c| c.apply());
    }
}

/// Datagrams of a Service whose backend goes are led to another one, and when it is gone they are refused; those of another
/// Service with the same backend stay.
#[test]
fn a_service_that_changes() {
    for net in nets() {
        let mut cluster = Cluster::new("concern-service", net);
        let client = at(net.other, PORT);
        for to in [at(net.service, 80), at(node(&net), NODE_PORT)] {
            let frame = packet(UDP, client, to).build();
            let leads = |cluster: &mut Cluster, backend: IpAddr| {
                cluster.wire.is_left(&frame);
                let out =
                    expect(&cluster.wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
                assert_eq!(out.dst, at(backend, 8080));
            };
            cluster.change("web", service("web", net.service, Some(NODE_PORT), &[net.remote]));
            cluster.wire.establish(UDP, client, to);
            cluster.wire.is_carried(&frame);
            cluster.change("web", service("web", net.service, Some(NODE_PORT), &[net.remote2]));
            leads(&mut cluster, net.remote2);
            cluster.change("web", service("web", net.service, Some(NODE_PORT), &[]));
            cluster.wire.is_left(&frame);
            expect(&cluster.wire.run(Hook::FromNetdev, &frame), Verdict::NoEndpoint, Action::Redirect);
            cluster.wire.world.reset_flows();
        }
        cluster.change("web", service("web", net.service, Some(NODE_PORT), &[net.remote]));
        for to in [at(net.service, 80), at(node(&net), NODE_PORT)] {
            let frame = packet(UDP, client, to).build();
            cluster.change("web", service("web", net.service, Some(NODE_PORT), &[net.remote]));
            cluster.wire.establish(UDP, client, to);
            cluster.wire.is_carried(&frame);
            cluster.remove("web");
            cluster.wire.is_left(&frame);
            assert_ne!(cluster.wire.run(Hook::FromNetdev, &frame).verdict, Verdict::ToBackend);
            cluster.wire.world.reset_flows();
        }
    }
}

/// A client that its load balancer's ranges leave out.
#[test]
fn source_ranges_that_change() {
    let [net, _] = nets();
    let mut cluster = Cluster::new("concern-ranges", net);
    let (client, to) = (at(net.other, PORT), at("198.51.100.7".parse().unwrap(), 80));
    let ranged = |block: &str| {
        service_with("ranged", "10.96.0.50".parse().unwrap(), None, &[net.remote], |service| {
            let ranges = format!("loadBalancerSourceRanges: [\"{block}\"]");
            service.spec("type: LoadBalancer").spec(&ranges).ingress(to.ip())
        })
    };
    cluster.change("ranged", ranged("192.0.2.0/24"));
    cluster.wire.establish(UDP, client, to);
    let frame = packet(UDP, client, to).build();
    cluster.wire.is_carried(&frame);
    cluster.change("ranged", ranged("203.0.113.0/24"));
    cluster.wire.is_left(&frame);
    expect_drop(&cluster.wire.run(Hook::FromNetdev, &frame), Verdict::SourceNotInRanges, &frame);
}

/// An address that a pod talked to as a host's becomes a Service's.
#[test]
fn an_address_that_becomes_a_service() {
    for net in nets() {
        let mut cluster = Cluster::new("concern-becomes", net);
        let (client, to) = (at(net.client, PORT), at(net.other, 80));
        cluster.wire.world.connect(UDP, client, to, ELSEWHERE);
        let frame = packet(UDP, client, to).build();
        assert_eq!(cluster.wire.world.send(&frame).verdict, Verdict::Allowed);
        cluster.change("web", service("web", net.other, None, &[net.local]));
        let out = expect(&cluster.wire.world.send(&frame), Verdict::ToBackend, Action::Redirect);
        expect_ends(&frame, &out, client, at(net.local, 8080));
    }
}

/// Each kind of change that takes away what a policy allows holds for the next packet of a connection, in both directions,
/// with a Service and without; and what is given back, too.
#[test]
fn policies_and_labels_that_change() {
    const TEAM: &str = "{namespaceSelector: {matchLabels: {team: a}}}";
    const APP: &str = "{namespaceSelector: {}, podSelector: {matchLabels: {app: client}}}";
    type Step<'a> = (&'a str, &'a str, String, bool);
    for net in nets() {
        let mut cluster = Cluster::new("concern-policy", net);
        let block = |addr: IpAddr| format!("{{ipBlock: {{cidr: {}}}}}", IpNet::from(addr));
        let client = |labels| pod("client", "one", "node", net.client, labels);
        let local = |name, labels| pod(name, "two", "node", net.local, labels);
        let team = |name, label| namespaced(name, label);
        let allow = |from: &str| policy("p", "two", "server", from);
        let steps: [Step<'_>; 17] = [
            ("a policy comes that allows it", "policy", allow(TEAM), true),
            ("the client's namespace changes", "one", team("one", "team: b"), false),
            ("it changes back", "one", team("one", "team: a"), true),
            ("the policy allows others", "policy", allow("{podSelector: {}}"), false),
            ("it allows a label", "policy", allow(APP), true),
            ("the client's label changes", "client", client("app: changed"), false),
            ("it changes back", "client", client("app: client"), true),
            ("it allows the client's address", "policy", allow(&block(net.client)), true),
            ("it allows another address", "policy", allow(&block(net.other)), false),
            ("the server's label changes", "local", local("local", "app: free"), true),
            ("a policy of that label comes", "free", policy("f", "two", "free", &block(net.other)), false),
            ("it allows the client's address", "free", policy("f", "two", "free", &block(net.client)), true),
            ("the server's label changes back", "local", local("local", "app: server"), false),
            ("the policy allows the client", "policy", allow(APP), true),
            ("nobody", "policy", allow("{podSelector: {matchLabels: {app: nobody}}}"), false),
            ("another pod has the address", "local", local("heir", "app: heir"), true),
            ("its policy comes", "heir", policy("h", "two", "heir", TEAM.replace('a', "z").as_str()), false),
        ];
        let (from, direct, by_service) = (at(net.client, PORT), at(net.local, 8080), at(net.service2, 80));
        let mut frames = Vec::new();
        for (n, proto) in (0..).zip(PROTOS) {
            for (port, to) in [(PORT + n, direct), (PORT + 10 + n, by_service)] {
                let from = at(from.ip(), port);
                cluster.wire.world.connect(proto, from, to, LOCAL);
                frames.push((packet(proto, from, to).build(), packet(proto, direct, from).build()));
            }
        }
        // A connection that none of it concerns.
        let (outside, web) = (at(net.other, PORT), at(net.service, 80));
        cluster.wire.establish(TCP, outside, web);
        let unconcerned = packet(TCP, outside, web).build();
        for (what, name, document, passes) in steps {
            cluster.change(name, document);
            for (request, answer) in &frames {
                for (ran, frame) in
                    [(cluster.wire.world.send(request), request), (cluster.wire.world.answer(answer), answer)]
                {
                    if passes {
                        assert_ne!(ran.action, Action::Drop, "{what}: {:?}", ran.verdict);
                    } else {
                        assert_eq!(ran.action, Action::Drop, "{what}: {:?}", ran.verdict);
                        expect_drop(&ran, Verdict::IngressDenied, frame);
                    }
                }
            }
            cluster.wire.is_carried(&unconcerned);
        }
    }
}

/// A pod that moves to another link is reached there, and its address is no longer accepted at the former one.
#[test]
fn a_pod_behind_another_link() {
    for net in nets() {
        let mut cluster = Cluster::new("concern-link", net);
        let (client, to) = (at(net.client, PORT), at(net.local, 8080));
        cluster.wire.world.connect(UDP, client, at(net.service2, 80), LOCAL);
        let (request, answer) =
            (packet(UDP, client, at(net.service2, 80)).build(), packet(UDP, to, client).build());
        let [_, before, after] = cluster.wire.world.programs.links;
        let key = tuple(UDP, client, at(net.service2, 80));
        assert_eq!(cluster.wire.world.flow(key).redirect_to, before);
        for link in cluster.links.routes.values_mut().filter(|link| **link == before) {
            *link = after;
        }
        cluster.links.addresses.insert(net.local, after);
        cluster.apply();
        expect_drop(&cluster.wire.world.answer(&answer), Verdict::SpoofedSource, &answer);
        expect(&cluster.wire.world.send(&request), Verdict::ToBackend, Action::Redirect);
        assert_eq!(cluster.wire.world.flow(key).redirect_to, after);
        expect(&cluster.wire.world.run(Hook::FromPod, 2, &answer), Verdict::ToClient, Action::Redirect);
    }
}

/// The kernel evicts the answers' entry: when the requests bring it back, it is checked before it counts.
#[test]
fn an_entry_that_its_twin_brings_back_looks_again() {
    let [net, _] = nets();
    let mut wire = Wire::new("concern-twin");
    let connection = wire.connect(&net, UDP);
    let (request, answer) = (connection.request().build(), connection.answer().build());
    expect(&wire.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
    wire.is_carried_back(&answer);
    wire.world.age(tuple(UDP, connection.there.0, connection.there.1), 2);
    wire.world.programs.flows.remove(&tuple(UDP, connection.back.0, connection.back.1)).unwrap();
    wire.is_carried(&request);
    wire.is_left(&answer);
    expect(&wire.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
    wire.is_carried_back(&answer);
}
