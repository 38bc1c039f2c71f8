//! The node: its links, its uplink, and the way of a packet through the programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use anyhow::Result;
use aya::maps::{HashMap, MapData};
use lbr_agent::dataplane::Dataplane as _;
use lbr_common::flow::{SocketKey, SocketPeer, socket_use};
use lbr_common::link::{Link, link_flags};
use lbr_common::maps;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Effect, Hook, Verdict};
use lbr_tests::netns;
use lbr_tests::oracle::{Case, Question};
use lbr_tests::packet::Parsed;
use lbr_tests::testrun::{Action, Programs, open};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};

use super::super::packets::first_packet;
use super::super::wire::{OWN_MAC, ROUTER_MAC, mac_text};

/// Interface indexes that random clusters have.
const LINKS: std::ops::Range<u32> = 9..21;
const OWN: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 168, 0, 1), Ipv6Addr::new(0xfd00, 0xc0, 0, 0, 0, 0, 0, 1));
const ROUTER: [&str; 2] = ["192.168.0.254", "fd00:c0::fe"];
/// Payload of a datagram that needs fragments, and the part of it that each carries.
const LONG: usize = 3000;
const PART: usize = 1400;
/// How often a packet is sent, if something else is counted each time.
const TRIES: u32 = 5;

/// What happened to a packet.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// What each program said, in order.
    pub(super) ran: Vec<(Hook, Verdict)>,
    /// Audits that they counted.
    pub(super) audits: Vec<Verdict>,
    /// What the system call returned, if a socket of the node began it: 0, or an error number.
    pub(super) socket: Option<i32>,
    /// Where it went, if it was translated.
    pub(super) translated: Option<(IpAddr, u16)>,
    /// Whether it ended where it should: it passed all programs.
    pub(super) passed: bool,
    /// The same of each later fragment.
    pub(super) later: Vec<Self>,
}

/// A loaded object, and what is around it.
pub(super) struct Node {
    pub(super) programs: Programs,
    pub(super) uplink: u32,
    sockets: HashMap<MapData, SocketKey, SocketPeer>,
    fragment_id: u32,
}

impl Node {
    pub(super) fn new() -> Self {
        let mut programs = Programs::load_with_sockets("why").unwrap();
        for index in LINKS {
            programs.veth(index).unwrap();
            let link = Link { flags: link_flags::PEER, master: 0 };
            programs.kernel.tables().links.insert(&index, &link).unwrap();
        }
        let uplink = programs.uplink("uplink", OWN.0, OWN.1).unwrap();
        // Link address first: the kernel forgets its neighbours then.
        let mut lines =
            vec!["link set lo up".to_owned(), format!("link set uplink address {}", mac_text(OWN_MAC))];
        let router = mac_text(ROUTER_MAC);
        for ip in [ROUTER[0], ROUTER[1], "192.168.0.2", "192.168.0.3", "fd00:c0::2", "fd00:c0::3"] {
            lines.push(format!("neigh replace {ip} lladdr {router} dev uplink nud permanent"));
        }
        lines.push(format!("route add default via {} dev uplink", ROUTER[0]));
        lines.push(format!("route add ::/0 via {} dev uplink", ROUTER[1]));
        netns::ip(lines).unwrap();
        let sockets = HashMap::try_from(open(programs.pins(), &maps::SOCKETS).unwrap()).unwrap();
        Self { programs, uplink, sockets, fragment_id: 0 }
    }

    /// Every connection begins without a past.
    pub(super) fn forget_flows(&mut self) {
        for key in self.programs.flows.keys() {
            let _ = self.programs.flows.remove(&key);
        }
    }

    /// Sends the first packet of a connection, whole or in fragments. Again, if the kernel sent something of its own meanwhile
    /// (reports of multicast listeners), which was counted too.
    pub(super) fn send(&mut self, case: &Case, question: &Question) -> Fate {
        for _ in 1..TRIES {
            if let Ok(fate) = self.try_to_send(case, question) {
                return fate;
            }
            self.programs.forget_others().unwrap();
            self.forget_flows();
        }
        self.try_to_send(case, question).unwrap()
    }

    fn try_to_send(&mut self, case: &Case, question: &Question) -> Result<Fate> {
        let tuple = &question.tuple;
        if is_own(case, tuple.src.into()) && matches!(tuple.proto, proto::TCP | proto::UDP) {
            return self.send_by_socket(case, tuple);
        }
        if !question.in_fragments {
            return self.enter(case, tuple, &first_packet(tuple, &[]).build());
        }
        self.fragment_id += 1;
        let frames = first_packet(tuple, &[0; LONG]).fragments(self.fragment_id, PART);
        let fates = frames.iter().map(|frame| self.enter(case, tuple, frame));
        let mut fates = fates.collect::<Result<Vec<_>>>()?;
        let mut first = fates.remove(0);
        first.later = fates;
        Ok(first)
    }

    /// A frame from its source: by a pod's link, by the uplink, or from the node itself.
    fn enter(&mut self, case: &Case, tuple: &Tuple, frame: &[u8]) -> Result<Fate> {
        let src = IpAddr::from(tuple.src);
        let mut fate = Fate::default();
        if is_own(case, src) {
            self.deliver(case, tuple.dst.into(), 0, frame, &mut fate)?;
            return Ok(fate);
        }
        let (hook, entered_by) = match self.link_of(case, src) {
            Some(link) => (Hook::FromPod, link),
            None => (Hook::FromNetdev, self.uplink),
        };
        let Some((action, packet)) = self.run(hook, entered_by, entered_by, frame, &mut fate)? else {
            return Ok(fate);
        };
        if let Ok(parsed) = Parsed::frame(&packet)
            && (hook, Verdict::ToBackend) == *fate.ran.last().unwrap()
        {
            fate.translated = Some((parsed.dst.ip(), parsed.dst.port()));
        }
        if action == Action::Redirect {
            fate.passed = true;
            return Ok(fate);
        }
        let dst = fate.translated.map_or(tuple.dst.into(), |(ip, _)| ip);
        self.deliver(case, dst, entered_by, &packet, &mut fate)?;
        Ok(fate)
    }

    /// What the stack does: to a pod, to the node itself, or out.
    fn deliver(
        &mut self,
        case: &Case,
        dst: IpAddr,
        entered_by: u32,
        frame: &[u8],
        fate: &mut Fate,
    ) -> Result<()> {
        if is_own(case, dst) {
            fate.passed = true;
            return Ok(());
        }
        let (hook, link) = match self.link_of(case, dst) {
            Some(link) => (Hook::ToPod, link),
            None => (Hook::ToNetdev, self.uplink),
        };
        fate.passed = self.run(hook, link, entered_by, frame, fate)?.is_some();
        Ok(())
    }

    /// Runs a program; `None` if the packet ended there.
    fn run(
        &mut self,
        hook: Hook,
        link: u32,
        entered_by: u32,
        frame: &[u8],
        fate: &mut Fate,
    ) -> Result<Option<(Action, Vec<u8>)>> {
        let ran = self.programs.run_at(hook, link, entered_by, frame)?;
        fate.ran.push((hook, ran.verdict));
        fate.audits.extend(ran.audits);
        let passes = matches!(ran.verdict.effect(), Effect::Pass | Effect::Translate);
        Ok(passes.then_some((ran.action, ran.packet)))
    }

    /// The link of a pod of this node: the one that is known for its address or for another one of it, else any.
    fn link_of(&self, case: &Case, addr: IpAddr) -> Option<u32> {
        let known = &case.node.links.addresses;
        let pod = case.local_pod(addr);
        let others = pod.iter().flatten();
        let link = [addr].iter().chain(others).find_map(|addr| known.get(addr)).copied();
        link.or_else(|| pod.map(|_| self.programs.links[2]))
    }

    /// A process of the node connects a socket, and sends the first packet of the connection.
    fn send_by_socket(&mut self, case: &Case, tuple: &Tuple) -> Result<Fate> {
        let to = SocketAddr::new(tuple.dst.into(), tuple.dst_port);
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let (kind, proto) = match tuple.proto {
            proto::TCP => (SockType::Stream, SockProtocol::Tcp),
            _ => (SockType::Datagram, SockProtocol::Udp),
        };
        for key in self.sockets.keys().collect::<Vec<_>>() {
            let _ = self.sockets.remove(&key.unwrap());
        }
        let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK, proto).unwrap();
        let result = connect(fd.as_raw_fd(), &SockaddrStorage::from(to));
        drop(fd);
        // A SYN left by the uplink.
        self.programs.forget_others().unwrap();
        let error = match result {
            Ok(()) | Err(Errno::EINPROGRESS) => 0,
            Err(error) => error as i32,
        };
        let mut fate = Fate { socket: Some(error), ..Fate::default() };
        if error != 0 {
            return Ok(fate);
        }
        let backends = self.sockets.keys().map(Result::unwrap).filter(|key| key.usage == socket_use::SHOW);
        fate.translated = backends.map(|key| (key.addr.into(), key.port)).next();
        let (ip, port) = fate.translated.unwrap_or((to.ip(), to.port()));
        let tuple = Tuple { dst: ip.into(), dst_port: port, ..*tuple };
        self.deliver(case, ip, 0, &first_packet(&tuple, &[]).build(), &mut fate)?;
        Ok(fate)
    }
}

/// Whether it is an address of the node.
pub(super) fn is_own(case: &Case, addr: IpAddr) -> bool {
    addr.is_loopback() || addr.is_unspecified() || case.node.links.node_addresses.contains(&addr)
}
