//! The real kubectl. `KUBECTL` names another one than that of the path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use lbr_tests::apiserver::{Fault, Options, SERVICE, SERVICE_CIDR, Server, Verb, When};
use serde_json::{Value, json};

use crate::fixtures::{pod, service, service_in};

/// From this minor version on, kubectl leaves validation to servers that say they do it.
const SERVER_VALIDATES: u64 = 29;

struct Kubectl {
    folder: PathBuf,
    binary: String,
    minor: u64,
}

/// None, and a message, where there is no kubectl.
fn kubectl(server: &Server) -> Option<Kubectl> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("apiserver-kubectl-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config"), server.kubeconfig()).unwrap();
    let binary = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
    let mut kubectl = Kubectl { folder, binary, minor: 0 };
    let Ok(version) = kubectl.command(&["version", "--client", "-o", "json"]).output() else {
        println!("SKIPPED: there is no {}: install kubectl", kubectl.binary);
        return None;
    };
    let version: Value = serde_json::from_slice(&version.stdout).unwrap();
    let minor = version["clientVersion"]["minor"].as_str().unwrap();
    kubectl.minor = minor.trim_end_matches('+').parse().unwrap();
    Some(kubectl)
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Kubectl {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("KUBECONFIG", self.folder.join("config")).env("HOME", &self.folder);
        command.env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// What it prints.
    fn ok(&self, arguments: &[&str]) -> String {
        self.ok_with(arguments, "")
    }

    fn ok_with(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it fails.
    fn fails(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// A verb with an object, which old clients want a schema for.
    fn sends<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-f", "-"]);
        if self.minor < SERVER_VALIDATES {
            arguments.push("--validate=false");
        }
        arguments
    }
}

#[test]
fn get_prints_lists_and_objects() {
    let server = Server::start().unwrap();
    let Some(kubectl) = kubectl(&server) else { return };
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
    let missing = kubectl.fails(&["get", "svc", "none"], "");
    assert_eq!(missing.trim(), "Error from server (NotFound): services \"none\" not found");
    server.serve(&SERVICE_CIDR, false);
    let fresh = kubectl.folder.join("fresh").display().to_string();
    let absent = kubectl.fails(&["get", "servicecidrs", "--cache-dir", &fresh], "");
    assert!(absent.contains("the server doesn't have a resource type \"servicecidrs\""), "{absent}");
    assert!(kubectl.ok(&["describe", "svc", "s1"]).contains("10.0.0.1"));
    assert!(kubectl.ok(&["version"]).contains("v1.36.0-test"));
}

#[test]
fn objects_are_created_replaced_patched_and_deleted() {
    let server = Server::start().unwrap();
    let Some(kubectl) = kubectl(&server) else { return };
    let mut object = service("web", "10.0.0.1");
    let create = kubectl.sends(&["create"]);
    assert_eq!(kubectl.ok_with(&create, &object.to_string()).trim(), "service/web created");
    let again = kubectl.fails(&create, &object.to_string());
    assert!(
        again.contains("(AlreadyExists)") && again.contains("services \"web\" already exists"),
        "{again}"
    );
    object["spec"]["clusterIP"] = "10.0.0.2".into();
    let replaced = kubectl.ok_with(&kubectl.sends(&["replace"]), &object.to_string());
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
    kubectl.ok_with(&create, &namespace.to_string());
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
    let Some(kubectl) = kubectl(&server) else { return };
    for how in [vec!["apply"], vec!["apply", "--server-side"]] {
        let apply = kubectl.sends(&how);
        let mut object = service("web", "10.0.0.1");
        object["spec"]["ports"] = json!([{ "port": 80, "name": "a" }, { "port": 90, "name": "b" }]);
        let serverside = how.len() == 2;
        let said = |done: &str| {
            if serverside {
                "service/web serverside-applied".to_owned()
            } else {
                format!("service/web {done}")
            }
        };
        assert_eq!(kubectl.ok_with(&apply, &object.to_string()).trim(), said("created"));
        object["spec"]["ports"][1]["targetPort"] = 9090.into();
        object["metadata"]["labels"] = json!({ "app": "web", "new": "label" });
        assert_eq!(kubectl.ok_with(&apply, &object.to_string()).trim(), said("configured"));
        let web = server.get(&SERVICE, "default", "web").unwrap();
        assert_eq!(
            (&web["spec"]["ports"], &web["metadata"]["labels"]),
            (&object["spec"]["ports"], &object["metadata"]["labels"])
        );
        let before = server.revision();
        assert_eq!(kubectl.ok_with(&apply, &object.to_string()).trim(), said("unchanged"));
        assert_eq!(server.revision(), before);
        object["metadata"]["labels"] = json!({ "app": "web" });
        object["spec"]["ports"] = json!([{ "port": 90, "name": "b", "targetPort": 9090 }]);
        kubectl.ok_with(&apply, &object.to_string());
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
    let Some(kubectl) = kubectl(&server) else { return };
    server.put(service("a", "10.0.0.1")).unwrap();
    let watch = [
        "get",
        "svc",
        "-w",
        "--output-watch-events",
        "-o",
        "jsonpath={.type} {.object.metadata.name}{'\\n'}",
    ];
    let mut child = kubectl.command(&watch).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "ADDED a");
    while server.open_watches(&SERVICE) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server.put(service("b", "10.0.0.1")).unwrap();
    server.put(service("a", "10.0.0.2")).unwrap();
    server.delete(&SERVICE, "default", "a");
    assert_eq!([next(), next(), next()], ["ADDED b", "MODIFIED a", "DELETED a"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn https_with_a_token_is_spoken() {
    let options =
        Options { tls: Some(Vec::new()), token: Some("open-sesame".to_owned()), ..Options::default() };
    let server = Server::start_with(&options).unwrap();
    let Some(kubectl) = kubectl(&server) else { return };
    server.put(service("a", "10.0.0.1")).unwrap();
    assert_eq!(kubectl.ok(&["get", "svc", "-o", "name"]).trim(), "service/a");
    server.fault(1, When::is(Verb::List, &SERVICE), Fault::Refuse(403, None));
    assert!(kubectl.fails(&["get", "svc"], "").contains("(Forbidden)"));
    server.set_token(Some("another"));
    let refused = kubectl.fails(&["get", "svc"], "");
    assert!(refused.contains("Unauthorized") || refused.contains("must be logged in"), "{refused}");
}

/// In a mount namespace of its own, where `/run` has nothing but a service account.
const IN_A_POD: &str = "mount -t tmpfs none /run \
    && mkdir -p /var/run/secrets/kubernetes.io \
    && cp -r \"$0\" /var/run/secrets/kubernetes.io/serviceaccount \
    && exec \"$1\" get svc -o name";

#[test]
fn a_service_account_is_enough_in_a_pod() {
    let options =
        Options { tls: Some(Vec::new()), token: Some("open-sesame".to_owned()), ..Options::default() };
    let server = Server::start_with(&options).unwrap();
    let Some(kubectl) = kubectl(&server) else { return };
    if !Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: no mount namespace can be made: run as root");
        return;
    }
    server.put(service("a", "10.0.0.1")).unwrap();
    let account = kubectl.folder.join("account");
    std::fs::create_dir_all(&account).unwrap();
    server.write_service_account(&account).unwrap();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", IN_A_POD])
        .arg(&account)
        .arg(&kubectl.binary)
        .env_remove("KUBECONFIG")
        .env("HOME", &kubectl.folder)
        .env("KUBERNETES_SERVICE_HOST", server.address().ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", server.address().port().to_string())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "service/a", "{output:?}");
}
