//! From a destination to a backend: frontends, slots, backends.

pub(crate) mod affinity;
pub(crate) mod dsr;
pub(crate) mod traffic;

use aya_ebpf::btf_maps::lpm_trie::Key;
use lbr_common::addr::Addr;
use lbr_common::conntrack::Segment;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::maglev::{self, MaglevKey};
use lbr_common::policy::Block;
use lbr_common::select;
use lbr_common::service::{Backend, Frontend, FrontendKey, SourceRange, frontend_flags, peer_flags, scope};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::maps::{self, BACKENDS, FRONTENDS, MAGLEV, PEERS, SERVICE_CIDRS, SLOTS, SOURCE_RANGES};
use crate::packet::Packet;

/// Where a connection begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// A pod of this node, with this address.
    Pod(&'a Addr),
    /// A host outside of the node, by an uplink, with this address.
    External(&'a Addr),
    /// A process of the node.
    Host,
}

/// The frontend that `to:port` belongs to, if it has anything to offer to this client.
///
/// The address alone is asked first: most packets that come this far are for no Service, and one look-up says
/// so.
#[inline(always)]
pub(crate) fn frontend(to: &Addr, port: u16, proto: u8, from: Origin<'_>) -> Result<Frontend, Verdict> {
    let frontend = look_up(to, port, proto, from)?;
    if frontend.count > 0 {
        Ok(frontend)
    } else if frontend.flags & frontend_flags::LOCAL_ONLY != 0 {
        Err(Verdict::NoLocalEndpoint)
    } else {
        Err(Verdict::NoEndpoint)
    }
}

/// The Service that `to:port` belongs to for this client, whether it has endpoints or not.
#[inline(always)]
pub(crate) fn owner(to: &Addr, port: u16, proto: u8, from: Origin<'_>) -> ServiceId {
    look_up(to, port, proto, from).map_or(ServiceId::NONE, |frontend| frontend.service)
}

#[inline(always)]
fn look_up(to: &Addr, port: u16, proto: u8, from: Origin<'_>) -> Result<Frontend, Verdict> {
    let scope = if from == Origin::Host && is_own_to_node(to) { scope::HOST_LOCAL } else { scope::ANY };
    let mut key = FrontendKey { addr: *to, port: 0, proto: 0, scope, _pad: 0 };
    // SAFETY: the entry is copied at once; the agent replaces entries whole.
    let address = *(unsafe { FRONTENDS.get(&key) }).ok_or(Verdict::NotService)?;
    let unmatched = if address.flags & frontend_flags::PASS_UNMATCHED != 0 {
        Verdict::NotService
    } else {
        Verdict::NoSuchPort
    };
    key.port = port;
    key.proto = proto;
    // SAFETY: as above.
    let mut frontend = *(unsafe { FRONTENDS.get(&key) }).ok_or(unmatched)?;
    if frontend.flags & (frontend_flags::WILDCARD | frontend_flags::BIND_ONLY) != 0 {
        // `WILDCARD`: protocol 0, which has no ports, so what was found is the entry for the whole address.
        return Err(unmatched);
    }
    if frontend.flags & frontend_flags::EXTERNAL_DIFFERS != 0 && matches!(from, Origin::External(_)) {
        key.scope = scope::EXTERNAL;
        // SAFETY: as above.
        frontend = *(unsafe { FRONTENDS.get(&key) }).ok_or(unmatched)?;
    }
    if frontend.flags & frontend_flags::RANGES != 0 && !serves(&frontend, from) {
        return Err(Verdict::SourceNotInRanges);
    }
    Ok(frontend)
}

/// Whether no packet has this source, since only a Service has it: an address of a ServiceCIDR, a ClusterIP, or a Service's
/// port of an address that is no node's.
#[inline(always)]
pub(crate) fn is_service_source(tuple: &Tuple) -> bool {
    let addr = &tuple.src;
    if !maps::may_be_service(addr) {
        return false;
    }
    if is_in_cidr(addr) {
        return true;
    }
    let flags = address_flags(addr);
    let is_of_node = flags & frontend_flags::HOST != 0 || flags == 0 || is_node(addr);
    !is_of_node
        && (flags & frontend_flags::PASS_UNMATCHED == 0 || has_port(addr, tuple.src_port, tuple.proto))
}

/// Whether a TCP segment of no known connection, which opens none, is led to a backend of this frontend nevertheless: the
/// table leads it to the same one as on the node that had its connection. What answers or ends a connection is not. Nor is
/// SCTP, since programs cannot ask whether a socket of the node has the association.
#[inline(always)]
pub(crate) fn picks_up(packet: &Packet, frontend: &Frontend) -> bool {
    frontend.maglev.is_some()
        && packet.tuple.proto == proto::TCP
        && matches!(packet.segment(), Segment::Ack | Segment::Data)
}

/// What becomes of a TCP segment of no known connection that opens none, at the port of a Service. At the address of a node
/// it may belong to a connection of that node, or of what its stack masquerades: the stack knows. Elsewhere it is refused,
/// as a host does that has no such connection.
#[inline(always)]
pub(crate) fn no_connection(packet: &Packet) -> Verdict {
    let addr = &packet.tuple.dst;
    let is_of_node = address_flags(addr) & frontend_flags::HOST != 0 || is_node(addr);
    if is_of_node { Verdict::StackConnection } else { Verdict::NoConnection }
}

/// Whether this port of an address is a Service's.
#[inline(always)]
pub(crate) fn has_port(addr: &Addr, port: u16, proto: u8) -> bool {
    let key = FrontendKey { addr: *addr, port, proto, scope: scope::ANY, _pad: 0 };
    FRONTENDS.get_ptr(&key).is_some()
}

/// Whether a frontend with source ranges serves this client.
#[inline(always)]
fn serves(frontend: &Frontend, from: Origin<'_>) -> bool {
    let (Origin::Pod(client) | Origin::External(client)) = from else {
        return frontend.flags & frontend_flags::HOST_IN_RANGES != 0;
    };
    let key = SourceRange { service: frontend.service, client: client.bytes };
    SOURCE_RANGES.get(&Key::new(SourceRange::FULL, key)).is_some()
}

/// Loopback, or unspecified, which stands for it.
#[inline(always)]
pub(crate) fn is_own_to_node(addr: &Addr) -> bool {
    if addr.is_v4() {
        let octets = addr.v4_octets();
        octets[0] == 127 || octets == [0; 4]
    } else {
        let words = addr.words();
        words[0] == 0 && words[1] == 0 && words[2] == 0 && (words[3] == 0 || words[3] == 1u32.to_be())
    }
}

/// Whether this is the address of a node or of what lives on one. False while no Service has direct server return.
#[inline(always)]
pub(crate) fn is_in_cluster(addr: &Addr) -> bool {
    peer(addr) & peer_flags::IN_CLUSTER != 0
}

/// Whether another node has this address.
#[inline(always)]
pub(crate) fn is_node(addr: &Addr) -> bool {
    peer(addr) & peer_flags::NODE != 0
}

#[inline(always)]
fn peer(addr: &Addr) -> u32 {
    PEERS.get(&Key::new(Block::FULL, Block::of(addr))).copied().unwrap_or(0)
}

/// An address that no host can be reached by: RFC 1122, 3.2.1.3; RFC 4291, 2.5 and 2.7.
#[inline(always)]
pub(crate) fn is_martian(addr: &Addr) -> bool {
    is_own_to_node(addr) || addr.is_group()
}

/// Whether the address as a whole is a Service's.
#[inline(always)]
pub(crate) fn owns_address(addr: &Addr) -> bool {
    let flags = address_flags(addr);
    flags != 0 && flags & frontend_flags::PASS_UNMATCHED == 0
}

/// Flags of the entry for the whole of an address; 0: no Service has a port there.
#[inline(always)]
fn address_flags(addr: &Addr) -> u32 {
    let key = FrontendKey { addr: *addr, port: 0, proto: 0, scope: scope::ANY, _pad: 0 };
    // SAFETY: as in `frontend`.
    unsafe { FRONTENDS.get(&key) }.map_or(0, |address| address.flags)
}

/// Whether a Service has this port of an address, or all of it.
#[inline(always)]
pub(crate) fn has_place(addr: &Addr, port: u16, proto: u8) -> bool {
    (port != 0 && has_port(addr, port, proto)) || owns_address(addr)
}

/// Whether `port` of an address of the node leads to a Service, so that no socket would hear of it. The unspecified
/// IPv6 address is both families': the program does not see whether a socket is for IPv6 only.
#[inline(always)]
pub(crate) fn takes_port(addr: &Addr, port: u16, proto: u8) -> bool {
    let scope = if is_own_to_node(addr) { scope::HOST_LOCAL } else { scope::ANY };
    let is_taken =
        |addr: Addr| FRONTENDS.get_ptr(&FrontendKey { addr, port, proto, scope, _pad: 0 }).is_some();
    is_taken(*addr) || (addr.words() == [0; 4] && is_taken(Addr::v4([0; 4])))
}

/// Whether an address of a ServiceCIDR is allocated to no Service.
#[inline(always)]
pub(crate) fn is_unallocated(addr: &Addr) -> bool {
    is_in_cidr(addr) && !owns_address(addr)
}

/// Whether it is an address of a ServiceCIDR. Where [`frontend`] says [`Verdict::NotService`], such an address is allocated
/// to no Service: what has no port there is refused at one that is.
#[inline(always)]
pub(crate) fn is_in_cidr(addr: &Addr) -> bool {
    SERVICE_CIDRS.get(&Key::new(Block::FULL, Block::of(addr))).is_some()
}

/// The backend in a slot of a frontend, or of its table if it has one.
///
/// When the agent takes a backend away it lowers the count before it removes the last slot; a packet that
/// read the old count in between finds no slot, and takes the first one, which is there as long as any is. So does
/// one that read the old table.
#[inline(always)]
pub(crate) fn backend_in_slot(
    frontend: &Frontend,
    slot: u32,
) -> Result<(BackendId, &'static Backend), Verdict> {
    let chosen =
        if frontend.maglev.is_none() { slot_backend(frontend, slot) } else { table_backend(frontend, slot) };
    let id = chosen.or_else(|| slot_backend(frontend, 0)).ok_or(Verdict::BackendMissing)?;
    Ok((id, backend(id).ok_or(Verdict::BackendMissing)?))
}

/// The slot for a connection; `hash` is that of its tuple.
#[inline(always)]
pub(crate) fn slot(hash: u32, tuple: &Tuple, frontend: &Frontend) -> u32 {
    let hash = if frontend.maglev.is_none() { hash } else { maglev::hash(tuple, maps::maglev_seed()) };
    slot_of(hash, frontend)
}

/// The slot for a hash, or for a random number where there is nothing to take a hash of.
#[inline(always)]
pub(crate) fn slot_of(hash: u32, frontend: &Frontend) -> u32 {
    select::slot(hash, slots(frontend))
}

/// How many slots there are to choose from: those of its table, if a frontend has one.
#[inline(always)]
pub(crate) fn slots(frontend: &Frontend) -> u32 {
    if frontend.maglev.is_none() { frontend.count } else { maglev::SLOTS }
}

/// The backend with this id.
#[inline(always)]
pub(crate) fn backend(id: BackendId) -> Option<&'static Backend> {
    // SAFETY: valid for the run of the program; the agent replaces entries whole, and an entry that it removes
    // is freed after an RCU grace period.
    unsafe { BACKENDS.get(id) }
}

#[inline(always)]
fn slot_backend(frontend: &Frontend, slot: u32) -> Option<BackendId> {
    // SAFETY: as in `backend`.
    unsafe { SLOTS.get(frontend.slot(slot)) }.map(|slot| slot.backend)
}

#[inline(always)]
fn table_backend(frontend: &Frontend, slot: u32) -> Option<BackendId> {
    // SAFETY: as in `backend`.
    unsafe { MAGLEV.get(MaglevKey::of(frontend, slot)) }.and_then(|part| part.backend(slot))
}
