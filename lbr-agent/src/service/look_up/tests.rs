use lbr_common::service::{Backend, Slot, SlotKey, set};
use lbr_common::tuple::proto;

use super::*;

const VIP: [u8; 4] = [203, 0, 113, 1];
const NODE: [u8; 4] = [192, 0, 2, 1];

fn key(addr: [u8; 4], port: u16, scope: u8) -> FrontendKey {
    let proto = if port == 0 { 0 } else { proto::TCP };
    FrontendKey { addr: Addr::v4(addr), port, proto, scope, ..FrontendKey::default() }
}

/// Service 1 with an endpoint in each set; its own address is closed, the node's is open; port 81 has no endpoint in
/// its set.
fn tables() -> Desired {
    let mut tables = Desired::default();
    let whole = |flags| Frontend { flags: flags | frontend_flags::WILDCARD, ..Frontend::default() };
    let of = |set, count, flags| Frontend { service: 1.into(), set, count, flags, ..Frontend::default() };
    let (differs, local) = (frontend_flags::EXTERNAL_DIFFERS, frontend_flags::LOCAL_ONLY);
    tables.frontends.extend([
        (key(VIP, 0, scope::ANY), whole(0)),
        (key(VIP, 80, scope::ANY), of(set::CLUSTER, 1, differs)),
        (key(VIP, 80, scope::EXTERNAL), of(set::LOCAL, 1, local)),
        (key(VIP, 81, scope::ANY), of(set::CLUSTER, 1, differs)),
        (key(VIP, 81, scope::EXTERNAL), of(set::LOCAL, 0, local)),
        (key(VIP, 82, scope::ANY), of(set::CLUSTER, 1, frontend_flags::RANGES)),
        (
            key(VIP, 83, scope::ANY),
            of(set::CLUSTER, 0, frontend_flags::RANGES | frontend_flags::HOST_IN_RANGES),
        ),
        (key(VIP, 84, scope::ANY), of(set::CLUSTER, 1, differs)),
        (key(NODE, 0, scope::ANY), whole(frontend_flags::PASS_UNMATCHED | frontend_flags::HOST)),
        (key(NODE, 30080, scope::ANY), of(set::CLUSTER, 1, 0)),
        (
            key([127, 0, 0, 1], 0, scope::HOST_LOCAL),
            whole(frontend_flags::PASS_UNMATCHED | frontend_flags::HOST),
        ),
        (key([127, 0, 0, 1], 30080, scope::HOST_LOCAL), of(set::CLUSTER, 1, 0)),
        (key([127, 0, 0, 1], 30081, scope::HOST_LOCAL), of(set::CLUSTER, 1, frontend_flags::BIND_ONLY)),
    ]);
    for (set, backend) in [(set::CLUSTER, 1u32), (set::LOCAL, 2)] {
        tables.slots.insert(SlotKey { service: 1.into(), set, slot: 0 }, Slot { backend: backend.into() });
        let addr = Addr::v4([10, 244, 0, u8::try_from(backend).unwrap()]);
        let value = Backend { addr, port: 8080, service: 1.into(), ..Backend::default() };
        tables.backends.insert(backend.into(), value);
    }
    let range = |service: u32, client: [u8; 4], bits| {
        let data = SourceRange { service: service.into(), client: Addr::v4(client).bytes };
        (Prefix { data, len: SourceRange::FIXED_BITS + 96 + bits }, 0)
    };
    tables.source_ranges.extend([range(1, [198, 51, 100, 0], 24), range(2, [0; 4], 0)]);
    let block = Prefix { data: Block::of(&Addr::v4([10, 96, 0, 0])), len: Block::FAMILY_BITS + 96 + 12 };
    tables.service_cidrs.insert(block, 0);
    tables
}

#[test]
fn every_step_has_its_verdict() {
    use Sender::{Node, Pod, Wire};
    let (inside, outside) = ([198, 51, 100, 9], [198, 51, 101, 9]);
    let loopback = [127, 0, 0, 1];
    for (sender, client, to, port, expected) in [
        (Pod, inside, [8, 8, 8, 8], 80, Verdict::NotService),
        (Pod, inside, [10, 96, 0, 99], 80, Verdict::UnallocatedAddress),
        (Pod, inside, VIP, 80, Verdict::ToBackend),
        (Pod, inside, VIP, 99, Verdict::NoSuchPort),
        (Wire, inside, VIP, 99, Verdict::NoSuchPort),
        (Wire, inside, VIP, 81, Verdict::NoLocalEndpoint),
        (Pod, inside, VIP, 81, Verdict::ToBackend),
        (Node, inside, VIP, 81, Verdict::ToBackend),
        // The frontend for external clients is missing.
        (Wire, inside, VIP, 84, Verdict::NoSuchPort),
        (Pod, inside, VIP, 82, Verdict::ToBackend),
        (Wire, inside, VIP, 82, Verdict::ToBackend),
        (Pod, outside, VIP, 82, Verdict::SourceNotInRanges),
        (Wire, outside, VIP, 82, Verdict::SourceNotInRanges),
        (Node, inside, VIP, 82, Verdict::SourceNotInRanges),
        // Source ranges come first: other clients do not learn whether there is an endpoint.
        (Pod, outside, VIP, 83, Verdict::SourceNotInRanges),
        (Pod, inside, VIP, 83, Verdict::NoEndpoint),
        (Node, outside, VIP, 83, Verdict::NoEndpoint),
        (Wire, inside, NODE, 30080, Verdict::ToBackend),
        (Wire, inside, NODE, 22, Verdict::NotService),
        (Node, inside, loopback, 30080, Verdict::ToBackend),
        (Node, inside, loopback, 22, Verdict::NotService),
        (Node, inside, loopback, 30081, Verdict::NotService),
        (Wire, inside, loopback, 30080, Verdict::NotService),
        (Pod, inside, loopback, 30080, Verdict::NotService),
    ] {
        let (src, dst) = (Addr::v4(client), Addr::v4(to));
        let tuple = Tuple { src, dst, dst_port: port, proto: proto::TCP, ..Tuple::default() };
        let resolved = resolve(&tables(), &tuple, sender, Seeds::default());
        assert_eq!(resolved.verdict, expected, "{sender:?} {client:?} -> {to:?}:{port}");
    }
}

#[test]
fn what_comes_by_the_wire_gets_to_its_own_set() {
    let tuple = Tuple { dst: Addr::v4(VIP), dst_port: 80, proto: proto::TCP, ..Tuple::default() };
    let to = |sender| {
        resolve(&tables(), &tuple, sender, Seeds::default()).backend.map(|(addr, _)| addr.v4_octets())
    };
    assert_eq!(to(Sender::Wire), Some([10, 244, 0, 2]));
    assert_eq!((to(Sender::Pod), to(Sender::Node)), (Some([10, 244, 0, 1]), Some([10, 244, 0, 1])));
}

#[test]
fn an_address_without_a_port_of_its_own_is_open_or_closed_to_every_protocol() {
    for (to, verdict) in [(VIP, Verdict::NoSuchPort), (NODE, Verdict::NotService)] {
        let tuple = Tuple { dst: Addr::v4(to), ..Tuple::default() };
        assert_eq!(resolve(&tables(), &tuple, Sender::Pod, Seeds::default()).verdict, verdict);
    }
}
