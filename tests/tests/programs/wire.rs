//! The node at a wire: an uplink, clients on its link, and pods of other nodes behind a router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lbr_common::conntrack::State;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::netns;
use lbr_tests::packet::Packet;
use lbr_tests::testrun::{Action, Ran};

use super::world::{
    Net, PORT, UDP, World, answering, at, expect, expect_untouched, nets, opening, packet, tuple,
};

const NODE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 100), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100));
/// Link address of the uplink, to which packets of tests are addressed.
pub(crate) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Link addresses of [`Net::other`] and of [`Net::router`].
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(crate) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

pub(crate) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A node with clients on the link of its uplink, and with other nodes' pods behind the router there.
pub(crate) struct Wire {
    pub(crate) world: World,
    pub(crate) uplink: u32,
}

/// A connection through the node.
pub(crate) struct Connection {
    /// As the client sends it.
    pub(crate) there: (SocketAddr, SocketAddr),
    /// As the backend answers.
    pub(crate) back: (SocketAddr, SocketAddr),
    pub(crate) proto: u8,
}

impl Wire {
    pub(crate) fn new(name: &str) -> Self {
        let mut world = World::new(name);
        let uplink = world.programs.uplink("uplink", NODE.0, NODE.1).unwrap();
        // Before the neighbours, which the kernel forgets at this point. Packets here are addressed to the interface.
        let mut lines = vec![format!("link set uplink address {}", mac_text(OWN_MAC))];
        for net in nets() {
            let (router, client) = (mac_text(ROUTER_MAC), mac_text(CLIENT_MAC));
            lines.push(format!("neigh replace {} lladdr {router} dev uplink nud permanent", net.router));
            lines.push(format!("neigh replace {} lladdr {client} dev uplink nud permanent", net.other));
            let width = if net.family.is_v6() { 128 } else { 32 };
            for pod in [net.remote, net.remote2] {
                lines.push(format!("route add {pod}/{width} via {} dev uplink", net.router));
            }
        }
        netns::ip(lines).unwrap();
        Self { world, uplink }
    }

    pub(crate) fn run(&mut self, hook: Hook, frame: &[u8]) -> Ran {
        self.world.programs.run(hook, self.uplink, frame).unwrap()
    }

    pub(crate) fn xdp(&mut self, frame: &[u8]) -> Ran {
        self.run(Hook::Xdp, frame)
    }

    /// Establishes a conversation from a client to a Service by tc, as XDP carries no packet before that. Returns its
    /// ends as the backend sees them: the client, then the backend.
    pub(crate) fn establish(
        &mut self,
        proto: u8,
        client: SocketAddr,
        service: SocketAddr,
    ) -> (SocketAddr, SocketAddr) {
        let key = tuple(proto, client, service);
        let first = opening(proto, client, service).build();
        self.is_left(&first);
        let sent = expect(&self.run(Hook::FromNetdev, &first), Verdict::ToBackend, Action::Redirect);
        self.is_left(&first);
        let answer = answering(proto, sent.dst, sent.src).build();
        self.is_left(&answer);
        expect(&self.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
        if proto == UDP {
            self.world.age(key, 3);
        }
        let next = packet(proto, client, service).build();
        self.is_left(&next);
        assert_eq!(self.world.state(key), State::Replied);
        expect(&self.run(Hook::FromNetdev, &next), Verdict::ToBackend, Action::Redirect);
        assert_eq!(self.world.state(key), State::Established);
        (sent.src, sent.dst)
    }

    /// A connection of the client to a Service whose backend is on another node.
    pub(crate) fn connect(&mut self, net: &Net, proto: u8) -> Connection {
        let (client, service) = (at(net.other, PORT), at(net.service, 80));
        self.world.service(service, proto, &[at(net.remote, 8080)]);
        let (seen, backend) = self.establish(proto, client, service);
        assert_eq!((seen.ip(), backend), (node(net), at(net.remote, 8080)));
        Connection { there: (client, service), back: (backend, seen), proto }
    }

    #[track_caller]
    pub(crate) fn is_left(&mut self, frame: &[u8]) {
        expect_untouched(&self.xdp(frame), Verdict::LeftToTc, frame);
    }

    #[track_caller]
    pub(crate) fn is_carried(&mut self, frame: &[u8]) {
        expect(&self.xdp(frame), Verdict::ToBackend, Action::Transmit);
    }

    #[track_caller]
    pub(crate) fn is_carried_back(&mut self, frame: &[u8]) {
        expect(&self.xdp(frame), Verdict::ToClient, Action::Transmit);
    }
}

impl Connection {
    pub(crate) fn request(&self) -> Packet {
        packet(self.proto, self.there.0, self.there.1)
    }

    pub(crate) fn answer(&self) -> Packet {
        packet(self.proto, self.back.0, self.back.1)
    }
}

pub(crate) fn node(net: &Net) -> IpAddr {
    if net.family.is_v6() { NODE.1.into() } else { NODE.0.into() }
}
