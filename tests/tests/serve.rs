//! Health and metrics of a real agent agree with its maps and with the traffic.
//!
//! Needs root.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use lbr_agent::dataplane::Pinned;
use lbr_common::addr::Family;
use lbr_tests::agent::{self, Agent, AgentOptions};
use lbr_tests::manifests::{self, Endpoint, EndpointSlice, Service};
use lbr_tests::probe::{Client, Server};
use lbr_tests::process;
use lbr_tests::topology::{Bed, Node, PodOptions};

const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);

/// The answer of a server at an address of the node, requested from inside the node.
fn get(node: &Node, server: &str, path: &str) -> String {
    let mut text = String::new();
    let answer = node.ns.run(|| {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")?;
        stream.read_to_string(&mut text)?;
        Ok(())
    });
    answer.unwrap_or_else(|error| panic!("{server}{path}: {error:#}"));
    text
}

fn metrics(node: &Node) -> String {
    get(node, "127.0.0.1:10249", "/metrics")
}

/// The value of a metric with its labels; 0 if it is absent.
fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

fn until(node: &Node, what: &str, mut is_so: impl FnMut(&str) -> bool) -> String {
    let begin = Instant::now();
    loop {
        let text = metrics(node);
        if is_so(&text) {
            return text;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Asserts that the metrics have the number of entries of every map of the agent.
fn compare(bpffs: &Path, text: &str) {
    let tables = Pinned::open(bpffs).unwrap().tables().unwrap();
    for (map, count) in [
        ("frontends", tables.frontends.len()),
        ("slots", tables.slots.len()),
        ("backends", tables.backends.len()),
        ("services", tables.services.len()),
        ("links", tables.links.len()),
        ("endpoints", tables.endpoints.len()),
        ("pod_names", tables.pod_names.len()),
    ] {
        let said = value(text, &format!("lbr_map_entries{{map=\"{map}\"}}"));
        assert_eq!(said, count as f64, "{map}");
    }
    assert!(!tables.frontends.is_empty() && !tables.backends.is_empty());
}

fn slice(addr: IpAddr) -> String {
    let slice = EndpointSlice::new("web-1", "web", Family::V4).port("http", "TCP", PORT);
    let yaml = slice.endpoint(Endpoint::new(addr)).yaml();
    let time = process::run(std::process::Command::new("date").args(["-u", "+%FT%T.%NZ"])).unwrap();
    let time = String::from_utf8(time.stdout).unwrap();
    let annotation = format!(
        "metadata:\n  annotations:\n    endpoints.kubernetes.io/last-change-trigger-time: \"{}\"\n",
        time.trim()
    );
    yaml.replacen("metadata:\n", &annotation, 1)
}

fn node_object(name: &str, taint: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\nspec:\n  taints:\n  - key: {taint}\n    effect: NoSchedule\n"
    )
}

#[test]
fn health_and_metrics_agree_with_the_node() {
    let mut bed = Bed::new("serve").unwrap();
    let node = bed.add_node("a").unwrap();
    let client = bed.add_pod(&node, "client", PodOptions::default()).unwrap();
    let server = bed.add_pod(&node, "server", PodOptions::default()).unwrap();
    let _server = Server::pod(&server, PORT).unwrap();
    let vip: IpAddr = "10.96.0.10".parse().unwrap();
    let to = SocketAddr::new(vip, 80);
    let service = Service::new("web", &[vip]).port("http", "TCP", 80, PORT).yaml();
    let agent =
        Agent::start_with(&mut bed, &node, &AgentOptions::default(), &[("web.yaml", service)]).unwrap();

    // A change is counted, its duration is measured, and it is in force.
    agent.write("slice.yaml", &slice(server.address(Family::V4))).unwrap();
    let programmed = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}";
    let text = until(&node, "the slice is in force", |text| value(text, programmed) == 1.0);
    compare(agent.bpffs(), &text);
    assert_eq!(value(&text, "kubeproxy_sync_proxy_rules_service_changes_total"), 1.0);
    assert_eq!(value(&text, "kubeproxy_sync_proxy_rules_endpoint_changes_total"), 1.0);
    assert_eq!(value(&text, "kubeproxy_sync_proxy_rules_endpoint_changes_pending"), 0.0);
    assert_eq!(value(&text, "lbr_objects{kind=\"Service\"}"), 1.0);
    assert_eq!((value(&text, "lbr_synced"), value(&text, "lbr_maps_readable")), (1.0, 1.0));
    assert_eq!(value(&text, "lbr_map_max_entries{map=\"flows\"}"), 262_144.0);
    let sync = value(&text, "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}");
    assert!(sync >= 2.0, "{sync}");

    // Traffic is counted, and connections by Service. The last walk may be 15 seconds old.
    let ask = Client::new(&client.ns);
    let open: Vec<TcpStream> = (0..5).map(|_| ask.tcp_stream(to).unwrap()).collect();
    let packets = "lbr_packets_total{hook=\"from_pod\",reason=\"to_backend\",effect=\"translate\"}";
    let bytes = packets.replace("packets", "bytes");
    let text = until(&node, "connections", |text| {
        value(text, "lbr_service_flows{namespace=\"default\",service=\"web\",port=\"http\"}") == 5.0
    });
    assert!(value(&text, "lbr_flows") >= 5.0);
    let service = "namespace=\"default\",service=\"web\",port=\"http\"";
    assert_eq!(value(&text, &format!("lbr_service_connections_total{{{service}}}")), 5.0);
    assert!(value(&text, "lbr_map_entries{map=\"flows\"}") >= 10.0);
    let before = value(&text, packets);
    assert!(before >= 10.0, "{text}");
    assert!(value(&text, &bytes) >= 54.0 * before, "{text}");
    ask.tcp(to).unwrap();
    assert!(value(&metrics(&node), packets) > before);
    drop(open);

    // Both families, all addresses; the node's state affects one of the two pages.
    let node_address = SocketAddr::new(node.addresses()[0], 10256).to_string();
    for server in ["127.0.0.1:10256", "[::1]:10256", &node_address] {
        for path in ["/healthz", "/livez"] {
            let answer = get(&node, server, path);
            assert!(
                answer.starts_with("HTTP/1.1 200 OK") && answer.contains("\"IPv6\":{"),
                "{server}: {answer}"
            );
        }
    }
    agent.write("node.yaml", &node_object("a", "ToBeDeletedByClusterAutoscaler")).unwrap();
    until(&node, "the node is to be deleted", |_| {
        get(&node, &node_address, "/healthz").starts_with("HTTP/1.1 503 ")
    });
    assert!(get(&node, &node_address, "/livez").starts_with("HTTP/1.1 200 "));
    agent.write("node.yaml", &node_object("a", "other")).unwrap();
    until(&node, "the node stays", |_| get(&node, &node_address, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(&node, "127.0.0.1:10249", "/healthz").ends_with("\r\n\r\nok"));
    let slis = get(&node, "127.0.0.1:10249", "/metrics/slis");
    assert!(slis.contains("kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1\n"), "{slis}");
    assert!(get(&node, "127.0.0.1:10249", "/proxyMode").ends_with("\r\n\r\nlbr"));
    let config = get(&node, "127.0.0.1:10249", "/configz");
    assert!(config.contains("\"healthzBindAddress\":\"0.0.0.0:10256\""), "{config}");

    // Another agent that must have the same address ends before it changes anything.
    let mut second = node.ns.command(agent::binary().unwrap()).unwrap();
    let bpffs = agent.bpffs().with_file_name("second");
    second.args(["run", "--node-name=b", "--socket-lb=off", "--bind-address-hard-fail", "--manifests"]);
    second.arg(agent.manifests()).arg("--bpffs").arg(&bpffs);
    let error = format!("{:#}", process::run(&mut second).unwrap_err());
    assert!(
        error.contains("--healthz-bind-address: listen on 0.0.0.0:10256: Address already in use"),
        "{error}"
    );
    assert!(!bpffs.exists());
}

#[test]
fn the_log_is_json_if_asked_for() {
    let mut bed = Bed::new("json").unwrap();
    let node = bed.add_node("a").unwrap();
    let arguments = vec!["--logging-format=json".to_owned(), "-v=4".to_owned()];
    let options = AgentOptions { arguments, ..AgentOptions::default() };
    let mut agent = Agent::start_with(&mut bed, &node, &options, &[]).unwrap();
    agent.stop().unwrap();
    let said = agent.said();
    let lines: Vec<serde_json::Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let ready =
        |line: &&serde_json::Value| line["message"].as_str().is_some_and(|m| m.starts_with("ready: "));
    let ready = lines.iter().find(ready).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(ready["level"], "INFO");
    for part in [": list ", ", load ", ", compile ", ", write ", "; Services and policies in force after "] {
        let message = ready["message"].as_str().unwrap_or_default();
        let value =
            message.split_once(part).and_then(|(_, rest)| rest.split_once(" s")?.0.parse::<f64>().ok());
        assert!(value.is_some_and(|seconds| seconds < 600.0), "{part}: {message}");
    }
    assert!(ready["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{ready}");
    assert!(lines.iter().any(|line| line["level"] == "DEBUG" && line["writes"].is_u64()), "{said}");
}

/// A Service with a health check port, and one endpoint or none.
fn with_health_port(policy: &str, endpoint: Option<(IpAddr, &str)>) -> String {
    let service = Service::new("web", &["10.96.0.10".parse().unwrap()])
        .port("http", "TCP", 80, PORT)
        .spec("type: LoadBalancer")
        .spec(&format!("externalTrafficPolicy: {policy}"));
    let service = match policy {
        "Local" => service.spec("healthCheckNodePort: 32000"),
        _ => service,
    };
    let slice = EndpointSlice::new("web-1", "web", Family::V4).port("http", "TCP", PORT);
    let slice = match endpoint {
        Some((address, node)) => slice.endpoint(Endpoint::new(address).node(node)),
        None => slice,
    };
    manifests::join([service.yaml(), slice.yaml()])
}

#[test]
fn load_balancers_learn_which_nodes_have_endpoints() {
    let mut bed = Bed::new("health-port").unwrap();
    let node = bed.add_node("a").unwrap();
    let pod = bed.add_pod(&node, "pod", PodOptions::default()).unwrap();
    let here = pod.address(Family::V4);
    let taken = node.ns.run(|| Ok(std::net::TcpListener::bind("0.0.0.0:32000")?)).unwrap();
    let first = [("web.yaml", with_health_port("Local", Some((here, "a"))))];
    let agent = Agent::start_with(&mut bed, &node, &AgentOptions::default(), &first).unwrap();

    // The port is in use: that is counted and logged, and the rest works.
    until(&node, "the port is in use", |text| {
        value(text, "lbr_bind_failures_total{flag=\"healthCheckNodePort\"}") >= 1.0
    });
    until(&node, "the log says so", |_| {
        agent.said().contains("Service default/web: spec.healthCheckNodePort: ")
    });
    drop(taken);
    let is = |status: &str| {
        let asked = |server: &String| get(&node, server, "/").starts_with(&format!("HTTP/1.1 {status} "));
        node.addresses().map(|address| SocketAddr::new(address, 32000).to_string()).iter().all(asked)
    };
    let is_open = || node.ns.run(|| Ok(TcpStream::connect("127.0.0.1:32000").is_ok())).unwrap();
    until(&node, "it is tried again", |_| is_open());
    assert!(is("200"));
    agent.write("web.yaml", &with_health_port("Local", Some((here, "elsewhere")))).unwrap();
    until(&node, "the endpoint is on another node", |_| is("503"));
    agent.write("web.yaml", &with_health_port("Local", Some((here, "a")))).unwrap();
    until(&node, "the endpoint is here", |_| is("200"));
    agent.write("web.yaml", &with_health_port("Local", None)).unwrap();
    until(&node, "there is no endpoint", |_| is("503"));
    agent.write("web.yaml", &with_health_port("Cluster", Some((here, "a")))).unwrap();
    until(&node, "any node will do", |_| !is_open());
}
