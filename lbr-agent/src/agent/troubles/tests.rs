use tokio::sync::mpsc;

use super::*;
use crate::dataplane::WriteError;
use crate::events::QUEUE;
use crate::model::ObjectName;
use crate::policy::stand_in::StandIn;

fn object(kind: Kind, name: &str) -> ObjectRef {
    kind.named(&ObjectName::new("a", name))
}

fn whole(object: impl Into<Item>, field: &str, reason: &str) -> Rejected {
    let (origin, field, reason) = (String::new(), field.to_owned(), reason.to_owned());
    Rejected { extent: Extent::Rejected, object: object.into(), origin, field, reason }
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
    let web = || object(Kind::Service, "web");
    let part = |field: &str| Rejected::limited(object(Kind::Service, "part"), field, "why");
    let rejected = [
        whole(web(), "spec.ports[0].protocol", "SCTP"),
        whole(web(), "spec.ports[1].protocol", "SCTP"),
        whole(object(Kind::EndpointSlice, "web-1"), "endpoints", "not reported: people do not look there"),
        whole(object(Kind::NetworkPolicy, "closed"), "", "full, as the list for people has it"),
        whole(Item::Text("a file that is no object".to_owned()), "", "x"),
        part("spec.externalIPs[0]"),
        part(HEALTH_PORT),
    ];
    let error = || WriteError::Full { map: "frontends", max_entries: 5 };
    let full = [
        Problem {
            map: "frontends",
            object: Some(object(Kind::Service, "other")),
            key: "port http".to_owned(),
            error: error(),
        },
        // It is about no object.
        Problem::new("frontends", "10.96.0.5".to_owned(), error()),
    ];
    let policy = ObjectName::new("a", "closed");
    state.insert(policy, StandIn { version: None, reason: "full".to_owned() });
    for _ in 0..3 {
        troubles.now(&rejected, &full, &state);
    }
    let reported = drain(&mut queue);
    let expected = [
        format!("Service a/other NotInForce: port http: {}", error()),
        "Service a/part FailedToStartServiceHealthcheck: spec.healthCheckNodePort: why".to_owned(),
        "Service a/part Limited: spec.externalIPs[0]: why".to_owned(),
        "Service a/web Rejected: spec.ports[0].protocol: SCTP; spec.ports[1].protocol: SCTP".to_owned(),
        "NetworkPolicy a/closed NotInForce: full".to_owned(),
    ];
    assert_eq!(reported, expected);

    // A trouble that is over and begins again is another occurrence.
    troubles.now(&[], &[], &StandIns::new());
    assert!(drain(&mut queue).is_empty());
    let rejected = [whole(web(), "spec.ports[0].protocol", "SCTP")];
    troubles.now(&rejected, &[], &StandIns::new());
    assert_eq!(drain(&mut queue), ["Service a/web Rejected: spec.ports[0].protocol: SCTP"]);
}

#[test]
fn what_has_no_place_is_counted_and_offered_again() {
    let (events, mut queue, _) = Events::queue();
    let mut troubles = Troubles::new(events);
    let service = |n: usize| object(Kind::Service, &format!("s{n:04}"));
    let rejected: Vec<_> = (0..QUEUE + 10).map(|n| whole(service(n), "", "wrong")).collect();
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
    let list: Vec<_> = (0..9).map(|_| whole(object(Kind::Service, "web"), "", &long)).collect();
    let all = all(&list, &[], &StandIns::new());
    let length = all.first().map(|o| o.note.len()).unwrap();
    assert!((NOTE - 3..=NOTE).contains(&length), "{length}");
}
