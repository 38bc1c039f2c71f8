//! Established connections through a flood of first packets: a node, its agent, ordinary sockets, and a sender that
//! puts SYNs from random addresses onto the node's wire as fast as it can.
//!
//! Needs root. `LBR_FLOOD_SECONDS=60` floods for a minute instead of five seconds.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod converse;
mod rig;

use std::time::Duration;

use lbr_tests::bench::generate::Sent;
use lbr_tests::testrun::say;

use self::converse::Conversations;
use self::rig::{Rig, Target};

/// Connections of each of the four kinds.
const EACH: usize = 50;

fn seconds() -> Duration {
    let text = std::env::var("LBR_FLOOD_SECONDS").ok();
    Duration::from_secs(text.map_or(5, |text| text.parse().unwrap()))
}

/// 200 connections, half of them to the pod itself and half to a Service, each with a byte every 100 ms: none loses a
/// byte or is reset, while SYNs flood an isolated pod, and the NodePort that some of the connections use.
#[test]
fn established_connections_outlast_a_flood() {
    let rig = Rig::start().unwrap();
    let conversations = Conversations::open(&rig, EACH).unwrap();
    let before = rig.arrived().unwrap();
    let running = conversations.begin();
    let [denied, asked] = std::thread::scope(|scope| {
        let rig = &rig;
        let floods = [Target::Isolated, Target::NodePort]
            .map(|to| scope.spawn(move || rig.flood(to, seconds()).unwrap()));
        floods.map(|flood| flood.join().unwrap())
    });
    let exchanged = running.end().unwrap();
    let after = rig.arrived().unwrap();
    let rate = |sent: &Sent| sent.frames as f64 / sent.time.as_secs_f64();
    say(&format!(
        "{} connections, {exchanged} bytes there and back; SYNs: {:.0}/s, {} denied of {}, {} to the backend of {} \
         ({} lost at the wire)",
        EACH * 4,
        rate(&denied) + rate(&asked),
        after.denied - before.denied,
        denied.frames - denied.lost,
        after.to_backend - before.to_backend,
        asked.frames - asked.lost,
        denied.lost + asked.lost,
    ));
    // Each SYN that the wire accepted was judged.
    assert_eq!(after.denied - before.denied, denied.frames - denied.lost);
    // The packets of the connections are counted beside the SYNs.
    assert!(after.to_backend - before.to_backend >= asked.frames - asked.lost);
    for sent in [denied, asked] {
        assert!(sent.frames - sent.lost > 100_000, "{sent:?} is no flood");
    }
}
