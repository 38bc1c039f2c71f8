//! Events on objects: written once, at a limited rate, and without any effect on other work.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lbr_agent::agent::{self, Inputs};
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::events::Occurrence;
use lbr_agent::node::Settings;
use lbr_agent::node::links::LocalLinks;
use lbr_agent::serve::{Observer, Origin};
use lbr_agent::source::apiserver::{ApiServer, ApiSource, Pace};
use lbr_tests::apiserver::{EVENTS_EVENT, Fault, SERVICE, Server, Verb, When};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::reader::service;

const PATIENCE: Duration = Duration::from_secs(20);

/// An agent of node `n1` over an API server, with maps in memory.
struct Agent {
    fake: Fake,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    folder: PathBuf,
}

impl Agent {
    fn start(server: &Server, name: &str, pace: Pace) -> Self {
        let folder = std::env::temp_dir().join(format!("lbr-told-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("kubeconfig");
        std::fs::write(&path, server.kubeconfig()).unwrap();
        let fake = Fake::new(0).with_faults(0);
        let (stop, stopped) = oneshot::channel();
        let mut maps = fake.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let api = ApiServer { kubeconfig: Some(path), ..ApiServer::default() };
                let mut source = ApiSource::open(&api).await.unwrap();
                let events = source.events("n1", pace);
                assert!(events.tell(Occurrence::starting("n1")));
                let (sender, changes) = mpsc::channel(1024);
                source.spawn(sender).unwrap();
                let (_links, links) = watch::channel(LocalLinks::default());
                let (_gate, gate) = lbr_agent::gate::gate();
                let inputs = Inputs {
                    changes,
                    links,
                    pods: watch::channel(Default::default()).0,
                    gate,
                    observer: Observer::new(Origin::Folder).unwrap(),
                    loading: None,
                    started: std::time::Instant::now(),
                    events,
                };
                let shutdown = async { drop(stopped.await) };
                agent::run("n1".to_owned(), Settings::default(), inputs, &mut maps, shutdown).await.unwrap();
            });
        });
        Self { fake, stop: Some(stop), thread: Some(thread), folder }
    }

    /// Asserts that changes come into force.
    #[track_caller]
    fn goes_on(&self, server: &Server) {
        for n in 1..5 {
            let address = format!("10.0.1.{n}");
            server.put(service("good", &address)).unwrap();
            self.serves(&address);
        }
    }

    /// Waits until a Service port of this address is in force.
    #[track_caller]
    fn serves(&self, address: &str) {
        let address = address.parse::<std::net::IpAddr>().unwrap().into();
        wait("it is served", || self.fake.in_force().frontends.keys().any(|key| key.addr == address));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().is_some_and(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking());
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A Service with a node port that its type does not have.
fn wrong(name: &str, ip: &str) -> Value {
    let mut service = service(name, ip);
    service["spec"]["ports"] =
        json!([{"port": 80, "protocol": "TCP", "name": "h"}, {"port": 9, "nodePort": 30_009, "name": "s"}]);
    service
}

fn quick() -> Pace {
    let moment = Duration::from_millis(50);
    Pace { burst: 25, every: moment, refresh: moment, again: moment }
}

/// Events about objects of this kind.
fn about(server: &Server, kind: &str) -> Vec<Value> {
    let mut events = server.list(&EVENTS_EVENT);
    events.retain(|event| event["regarding"]["kind"] == kind);
    events
}

#[test]
fn each_event_is_written_once_where_kubectl_looks() {
    let server = Server::start().unwrap();
    server.put(wrong("bad", "10.0.0.7")).unwrap();
    let agent = Agent::start(&server, "once", quick());
    wait("both are written", || about(&server, "Service").len() + about(&server, "Node").len() == 2);
    agent.goes_on(&server);
    let (nodes, services) = (about(&server, "Node"), about(&server, "Service"));
    assert_eq!((nodes.len(), services.len()), (1, 1), "{nodes:?} {services:?}");

    let (node, bad) = (&nodes[0], &services[0]);
    assert_eq!((&node["reason"], &node["type"]), (&json!("Starting"), &json!("Normal")));
    assert_eq!(node["regarding"]["name"], "n1");
    assert_eq!(node["regarding"]["uid"], "n1", "as kubectl looks for them");
    assert_eq!(node["metadata"]["namespace"], "default");
    assert_eq!((&bad["reason"], &bad["type"]), (&json!("Limited"), &json!("Warning")));
    let note = bad["note"].as_str().unwrap();
    assert!(note.starts_with("spec.ports[1].nodePort: "), "{note}");
    let uid = &server.get(&SERVICE, "default", "bad").unwrap()["metadata"]["uid"];
    assert!(uid.is_string() && bad["regarding"]["uid"] == *uid, "{bad}");
    assert_eq!(bad["metadata"]["namespace"], "default");
    assert_eq!((&bad["reportingController"], &bad["reportingInstance"]), (&json!("lbr"), &json!("n1")));
    assert!(bad["series"].is_null() && node["series"].is_null(), "{bad} {node}");
}

#[test]
fn recurring_rejection_is_counted_in_one_event() {
    const TIMES: u64 = 12;
    let server = Server::start().unwrap();
    let agent = Agent::start(&server, "series", quick());
    for n in 1..=TIMES {
        server.put(wrong("bad", &format!("10.0.3.{n}"))).unwrap();
        agent.serves(&format!("10.0.3.{n}"));
        server.put(service("bad", &format!("10.0.4.{n}"))).unwrap();
        agent.serves(&format!("10.0.4.{n}"));
    }
    wait("all are counted", || {
        about(&server, "Service").iter().any(|event| event["series"]["count"] == TIMES)
    });
    assert_eq!(about(&server, "Service").len(), 1);
}

#[test]
fn burst_of_events_is_limited() {
    let server = Server::start().unwrap();
    // More than the queue takes, and without entries in the maps: the maps in memory are checked after each write.
    let none = |n: u32| {
        let mut service = wrong(&format!("bad{n}"), &format!("10.0.{}.{}", 10 + n / 200, 1 + n % 200));
        service["spec"]["ports"].as_array_mut().unwrap().remove(0);
        service
    };
    server.put_all((0..400).map(none)).unwrap();
    let agent = Agent::start(&server, "flood", Pace { burst: 5, every: Duration::from_secs(600), ..quick() });
    agent.goes_on(&server);
    wait("the burst is written", || server.list(&EVENTS_EVENT).len() == 5);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.count(Verb::Create, &EVENTS_EVENT), 5);
}

/// RBAC rules without events, an overloaded server, and a server that does not answer.
#[test]
fn server_that_refuses_events_affects_nothing_else() {
    for fault in [Fault::Refuse(403, None), Fault::Refuse(503, None), Fault::Hang] {
        let server = Server::start().unwrap();
        server.put(wrong("bad", "10.0.0.7")).unwrap();
        server.fault(1_000, When::kind(&EVENTS_EVENT), fault);
        let agent = Agent::start(&server, "refused", quick());
        wait("an event is tried", || server.count(Verb::Create, &EVENTS_EVENT) > 0);
        agent.goes_on(&server);
        assert!(server.list(&EVENTS_EVENT).is_empty());
    }
}

#[test]
fn busy_server_gets_events_later() {
    let server = Server::start().unwrap();
    // Not 503: the client itself repeats that request.
    server.fault(3, When::kind(&EVENTS_EVENT), Fault::Refuse(500, None));
    let _agent = Agent::start(&server, "later", quick());
    wait("it is written at last", || about(&server, "Node").len() == 1);
    assert_eq!(server.count(Verb::Create, &EVENTS_EVENT), 4);
}
