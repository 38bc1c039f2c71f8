//! Short random histories of a cluster: after the last event, the tables that the engine compiled step by step are those
//! that a compile from scratch makes. A history that fails is made small and printed as manifests.
#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use lbr_agent::cluster::Change;
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::desired::Desired;
use lbr_agent::engine::Engine;
use lbr_agent::model::{ALGORITHM, Kind, Object};
use lbr_agent::node::NodeView;
use lbr_tests::oracle::Case;
use lbr_tests::scenario::text;
use serde_json::Value;

const HISTORIES: u64 = 100_000;
/// Clusters whose objects the histories mix. They have few names and addresses.
const CLUSTERS: u64 = 60;
/// Events after the first cluster is there.
const EVENTS: u64 = 8;
/// Interface index of the uplink.
const UPLINK: u32 = 900;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

/// What histories are made of.
struct Pool {
    clusters: Vec<Vec<(Value, Object)>>,
    nodes: Vec<NodeView>,
}

impl Pool {
    fn new() -> Self {
        let mut pool = Self { clusters: Vec::new(), nodes: Vec::new() };
        for seed in 0..CLUSTERS {
            let mut case = Case::with_services(seed, UPLINK);
            // Maglev's tables are large.
            let keeps = |object: &Value| object["metadata"]["annotations"][ALGORITHM].is_null();
            case.objects.retain(|object| seed % 12 == 0 || keeps(object));
            let converted = case.converted().unwrap_or_else(|e| panic!("{e:#}"));
            pool.clusters.push(case.objects.into_iter().zip(converted).collect());
            pool.nodes.push(case.node);
        }
        pool
    }
}

#[derive(Clone, Copy)]
enum Event<'a> {
    Apply(&'a Value, &'a Object),
    Delete(&'a Object),
    Node(&'a NodeView),
    Compile,
    /// Some writes fail.
    Write,
    /// A new agent on the same maps gets all objects.
    Restart,
}

fn history<'a>(seed: u64, pool: &'a Pool) -> Vec<Event<'a>> {
    let mut random = Random(seed);
    let first = random.below(CLUSTERS) as usize;
    let mut events = vec![Event::Node(&pool.nodes[first])];
    events.extend(pool.clusters[first].iter().map(|(value, object)| Event::Apply(value, object)));
    events.push(Event::Compile);
    // Objects of other clusters have the same names, so that they change what is there.
    for _ in 0..=random.below(EVENTS) {
        let cluster = random.below(CLUSTERS) as usize;
        let (value, object) = random.of(&pool.clusters[cluster]);
        events.push(match random.below(16) {
            0 => Event::Node(random.of(&pool.nodes)),
            1 => Event::Write,
            2 => Event::Restart,
            3..7 => Event::Delete(object),
            _ => Event::Apply(value, object),
        });
        if random.below(3) > 0 {
            events.push(Event::Compile);
        }
    }
    events
}

/// Plays a history. The error names the tables that differ after the last event.
fn play(events: &[Event<'_>]) -> Result<(), String> {
    let mut fake = Fake::new(1).with_faults(0);
    fake.set_checked(false);
    let mut engine = start(NodeView::default(), &mut fake);
    for event in events {
        match event {
            Event::Apply(_, object) => _ = engine.take(Change::Apply((*object).clone())),
            Event::Delete(object) => _ = engine.take(Change::Delete(object.reference())),
            Event::Node(node) => drop(engine.set_node(|view| *view = (*node).clone(), &mut fake)),
            Event::Compile => _ = engine.compile(&mut fake),
            Event::Write => {
                fake.set_faults(20);
                engine.compile(&mut fake);
                engine.write(&mut fake);
                fake.set_faults(0);
            }
            Event::Restart => {
                let objects = objects(&engine);
                engine = start(engine.node().clone(), &mut fake);
                for object in objects {
                    engine.take(Change::Apply(object));
                }
            }
        }
    }
    engine.compile(&mut fake);
    let (made, expected) = (engine.desired(), engine.from_scratch());
    if made == expected { Ok(()) } else { Err(difference(&made, &expected)) }
}

fn start(node: NodeView, fake: &mut Fake) -> Engine {
    let mut engine = Engine::start(node, fake).unwrap_or_else(|e| panic!("{e:#}"));
    for kind in Kind::ALL {
        engine.take(Change::Synced(kind));
    }
    engine
}

fn objects(engine: &Engine) -> Vec<Object> {
    let state = engine.state().clone();
    let mut objects: Vec<Object> = state.pods.into_values().map(Object::Pod).collect();
    objects.extend(state.namespaces.into_values().map(Object::Namespace));
    objects.extend(state.nodes.into_values().map(Object::Node));
    objects.extend(state.policies.into_values().map(Arc::unwrap_or_clone).map(Object::NetworkPolicy));
    objects.extend(state.service_cidrs.into_values().map(Object::ServiceCidr));
    objects.extend(state.slices.into_values().map(Object::EndpointSlice));
    objects.extend(state.services.into_values().map(Object::Service));
    objects
}

/// The tables in which two differ, or their lines for people.
fn difference(made: &Desired, expected: &Desired) -> String {
    macro_rules! differing {
        ($($table:ident)*) => {
            [$((stringify!($table), made.$table != expected.$table)),*]
        };
    }
    let tables = differing!(
        frontends slots backends maglev services source_ranges peers service_cidrs links uplinks endpoints link_policy
        ip_class cidr_class classes port_class verdicts set_members policies rules pod_names rejected health_ports
    );
    let tables: Vec<&str> = tables.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    let (made, expected) = (text::tables(made), text::tables(expected));
    let lines = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>();
    format!("{tables:?} differ: {:?}, and not {:?}", lines(&made, &expected), lines(&expected, &made))
}

/// Leaves out events as long as the history still fails.
fn shrink<'a>(events: &[Event<'a>]) -> Vec<Event<'a>> {
    let mut small = events.to_vec();
    loop {
        let before = small.len();
        for index in (0..before).rev() {
            let mut without = small.clone();
            without.remove(index);
            if play(&without).is_err() {
                small = without;
            }
        }
        if small.len() == before {
            return small;
        }
    }
}

fn yaml(events: &[Event<'_>]) -> String {
    let mut yaml = String::new();
    for event in events {
        // Writing to a string does not fail.
        let _ = match event {
            Event::Apply(value, _) => match serde_saphyr::to_string(value) {
                Ok(text) => write!(yaml, "---\n{text}"),
                Err(error) => writeln!(yaml, "# {error}: {value}"),
            },
            Event::Delete(object) => writeln!(yaml, "# delete {}", object.reference()),
            Event::Node(node) => writeln!(yaml, "# links {:?}", node.links),
            Event::Compile => writeln!(yaml, "# compile"),
            Event::Write => writeln!(yaml, "# write, with failures"),
            Event::Restart => writeln!(yaml, "# restart"),
        };
    }
    yaml
}

#[test]
fn a_history_ends_as_if_all_of_it_had_come_at_once() {
    let pool = Pool::new();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let failed = |first: u64| {
        let mut seeds = (first..HISTORIES).step_by(threads as usize);
        seeds.find_map(|seed| Some((seed, play(&history(seed, &pool)).err()?)))
    };
    let first = std::thread::scope(|scope| {
        let started: Vec<_> = (0..threads).map(|first| scope.spawn(move || failed(first))).collect();
        started.into_iter().filter_map(|thread| thread.join().ok().flatten()).min_by_key(|(seed, _)| *seed)
    });
    if let Some((seed, what)) = first {
        let small = shrink(&history(seed, &pool));
        let what = play(&small).err().unwrap_or(what);
        panic!("history {seed}: {what}\n{}", yaml(&small));
    }
}
