//! The Services that [`crate::checks`] use.

use lbr_common::addr::Family;
use lbr_tests::manifests::{Endpoint, EndpointSlice, Service, join};
use lbr_tests::topology::Pod;

use crate::world::{OTHER_PORT, PORT, World, vip};

/// Every backend, TCP and UDP on port 80.
pub(crate) const WEB: u8 = 1;
/// Several ports, with different target ports in each slice.
pub(crate) const MULTI: u8 = 2;
/// No endpoints.
pub(crate) const EMPTY: u8 = 3;
/// The client itself.
pub(crate) const MIRROR: u8 = 4;
/// The first backend.
pub(crate) const ONE: u8 = 5;
/// The first backend, on a port without a listener.
pub(crate) const CLOSED: u8 = 6;
/// Two addresses of one family.
pub(crate) const TWO: u8 = 7;
/// A Service whose endpoints change.
pub(crate) const CYCLE: u8 = 8;
/// A Service whose endpoint becomes ready later.
pub(crate) const LATER: u8 = 9;
/// The first backend, on another port.
pub(crate) const TWIN: u8 = 10;
/// A Service of a mounted ConfigMap.
pub(crate) const MOUNTED: u8 = 11;

/// A Service with TCP and UDP on port 80 and one slice for each family.
pub(crate) fn simple(name: &str, n: u8, pods: &[&Pod], target: u16) -> String {
    let service = Service::new(name, &vip(n)).port("tcp", "TCP", 80, target).port("udp", "UDP", 80, target);
    join([service.yaml(), slice(name, pods, target, Family::V4), slice(name, pods, target, Family::V6)])
}

fn slice(name: &str, pods: &[&Pod], target: u16, family: Family) -> String {
    let suffix = if family.is_v6() { "v6" } else { "v4" };
    let slice = EndpointSlice::new(&format!("{name}-{suffix}"), name, family);
    let slice = slice.port("tcp", "TCP", target).port("udp", "UDP", target);
    slice.addresses(pods.iter().map(|pod| pod.address(family))).yaml()
}

/// A Service whose only endpoint is ready, or is not.
pub(crate) fn later(pod: &Pod, ready: bool) -> String {
    let service =
        Service::new("later", &vip(LATER)).port("tcp", "TCP", 80, PORT).port("udp", "UDP", 80, PORT);
    let slices = Family::ALL.map(|family| {
        let slice = EndpointSlice::new(
            &format!("later-{}", if family.is_v6() { "v6" } else { "v4" }),
            "later",
            family,
        );
        let slice = slice.port("tcp", "TCP", PORT).port("udp", "UDP", PORT);
        slice.endpoint(Endpoint::new(pod.address(family)).condition("ready", ready)).yaml()
    });
    join([service.yaml()].into_iter().chain(slices))
}

/// The first slice has the first backend, the second one has the second, with their ports swapped.
fn multi(pods: &[Pod]) -> String {
    let service = Service::new("multi", &vip(MULTI))
        .port("http", "TCP", 80, "web")
        .port("dns", "UDP", 53, "dns")
        .port("dns-tcp", "TCP", 53, "dns-tcp");
    let mut documents = vec![service.yaml()];
    for family in Family::ALL {
        for (number, (pod, [a, b])) in pods.iter().zip([[PORT, OTHER_PORT], [OTHER_PORT, PORT]]).enumerate() {
            let name = format!("multi-{number}-{}", if family.is_v6() { "v6" } else { "v4" });
            let slice = EndpointSlice::new(&name, "multi", family);
            let slice = slice.port("http", "TCP", a).port("dns", "UDP", b).port("dns-tcp", "TCP", b);
            documents.push(slice.addresses([pod.address(family)]).yaml());
        }
    }
    join(documents)
}

/// IPv4 addresses of the Service that has two of them.
pub(crate) fn two_addresses() -> [std::net::IpAddr; 2] {
    [vip(TWO)[0], std::net::Ipv4Addr::new(10, 96, 1, TWO).into()]
}

/// The manifests of all Services.
pub(crate) fn all(world: &World) -> Vec<(&'static str, String)> {
    let (every, one) = (world.first(usize::MAX), world.first(1));
    let two = Service::new("two", &two_addresses()).port("tcp", "TCP", 80, PORT).port("udp", "UDP", 80, PORT);
    vec![
        ("web.yaml", simple("web", WEB, &every, PORT)),
        ("multi.yaml", multi(&world.backends)),
        ("empty.yaml", simple("empty", EMPTY, &[], PORT)),
        ("mirror.yaml", simple("mirror", MIRROR, &[&world.client], PORT)),
        ("one.yaml", simple("one", ONE, &one, PORT)),
        ("closed.yaml", simple("closed", CLOSED, &one, 9)),
        ("two.yaml", join([two.yaml(), slice("two", &one, PORT, Family::V4)])),
        ("cycle.yaml", simple("cycle", CYCLE, &every, PORT)),
        ("later.yaml", later(&world.backends[0], false)),
        ("twin.yaml", simple("twin", TWIN, &one, PORT)),
    ]
}
