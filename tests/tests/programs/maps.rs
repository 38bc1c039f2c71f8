//! The pinned maps as other programs see them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use aya::maps::{MapData, MapInfo};
use lbr_agent::dataplane::{Dataplane as _, OBJECT};
use lbr_common::addr::Addr;
use lbr_common::conntrack;
use lbr_common::flow::{SocketKey, SocketPeer};
use lbr_common::link::Uplink;
use lbr_common::maglev::{MaglevKey, MaglevPart};
use lbr_common::maps::{self, Shape};
use lbr_common::policy::{
    Allow, Block, Endpoint, Policy, Ports, Prefix, VerdictKey, Versioned, policy_flags,
};
use lbr_common::service::{Affinity, AffinityKey, SourceRange, peer_flags};
use lbr_common::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RejectedRecord, RuleKey, RuleText, ServiceName,
    Text, extent,
};
use lbr_common::tuple::Tuple;
use lbr_tests::packet::Packet;
use serde_json::{Value, json};

use super::world::{LOCAL, PORT, UDP, World, at, nets, packet, tuple};

/// The prefix length, which precedes the key in a longest-prefix map.
const PREFIX_LEN: usize = size_of::<u32>();

/// Size of a row's key in the kernel.
macro_rules! key_size {
    (lpm $key:ty) => {
        PREFIX_LEN + size_of::<$key>()
    };
    // The key of an array is an index; a ring has no key.
    ($shape:ident $key:ty) => {
        size_of::<$key>()
    };
}

macro_rules! agent_sizes {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        [$(($name, (key_size!($shape $key), size_of::<$value>())),)*]
    };
}

macro_rules! kernel_sizes {
    ($($(#[$doc:meta])* $spec:ident $name:literal: $shape:ident [$key:ty, $value:ty] $size:expr;)*) => {
        [$(($name, (key_size!($shape $key), size_of::<$value>())),)*]
    };
}

/// Sizes of key and value of each map, by the types of its row.
fn sizes() -> BTreeMap<&'static str, (usize, usize)> {
    let mut sizes = BTreeMap::from(lbr_common::agent_maps!(agent_sizes));
    sizes.extend(lbr_common::kernel_maps!(kernel_sizes));
    // The kernel has no types for the entries of a ring.
    sizes.insert(maps::EVENTS.name, (0, 0));
    sizes
}

#[test]
fn pinned_maps_match_the_contract() {
    let world = World::new("maps");
    let sizes = sizes();
    assert_eq!(sizes.len(), maps::PINNED.len());
    for spec in &maps::PINNED {
        let path = world.programs.pins().join(spec.name);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{}", spec.name);
        let info: MapInfo = MapData::from_pin(&path).unwrap().info().unwrap();
        let size = (info.key_size() as usize, info.value_size() as usize);
        assert_eq!(info.name_as_str(), Some(spec.name));
        assert_eq!(size, sizes[spec.name], "{}", spec.name);
        assert_eq!(info.max_entries() as usize, spec.max_entries, "{}", spec.name);
        let kind = format!("{:?}", info.map_type().unwrap());
        let wanted = match spec.shape {
            Shape::Hash => "Hash",
            Shape::Lpm => "LpmTrie",
            Shape::Array => "Array",
            Shape::LruHash => "LruHash",
            Shape::PerCpuArray => "PerCpuArray",
            Shape::LruPerCpuHash => "LruPerCpuHash",
            Shape::Ring => "RingBuf",
        };
        assert_eq!(kind, wanted, "{}", spec.name);
    }
    let folder = std::fs::metadata(world.programs.pins()).unwrap().permissions().mode();
    assert_eq!(folder & 0o7777, 0o700);
}

/// The variables that the agent sets at load: without one of them, loading fails.
#[test]
fn the_object_has_its_variables() {
    for name in [maps::config::NODE_NETNS, maps::config::HASH_SEED] {
        let mut loader = aya::EbpfLoader::new();
        for spec in &maps::PINNED {
            loader.map_max_entries(spec.name, 64);
        }
        loader.override_global(name, &7u64, true).load(OBJECT).unwrap();
        let mut loader = aya::EbpfLoader::new();
        assert!(loader.override_global("NO_SUCH_VARIABLE", &7u64, true).load(OBJECT).is_err());
    }
}

/// An entry in every map that is pinned.
pub(crate) fn fill(world: &mut World) {
    let [net, _] = nets();
    let (client, service) = (at(net.client, PORT), at(net.service, 80));
    world.service(service, UDP, &[at(net.local, 8080)]);
    world.connect(UDP, client, service, LOCAL);
    world.send(&packet(UDP, at(net.client, PORT + 1), service).build());
    let fragments = Packet::udp(client, service).payload(&[1; 2000]).fragments(77, 1024);
    world.send(&fragments[0]);
    let kernel = &mut world.programs.kernel;
    let name = ServiceName { namespace: Text::new("shop"), name: Text::new("cart"), port: Text::new("http") };
    kernel.tables().services.insert(&1.into(), &name).unwrap();
    let rejected = RejectedRecord {
        object: Text::new("Service shop/cart"),
        origin: Text::new("cart.yaml #2"),
        extent: extent::REJECTED,
        field: Text::new("spec.ports[0].port"),
        reason: Text::new("must be at most 65535"),
    };
    kernel.tables().rejected.insert(&1, &rejected).unwrap();
    let slots = MaglevPart::new(&[100.into(); lbr_common::maglev::PART as usize]);
    kernel.tables().maglev.insert(&MaglevKey { table: 1.into(), part: 0 }, &slots).unwrap();
    let tables = kernel.tables();
    let flags = Versioned { old: 2, new: 3, since: 1 };
    let class = Versioned { old: 2.into(), new: 3.into(), since: 1 };
    let policy =
        Policy { set: 7.into(), flags: policy_flags::POD | policy_flags::ISOLATED_IN, ..Policy::default() };
    let policy = Versioned { old: policy, new: policy, since: 1 };
    tables.endpoints.insert(&net.remote2.into(), &Endpoint { ifindex: 0, policy }).unwrap();
    tables.link_policy.insert(&3, &flags).unwrap();
    tables.ip_class.insert(&net.remote.into(), &class).unwrap();
    let block = Block { family: 4, addr: Addr::from(net.remote).bytes };
    tables.cidr_class.insert(&Prefix { data: block, len: Block::FULL }, &class).unwrap();
    let ports = Ports { set: 7.into(), direction: 0, proto: UDP, port: [31, 144] };
    tables.port_class.insert(&Prefix { data: ports, len: Ports::FULL }, &1.into()).unwrap();
    let key = VerdictKey { set: 7.into(), direction: 0, class: 2.into(), ports: 1.into() };
    tables.verdicts.insert(&key, &Allow { policy: 1.into(), rule: 0 }).unwrap();
    let record =
        PolicyRecord { namespace: Text::new("shop"), name: Text::new("only-cart"), ..Default::default() };
    tables.policies.insert(&1.into(), &record).unwrap();
    let rule = RuleKey { policy: 1.into(), direction: 0, rule: 0 };
    tables.rules.insert(&rule, &RuleText { yaml: Text::new("{}") }).unwrap();
    tables
        .set_members
        .insert(&MemberKey { set: 7.into(), number: 0 }, &Member { policy: 1.into(), ..Default::default() })
        .unwrap();
    tables.classes.insert(&2.into(), &ClassRecord { pods: 1, ..Default::default() }).unwrap();
    let pod = PodName { namespace: Text::new("shop"), name: Text::new("cart-0") };
    tables.pod_names.insert(&net.local.into(), &pod).unwrap();
    drop(tables);
    let kernel = &mut world.programs.kernel;
    let range = SourceRange { service: 1.into(), client: Addr::from(net.local).bytes };
    kernel.tables().source_ranges.insert(&Prefix { data: range, len: SourceRange::FULL }, &1).unwrap();
    let block = Block::of(&net.service.into());
    kernel.tables().service_cidrs.insert(&Prefix { data: block, len: Block::FULL }, &1).unwrap();
    kernel.tables().peers.insert(&Prefix { data: block, len: Block::FULL }, &peer_flags::NODE).unwrap();
    // The address is isolated for ingress: a denial.
    world.deliver(&packet(UDP, at(net.remote2, PORT), at(net.remote2, 9)).build());
    world.deliver(&packet(UDP, client, at(net.remote2, 9)).build());
    let pinned = |name| {
        let path = world.programs.pins().join(name);
        aya::maps::Map::from_map_data(MapData::from_pin(path).unwrap()).unwrap()
    };
    let mut uplinks: aya::maps::HashMap<_, u32, Uplink> = pinned(maps::UPLINKS.name).try_into().unwrap();
    uplinks.insert(2, Uplink { v4: net.local.into(), ..Uplink::default() }, 0).unwrap();
    let mut affinity: aya::maps::HashMap<_, AffinityKey, Affinity> =
        pinned(maps::AFFINITY.name).try_into().unwrap();
    affinity
        .insert(AffinityKey { service: 1.into(), ..AffinityKey::default() }, Affinity::default(), 0)
        .unwrap();
    // A claim lasts only while a program runs.
    let mut claims: aya::maps::HashMap<_, Tuple, u32> = pinned(maps::CLAIMS.name).try_into().unwrap();
    claims.insert(tuple(UDP, service, client), 1, 0).unwrap();
    let mut sockets: aya::maps::HashMap<_, SocketKey, SocketPeer> =
        pinned(maps::SOCKETS.name).try_into().unwrap();
    let key = SocketKey { addr: net.local.into(), cookie: 5, port: 8080, proto: UDP, ..SocketKey::default() };
    let peer = SocketPeer { addr: net.service.into(), backend: 100.into(), port: 80, _pad: 0 };
    sockets.insert(key, peer, 0).unwrap();
}

/// The output of `bpftool map dump` with BTF: `formatted` of every entry.
fn dump(world: &World, map: &str) -> Vec<Value> {
    let path = world.programs.pins().join(map);
    let output = Command::new("bpftool").args(["-j", "map", "dump", "pinned"]).arg(&path).output();
    let output = output.unwrap_or_else(|error| panic!("bpftool (package bpftool): {error}"));
    assert!(output.status.success(), "{map}: {}", String::from_utf8_lossy(&output.stderr));
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(!entries.is_empty(), "{map} is empty");
    entries.into_iter().map(|entry| entry["formatted"].clone()).collect()
}

/// Names of the fields of a value, in alphabetical order.
fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value} has no fields")).keys().map(String::as_str).collect()
}

#[test]
fn bpftool_prints_fields_by_name() {
    let mut world = World::new("bpftool");
    fill(&mut world);
    let dumps: BTreeMap<&str, Vec<Value>> = maps::PINNED
        .iter()
        .filter(|spec| spec.name != maps::EVENTS.name)
        .map(|spec| (spec.name, dump(&world, spec.name)))
        .collect();
    let first = |map: &str| dumps[map][0].clone();

    let port_80 = dumps["frontends"].iter().find(|e| e["key"]["port"] == 80).unwrap();
    assert_eq!(fields(&port_80["key"]), ["_pad", "addr", "port", "proto", "scope"]);
    assert_eq!(fields(&port_80["value"]), ["affinity", "count", "flags", "maglev", "service", "set"]);
    assert_eq!((&port_80["key"]["proto"], &port_80["value"]["count"]), (&Value::from(17), &Value::from(1)));
    let addr = &port_80["key"]["addr"]["bytes"];
    let numbers: Vec<u64> = addr.as_array().unwrap().iter().map(number).collect();
    assert_eq!(numbers, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 96, 0, 10]);

    assert_eq!(fields(&first("slots")["key"]), ["service", "set", "slot"]);
    assert_eq!(first("slots")["value"], json!({"backend": {"id": 100}}));
    let backend = first("backends");
    assert_eq!(fields(&backend["value"]), ["addr", "flags", "ifindex", "port", "proto", "service", "sets"]);
    assert_eq!(backend["value"]["port"], 8080);
    // An id is an object: what kind it is says the field, or the map.
    assert_eq!(backend["key"], json!({"id": 100}));
    assert_eq!(backend["value"]["service"], port_80["value"]["service"]);
    assert_eq!(fields(&first("maglev")["key"]), ["part", "table"]);
    assert_eq!(first("maglev")["value"]["backends"][0], 100);
    assert_eq!(fields(&first("services")["value"]), ["name", "namespace", "port"]);
    assert_eq!(fields(&first("rejected")["value"]), ["extent", "field", "object", "origin", "reason"]);
    assert_eq!(fields(&first("links")["value"]), ["flags", "master"]);
    assert_eq!(
        fields(&first("state")["value"]),
        [
            "abi",
            "epoch",
            "generation",
            "maglev_seed",
            "own_port_filter",
            "seed",
            "service_filter",
            "udp_own_ports"
        ]
    );
    assert_eq!(fields(&first("near_epochs")["value"]), ["cells"]);
    assert_eq!(fields(&first("far_epochs")["value"]), ["cells"]);
    assert_eq!(fields(&first("uplinks")["value"]), ["node_v4", "node_v6", "v4", "v6"]);
    assert_eq!(fields(&first("source_ranges")["key"]["data"]), ["client", "service"]);
    assert_eq!(fields(&first("service_cidrs")["key"]["data"]), ["addr", "family"]);
    assert_eq!(fields(&first("peers")["key"]["data"]), ["addr", "family"]);
    assert_eq!(fields(&first("affinity")["key"]), ["_pad", "client", "service"]);
    assert_eq!(fields(&first("affinity")["value"]), ["_pad", "backend", "last_used"]);
    let tuple = ["_pad", "dst", "dst_port", "proto", "src", "src_port"];
    let flow = [
        "_pad",
        "audited",
        "backend",
        "epoch",
        "flags",
        "in_ifindex",
        "last_seen",
        "near",
        "out_ifindex",
        "proof",
        "redirect_to",
        "service",
        "slot",
        "state",
        "to",
        "twin_redirect_to",
    ];
    for state in [conntrack::State::Established, conntrack::State::New] {
        let request =
            dumps["flows"].iter().find(|e| e["key"]["dst_port"] == 80 && e["value"]["state"] == state as u32);
        let request = request.unwrap();
        assert_eq!(
            (fields(&request["key"]), fields(&request["value"]["to"])),
            (tuple.to_vec(), tuple.to_vec())
        );
        assert_eq!(request["value"]["to"]["dst_port"], 8080);
        assert_eq!(fields(&request["value"]), flow);
    }
    let enrolled = dumps["unconfirmed"].iter().find(|e| e["value"]["dst_port"] == 80).unwrap();
    assert_eq!(fields(&enrolled["value"]), tuple);
    assert_eq!(fields(&first("claims")["key"]), tuple);
    assert_eq!(fields(&first("fragments")["key"]), ["_pad", "dst", "id", "proto", "src"]);
    assert_eq!(first("fragments")["value"], json!({"src_port": PORT, "dst_port": 80}));
    assert_eq!(fields(&first("sockets")["key"]), ["_pad", "addr", "cookie", "port", "proto", "usage"]);
    assert_eq!(fields(&first("sockets")["value"]), ["_pad", "addr", "backend", "port"]);
    let versioned = ["new", "old", "since"];
    let endpoint = first("endpoints");
    assert_eq!(fields(&endpoint["value"]), ["ifindex", "policy"]);
    assert_eq!(fields(&endpoint["value"]["policy"]), versioned);
    assert_eq!(fields(&endpoint["value"]["policy"]["new"]), ["audit", "flags", "set"]);
    for map in ["link_policy", "ip_class", "cidr_class"] {
        assert_eq!(fields(&first(map)["value"]), versioned, "{map}");
    }
    assert_eq!(first("ip_class")["value"]["new"], json!({"id": 3}));
    assert_eq!(fields(&first("cidr_class")["key"]["data"]), ["addr", "family"]);
    assert_eq!(fields(&first("port_class")["key"]["data"]), ["direction", "port", "proto", "set"]);
    assert_eq!(fields(&first("verdicts")["key"]), ["class", "direction", "ports", "set"]);
    assert_eq!(first("verdicts")["value"], json!({"policy": {"id": 1}, "rule": 0}));
    assert_eq!(first("port_class")["value"], json!({"id": 1}));
    for map in ["services", "policies", "classes", "traffic"] {
        assert_eq!(fields(&first(map)["key"]), ["id"], "{map}");
    }
    let policy = ["egress_rules", "ingress_rules", "kind", "name", "namespace", "pods"];
    assert_eq!(fields(&first("policies")["value"]), policy);
    assert_eq!(fields(&first("rules")["value"]), ["yaml"]);
    assert_eq!(fields(&first("set_members")["value"]), ["_pad", "hash", "policy"]);
    assert_eq!(fields(&first("classes")["value"]), ["blocks", "hash", "matches", "pods"]);
    assert_eq!(fields(&first("pod_names")["value"]), ["name", "namespace"]);
    assert_eq!(fields(&first("denials")["key"]), ["audited", "direction", "set"]);
    let counter = first("counters");
    assert_eq!(fields(&counter["values"][0]["value"]), ["bytes", "packets"]);
}

/// bpftool prints bytes as numbers or as `"0x0a"`, by version.
fn number(value: &Value) -> u64 {
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    value.as_u64().or_else(|| value.as_str().and_then(hex)).unwrap_or_else(|| panic!("{value} is no number"))
}
