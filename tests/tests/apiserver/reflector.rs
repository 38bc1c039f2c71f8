//! kube-rs against the server: after any fault, its store ends up with the server's state. The exceptions are in
//! [`crate::limits`].

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::Config as Watcher;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, ResourceExt as _};
use lbr_tests::apiserver::{End, Fault, Order, SERVICE, Server, Verb, When};
use tokio::task::JoinHandle;

use crate::fixtures::{labelled, name, service, service_in, version};

const RETRY: Duration = Duration::from_millis(20);

/// The longest time for a store to follow, and the time to wait for one that should not follow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const DOUBT: Duration = Duration::from_millis(500);

/// Names, versions and addresses.
type Picture = BTreeMap<String, (u64, String)>;

pub(crate) struct Reflector {
    store: Store<Service>,
    task: JoinHandle<()>,
}

impl Drop for Reflector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Soon;

impl Iterator for Soon {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        Some(RETRY)
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

pub(crate) fn lists() -> Watcher {
    Watcher::default().page_size(2)
}

pub(crate) fn streams() -> Watcher {
    Watcher::default().streaming_lists()
}

pub(crate) fn reflect(server: &Server, watched: Watcher) -> Reflector {
    let mut config = Config::new(server.url().parse().unwrap());
    // An answer that hangs is given up, which also ends idle watches.
    config.read_timeout = Some(Duration::from_secs(1));
    let api: Api<Service> = Api::all(Client::try_from(config).unwrap());
    // With the selectors of kube-proxy.
    let watched = watched.fields("spec.clusterIP!=None").labels("!service.kubernetes.io/service-proxy-name");
    let (store, writer) = reflector::store();
    let events = watcher(api, watched).backoff(Soon).reflect(writer);
    Reflector { store, task: tokio::spawn(async move { events.for_each(|_| std::future::ready(())).await }) }
}

impl Reflector {
    pub(crate) fn sees(&self) -> Picture {
        let seen = self.store.state();
        let row = |service: &Service| {
            let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default();
            let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
            (name, (service.resource_version().unwrap().parse().unwrap(), ip))
        };
        seen.iter().map(|service| row(service)).collect()
    }

    pub(crate) async fn follows(&self, server: &Server, time: Duration) -> bool {
        let wanted = truth(server);
        let deadline = tokio::time::Instant::now() + time;
        while self.sees() != wanted {
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    pub(crate) async fn must_follow(&self, server: &Server, when: &str) {
        if !self.follows(server, PATIENCE).await {
            let requests: Vec<_> =
                server.requests().into_iter().map(|request| (request.path, request.code)).collect();
            panic!("{when}: {:?}\nnot {:?}\nasked {requests:#?}", self.sees(), truth(server));
        }
    }
}

/// The server's state, by the rules of kube-proxy's selectors.
fn truth(server: &Server) -> Picture {
    let all = server.list(&SERVICE);
    let wanted = all.iter().filter(|service| {
        let labels = &service["metadata"]["labels"];
        service["spec"]["clusterIP"] != "None"
            && labels.get("service.kubernetes.io/service-proxy-name").is_none()
    });
    let row = |service: &serde_json::Value| {
        (
            name(service),
            (version(service), service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned()),
        )
    };
    wanted.map(row).collect()
}

pub(crate) fn populated() -> Server {
    let server = Server::start().unwrap();
    server.put_all((1..=5).map(|n| service(&format!("s{n}"), "10.0.0.1"))).unwrap();
    server.put_all([service("headless", "None"), service_in("other", "x")]).unwrap();
    server
}

/// One change of each type, numbered so that each round differs.
pub(crate) fn churn(server: &Server, n: u32) {
    let ip = |last: u32| format!("10.0.{n}.{last}");
    server.put(service("s1", &ip(1))).unwrap();
    server.put(service(&format!("new{n}"), &ip(2))).unwrap();
    server.delete(&SERVICE, "default", &format!("new{}", n.wrapping_sub(1)));
    server.put(labelled("s2", ("service.kubernetes.io/service-proxy-name", "other"))).unwrap();
    server.put(service("s3", "None")).unwrap();
    server.put(service("s3", &ip(3))).unwrap();
    server.put(service("s2", &ip(4))).unwrap();
    // Out in odd rounds, back in even ones.
    server
        .put(labelled(
            "s5",
            [("other", "label"), ("service.kubernetes.io/service-proxy-name", "x")][n as usize % 2],
        ))
        .unwrap();
}

type Step = fn(&mut Server);

/// Faults before the client comes, and while it is there.
const TROUBLES: [(&str, Step, Step); 20] = [
    ("nothing", |_| {}, |_| {}),
    ("lists refused", |s| s.fault(3, When::verb(Verb::List), Fault::Refuse(500, None)), |_| {}),
    ("429", |s| s.fault(2, When::kind(&SERVICE), Fault::Refuse(429, Some(1))), |_| {}),
    ("everything refused", |s| s.fault(4, When::default(), Fault::Refuse(503, None)), |_| {}),
    ("watches refused", |s| s.fault(2, When::verb(Verb::Watch), Fault::Refuse(503, None)), |_| {}),
    ("lists expired", |s| s.fault(1, When::verb(Verb::List), Fault::Refuse(410, None)), |_| {}),
    ("list hangs", |s| s.fault(1, When::default(), Fault::Hang), |_| {}),
    ("answers late", |s| s.fault(1, When::default(), Fault::Delay(Duration::from_millis(50))), |_| {}),
    ("lists cut", |s| s.fault(2, When::verb(Verb::List), Fault::Cut(1)), |_| {}),
    ("lists no JSON", |s| s.fault(1, When::verb(Verb::List), Fault::Malformed(1)), |_| {}),
    ("watches cut", |s| s.fault(2, When::verb(Verb::Watch), Fault::Cut(2)), |s| churn(s, 8)),
    (
        "stopped",
        |_| {},
        |s| {
            s.stop();
            churn(s, 9);
            s.resume().unwrap();
        },
    ),
    ("watches ended", |_| {}, |s| s.end_watches(End::Clean)),
    ("watches broken", |_| {}, |s| s.end_watches(End::Broken)),
    ("watches expired", |_| {}, |s| s.end_watches(End::Expired)),
    (
        "compacted while away",
        |_| {},
        |s| {
            s.stop();
            s.delete(&SERVICE, "default", "s4");
            s.compact_all();
            s.resume().unwrap();
        },
    ),
    (
        "another history",
        |s| s.refuse_future(true),
        |s| {
            s.other_history(50, [service("s1", "10.7.0.1"), service("only", "10.7.0.2")]).unwrap();
        },
    ),
    ("twice", |s| s.send_twice(&SERVICE, true), |_| {}),
    (
        "reordered",
        |_| {},
        |s| {
            s.hold(&SERVICE);
            churn(s, 10);
            s.release(&SERVICE, Order::ObjectsReversed);
        },
    ),
    (
        "bookmarks and delays",
        |s| s.bookmarks_every(Duration::from_millis(5)),
        |s| {
            s.delay_events(&SERVICE, Duration::from_millis(30));
            s.bookmark(&SERVICE);
        },
    ),
];

async fn survives(watched: Watcher, wrong: &str, before: Step, during: Step, streams: bool) {
    let mut server = populated();
    before(&mut server);
    let client = reflect(&server, watched);
    // Changes are made while the client is still starting, too.
    churn(&server, 1);
    client.must_follow(&server, &format!("{wrong}: at first")).await;
    churn(&server, 2);
    during(&mut server);
    client.must_follow(&server, &format!("{wrong}: then")).await;
    for n in 3..6 {
        churn(&server, n);
    }
    client.must_follow(&server, &format!("{wrong}: at last")).await;
    // A client that streams lists does not request them.
    if !(streams && wrong.starts_with("list")) {
        assert_eq!(server.faults_left(), 0, "{wrong} did not happen");
    }
    assert_eq!(server.count(Verb::List, &SERVICE) == 0, streams, "{wrong}: the wrong way to list");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lists_follows_through_all_troubles() {
    for (wrong, before, during) in TROUBLES {
        survives(lists(), wrong, before, during, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_streams_follows_through_all_troubles() {
    for (wrong, before, during) in TROUBLES {
        survives(streams(), wrong, before, during, true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_version_that_is_gone_begin_anew() {
    let server = populated();
    // The first page, then the fault of the second; after that the first version is gone.
    server.fault(1, When::verb(Verb::List), Fault::Delay(Duration::from_millis(1)));
    server.fault(1, When::verb(Verb::List), Fault::Delay(Duration::from_millis(200)));
    let client = reflect(&server, lists());
    while server.count(Verb::List, &SERVICE) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    churn(&server, 1);
    server.compact_all();
    client.must_follow(&server, "stale pages").await;
    assert!(server.requests().iter().any(|request| request.code == Some(410)), "{:?}", server.requests());
}
