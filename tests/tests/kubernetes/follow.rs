//! Packets follow the objects of the API server.

use std::time::Duration;

use lbr_tests::apiserver::{ENDPOINT_SLICE, NETWORK_POLICY, SERVICE};
use lbr_tests::probe::{Client, LongLived};

use crate::objects::{PORT, WEB, namespace, policy, service, slice};
use crate::world::World;

#[test]
fn a_service_and_its_slice_lead_to_a_pod() {
    let world = World::start("ks");
    assert!(!world.reaches(&world.client, WEB));
    world.api.put(slice("web", &[&world.backends[0]])).unwrap();
    world.api.put(service("web", WEB)).unwrap();
    world.until("web", || world.reaches(&world.client, WEB));
    assert_eq!(world.who(WEB), "backend-1");
    // The backend sees the client's address.
    let answer = Client::new(&world.client.ns).tcp(WEB.parse().unwrap()).unwrap();
    assert_eq!(answer.peer.ip(), world.client.v4);

    world.api.delete(&SERVICE, "default", "web");
    world.until("web is gone", || !world.reaches(&world.client, WEB));
    world.api.delete(&ENDPOINT_SLICE, "default", "web-1");
    world.until("nothing is left of it", || {
        let maps = world.maps();
        maps.frontends.is_empty() && maps.slots.is_empty() && maps.backends.is_empty()
    });
}

#[test]
fn a_changed_slice_moves_new_connections_and_leaves_old_ones() {
    let world = World::start("km");
    world.api.put_all([service("web", WEB), slice("web", &[&world.backends[0]])]).unwrap();
    world.until("web", || world.reaches(&world.client, WEB));
    let (interval, limit) = (Duration::from_millis(5), Duration::from_millis(500));
    let client = Client::new(&world.client.ns);
    let old = LongLived::start(&client, WEB.parse().unwrap(), interval, limit).unwrap();

    world.api.put(slice("web", &[&world.backends[1]])).unwrap();
    world.until("the other backend", || world.who(WEB) == "backend-2");
    for _ in 0..30 {
        assert_eq!(world.who(WEB), "backend-2");
    }
    let report = old.stop().unwrap();
    assert!(report.error.is_none() && report.stalls == 0, "{report:?}");
    assert_eq!(report.last.unwrap().name, "backend-1");

    // Without an endpoint the connection is refused, not dropped.
    world.api.put(slice("web", &[])).unwrap();
    world.until("no endpoint", || !world.reaches(&world.client, WEB));
    assert!(!world.is_dropped(&world.client, WEB));
}

#[test]
fn a_policy_denies_by_the_labels_of_namespaces() {
    let world = World::start("kp");
    world.api.put_all([service("web", WEB), slice("web", &[&world.backends[0]])]).unwrap();
    let direct = format!("{}:{PORT}", world.backends[0].v4);
    for from in [&world.client, &world.stranger] {
        world.until("before the policy", || world.reaches(from, WEB) && world.reaches(from, &direct));
    }

    world.api.put(policy()).unwrap();
    world.until("the policy", || world.is_dropped(&world.stranger, WEB));
    assert!(world.is_dropped(&world.stranger, &direct));
    assert!(world.reaches(&world.client, WEB) && world.reaches(&world.client, &direct));

    // The namespaces swap their labels.
    world.api.put_all([namespace("shop", "x"), namespace("elsewhere", "shop")]).unwrap();
    world.until("the labels", || world.is_dropped(&world.client, WEB));
    assert!(world.is_dropped(&world.client, &direct));
    world.until("the other labels", || world.reaches(&world.stranger, WEB));

    world.api.delete(&NETWORK_POLICY, "default", "only-shop");
    world.until("the policy is gone", || world.reaches(&world.client, WEB));
    assert!(world.reaches(&world.client, &direct) && world.reaches(&world.stranger, WEB));
}
