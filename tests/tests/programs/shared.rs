//! One loaded object for many tests: each test gets it as if freshly loaded.

use std::collections::BTreeMap;
use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};
use lbr_agent::dataplane::Dataplane as _;
use lbr_common::link::{Link, link_flags};
use lbr_common::verdict::Verdict;
use lbr_tests::netns;
use lbr_tests::process;
use lbr_tests::testrun::{Pool, Programs};

use super::maps;
use super::world::{PORT, UDP, World, at, nets, packet};

/// Maps by name, as bytes.
type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn contents(programs: &mut Programs) -> Contents {
    let maps = programs.raw_maps().unwrap();
    maps.into_iter().map(|map| (map.name().to_owned(), map.entries().unwrap())).collect()
}

/// Places in [`network`].
const LINKS: usize = 0;
const ADDRESSES: usize = 1;
const ROUTES: usize = 3;
const PINS: usize = 5;

/// The output of `ip` about the network, and the programs at the pods' links.
fn network(programs: &Programs) -> Vec<String> {
    let commands = ["-o link", "-o addr", "-o neigh", "-4 route show table all", "-6 route show table all"];
    let ip = |line: &str| process::run(Command::new("ip").args(line.split(' '))).unwrap().stdout;
    let mut said: Vec<_> = commands.iter().map(|line| String::from_utf8(ip(line)).unwrap()).collect();
    let mut pins: Vec<_> = std::fs::read_dir(programs.pins().join("attached")).unwrap().collect();
    pins.sort_by_key(|pin| pin.as_ref().unwrap().file_name());
    said.push(format!("{pins:?}"));
    for link in ["pod1", "pod2", "pod3"] {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            // Fails where programs are attached in another way, before Linux 6.6.
            let found = SchedClassifier::query_tcx(link, direction);
            let ids =
                found.map(|(_, programs)| programs.iter().map(|program| program.id()).collect::<Vec<_>>());
            said.push(format!("{link} {direction:?} {:?}", ids.unwrap_or_default()));
        }
    }
    said
}

/// Changes something in every map and in the network.
fn dirty(world: &mut World) {
    maps::fill(world);
    let [net, _] = nets();
    // Fragments, denials and events, the state, and the object's work space.
    world.raise_epoch();
    world.programs.kernel.set_generation(7).unwrap();
    // Interfaces, programs, addresses, routes.
    world.programs.uplink("uplink", [192, 0, 2, 100].into(), "2001:db8::100".parse().unwrap()).unwrap();
    netns::ip([format!("route add {} via {} dev uplink", net.remote, net.router)]).unwrap();
    world.programs.veth(99).unwrap();
    let flags = link_flags::PEER;
    let [first, second, _] = world.programs.links;
    let mut links = world.programs.kernel.tables().links;
    links.insert(&99, &Link { flags, master: 0 }).unwrap();
    links.insert(&1234, &Link { flags, master: 0 }).unwrap_err();
    links.insert(&first, &Link { flags, master: 0 }).unwrap();
    links.remove(&second).unwrap();
}

/// A pool of its own, so that the object is a new one.
struct Own(&'static Pool);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// A test finds nothing of what another test left behind.
#[test]
fn reused_object_is_as_freshly_loaded() {
    let own = Own(Box::leak(Box::default()));
    let mut world = World::of(own.0.take("first", 0).unwrap());
    let (fresh, network_fresh) = (contents(&mut world.programs), network(&world.programs));
    let pins = world.programs.pins().to_owned();
    dirty(&mut world);
    let dirty = contents(&mut world.programs);
    for (name, entries) in &fresh {
        // Constants.
        if !name.starts_with(".rodata") {
            assert_ne!(dirty[name], *entries, "{name} is not dirty");
        }
    }
    let network_dirty = network(&world.programs);
    drop(world);
    assert_eq!(network_dirty.len(), network_fresh.len());
    for what in [LINKS, ADDRESSES, ROUTES, PINS] {
        assert_ne!(network_dirty[what], network_fresh[what]);
    }

    let mut world = World::of(own.0.take("second", 0).unwrap());
    assert_eq!(world.programs.pins(), pins, "loaded anew");
    for (name, entries) in contents(&mut world.programs) {
        assert_eq!(entries, fresh[&name], "{name}");
    }
    assert_eq!(network(&world.programs), network_fresh);
    // Counters are read as they are now, too.
    let frame = packet(UDP, at(nets()[0].client, PORT), at(nets()[0].other, 80)).build();
    assert_eq!(world.send(&frame).verdict, Verdict::Allowed);
    drop(world);
    drop(own);
    assert!(!pins.exists());
}
