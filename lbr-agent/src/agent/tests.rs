use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use lbr_common::policy::policy_flags;
use lbr_common::text::PodName;
use lbr_common::text::Text;

use super::*;
use crate::dataplane::fake::Fake;
use crate::desired::Desired;
use crate::desired::EndpointPolicy;
use crate::engine::Former;
use crate::model::{Kind, Object, ObjectName, Pod};
use crate::node::links::LocalLink;
use crate::serve::Origin;

fn veth(index: u32) -> (u32, LocalLink) {
    (index, LocalLink { name: format!("veth{index}"), has_peer: true, master: None })
}

fn node_pod() -> Change {
    let name = ObjectName::new("ns", "web");
    let ips = vec![IpAddr::from([10, 1, 0, 5])];
    Change::Apply(Object::Pod(Pod { name, ips, node: "here".to_owned(), ..Pod::default() }))
}

/// A pod's object and its link arrive together. The agent publishes the pods' names after it has compiled: when the
/// link gets its programs, no name is published.
#[test]
fn a_new_pods_link_has_its_programs_before_anything_is_compiled() {
    for synced in [false, true] {
        let (changes, receiver) = mpsc::channel(100);
        let (link_sender, link_receiver) = watch::channel(LocalLinks::default());
        let (pods, compiled) = watch::channel(PodAddresses::new());
        let inputs = Inputs {
            events: Events::nowhere(),
            changes: receiver,
            links: link_receiver,
            pods,
            gate: crate::gate::gate().1,
            observer: Observer::new(Origin::Folder).unwrap(),
            loading: None,
            started: Instant::now(),
        };
        let mut fake = Fake::new(0).with_faults(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (into, names) = (order.clone(), compiled.clone());
        fake.observe(move |tables| {
            if tables.links.contains_key(&7) {
                into.lock().unwrap().push(names.borrow().len());
            }
        });
        let script = async {
            // The first round, which nothing waits for.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if synced {
                for kind in Kind::ALL {
                    changes.send(Change::Synced(kind)).await.unwrap();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            changes.send(node_pod()).await.unwrap();
            let links = LocalLinks { links: [veth(7)].into(), ..LocalLinks::default() };
            link_sender.send(links).unwrap();
            let mut compiled = compiled.clone();
            tokio::time::timeout(Duration::from_secs(10), compiled.changed()).await.unwrap().unwrap();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run("here".to_owned(), Settings::default(), inputs, &mut fake, script)).unwrap();
        assert_eq!(order.lock().unwrap().first(), Some(&0), "synced: {synced}");
        assert_eq!(fake.attached(), [7].into());
    }
}

/// Runs an agent whose programs are not loaded yet, until `script` is over. Returns the result, and the programs that it was
/// told of.
fn run_loading(
    fake: &mut Fake,
    loaded: tokio::sync::oneshot::Receiver<()>,
    script: impl Future<Output = ()>,
) -> (anyhow::Result<()>, BTreeMap<String, u32>) {
    let (changes, receiver) = mpsc::channel(100);
    let links = LocalLinks { links: [veth(7)].into(), ..LocalLinks::default() };
    let (_link_sender, link_receiver) = watch::channel(links);
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    let into = told.clone();
    let then = Box::new(move |programs| {
        *into.lock().unwrap() = programs;
        Ok(())
    });
    let inputs = Inputs {
        events: Events::nowhere(),
        changes: receiver,
        links: link_receiver,
        pods: watch::channel(PodAddresses::new()).0,
        gate: crate::gate::gate().1,
        observer: Observer::new(Origin::Folder).unwrap(),
        loading: Some(Loading { loaded, then }),
        started: Instant::now(),
    };
    for kind in Kind::ALL {
        changes.try_send(Change::Synced(kind)).unwrap();
    }
    changes.try_send(node_pod()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ended = runtime.block_on(run("here".to_owned(), Settings::default(), inputs, fake, script));
    drop(changes);
    let told = told.lock().unwrap().clone();
    (ended, told)
}

#[test]
fn the_state_is_written_while_the_kernel_verifies_the_programs() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_loading(false);
    let (done, loaded) = tokio::sync::oneshot::channel();
    let seen = fake.clone();
    let script = async {
        let pod = IpAddr::from([10, 1, 0, 5]).into();
        while !seen.in_force().endpoints.contains_key(&pod) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(seen.attached().is_empty());
        done.send(()).unwrap();
        while !seen.attached().contains(&7) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (ended, told) = run_loading(&mut fake, loaded, script);
    ended.unwrap();
    assert_eq!(told, [("from_pod".to_owned(), 1)].into());
}

#[test]
fn an_agent_ends_while_programs_load_and_when_they_are_refused() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_loading(true);
    let (_done, loaded) = tokio::sync::oneshot::channel();
    let moment = async { tokio::time::sleep(Duration::from_millis(50)).await };
    let (ended, told) = run_loading(&mut fake, loaded, moment);
    ended.unwrap();
    assert!(told.is_empty() && fake.attached().is_empty());

    let (done, loaded) = tokio::sync::oneshot::channel();
    done.send(()).unwrap();
    let (ended, _) = run_loading(&mut fake, loaded, std::future::pending());
    assert_eq!(ended.unwrap_err().to_string(), "the kernel refuses the programs");
    assert!(fake.attached().is_empty());
}

#[test]
fn the_pods_of_a_former_agent_are_read() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut tables = Desired::default();
    let addr = |last| lbr_common::addr::Addr::from(IpAddr::from([10, 1, 0, last]));
    for (last, flags) in [(5, policy_flags::POD), (6, policy_flags::PENDING), (7, policy_flags::NODE)] {
        let mut endpoint = EndpointPolicy::default();
        (endpoint.policy.flags, endpoint.ifindex) = (flags, 7);
        tables.endpoints.insert(addr(last), endpoint);
    }
    tables.pod_names.insert(addr(5), PodName { namespace: Text::new("ns"), name: Text::new("web") });
    fake.set_tables(tables);
    let pod = IpAddr::from([10, 1, 0, 5]);
    let expected = Former { pods: [(pod, "ns/web".to_owned())].into(), links: [(pod, 7)].into() };
    assert_eq!(Former::read(&mut fake).unwrap(), expected);
}
