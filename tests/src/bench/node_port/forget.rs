//! Makes a node forget its flows, so that the next packet of each begins one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use lbr_common::flow::Flow;
use lbr_common::maps;
use lbr_common::tuple::{Tuple, proto};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::netns::Netns;
use crate::testrun;

/// `IPCTNL_MSG_CT_DELETE` of `NFNL_SUBSYS_CTNETLINK` (linux/netfilter/nfnetlink_conntrack.h): without a tuple, all.
const DELETE: u16 = 1 << 8 | 2;

/// Empties a node's connection table.
pub(super) fn conntrack(ns: &Netns) -> Result<()> {
    ns.run(|| {
        let netfilter = SockProtocol::NetlinkNetFilter;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, netfilter)?;
        // Length, type, flags, sequence number, port; then family, version, resource (`struct nfgenmsg`).
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut request = [0_u8; 20];
        request[..4].copy_from_slice(&20_u32.to_ne_bytes());
        request[4..6].copy_from_slice(&DELETE.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut answer = [0; 64];
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // The error number is behind the header; 0 says that it is done.
        let number =
            answer[..len].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match number.context("the kernel's answer is too short")? {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)).context("empty the connection table"),
        }
    })
}

/// lbr's flows on the node that clients ask, and on the one of the backend.
pub(super) struct Flows {
    asked: HashMap<MapData, Tuple, Flow>,
    other: HashMap<MapData, Tuple, Flow>,
}

impl Flows {
    /// By the pin folders of the agents.
    pub(super) fn open(asked: &Path, other: &Path) -> Result<Self> {
        let open = |pins| anyhow::Ok(HashMap::try_from(testrun::open(pins, &maps::FLOWS)?)?);
        Ok(Self { asked: open(asked)?, other: open(other)? })
    }

    /// Removes the flow of a datagram.
    pub(super) fn remove(&mut self, from: SocketAddr, to: SocketAddr) -> Result<()> {
        let key = Tuple {
            src: from.ip().into(),
            dst: to.ip().into(),
            src_port: from.port(),
            dst_port: to.port(),
            proto: proto::UDP,
            _pad: [0; 3],
        };
        let flow = match self.asked.get(&key, 0) {
            Ok(flow) => flow,
            // Evicted, or never begun.
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(error).context("read a flow"),
        };
        for key in [key, flow.twin_key()] {
            forget(&mut self.asked, &key)?;
        }
        for key in [flow.to, flow.twin_key()] {
            forget(&mut self.other, &key)?;
        }
        Ok(())
    }
}

fn forget(flows: &mut HashMap<MapData, Tuple, Flow>, key: &Tuple) -> Result<()> {
    match flows.remove(key) {
        Ok(()) => Ok(()),
        // Evicted, or never begun there.
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).context("remove a flow"),
    }
}
