//! Connected UDP sockets of the node's processes whose backend is gone.
//!
//! `connect` chose the backend for the life of the socket, so datagrams would go nowhere from now on. Such a socket is
//! aborted (sock_diag(7), `SOCK_DESTROY`): it is no longer connected, `recv` fails with `ECONNABORTED` and `send` with
//! `EDESTADDRREQ`, and a program that connects again reaches a backend that is there.
//!
//! A socket is found by its cookie and its remote address in `sockets`, so one that connected to the same pod directly is
//! left alone. `sockets` keeps those used last: a socket that it has evicted is left alone as well.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;

use anyhow::Context as _;
use aya::maps::{HashMap, MapData, MapError};
use lbr_common::addr::Family;
use lbr_common::flow::{SocketKey, SocketPeer, socket_use};
use lbr_common::id::BackendId;
use lbr_common::maps;
use lbr_common::service::Backend;
use lbr_common::tuple::proto;
use netlink_packet_core::{Emitable, Parseable as _};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_UDP, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY};

use super::handles::open;
use super::pins::Pins;
use super::requirements::{NO_ABORT, release};
use crate::netlink::{self, Message, Socket};

/// Aborts sockets of this network namespace.
pub(super) struct StaleSockets {
    sockets: HashMap<MapData, SocketKey, SocketPeer>,
}

impl StaleSockets {
    /// Opens the map. `None`: the kernel cannot abort sockets, which the log says once.
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Option<Self>> {
        let sockets = HashMap::try_from(open(pins, &maps::SOCKETS)?)
            .with_context(|| format!("map {}", maps::SOCKETS.name))?;
        if let Err(error) = probe() {
            tracing::warn!("Linux {} {}: {NO_ABORT}", release(), lacks(&error));
            return Ok(None);
        }
        Ok(Some(Self { sockets }))
    }

    /// Aborts each connected UDP socket that the programs have connected to a backend that is not in `backends` any more.
    /// Returns how many.
    pub(super) fn abort(&self, backends: &BTreeMap<BackendId, Backend>) -> io::Result<usize> {
        let mut netlink = Socket::open(netlink::Family::SocketDiagnostics)?;
        let mut aborted = 0;
        for family in Family::ALL {
            let mut stale = Vec::new();
            for id in connected(&mut netlink, family, 0)? {
                if self.is_stale(&id, backends)? {
                    stale.push(id);
                }
            }
            // The kernel finds a socket by its addresses, and of several with the same ones (SO_REUSEPORT) only the
            // first: the others are found after that one is aborted.
            let mut before = usize::MAX;
            while !stale.is_empty() && stale.len() < before {
                before = stale.len();
                let mut rest = Vec::new();
                for id in stale {
                    match destroy(&mut netlink, family, &id)? {
                        true => aborted += 1,
                        false => rest.push(id),
                    }
                }
                stale = rest;
            }
        }
        Ok(aborted)
    }

    /// Whether the programs connected this socket to a backend that is gone.
    fn is_stale(&self, id: &SocketId, backends: &BTreeMap<BackendId, Backend>) -> io::Result<bool> {
        let key = SocketKey {
            addr: id.destination_address.into(),
            cookie: u64::from_ne_bytes(id.cookie),
            port: id.destination_port,
            proto: proto::UDP,
            usage: socket_use::SHOW,
            _pad: 0,
        };
        match self.sockets.get(&key, 0) {
            Ok(shown) => Ok(!is_there(&key, &shown, backends)),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(call)) => Err(call.io_error),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

/// Whether the backend that a socket is connected to is still its Service's. Ids are used again.
fn is_there(key: &SocketKey, shown: &SocketPeer, backends: &BTreeMap<BackendId, Backend>) -> bool {
    let leads =
        |backend: &Backend| (backend.addr, backend.port, backend.proto) == (key.addr, key.port, key.proto);
    backends.get(&shown.backend).is_some_and(leads)
}

/// Connected UDP sockets of a family; `port`: with this port of their own, unless it is 0.
fn connected(netlink: &mut Socket, family: Family, port: u16) -> io::Result<Vec<SocketId>> {
    let any = match family {
        Family::V4 => SocketId::new_v4(),
        Family::V6 => SocketId::new_v6(),
    };
    let request = request(family, SocketId { source_port: port, ..any });
    let answers = netlink.dump(SOCK_DIAG_BY_FAMILY, &request)?;
    answers.iter().map(socket_id).collect()
}

fn socket_id((_, body): &Message) -> io::Result<SocketId> {
    InetResponseHeader::parse(body).map(|header| header.socket_id).map_err(io::Error::other)
}

/// Aborts a socket. `false`: it is gone, or hidden behind another one with the same addresses.
fn destroy(netlink: &mut Socket, family: Family, id: &SocketId) -> io::Result<bool> {
    match netlink.ask(SOCK_DESTROY, 0, &request(family, id.clone())) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn request(family: Family, socket_id: SocketId) -> Vec<u8> {
    let request = InetRequest {
        family: match family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        },
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        // Of a UDP socket: connected.
        states: StateFlags::ESTABLISHED,
        socket_id,
    };
    let mut body = vec![0; request.buffer_len()];
    request.emit(&mut body);
    body
}

/// Whether this kernel can abort a UDP socket, tried on one of its own.
fn probe() -> io::Result<()> {
    let Ok(own) = loopback_socket() else {
        // Without a loopback address there is nothing to try it on. Should it fail later, the log says so then.
        return Ok(());
    };
    let port = own.local_addr()?.port();
    let mut netlink = Socket::open(netlink::Family::SocketDiagnostics)?;
    for id in connected(&mut netlink, Family::V4, port)? {
        if id.destination_port == PROBE_PORT && destroy(&mut netlink, Family::V4, &id)? {
            return Ok(());
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Where the socket of [`probe`] is connected to (discard, RFC 863). It sends nothing.
const PROBE_PORT: u16 = 9;

fn loopback_socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(("127.0.0.1", 0))?;
    socket.connect(("127.0.0.1", PROBE_PORT))?;
    Ok(socket)
}

/// What a kernel lacks that answers the [`probe`] like this.
fn lacks(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "lacks CONFIG_INET_DIAG_DESTROY".to_owned(),
        Some(libc::ENOENT) => "lacks CONFIG_INET_UDP_DIAG, or cannot load the module udp_diag".to_owned(),
        _ => format!("does not abort UDP sockets ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use lbr_common::addr::Addr;

    use super::*;

    #[test]
    fn an_id_that_another_backend_has_now_is_not_the_same_backend() {
        let addr = Addr::v4([10, 0, 0, 1]);
        let key = SocketKey { addr, port: 53, proto: proto::UDP, ..SocketKey::default() };
        let shown = SocketPeer { backend: 7.into(), ..SocketPeer::default() };
        let backend = Backend { addr, port: 53, proto: proto::UDP, ..Backend::default() };
        let there = |id: u32, backend: Backend| is_there(&key, &shown, &[(id.into(), backend)].into());
        assert!(there(7, backend));
        // It takes no new connections, and serves its old ones.
        assert!(there(7, Backend { sets: 0, ..backend }));
        assert!(!there(8, backend));
        assert!(!there(7, Backend { port: 54, ..backend }));
        assert!(!there(7, Backend { addr: Addr::v4([10, 0, 0, 2]), ..backend }));
        assert!(!there(7, Backend { proto: proto::TCP, ..backend }));
    }

    #[test]
    fn a_kernel_without_it_is_told_from_one_that_fails() {
        let of = |errno| lacks(&io::Error::from_raw_os_error(errno));
        assert!(of(libc::EOPNOTSUPP).contains("CONFIG_INET_DIAG_DESTROY"));
        assert!(of(libc::ENOENT).contains("udp_diag"));
        assert!(of(libc::EPERM).contains("not permitted"));
    }
}
