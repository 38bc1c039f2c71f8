use lbr_common::text::Text;

use super::*;
use crate::dataplane::WriteError;
use crate::policy::stand_in::StandIn;

fn record(object: &str, field: &str, reason: &str) -> RejectedRecord {
    let (object, field, reason) = (Text::new(object), Text::new(field), Text::new(reason));
    RejectedRecord { object, field, reason, ..RejectedRecord::default() }
}

fn records(list: &[RejectedRecord]) -> BTreeMap<u32, RejectedRecord> {
    (0..).zip(list.iter().copied()).collect()
}

fn drain(queue: &mut mpsc::Receiver<Occurrence>) -> Vec<String> {
    let next = || queue.try_recv().ok();
    std::iter::from_fn(next).map(|o| format!("{} {}: {}", o.object, o.reason, o.note)).collect()
}

#[test]
fn each_trouble_is_reported_when_it_begins() {
    let (events, mut queue, _) = Events::queue();
    let mut troubles = Troubles::new(events);
    let mut state = StandIns::new();
    let rejected = records(&[
        record("Service a/web", "spec.ports[0].protocol", "SCTP"),
        record("Service a/web", "spec.ports[1].protocol", "SCTP"),
        record("EndpointSlice a/web-1", "endpoints", "not reported: kube-proxy's users do not look there"),
        record("NetworkPolicy a/closed", "", "full, as the list for people has it"),
        record("a file that is no object", "", "x"),
    ]);
    let mut rejected = rejected;
    for (number, field) in [(10, "spec.externalIPs[0]"), (11, HEALTH_PORT)] {
        let limited = RejectedRecord { extent: extent::LIMITED, ..record("Service a/part", field, "why") };
        rejected.insert(number, limited);
    }
    let full = [Problem {
        map: "frontends",
        key: "Service a/other port http".to_owned(),
        error: WriteError::Full { map: "frontends", max_entries: 5 },
    }];
    let policy = ObjectName::new("a", "closed");
    state.insert(policy, StandIn { version: None, reason: "full".to_owned() });
    for _ in 0..3 {
        troubles.now(&rejected, &full, &state);
    }
    let reported = drain(&mut queue);
    let error = WriteError::Full { map: "frontends", max_entries: 5 };
    let expected = [
        format!("Service a/other NotInForce: port http: {error}"),
        "Service a/part FailedToStartServiceHealthcheck: spec.healthCheckNodePort: why".to_owned(),
        "Service a/part Limited: spec.externalIPs[0]: why".to_owned(),
        "Service a/web Rejected: spec.ports[0].protocol: SCTP; spec.ports[1].protocol: SCTP".to_owned(),
        "NetworkPolicy a/closed NotInForce: full".to_owned(),
    ];
    assert_eq!(reported, expected);

    // A trouble that is over and begins again is another occurrence.
    troubles.now(&records(&[]), &[], &StandIns::new());
    assert!(drain(&mut queue).is_empty());
    let rejected = records(&[record("Service a/web", "spec.ports[0].protocol", "SCTP")]);
    troubles.now(&rejected, &[], &StandIns::new());
    assert_eq!(drain(&mut queue), ["Service a/web Rejected: spec.ports[0].protocol: SCTP"]);
}

#[test]
fn what_has_no_place_is_counted_and_offered_again() {
    let (events, mut queue, _) = Events::queue();
    let mut troubles = Troubles::new(events);
    let name = |n: usize| format!("Service a/s{n:04}");
    let rejected: Vec<_> = (0..QUEUE + 10).map(|n| record(&name(n), "", "wrong")).collect();
    let rejected = records(&rejected);
    let state = StandIns::new();
    troubles.now(&rejected, &[], &state);
    assert_eq!(troubles.counts(), Counts { written: 0, dropped: 1 });
    assert_eq!(drain(&mut queue).len(), QUEUE);
    troubles.now(&rejected, &[], &state);
    assert_eq!(drain(&mut queue).len(), 10);
    troubles.now(&rejected, &[], &state);
    assert!(drain(&mut queue).is_empty());
}

#[test]
fn notes_are_as_long_as_the_api_allows() {
    let long = "ü".repeat(127);
    let list: Vec<_> = (0..9).map(|_| record("Service a/web", "", &long)).collect();
    let all = all(&records(&list), &[], &StandIns::new());
    let length = all.first().map(|o| o.note.len()).unwrap();
    assert!((NOTE - 3..=NOTE).contains(&length), "{length}");
}
