//! Facts about the kernel that the fake relies on: each test runs on both.

use std::fmt::Debug;

use aya::maps::{Array, MapData};
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::dataplane::{Concerned, Dataplane, Table, WriteError};
use lbr_common::addr::Addr;
use lbr_common::epoch::{EpochBlock, NEAR, NearEpochs, Place};
use lbr_common::id::BackendId;
use lbr_common::link::Link;
use lbr_common::maps;
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey};
use lbr_common::text::{RejectedRecord, ServiceName, Text};
use lbr_tests::scenario::Real;
use lbr_tests::testrun;

use super::restart::state;
use super::tables::{backend, frontend};

const SIZE: u32 = 4;
const MAPS: [&str; 6] = ["frontends", "slots", "backends", "services", "rejected", "links"];

fn both(test: impl Fn(&mut dyn Dataplane)) {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_checked(false);
    for map in MAPS {
        fake.set_max_entries(map, SIZE);
    }
    test(&mut fake);
    let mut real = Real::load_sized("facts", MAPS.map(|map| (map.to_owned(), SIZE)).into()).unwrap();
    real.set_links(2..10).unwrap();
    test(real.kernel().unwrap());
}

/// A test for every table, with an entry for any number, and another value for it.
trait Fact {
    fn holds<K, V>(&self, table: &mut dyn Table<K, V>, entry: impl Fn(u32) -> (K, V), other: V)
    where
        K: Copy + Ord + Debug,
        V: Copy + PartialEq + Debug;
}

fn name(n: u32) -> ServiceName {
    ServiceName { name: Text::new(&n.to_string()), ..ServiceName::default() }
}

fn rejected(n: u32) -> RejectedRecord {
    RejectedRecord { object: Text::new(&n.to_string()), ..RejectedRecord::default() }
}

fn for_all_tables(fact: &impl Fact) {
    both(|dataplane| {
        let value = |service: u32| Frontend { service: service.into(), ..Frontend::default() };
        let entry = |n| (frontend(n), value(n)) as (FrontendKey, Frontend);
        fact.holds(dataplane.tables().frontends, entry, value(99));
        let entry =
            |n: u32| (SlotKey { service: n.into(), ..SlotKey::default() }, Slot { backend: n.into() });
        fact.holds(dataplane.tables().slots, entry, Slot { backend: 99.into() });
        let entry = |n: u32| (n.into(), backend(n, 1)) as (BackendId, Backend);
        fact.holds(dataplane.tables().backends, entry, backend(99, 2));
        fact.holds(dataplane.tables().services, |n| (n.into(), name(n)), name(99));
        fact.holds(dataplane.tables().rejected, |n| (n, rejected(n)), rejected(99));
        fact.holds(
            &mut *dataplane.tables().links,
            |n| (n, Link { flags: 0, master: 0 }),
            Link { flags: 3, master: 9 },
        );
    });
}

fn sorted<K: Copy + Ord, V: Copy>(table: &dyn Table<K, V>) -> Vec<(K, V)> {
    let mut entries = table.entries().unwrap();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

#[test]
fn full_map_takes_no_entry_until_one_is_removed() {
    struct Full;
    impl Fact for Full {
        fn holds<K, V>(&self, table: &mut dyn Table<K, V>, entry: impl Fn(u32) -> (K, V), other: V)
        where
            K: Copy + Ord + Debug,
            V: Copy + PartialEq + Debug,
        {
            assert_eq!(table.max_entries(), SIZE, "{}", table.name());
            let entries: Vec<_> = (2..2 + SIZE).map(&entry).collect();
            for (key, value) in &entries {
                table.insert(key, value).unwrap();
            }
            let (key, value) = entry(9);
            match table.insert(&key, &value) {
                Err(WriteError::Full { map, max_entries: SIZE }) => assert_eq!(map, table.name()),
                result => panic!("{}: {result:?}", table.name()),
            }
            let mut expected = entries;
            expected.sort_by_key(|(key, _)| *key);
            assert_eq!(sorted(table), expected);

            // An existing entry can still be replaced, and its removal makes room.
            table.insert(&expected[0].0, &other).unwrap();
            table.remove(&expected[1].0).unwrap();
            table.insert(&key, &value).unwrap();
            assert_eq!(table.entries().unwrap().len(), SIZE as usize);
        }
    }
    for_all_tables(&Full);
}

#[test]
fn entry_is_replaced_and_missing_entry_may_be_removed() {
    struct Replaced;
    impl Fact for Replaced {
        fn holds<K, V>(&self, table: &mut dyn Table<K, V>, entry: impl Fn(u32) -> (K, V), other: V)
        where
            K: Copy + Ord + Debug,
            V: Copy + PartialEq + Debug,
        {
            let (key, value) = entry(2);
            table.remove(&key).unwrap();
            table.insert(&key, &value).unwrap();
            table.insert(&key, &other).unwrap();
            assert_eq!(table.entries().unwrap(), [(key, other)], "{}", table.name());
            for _ in 0..2 {
                table.remove(&key).unwrap();
                assert_eq!(table.entries().unwrap(), [], "{}", table.name());
            }
        }
    }
    for_all_tables(&Replaced);
}

#[test]
fn many_entries_are_written_in_their_order_until_one_does_not_fit() {
    struct Many;
    impl Fact for Many {
        fn holds<K, V>(&self, table: &mut dyn Table<K, V>, entry: impl Fn(u32) -> (K, V), other: V)
        where
            K: Copy + Ord + Debug,
            V: Copy + PartialEq + Debug,
        {
            let entries: Vec<_> = (2..9).map(&entry).collect();
            let written = table.insert_many(&entries);
            let mut expected = entries[..written].to_vec();
            expected.sort_by_key(|(key, _)| *key);
            assert_eq!(sorted(table), expected, "{}", table.name());
            // Interfaces are attached one by one, and the fake makes errors one by one.
            if written > 0 {
                assert_eq!(written, SIZE as usize, "{}", table.name());
                expected.iter_mut().for_each(|(_, value)| *value = other);
                assert_eq!(table.insert_many(&expected), expected.len());
                assert_eq!(sorted(table), expected, "{}", table.name());
            }
            assert_eq!(table.insert_many(&[]), 0);
        }
    }
    for_all_tables(&Many);
    let mut real = Real::load_sized("many", [("backends".to_owned(), 5_000)].into()).unwrap();
    let tables = real.kernel().unwrap().tables();
    let entries: Vec<_> =
        (1..=5_000).map(|n: u32| (n.into(), backend(n, 1)) as (BackendId, Backend)).collect();
    assert_eq!(tables.backends.insert_many(&entries), entries.len());
    assert_eq!(sorted(tables.backends), entries);
}

#[test]
fn an_inserted_link_is_attached_once_and_a_removed_one_detached() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut real = Real::load("links").unwrap();
    real.set_links([5, 6]).unwrap();
    let mut both = |write: &dyn Fn(&mut dyn Table<u32, Link>), expected: &[u32]| {
        write(&mut *fake.tables().links);
        assert_eq!(fake.attached(), expected.iter().copied().collect());
        write(&mut *real.kernel().unwrap().tables().links);
        real.expect_attached(expected).unwrap();
    };
    let insert = |index: u32, flags: u32| {
        move |links: &mut dyn Table<u32, Link>| links.insert(&index, &Link { flags, master: 0 }).unwrap()
    };
    let remove = |index: u32| move |links: &mut dyn Table<u32, Link>| links.remove(&index).unwrap();
    both(&insert(5, 0), &[5]);
    both(&insert(5, 3), &[5]);
    both(&insert(6, 1), &[5, 6]);
    both(&remove(5), &[6]);
    both(&remove(5), &[6]);
    both(&insert(5, 3), &[5, 6]);
    both(&remove(6), &[5]);
    both(&remove(5), &[]);
}

/// The fake's failed insertion of a link: the entry exists, and another attempt attaches it.
#[test]
fn link_that_cannot_be_attached_is_entered() {
    let mut real = Real::load("no-link").unwrap();
    let link = Link { flags: 1, master: 0 };
    let entries = |real: &mut Real| real.kernel().unwrap().tables().links.entries().unwrap();
    let error = real.kernel().unwrap().tables().links.insert(&5, &link).unwrap_err();
    assert!(matches!(error, WriteError::Io { map: "links", .. }), "{error}");
    assert_eq!(entries(&mut real), [(5, link)]);

    real.set_links([5]).unwrap();
    real.kernel().unwrap().tables().links.insert(&5, &link).unwrap();
    real.expect_attached(&[5]).unwrap();

    real.set_links([]).unwrap();
    real.kernel().unwrap().tables().links.remove(&5).unwrap();
    assert_eq!(entries(&mut real), [], "an interface that is gone");
}

#[test]
fn the_epoch_is_raised_by_one_and_nothing_else() {
    let mut real = Real::load("epoch").unwrap();
    let mut fake = Fake::new(0).with_faults(0);
    let before = state(real.pins()).get(&0, 0).unwrap();
    for n in 1..4 {
        fake.raise_epoch(&Concerned::all()).unwrap();
        assert_eq!(fake.epoch(), n);
        real.kernel().unwrap().raise_epoch(&Concerned::all()).unwrap();
        let after = state(real.pins()).get(&0, 0).unwrap();
        assert_eq!((after.abi, after.seed, after.epoch), (before.abi, before.seed, before.epoch + n));
    }
}

#[test]
fn the_cells_of_a_change_have_its_epoch_and_the_others_keep_theirs() {
    let mut real = Real::load("cells").unwrap();
    let open = |spec| testrun::open(real.pins(), spec).unwrap();
    let near: Array<MapData, NearEpochs> = open(&maps::NEAR_EPOCHS).try_into().unwrap();
    let far: Array<MapData, EpochBlock> = open(&maps::FAR_EPOCHS).try_into().unwrap();
    let read = || {
        [near.get(&0, 0).unwrap().cells.to_vec(), far.iter().flat_map(|block| block.unwrap().cells).collect()]
    };
    real.kernel().unwrap().raise_epoch(&Concerned::all()).unwrap();
    let all = state(real.pins()).get(&0, 0).unwrap().epoch;
    assert!(read().iter().flatten().all(|&cell| cell == all));
    let places = [Place::link(5), Place::service(3.into()), Place::address(&Addr::v4([10, 244, 0, 1]))];
    real.kernel().unwrap().raise_epoch(&places.into_iter().collect()).unwrap();
    let mut expected = [vec![all; NEAR + 1], vec![all; read()[1].len()]];
    for place in places {
        expected[0][usize::from(place.near())] = all + 1;
        expected[1][place.far().number() as usize] = all + 1;
    }
    assert!(read() == expected);
}
