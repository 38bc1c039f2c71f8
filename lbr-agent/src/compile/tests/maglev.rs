//! Services that ask for consistent hashing.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use lbr_common::id::MaglevId;
use lbr_common::maglev::{PARTS, SLOTS};
use lbr_common::service::{frontend_flags, set};

use super::*;
use crate::model::Algorithm;
use crate::node::Settings;

fn by_table(of: &str, ip: &str) -> Service {
    Service { algorithm: Algorithm::Maglev, ..service(of, &[ip], &[("http", Protocol::Tcp, 80)]) }
}

fn endpoints(last: &[u8]) -> Vec<Endpoint> {
    last.iter().map(|n| endpoint(&format!("10.244.0.{n}"))).collect()
}

/// The tables' numbers, in order of the Services' numbers.
fn tables(desired: &Desired) -> Vec<MaglevId> {
    let ports = desired.frontends.values().filter(|f| f.flags & frontend_flags::WILDCARD == 0);
    let mut tables: Vec<_> = ports.map(|f| (f.service, f.maglev)).collect();
    tables.sort_unstable();
    tables.into_iter().map(|(_, table)| table).collect()
}

fn node(tables: Option<usize>) -> NodeView {
    let settings = Settings { maglev_tables: tables, ..Settings::default() };
    NodeView { name: "here".to_owned(), settings, ..NodeView::default() }
}

#[test]
fn all_frontends_of_a_set_share_a_table() {
    let mut web = by_table("web", "10.96.0.10");
    web.load_balancer_ips = vec!["203.0.113.1".parse().unwrap()];
    web.external_policy = TrafficPolicy::Local;
    let slices = vec![slice(
        "web",
        8080,
        vec![endpoint("10.244.0.2"), Endpoint { node: "there".into(), ..endpoint("10.244.1.2") }],
    )];
    let d = compiled(&state(vec![web], slices));
    let ports: Vec<_> = d.frontends.values().filter(|f| f.count > 0).collect();
    assert_eq!(ports.len(), 3);
    let of = |set: u32| ports.iter().filter(|f| f.set == set).map(|f| f.maglev).collect::<BTreeSet<_>>();
    let (cluster, local) = (of(set::CLUSTER), of(set::LOCAL));
    assert_eq!((cluster.len(), local.len()), (1, 1));
    assert!(!cluster.contains(&MaglevId::NONE) && cluster != local);
    assert_eq!(d.maglev.len(), 2 * PARTS as usize);
    let slots = d.maglev.values().flat_map(|part| part.backends()).filter(|id| d.backends.contains_key(id));
    assert_eq!(slots.count(), 2 * SLOTS as usize);
}

#[test]
fn a_table_is_another_one_when_its_backends_are_others() {
    let mut ids = Ids::new();
    let mut of = |numbers: &[u8]| {
        let services = vec![by_table("web", "10.96.0.10"), service("other", &["10.96.0.11"], &[])];
        let d =
            compile(&state(services, vec![slice("web", 8080, endpoints(numbers))]), &node(None), &mut ids);
        (tables(&d), d.maglev)
    };
    let first = of(&[1, 2]);
    assert_eq!(first, of(&[1, 2]));
    let second = of(&[1, 2, 3]);
    assert_ne!(first.0, second.0);
    assert!(first.1.keys().all(|key| !second.1.contains_key(key)), "written where nothing leads yet");
    assert_eq!(of(&[]), (vec![MaglevId::NONE], BTreeMap::new()));
}

#[test]
fn a_new_agent_goes_on_with_the_tables() {
    let state = state(vec![by_table("web", "10.96.0.10")], vec![slice("web", 8080, endpoints(&[1, 2, 3]))]);
    let before = compile(&state, &node(None), &mut Ids::new());
    assert_eq!(before, compile(&state, &node(None), &mut Ids::restore(&before)));
}

#[test]
fn without_room_the_oldest_services_have_tables_and_the_others_are_named() {
    let mut ids = Ids::new();
    let web = |name: &str, last: u8| {
        (by_table(name, &format!("10.96.0.{last}")), slice(name, 8080, endpoints(&[last])))
    };
    let (services, slices) = [web("web", 1)].into_iter().unzip();
    let old = compile(&state(services, slices), &node(Some(1)), &mut ids);
    let (services, slices) = [web("an-other", 2), web("web", 1)].into_iter().unzip();
    let d = compile(&state(services, slices), &node(Some(1)), &mut ids);
    assert_eq!(tables(&d), [tables(&old)[0], MaglevId::NONE]);
    let rejected: Vec<_> = d.rejected.values().collect();
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].object.as_str(), "Service default/an-other");
    assert_eq!(rejected[0].field.as_str(), "metadata.annotations[lbr.dev/algorithm]");
    assert!(rejected[0].reason.as_str().contains("room for 1 tables"), "{}", rejected[0].reason.as_str());
    assert_eq!(d.slots.len(), 2, "both are served");
}
