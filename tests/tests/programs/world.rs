//! The node of all tests: two pods whose veths are reached directly, Services, and addresses elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use lbr_agent::dataplane::{Concerned, Dataplane as _, Table};
use lbr_common::addr::{Addr, Family};
use lbr_common::conntrack::{State, has_handshake, stamp};
use lbr_common::flow::Flow;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags, scope};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::Parsed;
use lbr_tests::testrun::{Action, Pool, Ran, Shared, say};

pub(crate) use super::packets::{ACKNOWLEDGED, TURNS, answering, opening, packet, segment, syn, syn_ack};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;
/// Both protocols, for loops.
pub(crate) const PROTOS: [u8; 3] = [TCP, UDP, SCTP];
/// What direct server return and XDP forward.
pub(crate) const TCP_AND_UDP: [u8; 2] = [TCP, UDP];
/// The port of clients in tests that need only one.
pub(crate) const PORT: u16 = 40_000;

/// `LBR_PART=20`: tests with very many packets run one in 20 of them, and log this. For software emulation, where a
/// packet takes 20 times as long. 1 by default: all packets.
pub(crate) fn part() -> usize {
    static TOLD: Once = Once::new();
    let part = number("LBR_PART").map_or(1, |part| part.max(1) as usize);
    if part > 1 {
        TOLD.call_once(|| {
            say(&format!("LBR_PART: one in {part} of fuzz, spread, policy::random and xdp's checksums"))
        });
    }
    part
}

/// A number in the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    /// Pod of the client, behind `links[0]`.
    pub(crate) client: IpAddr,
    /// Pod on this node, behind `links[1]`.
    pub(crate) local: IpAddr,
    /// Pods on another node.
    pub(crate) remote: IpAddr,
    pub(crate) remote2: IpAddr,
    /// Addresses of Services.
    pub(crate) service: IpAddr,
    pub(crate) service2: IpAddr,
    /// An address unknown to lbr.
    pub(crate) other: IpAddr,
    pub(crate) router: IpAddr,
    pub(crate) family: Family,
}

/// IPv4 and IPv6.
pub(crate) fn nets() -> [Net; 2] {
    let net = |family: Family, prefix: [&str; 4]| {
        let at = |n: usize, host: &str| format!("{}{host}", prefix[n]).parse().unwrap();
        Net {
            client: at(0, "2"),
            local: at(0, "3"),
            remote: at(1, "4"),
            remote2: at(1, "5"),
            service: at(2, "10"),
            service2: at(2, "11"),
            other: at(3, "9"),
            router: at(3, "1"),
            family,
        }
    };
    [
        net(Family::V4, ["10.244.1.", "10.244.2.", "10.96.0.", "192.0.2."]),
        net(Family::V6, ["fd00:10:244:1::", "fd00:10:244:2::", "fd00:10:96::", "2001:db8::"]),
    ]
}

pub(crate) fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// Where the packets of one side meet the programs: the hook, and the link's number.
pub(crate) type Way = (Hook, usize);
/// The client's pod sends.
pub(crate) const CLIENT: Way = (Hook::FromPod, 0);
/// The local backend's pod sends.
pub(crate) const LOCAL: Way = (Hook::FromPod, 1);
/// A packet from elsewhere reaches the client's pod.
pub(crate) const ELSEWHERE: Way = (Hook::ToPod, 0);

pub(crate) fn tuple(proto: u8, src: SocketAddr, dst: SocketAddr) -> Tuple {
    Tuple {
        src: Addr::from(src.ip()),
        dst: Addr::from(dst.ip()),
        src_port: src.port(),
        dst_port: dst.port(),
        proto,
        _pad: [0; 3],
    }
}

fn key(ip: IpAddr, port: u16, proto: u8) -> FrontendKey {
    FrontendKey { addr: ip.into(), port, proto, scope: scope::ANY, _pad: 0 }
}

/// The first backend's id.
const FIRST_BACKEND: u32 = 100;

/// The loaded object with Services. Tests share it; each one gets it in its state right after loading.
pub(crate) struct World {
    pub(crate) programs: Shared<'static>,
    next_id: u32,
    next_backend: u32,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, 0)
    }

    /// With `lbr_common::maps::config::options`.
    pub(crate) fn with(name: &str, options: u32) -> Self {
        Self::of(Pool::of_process().take(name, options).unwrap())
    }

    pub(crate) fn of(programs: Shared<'static>) -> Self {
        Self { programs, next_id: 0, next_backend: FIRST_BACKEND }
    }

    /// Runs the test with both kinds of packets that a test run can make: without and with a checksum by the device.
    pub(crate) fn both(name: &str, test: impl Fn(&mut Self)) {
        let mut world = Self::new(name);
        test(&mut world);
        world.reset();
        if world.sum_packets() {
            test(&mut world);
        }
    }

    /// From now on packets have a checksum by the device, if the kernel supports it. If not, logs that once.
    pub(crate) fn sum_packets(&mut self) -> bool {
        static TOLD: Once = Once::new();
        let is_possible = self.programs.sum_packets().unwrap();
        if !is_possible {
            TOLD.call_once(|| {
                say("not run: anything with CHECKSUM_COMPLETE: needs BPF_F_TEST_SKB_CHECKSUM_COMPLETE");
            });
        }
        is_possible
    }

    /// Removes every Service and every flow.
    pub(crate) fn reset(&mut self) {
        fn clear<K, V>(table: &mut dyn Table<K, V>) {
            for (key, _) in table.entries().unwrap() {
                table.remove(&key).unwrap();
            }
        }
        clear(self.programs.kernel.tables().frontends);
        clear(self.programs.kernel.tables().slots);
        clear(self.programs.kernel.tables().backends);
        self.next_backend = FIRST_BACKEND;
        self.reset_flows();
        for key in self.programs.fragments.keys().collect::<Vec<_>>() {
            let _ = self.programs.fragments.remove(&key.unwrap());
        }
    }

    /// Removes every flow.
    pub(crate) fn reset_flows(&mut self) {
        for key in self.programs.flows.keys() {
            let _ = self.programs.flows.remove(&key);
        }
    }

    /// Adds a Service port with its address and backends; returns the backends' ids. An existing Service port gets
    /// these backends in its slots; the old ones stay in `backends`. [`Net::local`] is reached by its link.
    pub(crate) fn service(
        &mut self,
        frontend: SocketAddr,
        proto: u8,
        backends: &[SocketAddr],
    ) -> Vec<BackendId> {
        let key = key(frontend.ip(), frontend.port(), proto);
        let existing = self.frontends().into_iter().find(|(k, _)| *k == key);
        let service = existing.map_or(ServiceId { id: self.next_id + 1 }, |(_, frontend)| frontend.service);
        self.next_id = self.next_id.max(service.id);
        let ids: Vec<BackendId> = backends.iter().map(|to| self.backend(service, *to, proto)).collect();
        for (slot, backend) in (0..).zip(ids.iter().copied()) {
            self.programs
                .kernel
                .tables()
                .slots
                .insert(&SlotKey { service, slot, ..SlotKey::default() }, &Slot { backend })
                .unwrap();
        }
        let count = ids.len() as u32;
        self.frontend(frontend, proto, Frontend { service, count, ..Frontend::default() });
        ids
    }

    pub(crate) fn frontend(&mut self, at: SocketAddr, proto: u8, value: Frontend) {
        let whole = Frontend { flags: frontend_flags::WILDCARD, ..Frontend::default() };
        self.programs.kernel.tables().frontends.insert(&key(at.ip(), 0, 0), &whole).unwrap();
        self.programs.kernel.tables().frontends.insert(&key(at.ip(), at.port(), proto), &value).unwrap();
    }

    fn backend(&mut self, service: ServiceId, to: SocketAddr, proto: u8) -> BackendId {
        let is_local = nets().iter().any(|net| net.local == to.ip());
        let link = if is_local { self.programs.links[1] } else { 0 };
        let backend = Backend {
            addr: to.ip().into(),
            ifindex: link,
            service,
            port: to.port(),
            proto,
            sets: 1,
            ..Backend::default()
        };
        let id = BackendId { id: self.next_backend };
        self.next_backend += 1;
        self.programs.kernel.tables().backends.insert(&id, &backend).unwrap();
        id
    }

    pub(crate) fn frontends(&mut self) -> Vec<(FrontendKey, Frontend)> {
        self.programs.kernel.tables().frontends.entries().unwrap()
    }

    pub(crate) fn remove_frontend(&mut self, key: &FrontendKey) {
        self.programs.kernel.tables().frontends.remove(key).unwrap();
    }

    /// Whether the kernel makes a packet of this length for a test run.
    pub(crate) fn takes(&mut self, frame: &[u8]) -> bool {
        let link = self.programs.links[0];
        self.programs.run(Hook::FromPod, link, &vec![0; frame.len()]).is_ok()
    }

    /// Like the agent: the backend first, the epoch after it.
    pub(crate) fn remove_backend(&mut self, id: BackendId) {
        self.programs.kernel.tables().backends.remove(&id).unwrap();
        self.raise_epoch();
    }

    /// Raises the epoch, so that flows are checked again.
    pub(crate) fn raise_epoch(&mut self) {
        self.programs.kernel.raise_epoch(&Concerned::all()).unwrap();
    }

    /// A packet that the client's pod sends.
    #[track_caller]
    pub(crate) fn send(&mut self, frame: &[u8]) -> Ran {
        self.run(Hook::FromPod, 0, frame)
    }

    /// A packet that the local backend's pod sends.
    #[track_caller]
    pub(crate) fn answer(&mut self, frame: &[u8]) -> Ran {
        self.run(Hook::FromPod, 1, frame)
    }

    /// A packet that reaches the client's pod by the stack.
    #[track_caller]
    pub(crate) fn deliver(&mut self, frame: &[u8]) -> Ran {
        self.run(Hook::ToPod, 0, frame)
    }

    #[track_caller]
    pub(crate) fn run(&mut self, hook: Hook, link: usize, frame: &[u8]) -> Ran {
        let link = self.programs.links[link];
        self.programs.run(hook, link, frame).unwrap_or_else(|error| {
            panic!("{error:#}: {:?}", Parsed::frame(frame));
        })
    }

    pub(crate) fn flow(&self, key: Tuple) -> Flow {
        self.programs.flows.get(&key).unwrap_or_else(|| panic!("no flow {key:?}"))
    }

    pub(crate) fn has_flow(&self, key: Tuple) -> bool {
        self.programs.flows.get(&key).is_some()
    }

    pub(crate) fn state(&self, key: Tuple) -> State {
        self.flow(key).state()
    }

    /// Ages both entries of a flow by `seconds`, without a packet since.
    pub(crate) fn age(&mut self, key: Tuple, seconds: u64) {
        let mut flow = self.flow(key);
        for key in [Some(key), self.has_flow(flow.twin_key()).then(|| flow.twin_key())].into_iter().flatten()
        {
            flow = self.flow(key);
            flow.last_seen = flow.last_seen.wrapping_sub(seconds * 1_000_000_000);
            if !has_handshake(key.proto) {
                flow.proof = flow.proof.wrapping_sub(stamp(seconds * 1_000_000_000));
            }
            self.programs.flows.insert(&key, &flow).unwrap();
        }
    }

    /// Establishes a conversation from a client to `to`: a handshake, or datagrams over more than two seconds.
    /// Returns its ends as the server sees them: the client, then the server.
    #[track_caller]
    pub(crate) fn establish(
        &mut self,
        proto: u8,
        (client, by): (SocketAddr, Way),
        to: SocketAddr,
        server: Way,
    ) -> (SocketAddr, SocketAddr) {
        let key = tuple(proto, client, to);
        let sent = self.run(by.0, by.1, &opening(proto, client, to).build());
        assert_eq!(self.state(key), State::New, "{:?}", sent.verdict);
        let sent = Parsed::frame(&sent.packet).unwrap();
        let answered = self.run(server.0, server.1, &answering(proto, sent.dst, sent.src).build());
        assert_eq!(self.state(key), State::Replied, "{:?}", answered.verdict);
        assert!(!self.programs.flows.is_confirmed(&key));
        if proto == UDP {
            self.age(key, 3);
        }
        let confirmed = self.run(by.0, by.1, &packet(proto, client, to).build());
        for key in [key, tuple(proto, sent.dst, sent.src)] {
            assert_eq!(self.state(key), State::Established, "{:?}", confirmed.verdict);
            assert!(self.programs.flows.is_confirmed(&key));
        }
        (sent.src, sent.dst)
    }

    /// The same from the client's pod.
    #[track_caller]
    pub(crate) fn connect(&mut self, proto: u8, client: SocketAddr, to: SocketAddr, server: Way) {
        self.establish(proto, (client, CLIENT), to, server);
    }

    /// A packet that entered the node by this interface, and that the stack delivers to the pod behind a link.
    #[track_caller]
    pub(crate) fn forward(&mut self, entered_by: u32, link: usize, frame: &[u8]) -> Ran {
        let link = self.programs.links[link];
        self.programs.run_at(Hook::ToPod, link, entered_by, frame).unwrap()
    }
}

/// Asserts verdict, action and right checksums; returns the packet.
#[track_caller]
pub(crate) fn expect(ran: &Ran, verdict: Verdict, action: Action) -> Parsed {
    let packet = Parsed::frame(&ran.packet);
    assert_eq!((ran.verdict, ran.action), (verdict, action), "{packet:?}");
    let packet = packet.unwrap();
    assert!(packet.checksums_ok(), "{packet:?}");
    packet
}

/// Asserts that the packet passes unchanged, byte for byte.
#[track_caller]
pub(crate) fn expect_untouched(ran: &Ran, verdict: Verdict, sent: &[u8]) {
    assert_eq!((ran.verdict, ran.action), (verdict, Action::Pass), "{:?}", Parsed::frame(sent));
    assert_eq!(ran.packet, sent, "{:?} became {:?}", Parsed::frame(sent), Parsed::frame(&ran.packet));
}

/// Asserts that the packet is dropped.
#[track_caller]
pub(crate) fn expect_drop(ran: &Ran, verdict: Verdict, sent: &[u8]) {
    assert_eq!((ran.verdict, ran.action), (verdict, Action::Drop), "{:?}", Parsed::frame(sent));
}

/// Asserts that the packet is the one that was sent, with these ends and no other change.
#[track_caller]
pub(crate) fn expect_ends(sent: &[u8], got: &Parsed, src: SocketAddr, dst: SocketAddr) {
    let mut wanted = Parsed::frame(sent).unwrap();
    (wanted.src, wanted.dst) = (src, dst);
    assert_eq!(got, &wanted);
}
