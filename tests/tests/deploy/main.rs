//! The manifests in `deploy/`: Kubernetes knows every field, the parts fit together, and the rights are exactly those
//! that are needed. Here `deploy/base`; [`overlays`] has what clusters of other kinds make of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

mod overlays;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec, Probe, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The part of a kustomization that these manifests use.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: String,
    resources: Vec<String>,
    images: Vec<Image>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    name: String,
    new_name: String,
    new_tag: String,
}

fn read(name: &str) -> String {
    fs::read_to_string(folder("base").join(name))
        .unwrap_or_else(|error| panic!("deploy/base/{name}: {error}"))
}

/// A folder of `deploy/`.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn kustomization() -> Kustomization {
    serde_saphyr::from_str(&read("kustomization.yaml")).unwrap()
}

/// Every applied object, with the file that it is in.
fn documents() -> Vec<(String, Value)> {
    let files = kustomization().resources;
    let read_all = |file: String| {
        let documents: Vec<Value> = serde_saphyr::from_multiple(&read(&file)).unwrap();
        documents.into_iter().map(move |document| (file.clone(), document))
    };
    files.into_iter().flat_map(read_all).collect()
}

/// The only object of this kind; Kubernetes ignores none of its fields.
fn only<T: DeserializeOwned + Serialize>(kind: &str) -> T {
    let all: Vec<_> = documents().into_iter().filter(|(_, document)| document["kind"] == kind).collect();
    let [(file, document)] = all.as_slice() else { panic!("{} objects of kind {kind}", all.len()) };
    strict(file, document).unwrap_or_else(|error| panic!("{error}"))
}

/// Decodes an object, and compares the result with the document.
fn strict<T: DeserializeOwned + Serialize>(file: &str, document: &Value) -> Result<T, String> {
    let object: T = serde_json::from_value(document.clone()).map_err(|error| format!("{file}: {error}"))?;
    let understood = serde_json::to_value(&object).map_err(|error| format!("{file}: {error}"))?;
    lost(file, document, &understood)?;
    Ok(object)
}

fn lost(at: &str, written: &Value, understood: &Value) -> Result<(), String> {
    match (written, understood) {
        (Value::Object(written), Value::Object(understood)) => {
            written.iter().try_for_each(|(name, value)| {
                let place = format!("{at}.{name}");
                let other = understood.get(name).ok_or_else(|| format!("{place}: no such field"))?;
                lost(&place, value, other)
            })
        }
        (Value::Array(written), Value::Array(understood)) if written.len() == understood.len() => {
            let pairs = written.iter().zip(understood).enumerate();
            pairs.into_iter().try_for_each(|(n, (a, b))| lost(&format!("{at}[{n}]"), a, b))
        }
        (written, understood) if written == understood => Ok(()),
        (written, understood) => Err(format!("{at}: {written} is understood as {understood}")),
    }
}

fn pod() -> PodSpec {
    only::<DaemonSet>("DaemonSet").spec.unwrap().template.spec.unwrap()
}

fn container() -> Container {
    let mut containers = pod().containers;
    assert_eq!(containers.len(), 1);
    containers.remove(0)
}

#[test]
fn every_file_is_applied_and_every_object_is_of_a_known_kind() {
    let files =
        fs::read_dir(folder("base")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|file| file.ends_with(".yaml")).collect();
    let kustomization = kustomization();
    assert_eq!(
        (kustomization.api_version.as_str(), kustomization.kind.as_str()),
        ("kustomize.config.k8s.io/v1beta1", "Kustomization")
    );
    let named = kustomization.resources.into_iter().chain(["kustomization.yaml".to_owned()]);
    assert_eq!(files, named.collect());
    let kinds: BTreeSet<String> =
        documents().iter().map(|(_, document)| document["kind"].as_str().unwrap().to_owned()).collect();
    let known = ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "ServiceAccount"].map(str::to_owned);
    assert_eq!(kinds, known.into());
    only::<ServiceAccount>("ServiceAccount");
    only::<DaemonSet>("DaemonSet");
    only::<ClusterRole>("ClusterRole");
    only::<ClusterRoleBinding>("ClusterRoleBinding");
}

#[test]
fn unknown_field_is_found() {
    let (file, mut document) =
        documents().into_iter().find(|(_, document)| document["kind"] == "DaemonSet").unwrap();
    document["spec"]["template"]["spec"]["containers"][0]["securityContext"]["readOnlyRootFileSystem"] =
        Value::Bool(true);
    let error = strict::<DaemonSet>(&file, &document).unwrap_err();
    assert!(error.ends_with("securityContext.readOnlyRootFileSystem: no such field"), "{error}");
}

#[test]
fn parts_refer_to_each_other() {
    let kustomization = kustomization();
    let daemon: DaemonSet = only("DaemonSet");
    let account: ServiceAccount = only("ServiceAccount");
    let role: ClusterRole = only("ClusterRole");
    let binding: ClusterRoleBinding = only("ClusterRoleBinding");
    let account_name = account.metadata.name.clone().unwrap();
    for namespace in [&account.metadata.namespace, &daemon.metadata.namespace] {
        assert_eq!(namespace.as_deref(), Some(kustomization.namespace.as_str()));
    }
    assert_eq!(pod().service_account_name.as_ref(), Some(&account_name));
    assert_eq!(Some(&binding.role_ref.name), role.metadata.name.as_ref());
    let subjects = binding.subjects.unwrap();
    let [subject] = subjects.as_slice() else { panic!("{subjects:?}") };
    assert_eq!((&subject.name, &subject.namespace), (&account_name, &account.metadata.namespace));
    let spec = daemon.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    for (key, value) in spec.selector.match_labels.unwrap() {
        assert_eq!(labels.get(&key), Some(&value));
    }
    let volumes: BTreeSet<String> = pod().volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    let mounts = container().volume_mounts.unwrap();
    assert_eq!(mounts.iter().map(|mount| mount.name.clone()).collect::<BTreeSet<_>>(), volumes);
}

/// The image is the one that `cargo xtask image` makes.
#[test]
fn the_image_is_of_this_version() {
    let [image] = kustomization().images.try_into().unwrap();
    assert_eq!(container().image, Some(image.name));
    assert_eq!(
        format!("{}:{}", image.new_name, image.new_tag),
        concat!("localhost/lbr:", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn the_agent_knows_its_arguments() {
    let args = container().args.unwrap();
    let cli = lbr_agent::cli::Cli::command();
    let run = cli.find_subcommand(&args[0]).unwrap_or_else(|| panic!("no subcommand {}", args[0]));
    for flag in args.iter().filter_map(|arg| arg.strip_prefix("--")) {
        let name = flag.split('=').next();
        assert!(run.get_arguments().any(|arg| arg.get_long() == name), "lbr run has no --{flag}");
    }
    let from = |env: &str, path: &str| {
        let found = container().env.unwrap().into_iter().find(|var| var.name == env).unwrap();
        assert_eq!(found.value_from.unwrap().field_ref.unwrap().field_path, path);
    };
    from("NODE_NAME", "spec.nodeName");
    from("POD_NAME", "metadata.name");
}

#[test]
fn the_container_has_what_it_needs_and_no_more() {
    let container = container();
    let security = container.security_context.unwrap();
    let capabilities = security.capabilities.unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    assert_eq!(capabilities.add.unwrap(), ["BPF", "NET_ADMIN", "PERFMON"]);
    assert_eq!(security.privileged, Some(false));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    assert_eq!(security.read_only_root_filesystem, Some(true));
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    let resources = container.resources.unwrap();
    assert!(resources.limits.is_none_or(|limits| !limits.contains_key("cpu")));
    assert!(resources.requests.is_some_and(|requests| requests.contains_key("cpu")));

    let pod = pod();
    assert_eq!((pod.host_pid, pod.host_ipc, pod.host_network), (None, None, Some(true)));
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"));
    let tolerations = pod.tolerations.unwrap();
    assert!(tolerations.iter().any(|t| t.operator.as_deref() == Some("Exists") && t.key.is_none()));
    for mount in container.volume_mounts.unwrap() {
        let writable = mount.read_only != Some(true);
        assert_eq!(
            writable,
            mount.mount_path == lbr_agent::dataplane::DEFAULT_BPFFS.trim_end_matches("/lbr")
        );
    }
}

/// /healthz fails on a node that is about to be removed, which is no reason to restart the agent there.
#[test]
fn probes_do_not_ask_about_the_node() {
    let container = container();
    let ports: BTreeMap<_, _> =
        container.ports.unwrap().into_iter().map(|port| (port.name.unwrap(), port.container_port)).collect();
    for probe in [container.startup_probe, container.liveness_probe, container.readiness_probe] {
        let Probe { http_get: Some(get), .. } = probe.unwrap() else { panic!("not by HTTP") };
        assert_eq!(get.path.as_deref(), Some("/livez"));
        let IntOrString::String(port) = get.port else { panic!("{:?}", get.port) };
        assert_eq!(ports.get(&port), Some(&10256));
    }
}

#[test]
fn the_role_reads_what_lbr_watches_and_writes_events_only() {
    let mut granted = BTreeSet::new();
    for rule in only::<ClusterRole>("ClusterRole").rules.unwrap() {
        assert!(rule.non_resource_urls.is_none());
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    granted.insert(format!("{verb} {group}/{resource}"));
                }
            }
        }
    }
    let mut expected = BTreeSet::new();
    let watched = [
        "/services",
        "/pods",
        "/namespaces",
        "/nodes",
        "discovery.k8s.io/endpointslices",
        "networking.k8s.io/networkpolicies",
        "networking.k8s.io/servicecidrs",
    ];
    for verb in ["get", "list", "watch"] {
        expected.extend(watched.map(|resource| format!("{verb} {resource}")));
    }
    for verb in ["create", "patch", "update"] {
        expected.extend(["/events", "events.k8s.io/events"].map(|resource| format!("{verb} {resource}")));
    }
    assert_eq!(granted, expected);
}

/// A folder that is removed with the test.
struct Home(PathBuf);

impl Home {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lbr-deploy-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
