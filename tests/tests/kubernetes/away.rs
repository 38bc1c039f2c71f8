//! The API server is away while the agent runs.

use std::time::Duration;

use lbr_tests::apiserver::{NETWORK_POLICY, SERVICE};

use crate::objects::{OTHER, WEB, service, slice};
use crate::world::{Load, World};

const AGE: &str = "lbr_state_age_seconds";

#[test]
fn the_last_state_stays_and_its_age_is_told() {
    let mut world = World::serving("ka");
    world.api.put_all([service("other", OTHER), slice("other", &[&world.backends[0]])]).unwrap();
    world.until("other", || world.reaches(&world.client, OTHER));
    assert_eq!(world.metric(AGE), Some(0.0));
    let before = world.maps();
    let load = Load::start(&world.client, WEB);

    world.api_away();
    world.until("the age is told", || world.metric(AGE).is_some_and(|age| age > 0.0));
    let first = world.metric(AGE).unwrap();
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(500));
        assert!(world.lives());
        assert!(world.is_dropped(&world.stranger, WEB));
    }
    let second = world.metric(AGE).unwrap();
    assert!((3.0..30.0).contains(&(second - first)), "{first} s, and {second} s after more than 3 s");
    assert_eq!(world.maps(), before);
    load.stop();

    // While it is away: one changed, one gone, and no policy any more.
    world.api.put(slice("web", &[&world.backends[1]])).unwrap();
    world.api.delete(&SERVICE, "default", "other");
    world.api.delete(&NETWORK_POLICY, "default", "only-shop");
    assert_eq!(world.who(WEB), "backend-1");
    world.api_back();
    world.until("the changed slice", || world.who(WEB) == "backend-2");
    world.until("the Service that is gone", || !world.reaches(&world.client, OTHER));
    world.until("the policy that is gone", || world.reaches(&world.stranger, WEB));
    world.until("all is well", || world.metric(AGE) == Some(0.0));
    assert!(world.lives());

    // And it goes on to follow.
    world.api.put(slice("web", &[&world.backends[0]])).unwrap();
    world.until("another change", || world.who(WEB) == "backend-1");
}
