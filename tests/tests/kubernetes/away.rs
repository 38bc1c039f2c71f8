//! The API server is away while the agent runs.

use std::time::Duration;

use lbr_tests::apiserver::{NETWORK_POLICY, SERVICE};

use crate::objects::{OTHER, WEB, policy, service, slice};
use crate::world::{Load, World};

const AGE: &str = "lbr_state_age_seconds";

#[test]
fn last_state_stays_and_its_age_is_reported() {
    let mut world = World::serving("ka");
    assert_eq!(world.metric(AGE), Some(0.0));
    let before = world.maps();
    let load = Load::start(&world.client, WEB);

    world.api_away();
    world.until("the age is reported", || world.metric(AGE).is_some_and(|age| age > 0.0));
    let first = world.metric(AGE).unwrap();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(500));
        assert!(world.lives());
        assert!(world.is_dropped(&world.stranger, WEB));
    }
    let second = world.metric(AGE).unwrap();
    assert!((3.0..30.0).contains(&(second - first)), "{first} s, and {second} s after more than 3 s");
    assert_eq!(world.maps(), before);
    load.stop(&world);

    world.api_back();
    world.until("the age is zero", || world.metric(AGE) == Some(0.0));
    assert!(world.lives());
    assert_eq!(world.maps(), before);
}

/// The agent gets the missed events, or lists everything again if the server has forgotten them.
#[test]
fn changes_made_while_away_are_followed() {
    let mut world = World::serving("kb");
    for is_forgotten in [false, true] {
        let when = if is_forgotten { "by lists" } else { "by events" };
        let [one, two] = &world.backends;
        world.api.put_all([slice("web", &[one]), service("other", OTHER), slice("other", &[one])]).unwrap();
        world.api.put(policy()).unwrap();
        world.until("other", || world.reaches(&world.client, OTHER));
        world.until("the policy", || world.is_dropped(&world.stranger, WEB));
        world.until("web", || world.who(WEB) == "backend-1");
        let changed = slice("web", &[two]);

        world.api_away();
        world.api.put(changed).unwrap();
        world.api.delete(&SERVICE, "default", "other");
        world.api.delete(&NETWORK_POLICY, "default", "only-shop");
        if is_forgotten {
            world.api.compact_all();
        }
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(world.who(WEB), "backend-1");
        world.api_back();
        world.until(when, || world.who(WEB) == "backend-2");
        world.until(when, || !world.reaches(&world.client, OTHER));
        world.until(when, || world.reaches(&world.stranger, WEB));
    }
}
