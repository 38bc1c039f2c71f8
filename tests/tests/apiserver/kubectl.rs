//! The real kubectl.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use lbr_tests::apiserver::{Fault, Options, SERVICE, SERVICE_CIDR, Server, Verb, When};
use lbr_tests::process::Proc;
use serde_json::{Value, json};

use crate::fixtures::{pod, service, service_in};

/// kubectl with a folder of its own, which is removed with it.
struct Kubectl {
    inner: lbr_tests::kubectl::Kubectl,
    folder: PathBuf,
}

impl Kubectl {
    fn new(server: &Server) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("apiserver-kubectl-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let inner = lbr_tests::kubectl::Kubectl::new(server, &folder, None).unwrap_or_else(|error| {
            let _ = std::fs::remove_dir_all(&folder);
            panic!("{error:#}")
        });
        Self { inner, folder }
    }

    /// The output of kubectl.
    #[track_caller]
    fn ok(&self, words: &[&str]) -> String {
        self.inner.run(words).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The error message of kubectl.
    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        self.inner.run(words).unwrap_err().to_string()
    }

    /// The name of a file with this object.
    fn file(&self, object: &Value) -> String {
        let path = self.folder.join("object.json");
        std::fs::write(&path, object.to_string()).unwrap();
        path.display().to_string()
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn get_prints_lists_and_objects() {
    let server = Server::start().unwrap();
    let kubectl = Kubectl::new(&server);
    server.put_all((1..=5).map(|n| service(&format!("s{n}"), "10.0.0.1"))).unwrap();
    server.put_all([service_in("other", "x"), pod("p", "node1")]).unwrap();
    let names = |arguments: &[&str]| {
        let all = [&["get", "-o", "jsonpath={.items[*].metadata.name}"], arguments].concat();
        kubectl.ok(&all)
    };
    assert_eq!(names(&["svc"]), "s1 s2 s3 s4 s5");
    assert_eq!(names(&["services", "-A", "--chunk-size=2"]), "s1 s2 s3 s4 s5 x");
    assert!(server.requests().iter().any(|request| request.path.contains("limit=2")));
    assert_eq!(names(&["svc", "-l", "app in (s1,s2),!none"]), "s1 s2");
    assert_eq!(names(&["pods", "--field-selector", "spec.nodeName=node1"]), "p");
    assert_eq!(names(&["netpol,endpointslices,nodes,ns,servicecidrs"]), "");
    let table = kubectl.ok(&["get", "svc", "-A"]);
    assert!(table.starts_with("NAMESPACE") && table.lines().count() == 7, "{table}");
    let one: Value = serde_json::from_str(&kubectl.ok(&["get", "svc", "s1", "-o", "json"])).unwrap();
    assert_eq!(
        (one["kind"].as_str(), one["spec"]["clusterIP"].as_str()),
        (Some("Service"), Some("10.0.0.1"))
    );
    let missing = kubectl.fails(&["get", "svc", "none"]);
    assert!(missing.ends_with("Error from server (NotFound): services \"none\" not found"), "{missing}");
    server.serve(&SERVICE_CIDR, false);
    let fresh = kubectl.folder.join("fresh").display().to_string();
    let absent = kubectl.fails(&["get", "servicecidrs", "--cache-dir", &fresh]);
    assert!(absent.contains("the server doesn't have a resource type \"servicecidrs\""), "{absent}");
    assert!(kubectl.ok(&["describe", "svc", "s1"]).contains("10.0.0.1"));
    assert!(kubectl.ok(&["version"]).contains("v1.36.0-test"));
}

#[test]
fn objects_are_created_replaced_patched_and_deleted() {
    let server = Server::start().unwrap();
    let kubectl = Kubectl::new(&server);
    let mut object = service("web", "10.0.0.1");
    let create = |object: &Value| kubectl.ok(&["create", "-f", &kubectl.file(object)]);
    assert_eq!(create(&object).trim(), "service/web created");
    let again = kubectl.fails(&["create", "-f", &kubectl.file(&object)]);
    assert!(
        again.contains("(AlreadyExists)") && again.contains("services \"web\" already exists"),
        "{again}"
    );
    object["spec"]["clusterIP"] = "10.0.0.2".into();
    let replaced = kubectl.ok(&["replace", "-f", &kubectl.file(&object)]);
    assert_eq!(replaced.trim(), "service/web replaced");
    kubectl.ok(&["patch", "svc", "web", "--type=merge", "-p", r#"{"spec":{"type":"NodePort"}}"#]);
    kubectl.ok(&["patch", "svc", "web", "-p", r#"{"spec":{"ports":[{"port":81}]}}"#]);
    kubectl.ok(&["label", "svc", "web", "tier=front"]);
    kubectl.ok(&["annotate", "svc", "web", "note=x"]);
    let web = server.get(&SERVICE, "default", "web").unwrap();
    assert_eq!(
        (web["spec"]["clusterIP"].as_str(), web["spec"]["type"].as_str()),
        (Some("10.0.0.2"), Some("NodePort"))
    );
    assert_eq!(web["spec"]["ports"], json!([{ "port": 80, "protocol": "TCP" }, { "port": 81 }]));
    assert_eq!(web["metadata"]["labels"], json!({ "app": "web", "tier": "front" }));
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
    create(&namespace);
    assert_eq!(kubectl.ok(&["get", "ns", "shop", "-o", "name"]).trim(), "namespace/shop");
    let gone = kubectl.ok(&["delete", "svc", "web", "--timeout=20s"]);
    assert!(gone.starts_with("service \"web\" deleted"), "{gone}");
    assert_eq!(server.get(&SERVICE, "default", "web"), None);
    server.put_all(["a", "b"].map(|name| service(name, "10.0.0.1"))).unwrap();
    kubectl.ok(&["delete", "svc", "--all", "--timeout=20s"]);
    assert_eq!(server.list(&SERVICE), [Value::Null; 0]);
}

#[test]
fn apply_creates_configures_and_leaves_alone() {
    let server = Server::start().unwrap();
    let kubectl = Kubectl::new(&server);
    for serverside in [false, true] {
        let how = format!("--server-side={serverside}");
        let apply = |object: &Value| kubectl.ok(&["apply", &how, "-f", &kubectl.file(object)]);
        let mut object = service("web", "10.0.0.1");
        object["spec"]["ports"] = json!([{ "port": 80, "name": "a" }, { "port": 90, "name": "b" }]);
        let said = |done: &str| {
            if serverside {
                "service/web serverside-applied".to_owned()
            } else {
                format!("service/web {done}")
            }
        };
        assert_eq!(apply(&object).trim(), said("created"));
        object["spec"]["ports"][1]["targetPort"] = 9090.into();
        object["metadata"]["labels"] = json!({ "app": "web", "new": "label" });
        assert_eq!(apply(&object).trim(), said("configured"));
        let web = server.get(&SERVICE, "default", "web").unwrap();
        assert_eq!(
            (&web["spec"]["ports"], &web["metadata"]["labels"]),
            (&object["spec"]["ports"], &object["metadata"]["labels"])
        );
        let before = server.revision();
        assert_eq!(apply(&object).trim(), said("unchanged"));
        assert_eq!(server.revision(), before);
        object["metadata"]["labels"] = json!({ "app": "web" });
        object["spec"]["ports"] = json!([{ "port": 90, "name": "b", "targetPort": 9090 }]);
        apply(&object);
        let web = server.get(&SERVICE, "default", "web").unwrap();
        let removed =
            web["metadata"]["labels"].get("new").is_none() && web["spec"]["ports"] == object["spec"]["ports"];
        assert_eq!(removed, !serverside, "server-side apply removes nothing here: {web}");
        server.delete(&SERVICE, "default", "web");
    }
}

#[test]
fn watch_prints_events() {
    let server = Server::start().unwrap();
    let kubectl = Kubectl::new(&server);
    server.put(service("a", "10.0.0.1")).unwrap();
    let watch = [
        "get",
        "svc",
        "-w",
        "--output-watch-events",
        "-o",
        "jsonpath={.type} {.object.metadata.name}{'\\n'}",
    ];
    let mut command = kubectl.inner.command(&watch).unwrap();
    let mut child = Proc::spawn(command.stdout(Stdio::piped())).unwrap();
    let mut lines = BufReader::new(child.child().stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "ADDED a");
    while server.open_watches(&SERVICE) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server.put(service("b", "10.0.0.1")).unwrap();
    server.put(service("a", "10.0.0.2")).unwrap();
    server.delete(&SERVICE, "default", "a");
    assert_eq!([next(), next(), next()], ["ADDED b", "MODIFIED a", "DELETED a"]);
}

#[test]
fn https_with_a_token_is_spoken() {
    let options =
        Options { tls: Some(Vec::new()), token: Some("open-sesame".to_owned()), ..Options::default() };
    let server = Server::start_with(&options).unwrap();
    let kubectl = Kubectl::new(&server);
    server.put(service("a", "10.0.0.1")).unwrap();
    assert_eq!(kubectl.ok(&["get", "svc", "-o", "name"]).trim(), "service/a");
    server.fault(1, When::is(Verb::List, &SERVICE), Fault::Refuse(403, None));
    assert!(kubectl.fails(&["get", "svc"]).contains("(Forbidden)"));
    server.set_token(Some("another"));
    let refused = kubectl.fails(&["get", "svc"]);
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
}

/// In a mount namespace of its own, where `/run` has only a service account.
const IN_A_POD: &str = "mount -t tmpfs none /run \
    && mkdir -p /var/run/secrets/kubernetes.io \
    && cp -r \"$0\" /var/run/secrets/kubernetes.io/serviceaccount \
    && exec \"$1\" get svc -o name";

#[test]
#[ignore = "needs root, for a mount namespace"]
fn a_service_account_is_enough_in_a_pod() {
    let options =
        Options { tls: Some(Vec::new()), token: Some("open-sesame".to_owned()), ..Options::default() };
    let server = Server::start_with(&options).unwrap();
    let kubectl = Kubectl::new(&server);
    server.put(service("a", "10.0.0.1")).unwrap();
    let account = kubectl.folder.join("account");
    std::fs::create_dir_all(&account).unwrap();
    server.write_service_account(&account).unwrap();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", IN_A_POD])
        .arg(&account)
        .arg(kubectl.inner.command(&[]).unwrap().get_program())
        .env_remove("KUBECONFIG")
        .env("HOME", &kubectl.folder)
        .env("KUBERNETES_SERVICE_HOST", server.address().ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", server.address().port().to_string())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "service/a", "{output:?}");
}
