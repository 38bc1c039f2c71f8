//! Over real sockets, on ports that were free a moment ago.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::cluster::ClusterState;
use crate::model::Node;
use crate::serve::health::TIMEOUT;
use crate::serve::tests::get;
use crate::serve::{Note, Origin, Round};
use crate::table::Outcome;

const PATIENCE: Duration = Duration::from_secs(20);

fn service(name: &str) -> ObjectName {
    ObjectName::new("shop", name.to_owned())
}

fn port(name: &str, local_ready: usize) -> HealthPort {
    HealthPort { service: service(name), local_ready }
}

/// Ports that are not in use.
fn free<const N: usize>() -> [u16; N] {
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    let taken = [(); N].map(|()| bind::listener("free", any).unwrap());
    taken.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn observer() -> Observer {
    Observer::new(Origin::ApiServer(Box::new(|| Duration::ZERO))).unwrap()
}

/// Ends a round with these ports.
fn wrote<const N: usize>(observer: &Observer, ports: [(u16, HealthPort); N], state: &ClusterState) {
    let (outcome, now) = (Outcome::default(), Moment::now());
    let round = Round {
        without_room: 0,
        did: Default::default(),
        began: now.clock,
        compiled: Duration::ZERO,
        is_synced: true,
        outcome: &outcome,
        state,
        node: "here",
        entries: Vec::new(),
        health_ports: ports.into(),
        rejected: &[],
    };
    observer.wrote(round, now);
}

fn serve<const N: usize>(observer: &Observer, ports: [(u16, HealthPort); N]) {
    wrote(observer, ports, &ClusterState::default());
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect(local(port)).is_ok()
}

#[test]
fn answers_are_those_of_kube_proxy() {
    let ([one, none], observer) = (free(), observer());
    start(&observer).unwrap();
    let ports = || [(one, port("web", 2)), (none, port("idle", 0))];
    serve(&observer, ports());
    until("both are open", || is_open(one) && is_open(none));
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        for path in ["/", "/healthz", "/any/thing?at=all"] {
            let reply = get(SocketAddr::new(address, one), path);
            assert_eq!(reply.status, "HTTP/1.1 200 OK", "{path}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("x-load-balancing-endpoint-weight"), Some("2"));
            assert_eq!(
                reply.body,
                r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#
            );
        }
    }
    let reply = get(local(none), "/");
    assert_eq!(reply.status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(reply.header("x-load-balancing-endpoint-weight"), Some("0"));
    assert_eq!(
        reply.body,
        r#"{"service":{"namespace":"shop","name":"idle"},"localEndpoints":0,"serviceProxyHealthy":true}"#
    );

    // Node eligibility only affects /healthz.
    let node = Node { is_to_be_deleted: true, ..Node::default() };
    let state =
        ClusterState { nodes: [(ObjectName::cluster("here"), node)].into(), ..ClusterState::default() };
    wrote(&observer, ports(), &state);
    assert!(!observer.healthz(Moment::now()).is_ok);
    assert_eq!(get(local(one), "/").status, "HTTP/1.1 200 OK");

    let now = Moment::now();
    let late = Moment { clock: now.clock.checked_sub(TIMEOUT).unwrap(), ..now };
    observer.queued(Note::default(), late);
    let reply = get(local(one), "/");
    assert_eq!(reply.status, "HTTP/1.1 503 Service Unavailable");
    assert!(reply.body.ends_with(r#""localEndpoints":2,"serviceProxyHealthy":false}"#), "{}", reply.body);
}

#[test]
fn ports_come_and_go_and_change_hands() {
    let ([kept, moved], observer) = (free(), observer());
    start(&observer).unwrap();
    serve(&observer, [(kept, port("web", 1)), (moved, port("other", 1))]);
    until("both are open", || is_open(kept) && is_open(moved));
    // Still open, for another Service.
    serve(&observer, [(kept, port("shop", 3))]);
    until("the other one is closed", || !is_open(moved));
    assert!(get(local(kept), "/").body.contains(r#""name":"shop"},"localEndpoints":3"#));
    let free_again = TcpListener::bind(local(moved));
    assert!(free_again.is_ok(), "{free_again:?}");
    drop(free_again);
    serve(&observer, []);
    until("all are closed", || !is_open(kept));
    serve(&observer, [(moved, port("web", 1))]);
    until("open again", || is_open(moved));
}

#[test]
fn before_everything_is_listed_nothing_is_opened_or_closed() {
    let ([first], observer) = (free(), observer());
    serve(&observer, [(first, port("web", 1))]);
    let (state, now) = (ClusterState::default(), Moment::now());
    let round = Round {
        without_room: 0,
        did: Default::default(),
        began: now.clock,
        compiled: Duration::ZERO,
        is_synced: false,
        outcome: &Outcome::default(),
        state: &state,
        node: "here",
        entries: Vec::new(),
        health_ports: BTreeMap::new(),
        rejected: &[],
    };
    observer.wrote(round, now);
    let kept: BTreeSet<u16> = observer.health_ports().borrow().keys().copied().collect();
    assert_eq!(kept, [first].into());
}

#[test]
fn a_port_in_use_is_reported_once_tried_again_and_holds_up_no_other() {
    let taken = bind::listener("taken", SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0)).unwrap();
    let busy = taken.local_addr().unwrap().port();
    let ([other, third], observer) = (free(), observer());
    let mut refused = observer.refused_ports();
    start(&observer).unwrap();
    serve(&observer, [(busy, port("web", 1)), (other, port("other", 1))]);
    until("the other one is open", || is_open(other));
    until("it is reported", || refused.has_changed().unwrap() && !refused.borrow_and_update().is_empty());
    let why = format!("cannot listen on [::]:{busy}: Address already in use (os error 98)");
    assert_eq!(*refused.borrow(), [(busy, why)].into());
    // A round is another try, but no reason to report it again.
    serve(&observer, [(busy, port("web", 2)), (other, port("other", 1)), (third, port("third", 1))]);
    until("the third one is open", || is_open(third));
    assert!(!refused.has_changed().unwrap());
    assert!(observer.snapshot().bind_failures[FIELD] >= 2);
    drop(taken);
    until("it is tried again", || is_open(busy));
    until("it is not reported any more", || refused.borrow_and_update().is_empty());
    assert!(get(local(busy), "/").body.contains(r#""localEndpoints":2"#));
}
