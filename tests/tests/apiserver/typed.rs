//! kube-rs with types: lists and objects that it reads, objects that it writes, and Events.

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{NetworkPolicy, ServiceCIDR};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Config, Resource as _, ResourceExt as _};
use lbr_tests::apiserver::{EVENTS_EVENT, SERVICE_CIDR, Server, Verb};
use serde_json::json;

use crate::fixtures::service;

fn client(server: &Server) -> Client {
    Client::try_from(Config::new(server.url().parse().unwrap())).unwrap()
}

#[tokio::test]
async fn objects_are_written_and_read() {
    let server = Server::start().unwrap();
    let services: Api<Service> = Api::default_namespaced(client(&server));
    let object: Service = serde_json::from_value(service("a", "10.0.0.1")).unwrap();
    let made = services.create(&PostParams::default(), &object).await.unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some());
    match services.create(&PostParams::default(), &object).await {
        Err(kube::Error::Api(status)) => assert!(status.is_already_exists(), "{status:?}"),
        other => panic!("{other:?}"),
    }
    let mut changed = made.clone();
    changed.labels_mut().insert("new".to_owned(), "label".to_owned());
    services.replace("a", &PostParams::default(), &changed).await.unwrap();
    match services.replace("a", &PostParams::default(), &made).await {
        Err(kube::Error::Api(status)) => assert!(status.is_conflict(), "{status:?}"),
        other => panic!("{other:?}"),
    }
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } });
    let patched = services.patch_status("a", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert!(patched.status.unwrap().load_balancer.unwrap().ingress.is_some());
    let apply = PatchParams::apply("test");
    let applied = json!({ "apiVersion": "v1", "kind": "Service", "spec": { "clusterIP": "10.0.0.9" } });
    let applied = services.patch("a", &apply, &Patch::Apply(applied)).await.unwrap();
    assert_eq!(applied.spec.unwrap().cluster_ip.as_deref(), Some("10.0.0.9"));
    assert_eq!(services.get_opt("none").await.unwrap(), None);
    assert!(services.delete("a", &DeleteParams::default()).await.unwrap().is_right());
    assert_eq!(services.list(&ListParams::default()).await.unwrap().items, []);
    assert_eq!(server.requests().iter().filter(|request| request.verb == Verb::Update).count(), 2);
}

#[tokio::test]
async fn every_kind_of_the_agent_is_listed() {
    let server = Server::start().unwrap();
    let meta = json!({ "name": "x", "namespace": "default" });
    let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.1.0.1"] }], "ports": [{ "port": 80 }] });
    let policy = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta,
        "spec": { "podSelector": {} } });
    let cidr = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "x" },
        "spec": { "cidrs": ["10.0.0.0/16"] } });
    server.put_all([slice, policy, cidr]).unwrap();
    let everything = ListParams::default();
    let client = client(&server);
    let slices: Api<EndpointSlice> = Api::all(client.clone());
    let endpoints = slices.list(&everything).await.unwrap().items.remove(0).endpoints.unwrap();
    assert_eq!(endpoints[0].addresses, ["10.1.0.1"]);
    let policies: Api<NetworkPolicy> = Api::all(client.clone());
    assert!(policies.list(&everything).await.unwrap().items[0].spec.is_some());
    let cidrs: Api<ServiceCIDR> = Api::all(client);
    let cidr = cidrs.list(&everything).await.unwrap().items.remove(0).spec.unwrap();
    assert_eq!(cidr.cidrs, Some(vec!["10.0.0.0/16".to_owned()]));
    server.serve(&SERVICE_CIDR, false);
    match cidrs.list(&everything).await {
        Err(kube::Error::Api(status)) => assert!(status.is_not_found(), "{status:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_are_recorded() {
    let server = Server::start().unwrap();
    let node = Node {
        metadata: kube::api::ObjectMeta { name: Some("node1".to_owned()), ..Default::default() },
        ..Default::default()
    };
    let reporter = Reporter { controller: "lbr".to_owned(), instance: Some("node1".to_owned()) };
    let recorder = Recorder::new(client(&server), reporter);
    let event = Event {
        type_: EventType::Normal,
        reason: "Starting".to_owned(),
        note: Some("first".to_owned()),
        action: "Start".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &node.object_ref(&())).await.unwrap();
    recorder.publish(&event, &node.object_ref(&())).await.unwrap();
    let events = server.list(&EVENTS_EVENT);
    assert_eq!((events.len(), events[0]["reason"].as_str()), (1, Some("Starting")));
    assert_eq!(
        (&events[0]["regarding"]["name"], &events[0]["series"]["count"]),
        (&json!("node1"), &json!(2))
    );
}
