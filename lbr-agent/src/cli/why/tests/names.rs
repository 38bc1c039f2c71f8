//! How ends may be written, and names that stand for several things.

use super::*;

/// The connection's destination, or the error.
fn to(tables: &Desired, to: &str, port: Option<&str>) -> Result<String, String> {
    let why = ask_in(tables, "default/client", to, port, None)?;
    let service = why.services.first().map(|s| format!("{} ", s.service)).unwrap_or_default();
    let address = why.connections.first().map(|c| c.destination.address.clone()).unwrap_or_default();
    Ok(format!("{service}{address}"))
}

#[test]
fn ends_are_written_as_for_kubectl_or_as_addresses() {
    let tables = example::tables();
    for (text, port, expected) in [
        ("default/web-0:8080", None, "10.0.0.2:8080/TCP"),
        ("pod/web-0:8080", None, "10.0.0.2:8080/TCP"),
        ("pods/default/web-0", Some("8080"), "10.0.0.2:8080/TCP"),
        ("po/other/far:80", None, "10.0.0.20:80/TCP"),
        ("10.0.0.2:8080", None, "10.0.0.2:8080/TCP"),
        ("10.0.0.2:8080", Some("8080"), "10.0.0.2:8080/TCP"),
        ("[fd00::20]:80", None, "[fd00::20]:80/TCP"),
        ("[fd00::20]", Some("80"), "[fd00::20]:80/TCP"),
        ("svc/web", None, "default/web 10.0.0.2:8080/TCP"),
        ("svc/web:http", None, "default/web 10.0.0.2:8080/TCP"),
        ("service/default/web:80", None, "default/web 10.0.0.2:8080/TCP"),
        ("10.96.0.10:80", None, "default/web 10.0.0.2:8080/TCP"),
        ("10.96.0.10:http", None, "default/web 10.0.0.2:8080/TCP"),
    ] {
        assert_eq!(to(&tables, text, port).as_deref(), Ok(expected), "{text}");
    }
    for from in ["pod/client", "pod/default/client", "po/client", "10.0.0.1"] {
        assert!(ask(from, "default/web-0", "8080").allowed, "{from}");
    }
}

#[test]
fn this_node_is_asked_about_by_name() {
    let tables = example::tables();
    assert_eq!(to(&tables, "node/n1:22", None), Ok(format!("{NODE}:22/TCP")));
    assert_eq!(to(&tables, "node:22", None), Ok(format!("{NODE}:22/TCP")));
    let why = ask("node/n1", "default/web-0", "81");
    assert_eq!((why.allowed, &why.connections[0].egress), (true, &Opinion::Node));
    let said = to(&tables, "node/n2:22", None).unwrap_err();
    assert!(said.contains("this node is n1") && said.contains("IP address of n2"), "{said}");
    let (tables, _) = external::outside();
    assert_eq!(to(&tables, "node/n1:30080", None).as_deref(), Ok("default/web 10.0.0.2:8080/TCP"));
}

/// The example, with a pod that has the name of a Service.
fn twins() -> Desired {
    let mut tables = example::tables();
    tables.pod_names.insert(addr(30), PodName { namespace: Text::new("default"), name: Text::new("web") });
    tables
}

#[test]
fn the_port_decides_between_a_pod_and_a_service() {
    let tables = twins();
    for (text, port, expected) in [
        ("default/web", Some("80"), "default/web 10.0.0.2:8080/TCP"),
        ("default/web", Some("http"), "default/web 10.0.0.2:8080/TCP"),
        ("default/web:8080", None, "10.0.0.30:8080/TCP"),
        ("pod/web:80", None, "10.0.0.30:80/TCP"),
        ("svc/web", None, "default/web 10.0.0.2:8080/TCP"),
    ] {
        assert_eq!(to(&tables, text, port).as_deref(), Ok(expected), "{text} {port:?}");
    }
    let text = |to, port| render(&ask_in(&tables, "default/client", to, port, None).unwrap());
    let service = text("default/web", Some("80"));
    let note = "\nnote: default/web is taken for svc/default/web, which has port 80; for the other one, write \
                pod/default/web\n";
    assert!(service.contains(note), "{service}");
    let pod = text("default/web:8080", None);
    assert!(pod.contains("taken for pod/default/web, since no Service of this name has port 8080"), "{pod}");
    assert!(!text("svc/web", None).contains("note:"));
    // A Service opens no connections: the pod is meant.
    assert!(ask_in(&tables, "default/web", "default/stranger", Some("80"), None).unwrap().allowed);
}

#[test]
fn a_name_that_stays_ambiguous_names_both_spellings() {
    let mut tables = twins();
    for (port, proto) in [(None, None), (None, Some(Proto::Icmp)), (Some("nothing"), None)] {
        let said = ask_in(&tables, "default/client", "default/web", port, proto).unwrap_err();
        assert!(said.contains("can be pod/default/web or svc/default/web: write one of these"), "{said}");
    }
    // A namespace may be called like a kind.
    tables.pod_names.insert(addr(31), PodName { namespace: Text::new("pod"), name: Text::new("web") });
    let said = ask_in(&tables, "pod/web", "default/stranger", Some("80"), None).unwrap_err();
    assert!(said.contains("pod/web can be pod/default/web or pod/pod/web"), "{said}");
    tables.pod_names.remove(&addr(30));
    assert_eq!(to(&tables, "pod/web:80", None).as_deref(), Ok("10.0.0.31:80/TCP"));
}

#[test]
fn ends_that_can_not_be_meant_say_what_to_write() {
    let tables = example::tables();
    for (from, to, port, words) in [
        ("default/client:4000", "default/web-0", Some("80"), "client's port does not matter"),
        ("10.0.0.1:4000", "default/web-0", Some("80"), "client's port does not matter"),
        ("svc/web", "default/web-0", Some("80"), "Services open no connections"),
        ("default/client", "10.0.0.2:80", Some("81"), "contradict each other"),
        ("default/client", "deploy/shop/web", Some("80"), "write pod/NAMESPACE/NAME"),
        ("default/client", "web:80", None, "did you mean default/web?"),
        ("default/client", "pod/far", Some("80"), "did you mean other/far?"),
        ("default/client", "pod/web", Some("80"), "no pod pod/web is known here"),
        ("default/client", "svc/none", Some("80"), "pod/NAME, svc/NAME, node/NAME, or an IP address"),
    ] {
        let said = ask_in(&tables, from, to, port, None).unwrap_err();
        assert!(said.contains(words), "{from} {to}: {said}");
    }
}
