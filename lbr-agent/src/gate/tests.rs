use std::pin::pin;
use std::time::Duration;

use lbr_common::policy::policy_flags;
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::agent::{self, Inputs};
use crate::cluster::Change;
use crate::cluster::Store;
use crate::dataplane::fake::Fake;
use crate::model::{Kind, Object, ObjectRef, Pod, netpol};
use crate::node::Settings;
use crate::node::links::{LocalLink, LocalLinks};
use crate::serve::{Observer, Origin};

const LINK: u32 = 7;

fn name() -> ObjectName {
    ObjectName::new("ns", "web")
}

fn ip() -> IpAddr {
    IpAddr::from([10, 1, 0, 1])
}

/// The pod as in the API before the plugin has ended.
fn pod() -> Change {
    let labels = [("app".to_owned(), "web".to_owned())].into();
    Change::Apply(Object::Pod(Pod { name: name(), labels, node: "here".to_owned(), ..Pod::default() }))
}

fn policy() -> Change {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "ns"}, "spec": {"podSelector": {}},
    });
    let policy = netpol::from_api(serde_json::from_value(object).unwrap()).object.unwrap();
    Change::Apply(Object::NetworkPolicy(policy))
}

fn links() -> LocalLinks {
    let link = LocalLink { name: "veth7".to_owned(), has_peer: true, master: None };
    let (links, addresses) = ([(LINK, link)].into(), [(ip(), LINK)].into());
    LocalLinks { links, addresses, ..LocalLinks::default() }
}

/// Runs an agent that gets one thing after the other, and checks in between whether the gate is open.
#[test]
fn the_gate_opens_when_the_policies_of_the_pod_are_in_force() {
    let (gate, requests) = gate();
    let (changes, receiver) = mpsc::channel(100);
    let (link_sender, link_receiver) = watch::channel(LocalLinks::default());
    let inputs = Inputs {
        events: crate::events::Events::nowhere(),
        changes: receiver,
        links: link_receiver,
        pods: watch::channel(Default::default()).0,
        gate: requests,
        observer: Observer::new(Origin::Folder).unwrap(),
        loading: None,
        started: std::time::Instant::now(),
    };
    let mut fake = Fake::new(0).with_faults(0);
    let script = async {
        let mut ready = pin!(gate.ready(name(), vec![ip()]));
        let moment = Duration::from_millis(200);
        changes.send(policy()).await.unwrap();
        for kind in Kind::ALL {
            changes.send(Change::Synced(kind)).await.unwrap();
        }
        assert!(tokio::time::timeout(moment, &mut ready).await.is_err(), "the pod is not known");
        changes.send(pod()).await.unwrap();
        assert!(tokio::time::timeout(moment, &mut ready).await.is_err(), "its interface is not there");
        link_sender.send(links()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), ready).await.unwrap().unwrap();
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(agent::run("here".to_owned(), Settings::default(), inputs, &mut fake, script)).unwrap();
    let endpoint = fake.in_force().endpoints[&ip().into()];
    assert_eq!(endpoint.ifindex, LINK);
    assert_eq!(endpoint.policy.flags, policy_flags::POD | policy_flags::ISOLATED_IN);
    assert!(fake.attached().contains(&LINK));
    assert!(runtime.block_on(gate.ready(name(), vec![ip()])).is_err(), "the agent has ended");
}

#[test]
fn the_api_has_the_last_word_about_addresses() {
    let mut store = Store::new();
    store.apply(pod());
    store.apply(Change::Addresses(name(), vec![ip()]));
    let ips = |store: &Store| store.state().pods.get(&name()).map(|pod| pod.ips.clone());
    assert_eq!(ips(&store), Some(vec![ip()]));
    store.apply(pod());
    assert_eq!(ips(&store), Some(vec![ip()]), "the API does not know yet");
    let other = IpAddr::from([10, 1, 0, 9]);
    let Change::Apply(Object::Pod(known)) = pod() else { unreachable!() };
    store.apply(Change::Apply(Object::Pod(Pod { ips: vec![other], ..known })));
    assert_eq!(ips(&store), Some(vec![other]));
    store.apply(Change::Delete(ObjectRef { kind: Kind::Pod, name: name() }));
    store.apply(pod());
    assert_eq!(ips(&store), Some(vec![]), "another pod of the same name");
}
