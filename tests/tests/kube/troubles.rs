//! Faults of an API server, one by one, for a server that streams lists and for one that does not.

use std::time::Duration;

use lbr_tests::apiserver::{
    End, Fault, Order, POD, SERVICE, SERVICE_CIDR, Server, StreamingLists, Verb, When,
};

use super::reader::{Reader, churn, populated, service};

type Step = fn(&mut Server);

/// Changes are made while the client starts, during the fault, and afterwards.
fn survives(lists: StreamingLists, before: Step, during: Step) {
    let mut server = populated();
    server.streaming_lists(lists);
    before(&mut server);
    let reader = Reader::start(&server);
    churn(&server, 1);
    reader.follows(&server, "at first");
    churn(&server, 2);
    during(&mut server);
    reader.follows(&server, "then");
    for n in 3..6 {
        churn(&server, n);
    }
    reader.follows(&server, "at last");
    reader.wait("silence", |_| reader.contact.silent_for() == Duration::ZERO);
}

/// Stops the server, makes a change, and starts it again.
fn while_away(server: &mut Server, what: impl FnOnce(&mut Server)) {
    server.stop();
    std::thread::sleep(Duration::from_millis(50));
    what(server);
    server.resume().unwrap();
}

macro_rules! troubles {
    ($($name:ident: $before:expr, $during:expr;)*) => {
        mod streamed {
            use super::*;
            $(#[test]
            fn $name() {
                survives(StreamingLists::Served, $before, $during);
            })*
        }

        mod listed {
            use super::*;
            $(#[test]
            fn $name() {
                survives(StreamingLists::Refused, $before, $during);
            })*
        }
    };
}

troubles! {
    nothing: |_| {}, |_| {};
    lists_refused_with_500: |s| s.fault(3, When::verb(Verb::List), Fault::Refuse(500, None)), |_| {};
    everything_refused_with_503: |s| s.fault(9, When::default(), Fault::Refuse(503, None)), |_| {};
    too_many_requests: |s| s.fault(4, When::default(), Fault::Refuse(429, Some(1))), |_| {};
    services_too_many_requests: |s| s.fault(2, When::kind(&SERVICE), Fault::Refuse(429, Some(1))), |_| {};
    not_authorized_for_a_while: |s| s.fault(5, When::default(), Fault::Refuse(401, None)), |_| {};
    forbidden_for_a_while: |s| s.fault(5, When::kind(&POD), Fault::Refuse(403, None)), |_| {};
    watches_refused: |s| s.fault(6, When::verb(Verb::Watch), Fault::Refuse(503, None)), |_| {};
    watches_refused_as_expired: |s| s.fault(4, When::verb(Verb::Watch), Fault::Refuse(410, None)),
        |s| { s.fault(3, When::verb(Verb::Watch), Fault::Refuse(410, None)); s.end_watches(End::Clean); };
    lists_refused_as_expired: |s| s.fault(2, When::verb(Verb::List), Fault::Refuse(410, None)), |_| {};
    answers_that_never_come: |s| s.fault(3, When::default(), Fault::Hang), |_| {};
    answers_that_come_late: |s| s.fault(7, When::default(), Fault::Delay(Duration::from_millis(100))), |_| {};
    lists_cut_in_the_middle: |s| s.fault(3, When::verb(Verb::List), Fault::Cut(1)), |_| {};
    watches_cut_in_the_middle: |s| s.fault(4, When::verb(Verb::Watch), Fault::Cut(2)), |s| churn(s, 8);
    lists_that_are_no_json: |s| s.fault(2, When::verb(Verb::List), Fault::Malformed(1)), |_| {};
    watches_end: |_| {}, |s| s.end_watches(End::Clean);
    watches_break: |_| {}, |s| s.end_watches(End::Broken);
    watches_expire: |_| {}, |s| s.end_watches(End::Expired);
    expiry_by_status: |s| s.expired_by_status(true), |s| while_away(s, |s| { churn(s, 9); s.compact_all(); });
    stopped_and_started: |_| {}, |s| while_away(s, |s| churn(s, 9));
    compacted_while_away: |_| {}, |s| while_away(s, |s| { s.delete(&SERVICE, "default", "s5"); s.compact_all(); });
    another_history_with_lower_versions: |_| {}, |s| while_away(s, |s| {
        s.other_history(3, [service("s1", "10.7.0.1"), service("only", "10.7.0.2")]).unwrap();
    });
    another_history_that_refuses_the_future: |s| s.refuse_future(true), |s| while_away(s, |s| {
        s.other_history(3, [service("s2", "10.7.0.1")]).unwrap();
    });
    another_history_with_higher_versions: |_| {}, |s| while_away(s, |s| {
        s.other_history(1_000_000, [service("s3", "10.7.0.1")]).unwrap();
    });
    everything_is_gone: |_| {}, |s| while_away(s, |s| { s.other_history(1_000_000, []).unwrap(); });
    events_come_twice: |s| s.send_twice(&SERVICE, true), |s| s.send_twice(&POD, true);
    events_of_objects_come_in_another_order: |_| {}, |s| {
        s.hold(&SERVICE);
        churn(s, 10);
        s.release(&SERVICE, Order::ObjectsReversed);
    };
    bookmarks_all_the_time: |s| s.bookmarks_every(Duration::from_millis(5)), |s| { s.bookmark(&SERVICE); };
    events_come_late: |s| s.delay_events(&SERVICE, Duration::from_millis(30)), |_| {};
    no_servicecidrs: |s| {
        let names: Vec<_> = s.list(&SERVICE_CIDR).iter().map(|o| o["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        names.iter().for_each(|name| { s.delete(&SERVICE_CIDR, "", name); });
        s.serve(&SERVICE_CIDR, false);
    }, |_| {};
}
