//! The servers over real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;

use super::health::{Moment, TIMEOUT};
use super::*;

fn anywhere() -> Option<SocketAddr> {
    Some("127.0.0.1:0".parse().unwrap())
}

fn observer() -> Observer {
    Observer::new(Origin::Folder).unwrap()
}

fn started(observer: &Observer) -> (SocketAddr, SocketAddr) {
    let addresses = Addresses { healthz: anywhere(), metrics: anywhere(), hard_fail: true };
    let config = json!({"mode": "lbr"});
    let listening = start(&addresses, observer, "/nonexistent".into(), &config).unwrap();
    (listening.healthz.unwrap(), listening.metrics.unwrap())
}

pub(super) struct Reply {
    pub(super) status: String,
    head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn request(server: SocketAddr, method: &str, path: &str) -> Reply {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {server}\r\n\r\n").unwrap();
    let mut text = String::new();
    // Until the server closes the connection: it takes one request.
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let (status, head) = head.split_once("\r\n").unwrap();
    Reply { status: status.to_owned(), head: head.to_owned(), body: body.to_owned() }
}

pub(super) fn get(server: SocketAddr, path: &str) -> Reply {
    request(server, "GET", path)
}

#[test]
fn probes_are_answered_as_by_kube_proxy() {
    let observer = observer();
    let (healthz, metrics) = started(&observer);
    for (path, field) in [("/healthz", true), ("/livez", false)] {
        let reply = get(healthz, path);
        assert_eq!(reply.status, "HTTP/1.1 200 OK", "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
        assert!(reply.body.starts_with(r#"{"lastUpdated":""#) && reply.body.ends_with('}'), "{}", reply.body);
        assert_eq!(reply.body.contains(r#","nodeEligible":true,"#), field, "{}", reply.body);
    }
    let now = Moment::now();
    let late = Moment { clock: now.clock.checked_sub(TIMEOUT).unwrap(), ..now };
    observer.synced(late);
    observer.queued(Note::default(), late);
    for path in ["/healthz", "/livez?verbose"] {
        let reply = get(healthz, path);
        assert_eq!(reply.status, "HTTP/1.1 503 Service Unavailable", "{path}");
        assert!(reply.body.contains(r#""healthy":false"#), "{}", reply.body);
        assert_eq!(reply.header("content-type"), Some("application/json"));
    }
    let text = get(metrics, "/metrics").body;
    for line in [
        "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
        "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
        "kubeproxy_proxy_livez_total{code=\"200\"} 1",
        "kubeproxy_proxy_livez_total{code=\"503\"} 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
}

#[test]
fn pages_of_the_metrics_port() {
    let (_, metrics) = started(&observer());
    for (path, content_type, body) in [
        ("/healthz", "text/plain; charset=utf-8", "ok"),
        ("/proxyMode", "text/plain; charset=utf-8", "lbr"),
        ("/configz", "application/json", r#"{"kubeproxy.config.k8s.io":{"mode":"lbr"}}"#),
    ] {
        let reply = get(metrics, path);
        assert_eq!((reply.status.as_str(), reply.body.as_str()), ("HTTP/1.1 200 OK", body), "{path}");
        assert_eq!(reply.header("content-type"), Some(content_type), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let reply = get(metrics, "/metrics");
    assert_eq!(reply.status, "HTTP/1.1 200 OK");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(reply.body.contains("lbr_build_info{version=\""), "{}", reply.body);
    // There are no maps. The other metrics are exported all the same.
    assert!(reply.body.lines().any(|line| line == "lbr_maps_readable 0"), "{}", reply.body);
}

/// As kube-proxy 1.36 does: its metrics port has one check, `ping`, which counts from its first request.
#[test]
fn health_checks_of_the_metrics_port_are_counted_by_the_names_of_component_base() {
    let (healthz, metrics) = started(&observer());
    let slis = || {
        let reply = get(metrics, "/metrics/slis");
        assert_eq!(reply.status, "HTTP/1.1 200 OK");
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        reply.body
    };
    get(healthz, "/healthz");
    assert_eq!(get(metrics, "/healthz/ping").body, "ok");
    assert_eq!(slis(), "", "nothing was checked yet");
    for count in 1..=2 {
        get(metrics, "/healthz?verbose");
        let text = slis();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let total = format!(
            r#"kubernetes_healthchecks_total{{name="ping",status="success",type="healthz"}} {count}"#
        );
        assert_eq!(samples, [r#"kubernetes_healthcheck{name="ping",type="healthz"} 1"#, &total]);
        for kind in ["kubernetes_healthcheck gauge", "kubernetes_healthchecks_total counter"] {
            assert!(text.contains(&format!("# TYPE {kind}\n")), "{text}");
        }
    }
    assert!(!get(metrics, "/metrics").body.contains("kubernetes_healthcheck"), "a page of its own");
}

#[test]
fn what_is_not_there_and_what_is_not_read() {
    let (healthz, metrics) = started(&observer());
    for (server, path) in [
        (healthz, "/"),
        (healthz, "/metrics"),
        (healthz, "/healthz/"),
        (metrics, "/"),
        (metrics, "/livez"),
        (metrics, "/debug/pprof/"),
    ] {
        let reply = get(server, path);
        assert_eq!(reply.status, "HTTP/1.1 404 Not Found", "{path}");
        assert_eq!(reply.body, "404 page not found\n");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let reply = request(healthz, method, "/healthz");
        assert_eq!(reply.status, "HTTP/1.1 405 Method Not Allowed", "{method}");
        assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    }
    let reply = request(metrics, "HEAD", "/proxyMode");
    assert_eq!((reply.status.as_str(), reply.body.as_str()), ("HTTP/1.1 200 OK", ""));
    assert_eq!(reply.header("content-length"), Some("3"));
}

#[test]
fn slow_clients_keep_no_other_out() {
    let (healthz, _) = started(&observer());
    let begin = Instant::now();
    let mut idle: Vec<TcpStream> = (0..300)
        .map(|n| {
            let mut stream = TcpStream::connect(healthz).unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /healthz HT").unwrap();
            }
            stream
        })
        .collect();
    assert_eq!(get(healthz, "/healthz").status, "HTTP/1.1 200 OK");
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    // The newest one is not closed for the others, but when its time is over.
    let last = idle.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    let _closed = last.read_to_end(&mut rest);
    assert!((4..15).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[test]
fn an_address_in_use_is_fatal_only_if_asked_for() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let start = |addresses: &Addresses, observer: &Observer| {
        super::start(addresses, observer, "/nonexistent".into(), &json!({}))
    };
    let addresses = Addresses { healthz: Some(address), metrics: None, hard_fail: true };
    let error = format!("{:#}", start(&addresses, &observer()).unwrap_err());
    assert_eq!(
        error,
        format!("--healthz-bind-address: listen on {address}: Address already in use (os error 98)")
    );
    let observer = observer();
    let addresses = Addresses { healthz: Some(address), metrics: anywhere(), hard_fail: false };
    let listening = start(&addresses, &observer).unwrap();
    assert_eq!(listening.healthz, None);
    let text = get(listening.metrics.unwrap(), "/metrics").body;
    let line = "lbr_bind_failures_total{flag=\"--healthz-bind-address\"} 1";
    assert!(text.lines().any(|l| l == line), "{text}");
    drop(taken);
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begin.elapsed() < 3 * BIND_AGAIN, "it is not tried again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(get(address, "/livez").status, "HTTP/1.1 200 OK");
}

#[test]
fn off_is_off() {
    let addresses = Addresses { healthz: None, metrics: None, hard_fail: true };
    let listening = start(&addresses, &observer(), "/nonexistent".into(), &json!({})).unwrap();
    assert_eq!(listening, Listening::default());
}
