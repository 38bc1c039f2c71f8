use super::*;
use crate::source::links::LinkFilter;
use crate::source::links::known::{CLAIMS, Known};
use crate::source::links::select::{RouteFact, View, Way, select};

const BRIDGE: u32 = 3;
const OTHER_BRIDGE: u32 = 4;
const UPLINK: u32 = 2;
/// A port of [`BRIDGE`], another, and a pod link without a master.
const A: u32 = 11;
const B: u32 = 12;
const ROUTED: u32 = 13;

/// A node with a bridge for pods, and its kernel's tables.
struct World {
    links: Vec<LinkFact>,
    routes: Vec<RouteFact>,
    node: BTreeSet<IpAddr>,
    neighbours: Neighbours,
    pods: PodAddresses,
}

impl World {
    fn new() -> Self {
        let link = |index: u32, is_pair: bool, master: Option<u32>| LinkFact {
            index,
            name: format!("link{index}"),
            is_pair,
            is_bridge: index == BRIDGE || index == OTHER_BRIDGE,
            peer_is_elsewhere: is_pair,
            master,
            is_ethernet: true,
        };
        let mut world = Self {
            links: vec![
                link(UPLINK, false, None),
                link(BRIDGE, false, None),
                link(OTHER_BRIDGE, false, None),
                link(A, true, Some(BRIDGE)),
                link(B, true, Some(BRIDGE)),
                link(ROUTED, true, None),
            ],
            routes: Vec::new(),
            node: ["10.1.0.1", "192.0.2.7"].map(addr).into(),
            neighbours: Neighbours::default(),
            pods: PodAddresses::new(),
        };
        world.route("0.0.0.0/0", Way::Gateways(vec![UPLINK]));
        world.route("192.0.2.0/24", Way::Direct(UPLINK));
        world.route("10.1.0.0/24", Way::Direct(BRIDGE));
        world.route("fd00:1::/64", Way::Direct(BRIDGE));
        world
    }

    fn route(&mut self, destination: &str, way: Way) {
        self.routes.push(RouteFact { destination: destination.parse().unwrap(), metric: 0, way });
    }

    /// The node learns an address: on the bridge from a pod, or on the link.
    fn hears(&mut self, device: u32, text: &str, from: Mac) {
        self.neighbours.insert(NeighbourFact::Address(device, addr(text), from));
    }

    fn port(&mut self, mac: Mac, port: u32) {
        self.neighbours.insert(NeighbourFact::Port(BRIDGE, 0, mac, port));
    }

    fn picture(&self, before: &LocalLinks) -> LocalLinks {
        self.remembering(before, &mut Known::default())
    }

    fn remembering(&self, before: &LocalLinks, known: &mut Known) -> LocalLinks {
        let filter = LinkFilter::default();
        known.begin(&self.links, &self.routes, &self.pods);
        let mut local = select(&View {
            links: &self.links,
            routes: &self.routes,
            addresses: &[],
            filter: &filter,
            before,
            known,
        });
        local.node_addresses.clone_from(&self.node);
        let places = Places::new(&local, &self.links);
        local.addresses = places.addresses(&self.neighbours, before, &self.pods, known);
        local
    }

    fn first(&self) -> LocalLinks {
        self.picture(&LocalLinks::default())
    }

    fn unknown(&self) -> Vec<(IpAddr, u32)> {
        let local = self.first();
        Places::new(&local, &self.links).unknown(&local.addresses, &self.pods).collect()
    }
}

/// Each address belongs to a pod of its own.
fn pods(addresses: &[&str]) -> PodAddresses {
    addresses.iter().map(|text| (addr(text), format!("ns/{text}"))).collect()
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mac(last: u8) -> Mac {
    [2, 0, 0, 0, 0, last]
}

fn found(local: &LocalLinks) -> Vec<(String, u32)> {
    local.addresses.iter().map(|(addr, link)| (addr.to_string(), *link)).collect()
}

/// Expected pictures, as [`found`] gives them.
fn list(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected.iter().map(|(addr, link)| ((*addr).to_owned(), *link)).collect()
}

#[test]
fn a_bridged_pod_is_behind_the_port_of_its_link_address() {
    let mut world = World::new();
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    assert_eq!(found(&world.first()), list(&[]), "no port known");
    world.port(mac(1), A);
    world.hears(BRIDGE, "fd00:1::5", mac(1));
    world.port(mac(2), UPLINK);
    world.hears(BRIDGE, "10.1.0.6", mac(2));
    assert_eq!(found(&world.first()), list(&[("10.1.0.5", A), ("fd00:1::5", A)]));
}

#[test]
fn only_the_bridge_that_heard_of_the_address_is_asked_for_the_port() {
    let mut world = World::new();
    world.route("10.2.0.0/24", Way::Direct(OTHER_BRIDGE));
    world.port(mac(1), A);
    world.hears(OTHER_BRIDGE, "10.2.0.5", mac(1));
    assert_eq!(found(&world.first()), list(&[]));
}

#[test]
fn a_link_address_at_two_ports_names_none() {
    let mut world = World::new();
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    world.port(mac(1), A);
    world.neighbours.insert(NeighbourFact::Port(BRIDGE, 10, mac(1), A));
    assert_eq!(found(&world.first()), list(&[("10.1.0.5", A)]));
    world.neighbours.insert(NeighbourFact::Port(BRIDGE, 20, mac(1), B));
    assert_eq!(found(&world.first()), list(&[]));
}

#[test]
fn a_host_route_and_a_neighbour_on_the_link_itself_count() {
    let mut world = World::new();
    world.route("10.9.0.5/32", Way::Direct(ROUTED));
    world.route("fd00:9::5/128", Way::Direct(ROUTED));
    world.route("10.9.0.6/32", Way::Direct(UPLINK));
    world.route("10.9.1.0/24", Way::Direct(ROUTED));
    world.hears(ROUTED, "10.9.1.7", mac(9));
    let expected = list(&[("10.9.0.5", ROUTED), ("10.9.1.7", ROUTED), ("fd00:9::5", ROUTED)]);
    assert_eq!(found(&world.first()), expected);
}

#[test]
fn a_host_route_counts_more_than_a_neighbour_and_than_the_past() {
    let mut world = World::new();
    world.port(mac(1), A);
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    world.pods = pods(&["10.1.0.5"]);
    let before = world.first();
    assert_eq!(found(&before), list(&[("10.1.0.5", A)]));
    world.route("10.1.0.5/32", Way::Direct(ROUTED));
    assert_eq!(found(&world.picture(&before)), list(&[("10.1.0.5", ROUTED)]));
    // The route leads to another machine: the address is behind no link here, whatever is claimed on the bridge.
    world.routes.pop();
    world.route("10.1.0.5/32", Way::Gateways(vec![UPLINK]));
    assert_eq!(found(&world.picture(&before)), list(&[]));
}

#[test]
fn a_pod_does_not_become_what_is_elsewhere() {
    let mut world = World::new();
    world.port(mac(1), A);
    for text in ["10.1.0.1", "192.0.2.7", "192.0.2.1", "8.8.8.8", "fd00:2::5"] {
        world.hears(BRIDGE, text, mac(1));
        world.hears(ROUTED, text, mac(1));
    }
    world.route("192.0.2.7/32", Way::Direct(ROUTED));
    assert_eq!(found(&world.first()), list(&[]));
}

#[test]
fn the_answer_of_one_pod_does_not_take_anothers_address() {
    for is_known_pod in [true, false] {
        let mut world = World::new();
        world.port(mac(1), A);
        world.port(mac(2), B);
        world.hears(BRIDGE, "10.1.0.5", mac(1));
        if is_known_pod {
            world.pods = pods(&["10.1.0.5"]);
        }
        let before = world.first();
        assert_eq!(found(&before), list(&[("10.1.0.5", A)]));
        world.hears(BRIDGE, "10.1.0.5", mac(2));
        assert_eq!(found(&world.first()), list(&[("10.1.0.5", B)]), "without a past");
        let after = world.picture(&before);
        assert_eq!(found(&after), list(&[("10.1.0.5", A)]));
        assert_eq!(found(&world.picture(&after)), list(&[("10.1.0.5", A)]), "and again");
        // A pod uses the other's link address, which moves in the forwarding table.
        world.hears(BRIDGE, "10.1.0.5", mac(1));
        world.port(mac(1), B);
        assert_eq!(found(&world.picture(&after)), list(&[("10.1.0.5", A)]));
    }
}

#[test]
fn what_is_forgotten_stays_for_pods_and_goes_for_others() {
    let mut world = World::new();
    world.port(mac(1), A);
    world.port(mac(2), B);
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    world.hears(BRIDGE, "10.1.0.6", mac(2));
    world.pods = pods(&["10.1.0.5"]);
    let before = world.first();
    assert_eq!(found(&before), list(&[("10.1.0.5", A), ("10.1.0.6", B)]));
    world.neighbours = Neighbours::default();
    let after = world.picture(&before);
    assert_eq!(found(&after), list(&[("10.1.0.5", A)]));
    world.pods.clear();
    assert_eq!(found(&world.picture(&after)), list(&[]), "no pod any more");
}

#[test]
fn the_past_ends_with_the_link_and_with_the_way_there() {
    let mut world = World::new();
    world.port(mac(1), A);
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    world.pods = pods(&["10.1.0.5"]);
    let before = world.first();
    world.neighbours = Neighbours::default();
    type Change = fn(&mut World);
    let changes: [(&str, Change); 4] = [
        ("link gone", |w| w.links.retain(|l| l.index != A)),
        ("its index used again", |w| w.links[3].name = "another".to_owned()),
        ("out of the bridge", |w| w.links[3].master = None),
        ("route gone", |w| w.routes.clear()),
    ];
    for (what, change) in changes {
        let mut changed = World { links: world.links.clone(), routes: world.routes.clone(), ..World::new() };
        changed.pods.clone_from(&world.pods);
        assert_eq!(found(&changed.picture(&before)), list(&[("10.1.0.5", A)]), "before: {what}");
        change(&mut changed);
        assert_eq!(found(&changed.picture(&before)), list(&[]), "{what}");
    }
}

#[test]
fn questions_are_for_pods_without_a_link_and_go_where_pods_are() {
    let mut world = World::new();
    world.route("10.2.0.0/24", Way::Direct(OTHER_BRIDGE));
    world.route("10.9.0.5/32", Way::Direct(ROUTED));
    world.route("10.9.1.0/24", Way::Direct(ROUTED));
    world.port(mac(1), A);
    world.hears(BRIDGE, "10.1.0.6", mac(1));
    world.pods = pods(&[
        "10.1.0.1",
        "10.1.0.5",
        "10.1.0.6",
        "10.2.0.5",
        "10.9.0.5",
        "10.9.1.5",
        "192.0.2.9",
        "8.8.8.8",
        "fd00:1::5",
        "fd00:2::5",
    ]);
    let expected = [("10.1.0.5", BRIDGE), ("10.9.1.5", ROUTED), ("fd00:1::5", BRIDGE)];
    assert_eq!(world.unknown(), expected.map(|(text, device)| (addr(text), device)));
}

/// An ARP request gives a pod no second identity.
#[test]
fn claims_of_a_known_pod_count_for_nothing() {
    let mut world = World::new();
    let known = &mut Known::default();
    for (text, device) in [("10.1.0.5", BRIDGE), ("10.1.0.66", BRIDGE), ("fd00:1::66", BRIDGE)] {
        world.hears(device, text, mac(1));
    }
    world.port(mac(1), A);
    world.route("10.9.0.5/32", Way::Direct(ROUTED));
    world.route("10.9.1.0/24", Way::Direct(ROUTED));
    world.hears(ROUTED, "10.9.1.66", mac(9));
    // Until a pod is known, its link has the addresses that it claims.
    let before = world.remembering(&LocalLinks::default(), known);
    assert_eq!(before.addresses.len(), 5);
    world.pods = pods(&["10.1.0.5", "10.9.0.5"]);
    let after = world.remembering(&before, known);
    assert_eq!(found(&after), list(&[("10.1.0.5", A), ("10.9.0.5", ROUTED)]));
    // Nor later: lbr looks for the pod that gets such an address.
    world.pods.extend(pods(&["10.1.0.66"]));
    let later = world.remembering(&after, known);
    assert_eq!(found(&later), found(&after));
    world.port(mac(2), B);
    world.hears(BRIDGE, "10.1.0.66", mac(2));
    let last = world.remembering(&later, known);
    assert_eq!(last.addresses.get(&addr("10.1.0.66")), Some(&B));
}

#[test]
fn both_addresses_of_a_pod_are_behind_its_one_link() {
    let mut world = World::new();
    let known = &mut Known::default();
    world.pods = ["10.1.0.5", "fd00:1::5"].map(|text| (addr(text), "ns/web".to_owned())).into();
    world.port(mac(1), A);
    world.port(mac(2), B);
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    world.hears(BRIDGE, "fd00:1::5", mac(2));
    let before = world.remembering(&LocalLinks::default(), known);
    assert_eq!(found(&before), list(&[("10.1.0.5", A)]), "another link says that it is the same pod");
    world.hears(BRIDGE, "fd00:1::5", mac(1));
    assert_eq!(found(&world.remembering(&before, known)), list(&[("10.1.0.5", A), ("fd00:1::5", A)]));
}

#[test]
fn the_oldest_claim_of_a_link_is_the_pods() {
    let mut world = World::new();
    let known = &mut Known::default();
    world.port(mac(1), A);
    world.hears(BRIDGE, "10.1.0.9", mac(1));
    let mut picture = world.remembering(&LocalLinks::default(), known);
    world.hears(BRIDGE, "10.1.0.5", mac(1));
    picture = world.remembering(&picture, known);
    assert_eq!(found(&picture), list(&[("10.1.0.5", A), ("10.1.0.9", A)]));
    world.pods = pods(&["10.1.0.5", "10.1.0.9"]);
    assert_eq!(found(&world.remembering(&picture, known)), list(&[("10.1.0.9", A)]));
}

#[test]
fn a_link_without_a_known_pod_claims_a_few_addresses() {
    let mut world = World::new();
    let known = &mut Known::default();
    world.port(mac(1), A);
    world.port(mac(2), B);
    world.hears(BRIDGE, "10.1.0.200", mac(1));
    let mut picture = world.remembering(&LocalLinks::default(), known);
    for last in 1..100 {
        world.hears(BRIDGE, &format!("10.1.0.{}", last + 1), mac(1));
        world.hears(BRIDGE, &format!("fd00:1::{last}"), mac(1));
    }
    world.hears(BRIDGE, "10.1.0.250", mac(2));
    for _ in 0..3 {
        picture = world.remembering(&picture, known);
        let of = |link: u32, family: Family| {
            let all = picture.addresses.iter();
            all.filter(|(addr, behind)| **behind == link && Family::of(**addr) == family).count()
        };
        assert_eq!((of(A, Family::V4), of(A, Family::V6), of(B, Family::V4)), (CLAIMS, CLAIMS, 1));
        assert_eq!(picture.addresses.get(&addr("10.1.0.200")), Some(&A), "the first one stays");
    }
    // The pod's own address is found however many it has claimed.
    world.pods = pods(&["10.1.0.90"]);
    assert_eq!(found(&world.remembering(&picture, known)), list(&[("10.1.0.90", A), ("10.1.0.250", B)]));
}
