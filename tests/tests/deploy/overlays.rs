//! `deploy/` and each overlay: kubectl renders and applies it, and it differs from the base by the agent's arguments,
//! its environment and files to read, and by nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::Parser as _;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use lbr_agent::cli::Cli;
use lbr_tests::apiserver::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, DAEMON_SET, Kind, SERVICE_ACCOUNT, Server};
use lbr_tests::kubectl::Kubectl;
use serde_json::Value;

use super::{Home, folder, kustomization, strict};

/// The folders that users apply.
const APPLIED: [&str; 4] = ["", "overlays/k3s", "overlays/kind", "overlays/kubeadm"];

fn kubectl(server: &Server, home: &Home) -> Kubectl {
    Kubectl::new(server, &home.0, None).unwrap_or_else(|error| panic!("{error:#}"))
}

/// What kustomize makes of a folder.
fn rendered(name: &str) -> Vec<Value> {
    let home = Home::new(&format!("render-{}", name.replace('/', "-")));
    let server = Server::start().unwrap();
    let path = folder(name);
    let text = kubectl(&server, &home).run(&["kustomize", path.to_str().unwrap()]);
    serde_saphyr::from_multiple(&text.unwrap_or_else(|error| panic!("deploy/{name}: {error:#}"))).unwrap()
}

fn daemon(documents: &[Value], name: &str) -> DaemonSet {
    let document = documents.iter().find(|document| document["kind"] == "DaemonSet").unwrap();
    strict(name, document).unwrap_or_else(|error| panic!("{error}"))
}

fn pod(daemon: &DaemonSet) -> PodSpec {
    daemon.spec.clone().unwrap().template.spec.unwrap()
}

fn container(daemon: &DaemonSet) -> Container {
    let [container] = pod(daemon).containers.try_into().unwrap();
    container
}

/// The values of the environment.
fn environment(container: &Container) -> Vec<(String, String)> {
    let all = container.env.iter().flatten();
    all.filter_map(|var| Some((var.name.clone(), var.value.clone()?))).collect()
}

#[test]
fn every_overlay_is_listed() {
    let entries = fs::read_dir(folder("overlays")).unwrap();
    let names = entries.map(|entry| format!("overlays/{}", entry.unwrap().file_name().to_str().unwrap()));
    let mut found: BTreeSet<String> = names.collect();
    found.insert(String::new());
    assert_eq!(found, APPLIED.map(str::to_owned).into());
}

#[test]
fn an_overlay_gives_the_agent_settings_and_no_rights() {
    let base = rendered("base");
    let without = |mut documents: Vec<Value>, added: &[String]| {
        for document in documents.iter_mut().filter(|document| document["kind"] == "DaemonSet") {
            let pod = &mut document["spec"]["template"]["spec"];
            for field in ["args", "env"] {
                pod["containers"][0].as_object_mut().unwrap().remove(field);
            }
            let keep = |list: &mut Value| {
                list.as_array_mut()
                    .unwrap()
                    .retain(|entry| !added.iter().any(|name| entry["name"] == **name));
            };
            keep(&mut pod["containers"][0]["volumeMounts"]);
            keep(&mut pod["volumes"]);
        }
        documents
    };
    let own: BTreeSet<String> =
        pod(&daemon(&base, "base")).volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    for name in APPLIED {
        let documents = rendered(name);
        let daemon = daemon(&documents, name);
        // Files of the cluster to read, and nothing of the node.
        let volumes = pod(&daemon).volumes.unwrap();
        let added = volumes.into_iter().filter(|volume| !own.contains(&volume.name));
        let added: Vec<_> = added.inspect(|v| assert!(v.config_map.is_some(), "{name}: {v:?}")).collect();
        let added: Vec<String> = added.into_iter().map(|volume| volume.name).collect();
        for mount in container(&daemon).volume_mounts.unwrap() {
            assert!(!added.contains(&mount.name) || mount.read_only == Some(true), "{name}: {mount:?}");
        }
        assert_eq!(without(documents, &added), without(base.clone(), &[]), "{name}");
    }
}

/// The rest of the environment is the base's.
#[test]
fn the_agent_takes_the_settings() {
    for name in APPLIED {
        let container = container(&daemon(&rendered(name), name));
        let args = container.args.clone().unwrap();
        let typed = std::iter::once("lbr".to_owned()).chain(args.iter().cloned());
        if let Err(error) = Cli::try_parse_from(typed) {
            panic!("{name}: {args:?}: {error}");
        }
        let variables = container.env.iter().flatten().filter(|var| var.value_from.is_some());
        let from_field: BTreeSet<&str> = variables.map(|var| var.name.as_str()).collect();
        assert_eq!(from_field, ["NODE_NAME", "POD_NAME"].into(), "{name}");
        let server = |host: &str, port: &str| {
            [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .to_vec()
        };
        let mounted =
            |path: &str| container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
        let (wanted_args, wanted_env) = match name {
            "" => (vec!["run"], Vec::new()),
            "overlays/kubeadm" => {
                assert!(mounted("/var/lib/kube-proxy"));
                (vec!["run", "--config=/var/lib/kube-proxy/config.conf"], Vec::new())
            }
            "overlays/k3s" => (vec!["run"], server("127.0.0.1", "6444")),
            "overlays/kind" => {
                assert!(mounted("/run/cgroup2"));
                (vec!["run", "--cgroup=/run/cgroup2"], server("kind-control-plane", "6443"))
            }
            other => panic!("{other}"),
        };
        assert_eq!(
            (args.iter().map(String::as_str).collect(), environment(&container)),
            (wanted_args, wanted_env)
        );
    }
}

/// kubectl finds every kind and would create it; a dry run writes nothing.
#[test]
fn kubectl_would_apply_it() {
    const KINDS: [&Kind; 4] = [&SERVICE_ACCOUNT, &CLUSTER_ROLE, &CLUSTER_ROLE_BINDING, &DAEMON_SET];
    let server = Server::start().unwrap();
    let home = Home::new("apply");
    let kubectl = kubectl(&server, &home);
    let apply = |more: &[&str], folder: &Path| {
        let words = [&["apply"], more, &["-k", folder.to_str().unwrap()]].concat();
        kubectl.run(&words).unwrap_or_else(|error| panic!("{}: {error:#}", folder.display()))
    };
    for name in APPLIED {
        let said = apply(&["--dry-run=client"], &folder(name));
        let wanted = [
            "serviceaccount/lbr created (dry run)",
            "clusterrole.rbac.authorization.k8s.io/lbr created (dry run)",
            "clusterrolebinding.rbac.authorization.k8s.io/lbr created (dry run)",
            "daemonset.apps/lbr created (dry run)",
        ];
        assert_eq!(said.lines().collect::<BTreeSet<_>>(), wanted.into(), "{name}");
        for kind in KINDS {
            assert_eq!(server.list(kind), [Value::Null; 0], "{name}");
        }
    }
    // A real apply shows more than a dry run: the written objects arrive, with the image's name and the settings.
    for name in APPLIED {
        apply(&[], &folder(name));
        let written = server.get(&DAEMON_SET, "kube-system", "lbr").unwrap();
        let container = &written["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], concat!("localhost/lbr:", env!("CARGO_PKG_VERSION")), "{name}");
        let expected = self::container(&daemon(&rendered(name), name)).args.unwrap();
        assert_eq!(container["args"], serde_json::json!(expected), "{name}");
    }
    assert_eq!(kustomization().namespace, "kube-system");
}

/// The commands of docs/install.md that stop kube-proxy, start it again, and keep it off nodes with a label.
#[test]
fn kube_proxy_stops_and_starts_as_documented() {
    let server = Server::start().unwrap();
    let home = Home::new("kube-proxy");
    let kubectl = kubectl(&server, &home);
    let labels = serde_json::json!({"k8s-app": "kube-proxy"});
    server
        .put(serde_json::json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "containers": [{"name": "kube-proxy", "image": "kube-proxy"}],
                },
            }},
        }))
        .unwrap();
    let read = |name: &str| fs::read_to_string(folder("..").join(name)).unwrap();
    let patches = |text: &str| -> Vec<String> {
        let commands = text.split("patch daemonset kube-proxy -p '").skip(1);
        commands.filter_map(|rest| Some(rest.split_once('\'')?.0.to_owned())).collect()
    };
    let [stop, start, by_label] = patches(&read("docs/install.md")).try_into().unwrap();
    assert_eq!(patches(&read("README.md")), std::slice::from_ref(&start));
    let spec_after = |patch: &str| {
        let words = ["-n", "kube-system", "patch", "daemonset", "kube-proxy", "-p", patch];
        kubectl.run(&words).unwrap_or_else(|error| panic!("{patch}: {error:#}"));
        server.get(&DAEMON_SET, "kube-system", "kube-proxy").unwrap()["spec"]["template"]["spec"].clone()
    };
    let selector = |spec: &Value| spec["nodeSelector"].clone();
    let stopped = serde_json::json!({"kubernetes.io/os": "linux", "kube-proxy": "off"});
    assert_eq!(selector(&spec_after(&stop)), stopped);
    assert_eq!(selector(&spec_after(&start)), serde_json::json!({"kubernetes.io/os": "linux"}));
    let daemon: PodSpec = serde_json::from_value(spec_after(&by_label)).unwrap();
    let wanted = daemon.affinity.unwrap().node_affinity.unwrap();
    let terms = wanted.required_during_scheduling_ignored_during_execution.unwrap().node_selector_terms;
    let expressions = terms[0].match_expressions.clone().unwrap();
    assert_eq!(
        (expressions[0].key.as_str(), expressions[0].operator.as_str()),
        ("lbr.dev/node", "DoesNotExist")
    );
}
