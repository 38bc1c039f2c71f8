//! Sockets of the node's own network namespace: connected to a backend at `connect`, or sent to one at
//! `sendmsg`, so that no packet has to be translated; `recvmsg` and `getpeername` show the frontend.
//!
//! `family` is that of the socket, which says where the address is in the context.

use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::helpers::generated as helper;
use lbr_common::addr::{Addr, Family};
use lbr_common::flow::{SocketKey, SocketPeer, socket_use};
use lbr_common::id::ServiceId;
use lbr_common::maps::config::abilities;
use lbr_common::tuple::proto;
use lbr_common::verdict::{Effect, Hook, Verdict};

use crate::counters::count;
use crate::maps::{self, SOCKETS};
use crate::service::affinity;
use crate::service::traffic;
use crate::service::{self, Origin};

/// The system call goes on.
const ALLOW: i32 = 1;
/// The system call fails.
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EADDRINUSE: i32 = 98;

/// Address and port, port in host byte order.
#[derive(Clone, Copy)]
struct End {
    addr: Addr,
    port: u16,
}

/// `connect`: for the life of the socket.
#[inline(always)]
pub(crate) fn connect(ctx: *mut bpf_sock_addr, family: Family) -> i32 {
    if !is_ours(ctx) {
        return ALLOW;
    }
    let to = read(ctx, family);
    let chosen = choose(ctx, to);
    if chosen.is_err() && protocol(ctx) == proto::UDP {
        // A socket that connects to a pod itself is no longer connected to a Service's endpoint, even to the same one.
        let _ = SOCKETS.remove(key(ctx, to, socket_use::SHOW));
    }
    finish(chosen.map(|(service, peer)| {
        if protocol(ctx) == proto::UDP {
            // `sendto` may name the same Service again, and a connected socket receives from this backend only.
            remember(ctx, to, socket_use::SEND, &peer);
        }
        traffic::connected(service);
        write(ctx, family, end(&peer));
        Verdict::SocketConnect
    }))
}

/// `bind`: not to a port of the node that leads to a Service, since nothing would ever reach the socket.
#[inline(always)]
pub(crate) fn bind(ctx: *mut bpf_sock_addr, family: Family) -> i32 {
    if !is_ours(ctx) {
        return ALLOW;
    }
    let at = read(ctx, family);
    if at.port == 0 || !service::takes_port(&at.addr, at.port, protocol(ctx)) {
        return ALLOW;
    }
    count(Hook::Socket, Verdict::PortTaken, 0);
    fail(EADDRINUSE)
}

/// `sendmsg` with an address: the same backend as before as long as it is there.
#[inline(always)]
pub(crate) fn send(ctx: *mut bpf_sock_addr, family: Family) -> i32 {
    if !is_ours(ctx) {
        return ALLOW;
    }
    let to = read(ctx, family);
    let known = remembered(ctx, to, socket_use::SEND).filter(|peer| {
        service::backend(peer.backend).is_some_and(|b| b.addr == peer.addr && b.port == peer.port)
    });
    let peer = match known {
        Some(peer) => {
            show_as(ctx, to, &peer);
            Ok(peer)
        }
        None => choose(ctx, to).map(|(_, peer)| {
            remember(ctx, to, socket_use::SEND, &peer);
            peer
        }),
    };
    finish(peer.map(|peer| {
        write(ctx, family, end(&peer));
        Verdict::SocketSend
    }))
}

/// `recvmsg` and `getpeername`: the frontend in place of the backend.
#[inline(always)]
pub(crate) fn show(ctx: *mut bpf_sock_addr, family: Family) -> i32 {
    if is_ours(ctx)
        && let Some(peer) = remembered(ctx, read(ctx, family), socket_use::SHOW)
    {
        write(ctx, family, end(&peer));
        count(Hook::Socket, Verdict::SocketShow, 0);
    }
    ALLOW
}

/// Picks a backend for a socket, and keeps what to show in its place. Random, also where the frontend has a
/// table: a socket has no source port yet to take a hash of. Gives the service too.
#[inline(always)]
fn choose(ctx: *mut bpf_sock_addr, to: End) -> Result<(ServiceId, SocketPeer), Verdict> {
    let frontend = service::frontend(&to.addr, to.port, protocol(ctx), Origin::Host)?;
    // SAFETY: a helper without arguments.
    let random = unsafe { helper::bpf_get_prandom_u32() };
    let slot = service::slot_of(random, &frontend);
    let (id, backend) = affinity::choose(&frontend, &Addr::UNSPECIFIED, slot)?;
    let peer = SocketPeer { addr: backend.addr, backend: id, port: backend.port, _pad: 0 };
    show_as(ctx, to, &peer);
    Ok((frontend.service, peer))
}

/// Has `recvmsg` and `getpeername` show `to` for this backend, also if the socket has reached the same backend
/// by another Service in between.
#[inline(always)]
fn show_as(ctx: *mut bpf_sock_addr, to: End, peer: &SocketPeer) {
    let shown = SocketPeer { addr: to.addr, backend: peer.backend, port: to.port, _pad: 0 };
    if remembered(ctx, end(peer), socket_use::SHOW) != Some(shown) {
        remember(ctx, end(peer), socket_use::SHOW, &shown);
    }
}

#[inline(always)]
fn finish(outcome: Result<Verdict, Verdict>) -> i32 {
    let (Ok(verdict) | Err(verdict)) = outcome;
    count(Hook::Socket, verdict, 0);
    match verdict.effect() {
        Effect::Pass | Effect::Translate => ALLOW,
        Effect::Refuse => fail(ECONNREFUSED),
        Effect::Drop => DENY,
    }
}

/// The system call fails with this error; before Linux 5.18 with `EPERM`.
#[inline(always)]
fn fail(error: i32) -> i32 {
    if maps::has(abilities::RETURN_VALUE) {
        // SAFETY: a helper without pointers.
        unsafe { helper::bpf_set_retval(-error) };
    }
    DENY
}

/// A TCP or UDP socket of the node's own network namespace.
#[inline(always)]
fn is_ours(ctx: *mut bpf_sock_addr) -> bool {
    let protocol = protocol(ctx);
    // SAFETY: the context is the kernel's.
    (protocol == proto::TCP || protocol == proto::UDP)
        && unsafe { helper::bpf_get_netns_cookie(ctx.cast()) } == maps::node_netns()
}

#[inline(always)]
fn remembered(ctx: *mut bpf_sock_addr, other: End, usage: u8) -> Option<SocketPeer> {
    // SAFETY: the entry is copied at once.
    unsafe { SOCKETS.get(key(ctx, other, usage)) }.copied()
}

/// Without room for it the socket still works; it only shows the backend's address.
#[inline(always)]
fn remember(ctx: *mut bpf_sock_addr, other: End, usage: u8, peer: &SocketPeer) {
    let _ = SOCKETS.insert(key(ctx, other, usage), peer, u64::from(BPF_ANY));
}

#[inline(always)]
fn key(ctx: *mut bpf_sock_addr, other: End, usage: u8) -> SocketKey {
    // SAFETY: the context is the kernel's.
    let cookie = unsafe { helper::bpf_get_socket_cookie(ctx.cast()) };
    SocketKey { addr: other.addr, cookie, port: other.port, proto: protocol(ctx), usage, _pad: 0 }
}

#[inline(always)]
fn end(peer: &SocketPeer) -> End {
    End { addr: peer.addr, port: peer.port }
}

#[inline(always)]
fn protocol(ctx: *mut bpf_sock_addr) -> u8 {
    // SAFETY: the context is the kernel's, and the verifier knows the field.
    unsafe { (*ctx).protocol as u8 }
}

/// The address that the system call is about. An IPv4 address on an IPv6 socket is mapped there as it is in
/// the maps.
#[inline(always)]
fn read(ctx: *mut bpf_sock_addr, family: Family) -> End {
    // SAFETY: as in `protocol`; the verifier allows the fields of the program's own family.
    unsafe {
        let port = u16::from_be((*ctx).user_port as u16);
        let addr = match family {
            Family::V4 => Addr::v4((*ctx).user_ip4.to_ne_bytes()),
            Family::V6 => {
                let ip = &raw const (*ctx).user_ip6;
                Addr::from_words([(*ip)[0], (*ip)[1], (*ip)[2], (*ip)[3]])
            }
        };
        End { addr, port }
    }
}

#[inline(always)]
fn write(ctx: *mut bpf_sock_addr, family: Family, to: End) {
    let words = to.addr.words();
    // SAFETY: as in `read`.
    unsafe {
        match family {
            Family::V4 => (*ctx).user_ip4 = words[3],
            Family::V6 => {
                let ip = &raw mut (*ctx).user_ip6;
                (*ip)[0] = words[0];
                (*ip)[1] = words[1];
                (*ip)[2] = words[2];
                (*ip)[3] = words[3];
            }
        }
        (*ctx).user_port = u32::from(to.port.to_be());
    }
}
