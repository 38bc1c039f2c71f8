//! Manifests as people write them, well and badly.

use proptest::prelude::*;

use serde_json::json;

use super::*;

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  clusterIP: 10.96.0.10
  ports:
  - port: 80
";

const SLICE: &str = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-1
  labels: {kubernetes.io/service-name: web}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
ports:
- port: 8080
";

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - podSelector: {}
";

const OTHERS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  containers:
  - name: c
    resources: {limits: {cpu: 1}}
    ports: [{name: http, containerPort: 80}]
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {capacity: {cpu: 4}, addresses: [{type: InternalIP, address: 192.0.2.1}]}
";

fn references(parsed: &Parsed) -> Vec<String> {
    parsed.objects.iter().map(|o| o.object.reference().to_string()).collect()
}

/// Origin, object and field of each rejection.
fn complaints(parsed: &Parsed) -> Vec<[String; 3]> {
    let rejected = parsed.rejected.iter();
    rejected.map(|r| [r.origin.clone(), r.object.to_string(), r.field.clone()]).collect()
}

#[test]
fn every_kind_is_read() {
    let parsed = parse("all.yaml", &[WEB, SLICE, POLICY, OTHERS].join("---\n"));
    assert_eq!(parsed.rejected, []);
    assert_eq!(
        references(&parsed),
        [
            "Service default/web",
            "EndpointSlice default/web-1",
            "NetworkPolicy default/p",
            "Pod default/a",
            "Namespace shop",
            "Node n1"
        ]
    );
    let documents: Vec<_> = parsed.objects.iter().map(|o| o.document).collect();
    assert_eq!(documents, [1, 2, 3, 4, 5, 6]);
    let Object::EndpointSlice(slice) = &parsed.objects[1].object else { panic!("not a slice") };
    assert_eq!((slice.ports[0].name.as_str(), slice.ports[0].port), ("", 8080));
}

#[test]
fn a_mistake_costs_only_its_own_document() {
    let text = format!("{WEB}---\nkind: [\n---\n{SLICE}---\n- not an object\n---\n{POLICY}");
    let parsed = parse("web.yaml", &text);
    assert_eq!(
        references(&parsed),
        ["Service default/web", "EndpointSlice default/web-1", "NetworkPolicy default/p"]
    );
    assert_eq!(complaints(&parsed), [["web.yaml, document 2", "", ""], ["web.yaml, document 4", "", ""]]);
    assert!(parsed.unreadable);
}

#[test]
fn a_rejection_names_the_field() {
    let web = |from: &str, to: &str| WEB.replace(from, to);
    for (text, object, field, words) in [
        (web("port: 80", "port: \"80\""), "Service default/web", "spec.ports[0].port", "without quotes"),
        (web("port: 80", "port: 0"), "Service default/web", "spec.ports[0].port", "1 to 65535"),
        (web("\n  - port: 80", " {port: 80}"), "Service default/web", "spec.ports", "must be a list"),
        (web("  clusterIP: 10.96.0.10\n", ""), "Service default/web", "spec.clusterIP", "no API server"),
        (web("clusterIP: 10.96.0.10", "clusterIP: 10"), "Service default/web", "spec.clusterIP", "text"),
        (web("apiVersion: v1\n", ""), "Service default/web", "apiVersion", "apiVersion: v1"),
        (web("name: web", "name: 12"), "Service", "metadata.name", "quotes"),
        (web("name: web", "name: Web"), "Service", "metadata.name", "lower case"),
        (web("  name: web", "  labels: {}"), "Service", "metadata.name", "missing"),
        (web("kind: Service\n", ""), "", "kind", "missing"),
        (web("name: web", "name: web\n  namespace: 7"), "Service", "metadata.namespace", "quotes"),
        (
            SLICE.replace("discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"),
            "EndpointSlice default/web-1",
            "apiVersion",
            "discovery.k8s.io/v1",
        ),
        (
            SLICE.replace("  labels: {kubernetes.io/service-name: web}\n", ""),
            "EndpointSlice default/web-1",
            "metadata.labels[kubernetes.io/service-name]",
            "no Service",
        ),
        (
            web("- port: 80", "- port: 80\n    prot: UDP"),
            "Service default/web",
            "spec.ports[0].prot",
            "did you mean port?",
        ),
        (web("port: 80", "port: 0120"), "Service default/web", "spec.ports[0].port", "write 80 or 120"),
        (web("port: 80", "port: 1_000"), "Service default/web", "spec.ports[0].port", "write 1000"),
        (web("port: 80", "port: 1:20"), "Service default/web", "spec.ports[0].port", "a whole number"),
        (
            web("name: web", "name: web\n  labels: {on: yes}"),
            "Service default/web",
            "metadata.labels.on",
            "YAML reads yes, no, on and off",
        ),
        (
            web("port: 80", "port: \"{{ .Values.port }}\""),
            "Service default/web",
            "spec.ports[0].port",
            "helm template",
        ),
        (web("port: 80", "port: ${PORT}"), "Service default/web", "spec.ports[0].port", "`envsubst`"),
        (web("name: web", "name: web-{{ .Release.Name }}"), "Service", "metadata.name", "helm template"),
        (web("name: web", "name: {{ .Release.Name }}"), "", "", "line 4 is a template, as in Helm charts"),
        (web("kind: Service", "Kind: Service"), "", "kind", "write kind in place of Kind"),
        ("404: Not Found".to_owned(), "", "kind", "missing"),
        ("Not Found".to_owned(), "", "", "is the text \"Not Found\""),
        ("[{kind: Service}]".to_owned(), "", "", "items of a List"),
        (
            POLICY.replace("- podSelector: {}", "- ipBlock: {cidr: 10.0.0.1}"),
            "NetworkPolicy default/p",
            "spec.ingress[0].from[0].ipBlock.cidr",
            "write 10.0.0.1/32",
        ),
        (
            POLICY.replace("- from:", "- ports: [{port: 0120}]\n    from:"),
            "NetworkPolicy default/p",
            "spec.ingress[0].ports[0].port",
            "write 80 or 120",
        ),
        (
            "kind: Endpoints\napiVersion: v1\nmetadata: {name: web}".to_owned(),
            "Endpoints web",
            "kind",
            "EndpointSlice",
        ),
    ] {
        let parsed = parse("f.yaml", &text);
        assert_eq!(complaints(&parsed), [["f.yaml, document 1", object, field]], "{text}");
        assert!(parsed.rejected[0].reason.contains(words), "{words}: {}", parsed.rejected[0].reason);
    }
}

#[test]
fn what_is_named_is_held_and_what_is_not_makes_the_file_unreadable() {
    let held = parse("f.yaml", &WEB.replace("port: 80", "port: x"));
    let references: Vec<_> = held.held.iter().map(|h| h.reference.to_string()).collect();
    assert_eq!((references, held.unreadable), (vec!["Service default/web".to_owned()], false));
    for text in ["a: [", "just text", "kind: Service\nmetadata: {}", "metadata: {name: a}", "42"] {
        let parsed = parse("f.yaml", text);
        assert!(parsed.unreadable && parsed.held.is_empty(), "{text}");
        assert_eq!(parsed.rejected.len(), 1, "{text}");
    }
}

#[test]
fn lists_are_taken_apart() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}},
        {"apiVersion": "v1", "kind": "NamespaceList", "items": [{"metadata": {"name": "b"}}, {"metadata": {}}]},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "c"}},
    ]});
    for text in [list.to_string(), serde_json::to_string_pretty(&list).unwrap().replace("  ", "\t")] {
        let parsed = parse("l.json", &text);
        assert_eq!(references(&parsed), ["Namespace a", "Namespace b"]);
        assert_eq!(
            complaints(&parsed),
            [["l.json, document 1, item 2, item 2", "Namespace", "metadata.name"]]
        );
        assert_eq!(parsed.skipped, BTreeSet::from(["Deployment".to_owned()]));
    }
    let mut deep = json!({"apiVersion": "v1", "kind": "List", "items": []});
    for _ in 0..10 {
        deep = json!({"apiVersion": "v1", "kind": "List", "items": [deep]});
    }
    assert_eq!(complaints(&parse("d.json", &deep.to_string())).len(), 1);
}

#[test]
fn json_objects_in_a_row_are_objects_of_one_document() {
    let namespace = |name: &str| {
        serde_json::to_string_pretty(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .unwrap()
    };
    let parsed = parse("n.json", &format!("{}\n{}\n{}\n", namespace("a"), namespace("B"), namespace("c")));
    assert_eq!(references(&parsed), ["Namespace a", "Namespace c"]);
    assert_eq!(complaints(&parsed), [["n.json, document 1, object 2", "Namespace", "metadata.name"]]);
    let cut = parse("n.json", &format!("{}{}", namespace("a"), &namespace("b")[..20]));
    assert_eq!(references(&cut), ["Namespace a"]);
    assert_eq!(complaints(&cut), [["n.json, document 1, object 2", "", ""]]);
    assert!(cut.unreadable);
}

#[test]
fn files_of_tools_that_make_manifests_are_named() {
    for (file, text, words) in [
        ("kustomization.yaml", "resources: [a.yaml]", "`kubectl kustomize`"),
        ("Chart.yaml", "apiVersion: v2\nname: x\nversion: 1.0.0", "`helm template`"),
        ("values.yaml", "replicas: 1", "`helm template`"),
        ("other.yaml", "replicas: 1", "every document needs"),
    ] {
        let parsed = parse(file, text);
        assert!(parsed.rejected[0].reason.contains(words), "{file}: {}", parsed.rejected[0].reason);
    }
}

#[test]
fn other_kinds_are_skipped_without_complaint() {
    let text = "\
apiVersion: apps/v1
kind: Deployment
---
apiVersion: v1
kind: ConfigMapList
items: []
---
apiVersion: serving.knative.dev/v1
kind: Service
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkPolicy
---
# nothing
";
    let parsed = parse("f.yaml", text);
    assert_eq!((parsed.rejected, parsed.unreadable), (vec![], false));
    let skipped: Vec<_> = parsed.skipped.iter().map(String::as_str).collect();
    assert_eq!(
        skipped,
        [
            "ConfigMapList",
            "Deployment",
            "NetworkPolicy (crd.projectcalico.org/v1)",
            "Service (serving.knative.dev/v1)"
        ]
    );
}

/// What counts of a rejected policy of which no version was accepted: requirements of its pods, and number of ingress and egress
/// rules.
#[test]
fn a_rejected_policy_isolates_the_pods_that_it_selects() {
    let policy = |from: &str, to: &str| POLICY.replace(from, to);
    let isolated = |i, e| (1, i, e);
    for (text, expected) in [
        (policy("- podSelector: {}", "- {}"), isolated(Some(0), None)),
        (policy("- podSelector: {}", "- podSelector: 1"), isolated(Some(0), None)),
        // Without the unknown field the rule means everyone: it must not be in force.
        (policy("  - from:", "  - frm:"), isolated(Some(0), None)),
        (policy("  ingress:", "  policyTypes: [Egress]\n  igress:"), isolated(None, Some(0))),
        (policy("  ingress:", "  egress: [{}]\n  ingres:"), isolated(Some(0), Some(1))),
        (policy("networking.k8s.io/v1", "extensions/v1beta1"), isolated(Some(0), None)),
        (policy("networking.k8s.io/v1", "network.k8s.io/v1"), isolated(Some(0), None)),
        (policy("networking.k8s.io/v1", "Networking.k8s.io/v1"), isolated(Some(0), None)),
        (policy("networking.k8s.io/v1", "v1"), isolated(Some(0), None)),
        (policy("kind: NetworkPolicy", "kind: networkpolicy"), isolated(Some(0), None)),
        (policy("kind: NetworkPolicy", "kind: NetworkPolcy"), isolated(Some(0), None)),
        (policy("kind: NetworkPolicy", "kind: NetworkPolicies"), isolated(Some(0), None)),
        // The pods are not known: the policy isolates all of its namespace, rather than none.
        (policy("podSelector: {matchLabels", "podSelecter: {matchLabels"), (0, Some(0), None)),
        (policy("{matchLabels: {app", "{matchLabel: {app"), (0, Some(0), None)),
        (policy("{matchLabels: {app: db}}", "7"), (0, Some(0), None)),
    ] {
        let parsed = parse("p.yaml", &text);
        assert_eq!((parsed.objects.len(), parsed.held.len()), (0, 1), "{text}");
        assert!(!parsed.rejected.is_empty(), "{text}");
        let found = parsed.held[0].partial.as_ref().and_then(|partial| partial.over(None)).map(|object| {
            let Object::NetworkPolicy(p) = object else { panic!("not a policy") };
            let [ingress, egress] = [&p.ingress, &p.egress].map(|rules| rules.as_ref().map(Vec::len));
            (p.pods.requirements.len(), ingress, egress)
        });
        assert_eq!(found, Some(expected), "{text}");
    }
}

#[test]
fn a_status_written_by_a_cluster_is_no_mistake() {
    let status = "status: {loadBalancer: {}}\n";
    let parsed = parse("f.yaml", &format!("{WEB}{status}---\n{POLICY}{status}"));
    assert_eq!((parsed.rejected, parsed.objects.len()), (vec![], 2));
}

#[test]
fn merge_keys_and_anchors_work() {
    let text = WEB.replace(
        "  ports:\n  - port: 80\n",
        "  ports:\n  - &p {name: a, port: 80}\n  - {<<: *p, name: b, port: 81}\n",
    );
    let parsed = parse("f.yaml", &text);
    assert_eq!((parsed.rejected, parsed.objects.len()), (vec![], 1));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC*", lines in prop::collection::vec("[-:{}\\[\\]a-c&*!|>'\"%#,? \t]{0,12}", 0..12)) {
        parse("f.yaml", &text);
        parse("f.yaml", &lines.join("\n"));
    }

    /// Replaces every byte range of a good manifest: no panic, and the first document, if it is whole, is always read.
    #[test]
    fn a_mutated_manifest_is_survived(
        from in 0..1000usize, len in 0..40usize, with in "[-a-z0-9:{}\\[\\]\"'&*\n ]{0,8}",
    ) {
        let tail = [SLICE, POLICY, OTHERS].join("---\n");
        let from = from.min(tail.len());
        let mut mutated = tail.clone();
        mutated.replace_range(from..(from + len).min(tail.len()), &with);
        let parsed = parse("f.yaml", &format!("{WEB}---\n{mutated}"));
        prop_assert!(references(&parsed).contains(&"Service default/web".to_owned()));
    }
}

/// The files that docs/install.md lists.
#[test]
fn the_examples_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for (file, kinds) in [
        ("cluster-ip.yaml", ["Service", "EndpointSlice"].as_slice()),
        ("node-port.yaml", &["Service"]),
        ("load-balancer.yaml", &["Service"]),
        ("network-policy.yaml", &["NetworkPolicy"]),
    ] {
        let parsed = parse(file, &std::fs::read_to_string(folder.join(file)).unwrap());
        let found: Vec<_> = parsed.objects.iter().map(|o| o.object.reference().kind.as_str()).collect();
        assert_eq!(found, kinds, "{file}");
        assert_eq!(parsed.rejected, [], "{file}");
    }
}
