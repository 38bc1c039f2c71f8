//! `lbr status` and `lbr version` of a node with a running agent, with a stopped one and with a killed one.
//!
//! Needs root.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lbr_common::addr::Family;
use lbr_tests::agent::{Agent, AgentOptions, binary};
use lbr_tests::manifests::{self, Endpoint, EndpointSlice, Service};
use lbr_tests::netns::Netns;
use lbr_tests::probe::{Client, Server};
use lbr_tests::topology::{Bed, Node, Pod, PodOptions};
use lbr_tests::{apiserver, process};
use serde_json::Value;

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(30);

/// The output of `lbr` in a namespace.
fn output(ns: &Netns, arguments: &[&str], bpffs: &Path) -> String {
    let mut command = ns.command(binary().unwrap()).unwrap();
    let output = process::run(command.args(arguments).arg("--bpffs").arg(bpffs)).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn json(ns: &Netns, what: &str, bpffs: &Path) -> Value {
    serde_json::from_str(&output(ns, &[what, "-o", "json"], bpffs)).unwrap()
}

/// `lbr status`, once it is as wanted.
fn until(ns: &Netns, bpffs: &Path, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + PATIENCE;
    loop {
        let status = json(ns, "status", bpffs);
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < end, "not after {PATIENCE:?}: {what}: {status:#}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The line of the text with this title.
fn line<'a>(text: &'a str, title: &str) -> &'a str {
    let found = text.lines().find(|line| line.starts_with(title));
    found.unwrap_or_else(|| panic!("no line {title}: {text}"))
}

struct World {
    agent: Agent,
    node: Node,
    client: Pod,
    _server: Server,
    _bed: Bed,
}

const WEB: &str = "10.96.0.10";

/// A node with two pods, of which a policy isolates one, a Service with one endpoint, and a file that is rejected.
fn world(name: &str, arguments: &[&str]) -> World {
    let mut bed = Bed::new(name).unwrap();
    let node = bed.add_node("a").unwrap();
    let client = bed.add_pod(&node, "client", PodOptions::default()).unwrap();
    let backend = bed.add_pod(&node, "backend", PodOptions::default()).unwrap();
    let server = Server::pod(&backend, PORT).unwrap();
    let vip: IpAddr = WEB.parse().unwrap();
    let service = Service::new("web", &[vip]).port("http", "TCP", 80, PORT).port("dns", "UDP", 53, PORT);
    let slice = EndpointSlice::new("web-1", "web", Family::V4).port("http", "TCP", PORT);
    let slice = slice.endpoint(Endpoint::new(backend.address(Family::V4)));
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: open}\nspec:\n  \
                  podSelector: {}\n  ingress: [{}]\n";
    let wrong = "apiVersion: v1\nkind: Service\nmetadata: {name: wrong}\nspec: {clusterIP: 10.96.0.300, ports: [{port: 80}]}\n";
    let objects = manifests::join([service.yaml(), slice.yaml(), policy.to_owned()]);
    let pods = manifests::join([manifests::pod(&client), manifests::pod(&backend)]);
    let files = [("web.yaml", objects), ("pods.yaml", pods), ("wrong.yaml", wrong.to_owned())];
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let options = AgentOptions { sockets: true, arguments, ..AgentOptions::default() };
    let agent = Agent::start_with(&mut bed, &node, &options, &files).unwrap();
    World { agent, node, client, _server: server, _bed: bed }
}

fn has_tcx(status: &Value) -> bool {
    status["kernel"]["tcx"] == true
}

#[test]
fn a_running_a_stopped_and_a_killed_agent() {
    let mut world = world("status", &[]);
    let (ns, bpffs) = (world.node.ns.clone(), world.agent.bpffs().to_owned());
    let stream = Client::new(&world.client.ns).tcp_stream(format!("{WEB}:80").parse().unwrap()).unwrap();
    let is_whole = |status: &Value| {
        let uplinks = status["uplinks"].as_array().is_some_and(|uplinks| uplinks.len() == 1);
        let links = &status["links"];
        let links = links["tcx"].as_u64().unwrap() + links["clsact"].as_u64().unwrap() == 2;
        status["state"]["synced"] == true && !status["state"]["in_force_since"].is_null() && uplinks && links
    };
    let running = until(&ns, &bpffs, "all is attached", is_whole);
    let tc = if has_tcx(&running) { "tcx" } else { "clsact" };
    let agent = &running["agent"];
    assert_eq!((&agent["state"], &agent["node"]), (&"running".into(), &"a".into()));
    assert_eq!(agent["process"].as_u64(), world.agent.id().map(u64::from));
    assert_eq!(agent["version"], env!("CARGO_PKG_VERSION"));
    let object = &running["object"];
    assert_eq!((&object["same"], &object["here"]), (&true.into(), &object["in_force"]));
    let source = &running["source"];
    assert_eq!((&source["kind"], source["age_seconds"].as_f64()), (&"folder".into(), Some(0.0)));
    assert_eq!(source["place"], world.agent.manifests().to_str().unwrap());
    let counts = &running["counts"];
    for (count, expected) in [
        ("services", 1),
        ("service_ports", 2),
        ("endpoints", 1),
        ("pods", 2),
        ("isolated_pods", 2),
        ("policies", 1),
    ] {
        assert_eq!(counts[count], expected, "{count}: {counts}");
    }
    assert!(counts["flows"].as_u64() >= Some(1), "{counts}");
    let [rejected] = running["rejected"].as_array().unwrap().as_slice() else { panic!("{running}") };
    assert_eq!(rejected["object"], "Service default/wrong");
    let fill = running["maps"].as_array().unwrap();
    let entries = |map: &str| fill.iter().find(|row| row["map"] == map).unwrap()["entries"].as_u64();
    assert_eq!((entries("services"), entries("backends"), entries("pod_names")), (Some(2), Some(1), Some(4)));
    assert!(entries("flows") >= Some(2) && fill.len() > 20, "{fill:?}");
    let uplink = &running["uplinks"][0];
    assert_eq!((&uplink["name"], &uplink["tc"], &uplink["xdp"]), (&"eth0".into(), &tc.into(), &"off".into()));
    assert_eq!((&running["links"][tc], &running["links"]["detached"]), (&2.into(), &0.into()));
    assert_eq!(running["socket_programs"], 10);
    let text = output(&ns, &["status"], &bpffs);
    assert!(line(&text, "agent").contains(&format!("running (lbr {}, process ", env!("CARGO_PKG_VERSION"))));
    assert!(line(&text, "source").contains(": followed, last change "));
    assert!(line(&text, "state").contains("everything is in force since"));
    assert!(line(&text, "uplinks").contains(&format!("eth0: {tc}, XDP off")));
    assert!(text.lines().count() < 24, "one screen: {text}");

    // A change is counted.
    world.agent.remove("wrong.yaml").unwrap();
    let earlier = &running["state"]["in_force_since"];
    let is_later = |status: &Value| {
        status["rejected"] == Value::Array(Vec::new())
            && status["state"]["in_force_since"].as_str() > earlier.as_str()
    };
    let changed = until(&ns, &bpffs, "the file is gone", is_later);
    assert!(changed["source"]["changed"].as_str() > source["changed"].as_str());

    // A folder that cannot be listed is a source that is not read.
    let (folder, away) = (world.agent.manifests().to_owned(), world.agent.manifests().with_extension("away"));
    std::fs::rename(&folder, &away).unwrap();
    let lost = |status: &Value| status["source"]["age_seconds"].as_f64() > Some(0.0);
    until(&ns, &bpffs, "the folder is lost", lost);
    std::fs::rename(&away, &folder).unwrap();
    let changed = until(&ns, &bpffs, "the folder is back", |status| !lost(status) && is_later(status));

    // The state stays, and says so.
    world.agent.stop().unwrap();
    let stopped = json(&ns, "status", &bpffs);
    assert_eq!(stopped["agent"]["state"], "stopped");
    assert!(stopped["agent"]["stopped"].as_str() > earlier.as_str());
    for part in ["object", "uplinks", "links", "socket_programs", "rejected"] {
        assert_eq!(stopped[part], changed[part], "{part}");
    }
    let count =
        |status: &Value| [status["counts"]["services"].clone(), status["counts"]["endpoints"].clone()];
    assert_eq!(count(&stopped), count(&changed));
    std::thread::sleep(Duration::from_millis(1_100));
    let text = output(&ns, &["status"], &bpffs);
    assert!(
        line(&text, "agent").contains("not running, stopped 2")
            && text.contains("the last state stays in force")
    );
    assert!(line(&text, "source").contains(": not read for 1s"), "{text}");
    Client::new(&world.client.ns).tcp(format!("{WEB}:80").parse().unwrap()).unwrap();

    // A new agent reports for itself, and a killed one cannot.
    world.agent.run().unwrap();
    let again = until(&ns, &bpffs, "it runs again", |status| status["agent"]["state"] == "running");
    assert!(again["agent"]["since"].as_str() > running["agent"]["since"].as_str());
    world.agent.kill();
    let killed = until(&ns, &bpffs, "it is killed", |status| status["agent"]["state"] == "killed");
    assert_eq!(killed["agent"]["process"], again["agent"]["process"]);
    assert!(line(&output(&ns, &["status"], &bpffs), "agent").contains("not running, was killed after 2"));
    drop(stream);
}

#[test]
fn clsact_and_xdp_are_told() {
    let world =
        world("statusc", &["--attach=clsact", "--xdp=generic", "--map-max=links=1", "--map-max=slots=3"]);
    let (ns, bpffs) = (world.node.ns.clone(), world.agent.bpffs().to_owned());
    let is_whole = |status: &Value| {
        status["uplinks"][0]["xdp"] == "generic" && status["state"]["problems"].as_u64() > Some(0)
    };
    let status = until(&ns, &bpffs, "XDP is attached, and a link is not", is_whole);
    assert_eq!(status["uplinks"][0]["tc"], "clsact");
    assert_eq!((&status["links"]["tcx"], &status["links"]["clsact"]), (&0.into(), &1.into()));
    // One of two links has no room.
    assert_eq!(status["maps"][0]["map"], "links");
    assert_eq!(status["maps"][0]["percent"], 100.0);
    let text = output(&ns, &["status"], &bpffs);
    assert!(line(&text, "state").contains("failed: see `lbr show rejected` and the agent's log"), "{text}");
    assert!(line(&text, "maps").starts_with("maps       fullest: links 100% (1 of 1), "), "{text}");
    assert!(line(&text, "pod links").contains("1 clsact"), "{text}");
}

#[test]
fn a_silent_api_server_makes_the_state_old() {
    let mut bed = Bed::new("statusa").unwrap();
    let node = bed.add_node("a").unwrap();
    let mut api = node.ns.run(apiserver::Server::start).unwrap();
    let kubeconfig = bed.folder().join("kubeconfig");
    std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
    let options = AgentOptions { kubeconfig: Some(kubeconfig), ..AgentOptions::default() };
    let agent = Agent::start_with(&mut bed, &node, &options, &[]).unwrap();
    let status = until(&node.ns, agent.bpffs(), "synced", |status| status["state"]["synced"] == true);
    let source = &status["source"];
    assert_eq!((&source["kind"], source["age_seconds"].as_f64()), (&"api-server".into(), Some(0.0)));
    assert!(source["place"].as_str().unwrap().starts_with(&api.url()), "{source}");
    api.stop();
    let old = |status: &Value| status["source"]["age_seconds"].as_f64() > Some(1.0);
    until(&node.ns, agent.bpffs(), "the source is old", old);
    let text = output(&node.ns, &["status"], agent.bpffs());
    assert!(
        line(&text, "source").contains("not read for ") && line(&text, "agent").contains("running ("),
        "{text}"
    );
    node.ns.run(|| api.resume()).unwrap();
    until(&node.ns, agent.bpffs(), "it is read again", |status| status["source"]["age_seconds"] == 0.0);
}

#[test]
fn version_tells_which_object_is_in_force() {
    let mut world = world("statusv", &[]);
    let (ns, bpffs) = (world.node.ns.clone(), world.agent.bpffs().to_owned());
    let file = std::env::temp_dir().join(format!("lbr-object-{}", std::process::id()));
    std::fs::write(&file, lbr_agent::dataplane::OBJECT).unwrap();
    let sum = process::run(Command::new("sha256sum").arg(&file)).unwrap();
    std::fs::remove_file(&file).unwrap();
    let hash = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
    let version = json(&ns, "version", &bpffs);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&version["object"]["here"], &version["object"]["in_force"]),
        (&hash.clone().into(), &hash.clone().into())
    );
    let text = output(&ns, &["version"], &bpffs);
    assert!(
        text.starts_with(&format!("lbr {}\nkernel object  sha256 {hash}\n", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    assert!(text.contains(": the same, "), "{text}");

    // Another version's agent loaded another object.
    world.agent.stop().unwrap();
    let report = bpffs.join("report");
    let written = std::fs::read_link(&report).unwrap().to_string_lossy().into_owned();
    let replace = |text: &str| {
        std::fs::remove_file(&report).unwrap();
        std::os::unix::fs::symlink(text, &report).unwrap();
    };
    replace(&written.replace(&hash, &"0".repeat(64)));
    assert_eq!(json(&ns, "version", &bpffs)["object"]["same"], false);
    assert!(output(&ns, &["version"], &bpffs).contains("another one than this binary's"));
    // A report that is not of the attached programs is not believed; only pinned links name them.
    if has_tcx(&json(&ns, "status", &bpffs)) {
        let mut other: Value = serde_json::from_str(&written).unwrap();
        other["programs"]["from_pod"] = 1.into();
        replace(&other.to_string());
        let version = json(&ns, "version", &bpffs);
        assert_eq!(
            (&version["object"]["same"], &version["object"]["confirmed"]),
            (&Value::Null, &false.into())
        );
    }
    std::fs::remove_file(&report).unwrap();
    assert!(output(&ns, &["version"], &bpffs).contains("not known: its agent left no report"));
    assert!(output(&ns, &["status"], &bpffs).contains("source     not known: the agent left no report"));
    // Without any pins, the version of this binary is still told.
    let nowhere = output(&ns, &["version"], &bpffs.join("none"));
    assert!(
        nowhere.contains(&hash) && nowhere.contains("in force       none: no lbr maps under "),
        "{nowhere}"
    );
}
