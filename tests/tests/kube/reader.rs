//! A store that follows a server, and the content of both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lbr_agent::cluster::Change;
use lbr_agent::cluster::Store;
use lbr_agent::source::apiserver::{ApiServer, ApiSource, Contact};
use lbr_tests::apiserver::{
    ENDPOINT_SLICE, Kind, NAMESPACE, NETWORK_POLICY, NODE, POD, SERVICE, SERVICE_CIDR, Server,
};
use serde_json::{Value, json};

/// The longest time until a store has followed.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this long without a byte, an answer counts as lost.
const SILENCE: Duration = Duration::from_secs(1);

/// The kinds that lbr watches.
pub(crate) const WATCHED: [&Kind; 7] =
    [&SERVICE, &ENDPOINT_SLICE, &NAMESPACE, &POD, &NODE, &NETWORK_POLICY, &SERVICE_CIDR];

/// Kind, name, and a field that differs between versions.
pub(crate) type Picture = BTreeMap<(String, String), String>;

/// lbr's knowledge of a server.
pub(crate) struct Reader {
    seen: Arc<Mutex<Seen>>,
    pub(crate) contact: Arc<Contact>,
    _folder: Folder,
}

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) store: Store,
    pub(crate) changes: Vec<Change>,
}

impl Reader {
    /// Begins to read.
    pub(crate) fn start(server: &Server) -> Self {
        let folder = Folder::new();
        let path = folder.0.join("kubeconfig");
        std::fs::write(&path, server.kubeconfig()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let api = ApiServer { kubeconfig: Some(path), silence: Some(SILENCE), ..ApiServer::default() };
        let source = runtime.block_on(ApiSource::open(&api)).unwrap();
        let contact = source.contact();
        let (sender, mut changes) = tokio::sync::mpsc::channel(100);
        source.spawn(sender).unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        // The thread ends when the reader is dropped, and then the source ends too.
        let target = Arc::downgrade(&seen);
        std::thread::spawn(move || {
            while let Some(change) = changes.blocking_recv() {
                let Some(seen) = target.upgrade() else { return };
                let mut seen = seen.lock().unwrap();
                seen.changes.push(change.clone());
                seen.store.apply(change);
            }
        });
        Self { seen, contact, _folder: folder }
    }

    /// Examines the current state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }

    /// Waits for a condition.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.look(&is_so) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.look(picture));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the store has the server's state.
    #[track_caller]
    pub(crate) fn follows(&self, server: &Server, when: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let wanted = truth(server);
            let seen = self.look(picture);
            if seen == wanted && self.look(|seen| seen.store.is_synced()) {
                return;
            }
            if Instant::now() > deadline {
                let asked: Vec<_> = server.requests().into_iter().map(|r| (r.path, r.code)).collect();
                panic!("{when}: {seen:#?}\nis not {wanted:#?}\nasked {asked:#?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// lbr's view: names, and for Services, Pods and policies a field that changes.
pub(crate) fn picture(seen: &Seen) -> Picture {
    let state = seen.store.state();
    let row = |kind: &str, name: String, text: String| ((kind.to_owned(), name), text);
    let mut all = Picture::new();
    all.extend(
        state.services.values().map(|o| row("Service", o.name.to_string(), o.cluster_ips[0].to_string())),
    );
    all.extend(state.slices.keys().map(|name| row("EndpointSlice", name.to_string(), String::new())));
    all.extend(state.namespaces.keys().map(|name| row("Namespace", name.to_string(), String::new())));
    all.extend(state.pods.values().map(|o| row("Pod", o.name.to_string(), format!("{:?}", o.ips))));
    all.extend(state.nodes.keys().map(|name| row("Node", name.to_string(), String::new())));
    all.extend(state.policies.keys().map(|name| row("NetworkPolicy", name.to_string(), String::new())));
    all.extend(state.service_cidrs.keys().map(|name| row("ServiceCIDR", name.to_string(), String::new())));
    all
}

/// The server's view of the same, by the selectors that kube-proxy uses.
fn truth(server: &Server) -> Picture {
    let mut all = Picture::new();
    for kind in WATCHED {
        for object in server.list(kind) {
            let meta = &object["metadata"];
            let labels = &meta["labels"];
            let hidden = labels.get("service.kubernetes.io/service-proxy-name").is_some()
                || labels.get("service.kubernetes.io/headless").is_some()
                || object["spec"]["clusterIP"] == "None";
            if hidden {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = match text(&meta["namespace"]) {
                namespace if namespace.is_empty() => text(&meta["name"]),
                namespace => format!("{namespace}/{}", text(&meta["name"])),
            };
            let version = match text(&object["kind"]).as_str() {
                "Service" => text(&object["spec"]["clusterIP"]),
                "Pod" => format!("[{}]", text(&object["status"]["podIP"])),
                _ => String::new(),
            };
            all.insert((text(&object["kind"]), name), version);
        }
    }
    all
}

/// A server with some objects of every kind.
pub(crate) fn populated() -> Server {
    let server = Server::start().unwrap();
    server.put_all((1..=5).map(|n| service(&format!("s{n}"), "10.0.0.1"))).unwrap();
    server.put_all((1..=3).map(|n| pod(&format!("p{n}"), &format!("10.1.0.{n}")))).unwrap();
    server
        .put_all([
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"namespace": "default", "name": "closed"}, "spec": {"podSelector": {}},
            }),
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
                "spec": {"cidrs": ["10.0.0.0/16"]},
            }),
            slice("s1-x", "10.1.0.1"),
            service("headless", "None"),
        ])
        .unwrap();
    server
}

pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

pub(crate) fn pod(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
    })
}

pub(crate) fn slice(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": {"kubernetes.io/service-name": "s1"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip]}],
    })
}

/// One change of each type, numbered so that each round differs.
pub(crate) fn churn(server: &Server, n: u32) {
    let ip = |last: u32| format!("10.0.{n}.{last}");
    server.put(service("s1", &ip(1))).unwrap();
    server.put(service(&format!("new{n}"), &ip(2))).unwrap();
    server.delete(&SERVICE, "default", &format!("new{}", n.wrapping_sub(1)));
    server.put(service("s3", "None")).unwrap();
    server.put(service("s3", &ip(3))).unwrap();
    server.put(service("s4", if n % 2 == 1 { "None" } else { "10.0.9.9" })).unwrap();
    server.put(pod("p1", &ip(7))).unwrap();
    server.delete(&POD, "default", &format!("q{}", n.wrapping_sub(1)));
    server.put(pod(&format!("q{n}"), &ip(8))).unwrap();
    server.put(slice(&format!("s1-{n}"), &ip(7))).unwrap();
}

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lbr-kube-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(&std::env::temp_dir()).join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
