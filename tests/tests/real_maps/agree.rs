//! The look-ups in user space and in the program, on random tables, including those that no agent writes: both must
//! choose the same backend, and give the same verdict where there is none.

use std::collections::BTreeMap;

use lbr_agent::dataplane::{Dataplane, Table};
use lbr_agent::desired::Desired;
use lbr_agent::service::look_up::{Sender, resolve};
use lbr_common::addr::{Addr, Family};
use lbr_common::id::BackendId;
use lbr_common::maglev::{MaglevKey, MaglevPart, PART, PARTS};
use lbr_common::select::Seeds;
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;
use lbr_tests::scenario::Real;

use super::restart::state;

const TABLES: u64 = 500;
const TUPLES: usize = 60;

const PORTS: [u16; 4] = [80, 81, 53, 0];
const PROTOS: [u8; 2] = [proto::TCP, proto::UDP];

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(n)) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u32) as usize]
    }

    /// One of a few hosts of a network, so that tuples and tables meet.
    fn addr(&mut self, net: u8, family: Family) -> Addr {
        let host = 1 + self.below(4) as u8;
        let v6 = [0xfd, 0, 0, 0, 0, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, host];
        match family {
            Family::V4 => Addr::v4([10, net, 0, host]),
            Family::V6 => Addr::v6(v6),
        }
    }

    fn tables(&mut self) -> Desired {
        let mut tables = Desired::default();
        for service in 1..=1 + self.below(5) {
            let family = if self.one_in(3) { Family::V6 } else { Family::V4 };
            let proto = self.pick(&PROTOS);
            let key = FrontendKey { port: self.pick(&PORTS[..3]), proto, ..FrontendKey::default() };
            let count = self.below(7);
            let flags = if self.one_in(4) { frontend_flags::LOCAL_ONLY } else { 0 };
            for _ in 0..1 + self.below(2) {
                let key = FrontendKey { addr: self.addr(96, family), ..key };
                tables
                    .frontends
                    .insert(key, Frontend { service: service.into(), count, flags, ..Frontend::default() });
                // The agent writes the whole address last, so packets may come before it.
                if !self.one_in(8) {
                    let whole = FrontendKey { port: 0, proto: 0, ..key };
                    let flags = frontend_flags::WILDCARD;
                    tables.frontends.insert(whole, Frontend { flags, ..Frontend::default() });
                }
            }
            for slot in 0..count + self.below(2) {
                let id = service * 100 + slot;
                let (addr, port) = (self.addr(244, family), 8080 + self.below(3) as u16);
                if !self.one_in(12) {
                    tables.slots.insert(
                        SlotKey { service: service.into(), slot, ..SlotKey::default() },
                        Slot { backend: id.into() },
                    );
                }
                if !self.one_in(12) {
                    let backend =
                        Backend { addr, service: service.into(), port, proto, sets: 1, ..Backend::default() };
                    tables.backends.insert(id.into(), backend);
                }
            }
        }
        tables
    }

    fn tuple(&mut self, tables: &Desired) -> Tuple {
        let known: Vec<_> = tables.frontends.keys().collect();
        let mut to = *self.pick(&known);
        if self.one_in(4) {
            to.port = self.pick(&PORTS);
        }
        if self.one_in(4) || to.proto == 0 {
            to.proto = self.pick(&[proto::TCP, proto::UDP, proto::SCTP]);
        }
        if self.one_in(6) {
            to.addr = self.addr(96, to.addr.family());
        }
        let src = self.addr(244, to.addr.family());
        let src_port = 1024 + self.below(60_000) as u16;
        Tuple { src, dst: to.addr, src_port, dst_port: to.port, proto: to.proto, _pad: [0; 3] }
    }
}

/// A connection to the Service in `restart.rs`.
pub(crate) fn tuple_to_service_1(src_port: u16) -> Tuple {
    let (src, dst) = (Addr::v4([10, 244, 9, 9]), super::tables::address(1).addr);
    Tuple { src, dst, src_port, dst_port: 80, proto: proto::TCP, _pad: [0; 3] }
}

fn set<K: Copy + Ord, V>(table: &mut dyn Table<K, V>, wanted: &BTreeMap<K, V>) {
    for (key, _) in table.entries().unwrap() {
        table.remove(&key).unwrap();
    }
    for (key, value) in wanted {
        table.insert(key, value).unwrap();
    }
}

#[test]
fn user_space_and_the_program_choose_the_same() {
    let mut real = Real::load("agree").unwrap();
    let state = state(real.pins()).get(&0, 0).unwrap();
    let seeds = Seeds { flow: state.seed, maglev: state.maglev_seed };
    assert_ne!(seeds.flow, 0, "not a secret");
    let mut random = Random(1);
    let mut seen: BTreeMap<Verdict, usize> = BTreeMap::new();
    for _ in 0..TABLES {
        let tables = random.tables();
        let kernel = real.kernel().unwrap();
        set(kernel.tables().frontends, &tables.frontends);
        set(kernel.tables().slots, &tables.slots);
        set(kernel.tables().backends, &tables.backends);
        for _ in 0..TUPLES {
            let tuple = random.tuple(&tables);
            let by_kernel = real.ask(&tuple).unwrap_or_else(|e| panic!("{e:#}: {tuple:?}, {tables:#?}"));
            let here = resolve(&tables, &tuple, Sender::Pod, seeds);
            assert_eq!(here, by_kernel, "{tuple:?}, {tables:#?}");
            *seen.entry(here.verdict).or_default() += 1;
        }
    }
    assert_eq!(seen.values().sum::<usize>(), TABLES as usize * TUPLES);
    let rare = [
        Verdict::ToBackend,
        Verdict::NotService,
        Verdict::NoSuchPort,
        Verdict::NoEndpoint,
        Verdict::NoLocalEndpoint,
        Verdict::BackendMissing,
    ];
    let rare = rare.map(|verdict| seen.get(&verdict).copied().unwrap_or(0));
    assert!(rare.iter().all(|&times| times >= 100), "a verdict is too rare: {seen:?}");
}

/// The same with a Maglev table that lacks some parts, and has backends that are gone.
#[test]
fn user_space_and_the_program_choose_the_same_by_table() {
    let mut real = Real::load("table").unwrap();
    let state = state(real.pins()).get(&0, 0).unwrap();
    let seeds = Seeds { flow: state.seed, maglev: state.maglev_seed };
    let mut random = Random(2);
    let mut tables = random.tables();
    while tables.frontends.values().all(|frontend| frontend.count < 3) {
        tables = random.tables();
    }
    for frontend in tables.frontends.values_mut().filter(|frontend| frontend.count > 0) {
        frontend.maglev = frontend.service.id.into();
        for part in 0..PARTS {
            if random.one_in(8) {
                continue;
            }
            let key = MaglevKey { table: frontend.maglev, part };
            let mut backend = |_| BackendId { id: frontend.service.id * 100 + random.below(frontend.count) };
            let backends: Vec<_> = (0..PART).map(&mut backend).collect();
            tables.maglev.insert(key, MaglevPart::new(&backends));
        }
    }
    let kernel = real.kernel().unwrap();
    set(kernel.tables().frontends, &tables.frontends);
    set(kernel.tables().slots, &tables.slots);
    set(kernel.tables().backends, &tables.backends);
    set(kernel.tables().maglev, &tables.maglev);
    let mut reached = 0;
    for _ in 0..2_000 {
        let tuple = random.tuple(&tables);
        let here = resolve(&tables, &tuple, Sender::Pod, seeds);
        assert_eq!(here, real.ask(&tuple).unwrap(), "{tuple:?}");
        reached += usize::from(here.verdict == Verdict::ToBackend);
    }
    assert!(reached >= 100, "{reached} of 2,000 reached a backend");
}
