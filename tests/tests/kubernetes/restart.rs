//! The agent ends, and another one takes over its maps, with an API server or without.

use std::time::Duration;

use lbr_tests::apiserver::{
    ENDPOINT_SLICE, Fault, Kind, NAMESPACE, NETWORK_POLICY, NODE, POD, SERVICE, SERVICE_CIDR, When,
};
use lbr_tests::probe::{Client, LongLived};

use crate::objects::{OTHER, WEB, service, slice};
use crate::world::{Load, World};

const WATCHED: [&Kind; 7] =
    [&SERVICE, &ENDPOINT_SLICE, &NAMESPACE, &POD, &NODE, &NETWORK_POLICY, &SERVICE_CIDR];

/// Entries of maps that the agent has written and removed since its last start, by its log.
fn written(said: &str) -> (u64, u64) {
    let count = |name: &str| {
        let after = said.split(name).skip(1);
        let digits = after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default());
        digits.map(|digits| digits.parse::<u64>().unwrap()).sum()
    };
    (count(" writes="), count(" removals="))
}

/// A long-lived connection and new ones: none of them may fail or stall.
struct Traffic {
    load: Load,
    stream: LongLived,
}

impl Traffic {
    fn start(world: &World) -> Self {
        let (interval, limit) = (Duration::from_millis(5), Duration::from_secs(1));
        let client = Client::new(&world.client.ns);
        let stream = LongLived::start(&client, WEB.parse().unwrap(), interval, limit).unwrap();
        Self { load: Load::start(&world.client, WEB), stream }
    }

    #[track_caller]
    fn went_well(self, world: &World) {
        let report = self.stream.stop().unwrap();
        assert!(report.error.is_none() && report.stalls == 0 && report.answers > 5, "{report:?}");
        self.load.stop(world);
    }
}

#[test]
fn without_an_api_server_the_maps_are_adopted_as_they_are() {
    let mut world = World::serving("kr");
    // Not the endpoint of the load: a port in TIME_WAIT there from one Service's connection would delay another
    // Service's, as behind any NAT.
    world.api.put_all([service("other", OTHER), slice("other", &[&world.backends[1]])]).unwrap();
    world.until("other", || world.reaches(&world.client, OTHER));
    let traffic = Traffic::start(&world);
    world.api_away();
    let (before, flows_before) = (world.maps(), flows(&world));

    world.agent.kill();
    world.agent.launch().unwrap();
    world.until("the agent serves", || world.lives() && world.metric("lbr_maps_readable") == Some(1.0));
    world.until("the age is reported", || world.metric("lbr_state_age_seconds").is_some_and(|age| age > 0.0));
    for _ in 0..6 {
        assert_eq!(world.maps(), before);
        assert!(world.lives() && world.is_dropped(&world.stranger, WEB));
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(world.metric("lbr_synced"), Some(0.0));
    assert!(flows(&world) >= flows_before, "flows are gone");
    assert_eq!(written(&world.agent.said()).1, 0, "something was removed");

    world.api.put(slice("web", &[&world.backends[1]])).unwrap();
    world.api.delete(&SERVICE, "default", "other");
    world.api_back();
    world.agent.wait_until_ready().unwrap();
    world.until("the changed slice", || world.who(WEB) == "backend-2");
    world.until("the Service that is gone", || !world.reaches(&world.client, OTHER));
    assert!(world.is_dropped(&world.stranger, WEB));
    traffic.went_well(&world);
}

/// Whichever kind the API server lists last.
#[test]
fn a_killed_agent_writes_nothing_anew() {
    // An older Service, now gone, has left numbers free, which an agent that restarts its count would reuse.
    let mut world = World::start("kw");
    world.api.put_all([service("older", OTHER), slice("older", &[&world.backends[1]])]).unwrap();
    world.until("older", || world.reaches(&world.client, OTHER));
    world.serve();
    world.api.delete(&SERVICE, "default", "older");
    world.api.delete(&ENDPOINT_SLICE, "default", "older-1");
    world.until("older is gone", || world.maps().backends.len() == 1);
    // Maps without a part in traffic, such as names, are cleaned at the end of the same round.
    std::thread::sleep(Duration::from_millis(300));
    // A check of the measure: it must show the writes of a first start.
    let (writes, _) = written(&world.agent.said());
    let maps = world.maps();
    let attached = (maps.links.len() + maps.uplinks.len()) as u64;
    assert!(writes > attached + 5, "{writes} writes, {attached} links");
    let before = world.maps();
    for late in WATCHED {
        world.api.fault(1, When::kind(late), Fault::Delay(Duration::from_millis(700)));
        let traffic = Traffic::start(&world);
        world.agent.kill();
        world.agent.launch().unwrap();
        let kind = late.kind;
        world.until("the agent reads", || world.agent.said().contains("listed "));
        assert_eq!(world.maps(), before, "before {kind} is listed");
        world.agent.wait_until_ready().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(world.maps(), before, "{kind} was late");
        // Programs are attached again, so their links are written again.
        assert_eq!(written(&world.agent.said()), (attached, 0), "{kind} was late");
        assert_eq!(world.api.faults_left(), 0);
        assert!(world.is_dropped(&world.stranger, WEB));
        traffic.went_well(&world);
    }
}

fn flows(world: &World) -> usize {
    world.agent.show("flows").unwrap().as_array().map_or(0, Vec::len)
}
