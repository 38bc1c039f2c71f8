//! The hosts, and the way of a packet through the programs of the node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lbr_agent::dataplane::Dataplane as _;
use lbr_common::id::{BackendId, ClassId, PolicySetId, ServiceId};
use lbr_common::policy::{Allow, OTHER_PORTS, Policy, VerdictKey, direction, policy_flags};
use lbr_common::service::{Backend, Frontend, Slot, SlotKey, backend_flags};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::Parsed;
use lbr_tests::testrun::Action;

use super::super::policy::Policies;
use super::super::wire::Wire;
use super::super::world::{Net, PROTOS, at};
use crate::attack;

/// Packets kept for the message of a failure.
const LOG: usize = 40;
/// Numbers of the first Service's backends begin here.
const FIRST_BACKEND: u32 = 1_000;
/// Class of the addresses that may reach an isolated pod.
const FRIENDS: ClassId = ClassId { id: 40 };
/// Policy sets of the second pod, and of the first one.
const SETS: [PolicySetId; 2] = [PolicySetId { id: 41 }, PolicySetId { id: 42 }];

/// Where a packet begins its way: behind the link with this number, or at the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Pod(usize),
    Wire,
}

/// Which pods are isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    /// No address reaches the first pod.
    pub(super) a_isolated: bool,
    /// Only the first pod reaches the second one.
    pub(super) b_isolated: bool,
}

pub(super) struct Cast {
    pub(super) wire: Wire,
    policies: Policies,
    pub(super) net: Net,
    /// The attacker's pod.
    pub(super) evil: IpAddr,
    pub(super) rules: Rules,
    /// Numbers of the first Service, by protocol.
    services: BTreeMap<u8, ServiceId>,
    next_backend: u32,
    /// Backends of the first Service, by protocol: number, and where it is.
    pub(super) backends: BTreeMap<u8, Vec<(BackendId, SocketAddr)>>,
    pub(super) log: Vec<String>,
    pub(super) packets: u64,
    pub(super) seen: BTreeMap<&'static str, u64>,
}

impl Cast {
    pub(super) fn new(net: Net) -> Self {
        let (mut wire, mut policies) = attack::wire_with_pods("model", &net);
        let evil = if net.family.is_v6() { "fd00:10:244:1::66" } else { "10.244.1.66" }.parse().unwrap();
        policies.pod(&wire.world, 2, evil, 0);
        policies.wanted.ip_class.insert(net.client.into(), FRIENDS);
        let key =
            VerdictKey { set: SETS[0], direction: direction::INGRESS, class: FRIENDS, ports: OTHER_PORTS };
        policies.wanted.verdicts.insert(key, Allow::default());
        policies.apply(&mut wire.world);
        for proto in PROTOS {
            wire.world.service(at(net.service, 80), proto, &[at(net.local, 8080)]);
            wire.world.service(at(net.service2, 80), proto, &[at(net.remote, 8080)]);
        }
        let found = wire.world.frontends().into_iter();
        let first = found.filter(|(key, _)| (key.addr, key.port) == (net.service.into(), 80));
        let services = first.map(|(key, frontend)| (key.proto, frontend.service)).collect();
        Self {
            services,
            next_backend: FIRST_BACKEND,
            wire,
            policies,
            net,
            evil,
            rules: Rules::default(),
            backends: BTreeMap::new(),
            log: Vec::new(),
            packets: 0,
            seen: BTreeMap::new(),
        }
    }

    /// The node as at the beginning of a sequence.
    pub(super) fn reset(&mut self) {
        self.log.clear();
        self.wire.world.reset_flows();
        let fragments = &mut self.wire.world.programs.fragments;
        for key in fragments.keys().collect::<Vec<_>>() {
            let _ = fragments.remove(&key.unwrap());
        }
        for id in FIRST_BACKEND..std::mem::replace(&mut self.next_backend, FIRST_BACKEND) {
            let _ = self.wire.world.programs.kernel.tables().backends.remove(&id.into());
        }
        self.set_rules(Rules::default());
        for proto in PROTOS {
            self.set_backends(proto, &[at(self.net.local, 8080)]);
        }
    }

    /// Sets the backends of the first Service; former ones stay in the map. Looks nothing up: a scan of a whole map
    /// takes long.
    pub(super) fn set_backends(&mut self, proto: u8, to: &[SocketAddr]) {
        let service = self.services[&proto];
        let world = &mut self.wire.world;
        let mut list = Vec::new();
        for (slot, to) in (0..).zip(to) {
            let (id, is_here) = (BackendId { id: self.next_backend }, to.ip() == self.net.local);
            self.next_backend += 1;
            let (link, flags) = if is_here { (world.programs.links[1], backend_flags::HERE) } else { (0, 0) };
            let (addr, port) = (to.ip().into(), to.port());
            let backend = Backend { addr, ifindex: link, service, port, proto, sets: 1, flags };
            world.programs.kernel.tables().backends.insert(&id, &backend).unwrap();
            let key = SlotKey { service, slot, ..SlotKey::default() };
            world.programs.kernel.tables().slots.insert(&key, &Slot { backend: id }).unwrap();
            list.push((id, *to));
        }
        let count = list.len() as u32;
        world.frontend(at(self.net.service, 80), proto, Frontend { service, count, ..Frontend::default() });
        self.backends.insert(proto, list);
        world.raise_epoch();
    }

    pub(super) fn set_rules(&mut self, rules: Rules) {
        if self.rules == rules {
            return;
        }
        self.rules = rules;
        let links = self.wire.world.programs.links;
        let pods =
            [(self.net.local, links[1], rules.b_isolated), (self.net.client, links[0], rules.a_isolated)];
        for ((ip, link, is_isolated), set) in pods.into_iter().zip(SETS) {
            let flags = policy_flags::POD | if is_isolated { policy_flags::ISOLATED_IN } else { 0 };
            let policy = Policy { set, flags, ..Policy::default() };
            self.policies.wanted.endpoints.get_mut(&ip.into()).unwrap().policy = policy;
            self.policies.wanted.link_policy.insert(link, flags);
        }
        self.policies.apply(&mut self.wire.world);
    }

    /// Whether the rules let a connection begin.
    pub(super) fn allows(&self, from: IpAddr, to: IpAddr) -> bool {
        let net = &self.net;
        let is_denied = (to == net.local && self.rules.b_isolated && from != net.client)
            || (to == net.client && self.rules.a_isolated);
        !is_denied
    }

    /// The link of a pod of this node.
    pub(super) fn pod(&self, ip: IpAddr) -> Option<usize> {
        [self.net.client, self.net.local, self.evil].iter().position(|pod| *pod == ip)
    }

    /// Where a host's packets begin.
    pub(super) fn place(&self, ip: IpAddr) -> Place {
        self.pod(ip).map_or(Place::Wire, Place::Pod)
    }

    /// The packet that its receiver gets. None: dropped, or left to the node's stack.
    pub(super) fn travel(&mut self, who: &str, from: Place, frame: &[u8]) -> Option<Parsed> {
        let mut way = Vec::new();
        let got = self.pass(from, frame.to_owned(), &mut way);
        let sent = Parsed::frame(frame);
        let got = got.and_then(|frame| Parsed::frame(&frame).ok());
        let ends = got.as_ref().map(|got| (got.src, got.dst));
        let sent = sent.map(|sent| (sent.src, sent.dst, sent.transport, sent.fragment));
        self.note(format!("{who} from {from:?}: {sent:?} {way:?}: {ends:?}"));
        got
    }

    /// A line for the message of a failure.
    pub(super) fn note(&mut self, line: String) {
        if self.log.len() >= LOG {
            self.log.remove(0);
        }
        self.log.push(line);
    }

    fn pass(&mut self, from: Place, frame: Vec<u8>, way: &mut Vec<Verdict>) -> Option<Vec<u8>> {
        let (hooks, link): (&[Hook], u32) = match from {
            Place::Pod(number) => (&[Hook::FromPod], self.wire.world.programs.links[number]),
            Place::Wire => (&[Hook::Xdp, Hook::FromNetdev], self.wire.uplink),
        };
        let mut frame = frame;
        for hook in hooks {
            let ran = self.run(*hook, link, link, &frame, way);
            let goes_on = matches!(
                ran.verdict,
                Verdict::ToBackend | Verdict::ToClient | Verdict::IcmpError | Verdict::Allowed
            );
            match ran.action {
                Action::Drop => return None,
                // Otherwise it is an answer to the sender.
                Action::Redirect | Action::Transmit => return goes_on.then_some(ran.packet),
                Action::Pass => frame = ran.packet,
            }
        }
        let dst = Parsed::frame(&frame).ok()?.dst.ip();
        let (hook, to) = match (self.pod(dst), from) {
            (Some(number), _) => (Hook::ToPod, self.wire.world.programs.links[number]),
            (None, Place::Pod(_)) => (Hook::ToNetdev, self.wire.uplink),
            (None, Place::Wire) => return None,
        };
        let ran = self.run(hook, to, link, &frame, way);
        (ran.action == Action::Pass).then_some(ran.packet)
    }

    fn run(
        &mut self,
        hook: Hook,
        link: u32,
        entered_by: u32,
        frame: &[u8],
        way: &mut Vec<Verdict>,
    ) -> lbr_tests::testrun::Ran {
        self.packets += 1;
        let programs = &mut self.wire.world.programs;
        // The kernel's own packet at the uplink at that moment is counted as well.
        let ran = programs.run_at(hook, link, entered_by, frame);
        let ran = ran.or_else(|_| programs.run_at(hook, link, entered_by, frame)).unwrap();
        way.push(ran.verdict);
        ran
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }
}
