//! Faults that tests inject into requests.

use std::time::{Duration, Instant};

use lbr_tests::apiserver::{Fault, POD, SERVICE, Server, Verb, When};

use crate::fixtures::{SERVICES, service};
use crate::raw::{get, post};

#[test]
fn so_many_requests_are_refused() {
    let mut server = Server::start().unwrap();
    server.fault(2, When::is(Verb::List, &SERVICE), Fault::Refuse(503, None));
    server.fault(1, When::verb(Verb::Create), Fault::Refuse(429, Some(7)));
    assert_eq!(get(&server, "/api/v1/pods").code, 200, "another kind");
    assert_eq!(get(&server, "/api/v1/services").code, 503);
    let refused = post(&server, SERVICES, &service("a", "10.0.0.1"));
    assert_eq!((refused.code, refused.header("retry-after")), (429, Some("7")));
    assert_eq!(refused.json()["details"]["retryAfterSeconds"], 7);
    assert_eq!(server.get(&SERVICE, "default", "a"), None, "nothing was done");
    assert_eq!(get(&server, SERVICES).code, 503);
    assert_eq!(server.faults_left(), 0);
    assert_eq!(get(&server, SERVICES).code, 200);
    server.fault(9, When::default(), Fault::Refuse(500, None));
    assert_eq!(get(&server, "/version").code, 500);
    server.clear_faults();
    assert_eq!(get(&server, "/version").code, 200);
    let codes: Vec<_> = server.requests().iter().map(|request| request.code.unwrap()).collect();
    assert_eq!(codes, [200, 503, 429, 503, 200, 500, 200]);
    server.stop();
}

#[test]
fn requests_are_counted_and_kept() {
    let server = Server::start().unwrap();
    get(&server, "/api/v1/services?limit=3&labelSelector=a%3Db");
    get(&server, "/api/v1/secrets");
    post(&server, SERVICES, &service("a", "10.0.0.1"));
    let requests = server.requests();
    assert_eq!(requests[0].path, "/api/v1/services?limit=3&labelSelector=a%3Db");
    assert_eq!((requests[0].verb, requests[0].kind), (Verb::List, Some(&SERVICE)));
    assert_eq!((requests[1].verb, requests[1].kind, requests[1].code), (Verb::Other, None, Some(404)));
    assert_eq!((requests[2].verb, requests[2].method.as_str()), (Verb::Create, "POST"));
    assert_eq!((server.count(Verb::List, &SERVICE), server.count(Verb::List, &POD)), (1, 0));
    server.clear_requests();
    assert_eq!(server.requests(), []);
}

#[test]
fn a_list_is_cut_in_the_middle_of_an_item() {
    let server = Server::start().unwrap();
    server.put_all(["a", "b", "c"].map(|name| service(name, "10.0.0.1"))).unwrap();
    server.fault(1, When::verb(Verb::List), Fault::Cut(1));
    let cut = get(&server, "/api/v1/services");
    assert_eq!((cut.code, cut.whole), (200, false));
    assert!(
        cut.text().contains("\"name\":\"a\"") && !cut.text().contains("\"name\":\"c\""),
        "{}",
        cut.text()
    );
    assert!(get(&server, "/api/v1/services").whole);
    server.fault(1, When::verb(Verb::Get), Fault::Cut(0));
    assert!(!get(&server, &format!("{SERVICES}/a")).whole);
}

#[test]
fn an_item_is_no_json() {
    let server = Server::start().unwrap();
    server.put_all(["a", "b"].map(|name| service(name, "10.0.0.1"))).unwrap();
    server.fault(1, When::verb(Verb::List), Fault::Malformed(1));
    let bad = get(&server, "/api/v1/services");
    assert!(bad.whole && serde_json::from_slice::<serde_json::Value>(&bad.body).is_err(), "{}", bad.text());
}

#[test]
fn an_answer_hangs_or_is_late() {
    let mut server = Server::start().unwrap();
    server.fault(1, When::kind(&POD), Fault::Hang);
    server.fault(1, When::kind(&SERVICE), Fault::Delay(Duration::from_millis(200)));
    let mut hanging = std::net::TcpStream::connect(server.address()).unwrap();
    std::io::Write::write_all(&mut hanging, b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let start = Instant::now();
    assert_eq!(get(&server, "/api/v1/services").code, 200);
    assert!(start.elapsed() >= Duration::from_millis(200));
    hanging.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut byte = [0];
    assert_eq!(
        std::io::Read::read(&mut hanging, &mut byte).unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
    let hung = server.requests().into_iter().find(|request| request.kind == Some(&POD)).unwrap();
    assert_eq!(hung.code, None);
    server.stop();
    hanging.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(matches!(std::io::Read::read(&mut hanging, &mut byte), Ok(0) | Err(_)), "the server stopped");
}

#[test]
fn a_stopped_server_comes_back_on_its_port() {
    let mut server = Server::start().unwrap();
    server.put(service("a", "10.0.0.1")).unwrap();
    let mut events = crate::raw::watch(&server, "/api/v1/services?watch=true");
    assert_eq!(events.short(1), ["ADDED default/a"]);
    for _ in 0..3 {
        server.stop();
        assert!(std::net::TcpStream::connect(server.address()).is_err(), "nothing listens");
        server.resume().unwrap();
        assert_eq!(get(&server, "/api/v1/services").names(), ["default/a"]);
    }
    assert_eq!(events.short(1), ["Broken(\"\")"]);
}
