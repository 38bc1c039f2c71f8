//! Maps with eight entries: objects without room are reported, and others are not affected.

use std::collections::BTreeMap;

use lbr_agent::dataplane::{Pinned, WriteError};
use lbr_agent::desired::Desired;
use lbr_agent::reconcile::Reconciler;
use lbr_agent::table::Outcome;
use lbr_tests::scenario::Real;

use super::tables::{apply, ask, services};

const SIZE: u32 = 8;

struct World {
    real: Real,
    reconciler: Reconciler,
}

impl World {
    /// Maps with [`SIZE`] entries; the others are large enough.
    fn new(small: &[&str]) -> Self {
        let mut sizes: BTreeMap<String, u32> = ["frontends", "slots", "backends", "services", "flows"]
            .map(|name| (name.to_owned(), 1024))
            .into();
        sizes.extend(small.iter().map(|name| ((*name).to_owned(), SIZE)));
        let mut real = Real::load_sized("full", sizes).unwrap();
        let reconciler = Reconciler::load(real.kernel().unwrap()).unwrap();
        Self { real, reconciler }
    }

    fn apply(&mut self, tables: &Desired) -> Outcome {
        apply(&mut self.reconciler, tables, self.real.kernel().unwrap())
    }

    /// Like the agent: removals make room in the next round.
    fn converge(&mut self, tables: &Desired) {
        let _ = self.apply(tables);
        let outcome = self.reconciler.retry(true, self.real.kernel().unwrap());
        assert!(outcome.is_converged() && outcome.problems.is_empty(), "{outcome:?}");
        assert_eq!(Pinned::open(self.real.pins()).unwrap().tables().unwrap(), *tables);
    }
}

/// `map: entry` of each problem, all of which must be full maps.
#[track_caller]
fn problems(outcome: &Outcome) -> Vec<String> {
    let text = |problem: &lbr_agent::table::Problem| {
        let WriteError::Full { map, max_entries: SIZE } = problem.error else { panic!("{problem:?}") };
        assert_eq!(map, problem.map);
        assert!(problem.error.to_string().contains(&format!("--map-max {map}=")), "{}", problem.error);
        format!("{map}: {}", problem.place())
    };
    let mut texts: Vec<_> = outcome.problems.iter().map(text).collect();
    texts.sort();
    texts
}

/// Three Services with three backends each, for maps that hold eight.
fn third_does_not_fit(small: &[&str], expected: &[&str]) {
    let mut world = World::new(small);
    let wanted = services(&[(1, &[1, 2, 3]), (2, &[4, 5, 6]), (3, &[7, 8, 9])]);
    let outcome = world.apply(&wanted);
    assert_eq!(problems(&outcome), expected);
    assert!(!outcome.is_converged());
    assert_eq!(ask(&mut world.real, 1).len(), 3);
    assert_eq!(ask(&mut world.real, 2).len(), 3);
    assert!(ask(&mut world.real, 3)[0].starts_with("refused"), "{:?}", ask(&mut world.real, 3));
    // Reported as long as it lasts.
    assert_eq!(problems(&world.apply(&wanted)), expected);

    world.converge(&services(&[(2, &[4, 5, 6]), (3, &[7, 8, 9])]));
    assert_eq!(ask(&mut world.real, 1), ["passed not_service"]);
    assert_eq!(ask(&mut world.real, 3).len(), 3);
}

#[test]
fn no_room_for_backends() {
    third_does_not_fit(&["backends"], &["backends: Service s3 port (unnamed)"]);
}

#[test]
fn no_room_for_slots() {
    third_does_not_fit(&["slots"], &["slots: Service s3 port (unnamed)"]);
}

#[test]
fn no_room_for_either() {
    let either = ["backends: Service s3 port (unnamed)", "slots: Service s3 port (unnamed)"];
    third_does_not_fit(&["slots", "backends"], &either);
}

#[test]
fn service_that_cannot_grow_keeps_its_endpoints() {
    let mut world = World::new(&["frontends", "slots", "backends"]);
    world.converge(&services(&[(1, &[1, 2, 3]), (2, &[4, 5, 6])]));
    let before = ask(&mut world.real, 1);
    let outcome = world.apply(&services(&[(1, &[1, 2, 3, 7, 8, 9]), (2, &[4, 5, 6])]));
    let both = ["backends: Service s1 port (unnamed)", "slots: Service s1 port (unnamed)"];
    assert_eq!(problems(&outcome), both);
    assert_eq!(ask(&mut world.real, 1), before);
    assert_eq!(ask(&mut world.real, 2).len(), 3);

    world.converge(&services(&[(1, &[1, 2, 3, 7, 8, 9])]));
    assert_eq!(ask(&mut world.real, 1).len(), 6);
}

/// Each Service needs two entries: its port and its whole address. A port without its address is not in force, so it
/// must not take the room of a Service that fits.
#[test]
fn no_room_for_frontends() {
    let mut world = World::new(&["frontends"]);
    let five: Vec<(u32, &[u8])> = (1..=5).map(|service| (service, &[1, 2][..])).collect();
    let outcome = world.apply(&services(&five));
    assert_eq!(problems(&outcome), ["frontends: 10.96.0.5", "frontends: Service s5 port (unnamed)"]);
    for service in 1..=4 {
        assert_eq!(ask(&mut world.real, service).len(), 2, "{:?}", ask(&mut world.real, service));
    }
    assert_eq!(ask(&mut world.real, 5), ["passed not_service"]);

    world.converge(&services(&five[1..]));
    assert_eq!(ask(&mut world.real, 5).len(), 2);
}

#[test]
fn full_names_map_keeps_no_service_out_of_force() {
    let mut world = World::new(&["services"]);
    let ten: Vec<(u32, &[u8])> = (1..=10).map(|service| (service, &[1, 2][..])).collect();
    let outcome = world.apply(&services(&ten));
    assert_eq!(problems(&outcome), ["services: 10", "services: 9"]);
    for service in 1..=10 {
        assert_eq!(ask(&mut world.real, service).len(), 2);
    }
    world.converge(&services(&ten[2..]));
}
