//! One test for each kind of answer, on the node of [`example`]. Addresses that are not ClusterIPs are in `external`.

mod external;
mod names;

use lbr_common::addr::Addr;
use lbr_common::policy::{Policy, policy_flags};
use lbr_common::service::{Frontend, FrontendKey};
use lbr_common::text::{Member, MemberKey, PodName, RuleText, ServiceName, Text};
use lbr_common::tuple::proto;

use super::answer::{Query, why};
use super::text::render;
use super::types::{Opinion, Why};
use crate::cli::args::Proto;
use crate::cli::example::{self, FAR, NODE, WEB, addr};
use crate::desired::{Desired, EndpointPolicy};

fn ask_in(
    tables: &Desired,
    from: &str,
    to: &str,
    port: Option<&str>,
    proto: Option<Proto>,
) -> Result<Why, String> {
    why(tables, &Query { from, to, port, proto, node: "n1" }).map_err(|error| format!("{error:#}"))
}

fn ask(from: &str, to: &str, port: impl Into<Option<&'static str>>) -> Why {
    ask_in(&example::tables(), from, to, port.into(), None).unwrap()
}

fn error(from: &str, to: &str, port: impl Into<Option<&'static str>>) -> String {
    ask_in(&example::tables(), from, to, port.into(), None).unwrap_err()
}

fn denied(policies: &[&str]) -> Opinion {
    Opinion::Denied { policies: policies.iter().map(|&p| p.to_owned()).collect() }
}

#[test]
fn the_rule_that_allows_is_shown() {
    let why = ask("default/client", "default/web-0", "8080");
    assert_eq!(
        render(&why),
        "\
allowed

default/client (10.0.0.1) -> default/web-0 (10.0.0.2:8080/TCP): allowed
  egress   allowed: no policy isolates default/client for egress
  ingress  allowed by default/web, spec.ingress[0]:
             from:
             - podSelector:
                 matchLabels:
                   app: client
             ports:
             - port: 8080
"
    );
}

#[test]
fn the_policies_that_isolate_and_allow_nothing_are_named() {
    let why = ask("default/stranger", "default/web-0", "8080");
    assert!(!why.allowed);
    assert_eq!(why.connections[0].ingress, denied(&["default/web"]));
    assert_eq!(
        render(&why),
        "\
denied: default/web isolates default/web-0 for ingress and does not allow this

default/stranger (10.0.0.3) -> default/web-0 (10.0.0.2:8080/TCP): denied
  egress   allowed: no policy isolates default/stranger for egress
  ingress  denied: default/web isolates default/web-0 for ingress and does not allow this
"
    );
    assert_eq!(ask("default/client", "default/web-0", "81").connections[0].ingress, denied(&["default/web"]));
}

#[test]
fn a_block_allows_addresses_that_are_no_pods() {
    let why = ask("10.9.1.1", "default/web-0", "81");
    assert!(why.allowed);
    assert_eq!(why.connections[0].egress, Opinion::NoPod);
    let Opinion::Allowed { rule, yaml, .. } = &why.connections[0].ingress else { panic!("{why:?}") };
    assert_eq!(rule, "spec.ingress[1]");
    assert!(yaml.contains("10.9.0.0/16"));
    assert!(!ask("10.8.1.1", "10.0.0.2", "81").allowed);
}

#[test]
fn a_rule_whose_text_is_missing_is_still_named() {
    let mut tables = example::tables();
    tables.rules.clear();
    let why = ask_in(&tables, "default/client", "default/web-0", Some("8080"), None).unwrap();
    let text = render(&why);
    assert!(text.contains("default/web, spec.ingress[0]:\n             (the text"), "{text}");
    for rule in example::tables().rules.keys() {
        tables.rules.insert(*rule, RuleText { yaml: Text::new(&"- port: 1\n".repeat(100)) });
    }
    let why = ask_in(&tables, "default/client", "default/web-0", Some("8080"), None).unwrap();
    assert!(render(&why).contains("\n             ... (too long"), "{}", render(&why));
}

#[test]
fn all_policies_that_isolate_are_named() {
    let mut tables = example::tables();
    let mut second = tables.policies[&1.into()];
    second.name = Text::new("second");
    tables.policies.insert(9.into(), second);
    let member = Member { policy: 9.into(), ..Member::default() };
    tables.set_members.insert(MemberKey { set: example::SET, number: 1 }, member);
    let why = ask_in(&tables, "default/stranger", "default/web-0", Some("8080"), None).unwrap();
    assert_eq!(
        why.summary,
        "denied: default/web, default/second isolate default/web-0 for ingress, and none of them allows this"
    );
}

#[test]
fn a_service_is_translated_first() {
    let why = ask("default/client", "default/web", None);
    assert!(why.allowed);
    let text = render(&why);
    let service = "Service default/web at 10.96.0.10, port 80/TCP (http), leads to 1 endpoint\n";
    assert!(text.contains(service), "{text}");
    assert!(text.contains("-> default/web-0 (10.0.0.2:8080/TCP): allowed\n"), "{text}");
    for port in ["80", "http"] {
        assert_eq!(ask("default/client", "default/web", port), why);
        assert_eq!(ask("10.0.0.1", "10.96.0.10", port).connections, why.connections);
    }
}

#[test]
fn endpoints_that_differ_are_told_apart() {
    let why = ask("default/stranger", "default/mixed", None);
    assert!(!why.allowed);
    assert_eq!(
        render(&why),
        "\
denied: 1 of 2 connections, default/web isolates default/web-0 for ingress and does not allow this

Service default/mixed at 10.96.0.11, port 80/TCP (http), leads to one of 2 endpoints

default/stranger (10.0.0.3) -> default/web-0 (10.0.0.2:8080/TCP): denied
  egress   allowed: no policy isolates default/stranger for egress
  ingress  denied: default/web isolates default/web-0 for ingress and does not allow this

default/stranger (10.0.0.3) -> other/far (10.0.0.20:8080/TCP): allowed
  egress   allowed: no policy isolates default/stranger for egress
  ingress  not judged here: other/far is not a pod of this node; run `lbr why` on its node
"
    );
}

#[test]
fn endpoints_with_the_same_answer_share_it() {
    let mut tables = example::tables();
    for endpoint in tables.endpoints.values_mut() {
        endpoint.policy = Policy { flags: policy_flags::POD, ..Policy::default() };
    }
    tables.endpoints.insert(FAR, tables.endpoints[&WEB]);
    let why = ask_in(&tables, "default/stranger", "default/mixed", None, None).unwrap();
    let text = render(&why);
    assert_eq!(text.matches("egress   ").count(), 1, "{text}");
    assert!(text.contains("no policy isolates the receiver for ingress"), "{text}");
    assert!(text.contains("no policy isolates default/stranger for egress"), "{text}");
}

#[test]
fn a_long_list_of_endpoints_is_cut() {
    let mut why = ask("default/client", "default/web", None);
    let connection = why.connections[0].clone();
    why.connections.resize(15, connection);
    assert!(render(&why).contains("\nand 5 more: allowed\n"));
}

#[test]
fn a_service_that_leads_nowhere_denies() {
    let why = ask("default/client", "default/empty", None);
    assert!(!why.allowed);
    assert_eq!(
        why.summary,
        "denied: refused by Service default/empty at 10.96.0.12: it has no usable endpoint"
    );
    let why = ask("default/client", "default/web", "81");
    assert_eq!(
        why.summary,
        "denied: refused by Service default/web at 10.96.0.10: it has no such port, only 80/TCP (http)"
    );
    let icmp = ask_in(&example::tables(), "default/client", "default/web", None, Some(Proto::Icmp)).unwrap();
    assert!(!icmp.allowed && icmp.services[0].port == "ICMP");
}

#[test]
fn a_pod_that_reaches_itself_is_not_judged() {
    let why = ask("default/client", "default/self", None);
    assert!(why.allowed);
    assert_eq!(why.connections[0].egress, Opinion::Itself);
    assert_eq!(ask("default/web-0", "default/web-0", None).connections[0].ingress, Opinion::Itself);
}

#[test]
fn the_node_itself_is_not_judged_in_either_direction() {
    for (from, to) in [(NODE, WEB), (WEB, NODE)] {
        let why = ask(&from.to_string(), &to.to_string(), None);
        assert!(why.allowed);
        let connection = &why.connections[0];
        assert_eq!((&connection.egress, &connection.ingress), (&Opinion::Node, &Opinion::Node));
    }
}

#[test]
fn the_other_nodes_pod_is_left_to_its_node() {
    let why = ask("default/client", "other/far", "80");
    assert_eq!(why.connections.len(), 2, "both families");
    assert_eq!(
        why.summary,
        "allowed, as far as this node decides: ingress of other/far is judged on its own node"
    );
    let why = ask("other/far", "default/web-0", "8080");
    assert_eq!(why.connections[0].egress, Opinion::OtherNode);
    assert_eq!(why.connections[0].ingress, denied(&["default/web"]));
    let said = error("other/far", "1.2.3.4", "80");
    assert!(said.contains("run `lbr why` where one of them runs"), "{said}");
    let said = error("1.2.3.5", "1.2.3.4", "80");
    assert!(said.contains("no policy judges this"), "{said}");
}

#[test]
fn a_pod_that_is_not_known_yet_is_said_to_be_so() {
    let why = ask("default/client", "10.0.0.9", "80");
    assert!(why.allowed);
    assert_eq!(why.connections[0].ingress, Opinion::Pending);
    assert!(why.summary.contains("10.0.0.9") && why.summary.contains("--pending=deny"), "{}", why.summary);
}

#[test]
fn audited_policies_are_named_where_they_would_change_the_answer() {
    let why = ask("default/web-0", "default/stranger", "80");
    let connection = &why.connections[0];
    assert!(why.allowed);
    assert_eq!(connection.egress, Opinion::NotIsolated);
    assert_eq!(connection.audited_egress, Some(denied(&["default/later"])));
    assert_eq!(connection.audited_ingress, None);
    let text = render(&why);
    assert!(text.contains("if the audited policies were enforced: denied: default/later isolates"), "{text}");
    assert_eq!(ask("default/client", "default/web-0", "8080").connections[0].audited_ingress, None);
}

#[test]
fn each_family_that_both_have_is_judged() {
    let mut tables = example::tables();
    let policy = Policy {
        set: example::SET,
        flags: policy_flags::POD | policy_flags::ISOLATED_IN,
        ..Policy::default()
    };
    tables.endpoints.insert(example::addr6(2), EndpointPolicy { ifindex: 2, policy });
    let name = tables.pod_names[&WEB];
    tables.pod_names.insert(example::addr6(2), name);
    tables.ip_class.remove(&example::addr6(1));
    let why = ask_in(&tables, "default/client", "default/web-0", Some("8080"), None).unwrap();
    let verdicts: Vec<_> =
        why.connections.iter().map(|c| (c.destination.address.as_str(), c.allowed)).collect();
    assert_eq!(verdicts, [("10.0.0.2:8080/TCP", true), ("[fd00::2]:8080/TCP", false)]);
    assert!(why.summary.starts_with("denied: 1 of 2 connections, "), "{}", why.summary);
    let icmp = ask_in(&tables, "default/client", "default/web-0", None, Some(Proto::Icmp)).unwrap();
    let verdicts: Vec<_> = icmp.connections.iter().map(|c| c.destination.address.as_str()).collect();
    assert_eq!(verdicts, ["10.0.0.2 ICMP", "fd00::2 ICMPv6"]);
}

#[test]
fn a_port_is_asked_for_where_policies_tell_ports_apart() {
    let said = error("default/client", "default/web-0", None);
    assert!(said.contains("TCP ports: give --port"), "{said}");
    assert!(ask("default/client", "default/stranger", None).allowed);
    let udp = ask_in(&example::tables(), "default/client", "default/web-0", None, Some(Proto::Udp)).unwrap();
    assert!(!udp.allowed);
}

#[test]
fn ports_that_can_not_be_meant_are_named() {
    for (to, port, expected) in [
        ("default/web", "htpt", "it has 80/TCP (http)"),
        ("default/web-0", "http", "give a number"),
        ("default/web-0", "0", "from 1 to 65535"),
        ("default/web", "70000", "from 1 to 65535"),
    ] {
        let said = error("default/client", to, port);
        assert!(said.contains(expected), "{said}");
    }
    let icmp = ask_in(&example::tables(), "default/client", "default/web-0", Some("80"), Some(Proto::Icmp));
    assert!(icmp.unwrap_err().contains("ICMP has no ports"));
}

#[test]
fn one_of_several_ports_has_to_be_chosen() {
    let mut tables = example::tables();
    let key =
        |port, proto| FrontendKey { addr: Addr::v4([10, 96, 0, 10]), port, proto, ..FrontendKey::default() };
    for (service, port, proto, name) in [(7, 53, proto::UDP, "dns"), (8, 53, proto::TCP, "dns-tcp")] {
        tables
            .frontends
            .insert(key(port, proto), Frontend { service: service.into(), ..Frontend::default() });
        let name =
            ServiceName { namespace: Text::new("default"), name: Text::new("web"), port: Text::new(name) };
        tables.services.insert(service.into(), name);
    }
    let ask = |port, proto| ask_in(&tables, "default/client", "default/web", port, proto);
    let said = ask(None, None).unwrap_err();
    assert!(said.contains("53/TCP (dns-tcp), 53/UDP (dns), 80/TCP (http)"), "{said}");
    for (port, proto, expected) in [
        (Some("53"), None, "53/TCP (dns-tcp)"),
        (Some("53"), Some(Proto::Udp), "53/UDP (dns)"),
        (Some("dns"), None, "53/UDP (dns)"),
        (None, Some(Proto::Udp), "53/UDP (dns)"),
        (Some("http"), None, "80/TCP (http)"),
        (Some("80"), Some(Proto::Udp), "80/UDP"),
    ] {
        assert_eq!(ask(port, proto).unwrap().services[0].port, expected, "{port:?} {proto:?}");
    }
}

#[test]
fn names_that_are_not_known_or_not_clear_say_what_to_do() {
    for (from, to, expected) in [
        ("default/unknown", "default/web-0", "write namespace/name"),
        ("client", "default/web-0", "did you mean default/client?"),
        ("default/far", "default/web-0", "did you mean other/far?"),
        ("default/web", "default/web-0", "Services open no connections"),
        ("default/client", "web", "did you mean default/web?"),
        ("default/client", "default/nothing", "pod or Service"),
    ] {
        let said = ask_in(&example::tables(), from, to, Some("80"), None).unwrap_err();
        assert!(said.contains(expected), "{from} {to}: {said}");
    }
    let said = error("default/stranger", "fd00::20", "80");
    assert_eq!(
        said,
        "default/stranger has IPv4 only and fd00::20 has IPv6 only: there is no way between them"
    );
}

#[test]
fn json_names_the_rule() {
    let json = serde_json::to_value(ask("default/client", "default/web", None)).unwrap();
    let ingress = &json["connections"][0]["ingress"];
    assert_eq!(ingress["verdict"], "allowed");
    assert_eq!((&ingress["policy"], &ingress["rule"]), (&"default/web".into(), &"spec.ingress[0]".into()));
    assert_eq!(json["allowed"], true);
    assert_eq!(json["connections"][0]["source"]["pod"], "default/client");
}
