//! C18: connections that last while policies or labels change.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Client, LongLived, Report, is_timeout};
use serde_json::{Value, json};

use crate::case::Case;
use crate::cast::crossed;
use crate::packets::{at, policies};
use crate::probe::short;
use crate::stage;
use crate::world::World;

const INTERVAL: Duration = Duration::from_millis(10);
/// A lost segment is sent again after 200 ms at the earliest; a busy machine delays it by less than that.
fn stall() -> Duration {
    lbr_tests::patience::millis(180)
}
fn awhile() -> Duration {
    lbr_tests::patience::millis(500)
}
/// Longer than a client waits for an answer.
fn for_good() -> Duration {
    lbr_tests::patience::millis(2_500)
}
const PAIRS: [(&str, &str); 4] = [("y/a", "x/a"), ("y/b", "x/a"), ("y/a", "x/c"), ("y/b", "x/c")];

/// A policy for ingress to x with these rules.
fn ingress(rules: &Value) -> Case {
    policies("ingress", &json!([{"in": "x", "podSelector": {}, "ingress": rules}]))
}

fn from_y(ports: &Value) -> Value {
    json!([{"from": [{"namespaceSelector": {"matchLabels": {"ns": "y"}}}], "ports": ports}])
}

/// From every y to x/a and x/c, both families, by address and by Service.
fn targets(world: &World) -> Result<Vec<(Client, SocketAddr)>> {
    let mut all = Vec::new();
    for (from, to) in PAIRS {
        let (from, to) = (world.actor(from)?, world.actor(to)?);
        for family in Family::ALL {
            let service = (to.service[family.index()], crossed(80)).into();
            for target in [at(to, family, 80), service] {
                all.push((Client::new(&from.ns).from_port(world.next_ident()), target));
            }
        }
    }
    Ok(all)
}

fn connect(world: &World) -> Result<Vec<(SocketAddr, LongLived)>> {
    let start = |(client, target): (Client, SocketAddr)| {
        Ok((target, LongLived::start(&client, target, INTERVAL, stall())?))
    };
    targets(world)?.into_iter().map(start).collect()
}

fn reports(connections: Vec<(SocketAddr, LongLived)>) -> Result<Vec<(SocketAddr, Report)>> {
    connections.into_iter().map(|(target, connection)| Ok((target, connection.stop()?))).collect()
}

/// Connects in the first case, then applies the others one after the other, each for this long.
fn play(world: &World, before: &Case, after: &[Case], pause: Duration) -> Result<Vec<(SocketAddr, Report)>> {
    world.apply(before)?;
    let connections = connect(world).context("while it is allowed")?;
    std::thread::sleep(short());
    for case in after {
        world.apply(case)?;
        std::thread::sleep(pause);
    }
    reports(connections)
}

fn all_went_on(reports: Vec<(SocketAddr, Report)>) -> Result<()> {
    for (target, report) in reports {
        let is_whole = report.error.is_none() && report.stalls == 0 && report.answers > 20;
        ensure!(is_whole, "{target}: {report:?}");
    }
    Ok(())
}

fn all_stopped(reports: Vec<(SocketAddr, Report)>) -> Result<()> {
    for (target, report) in reports {
        // The client gives up after two seconds; nothing resets the connection.
        let is_silent =
            report.stalls > 0 && report.error.as_deref().is_some_and(|e| e.contains("os error 11"));
        ensure!(report.answers > 0 && is_silent, "{target}: {report:?}");
    }
    Ok(())
}

fn silence() -> Case {
    ingress(&json!([]))
}

#[test]
fn c18_connection_still_allowed_goes_on() {
    let before = ingress(&from_y(&json!([{"port": 80}])));
    let after = [
        ingress(&from_y(&json!([{"port": 80, "endPort": 90}]))),
        ingress(&json!([{}])),
        policies("nothing", &json!([])),
        ingress(&from_y(&json!([]))),
    ];
    stage::with(|world| all_went_on(play(world, &before, &after, awhile())?)).unwrap();
}

#[test]
fn c18_connection_denied_stops() {
    stage::with(|world| all_stopped(play(world, &ingress(&json!([{}])), &[silence()], for_good())?)).unwrap();
}

#[test]
fn c18_first_policy_stops_a_connection() {
    let after = ingress(&from_y(&json!([{"port": 81}])));
    stage::with(|world| all_stopped(play(world, &policies("nothing", &json!([])), &[after], for_good())?))
        .unwrap();
}

#[test]
fn c18_changed_label_stops_a_connection() {
    let after = ingress(&json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]}]));
    let mut before = after.clone();
    before.namespaces.insert("y".to_owned(), json!({"metadata": {"labels": {"team": "red"}}}));
    stage::with(|world| all_stopped(play(world, &before, &[after], for_good())?)).unwrap();
}

/// Waiting data is not lost: the same connection goes on when it is allowed again.
#[test]
fn c18_allowed_again_in_time_nothing_is_lost() {
    stage::with(|world| {
        let after = [silence(), ingress(&json!([{}]))];
        let reports = play(world, &ingress(&json!([{}])), &after, awhile())?;
        for (target, report) in reports {
            ensure!(
                report.error.is_none() && report.answers > 20 && report.stalls > 0,
                "{target}: {report:?}"
            );
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

#[test]
fn c18_datagrams_stop_and_go_on() {
    stage::with(|world| {
        world.apply(&ingress(&json!([{}])))?;
        let mut sockets = Vec::new();
        for (client, target) in targets(world)? {
            let socket = client.timeout(short()).udp_socket(Family::of(target.ip()))?;
            socket.connect(target)?;
            sockets.push((socket, target));
        }
        for (case, is_allowed) in
            [(ingress(&json!([{}])), true), (silence(), false), (ingress(&from_y(&json!([]))), true)]
        {
            world.apply(&case)?;
            for (socket, target) in &sockets {
                socket.send(b"again")?;
                let answer = socket.recv(&mut [0; 64]).map_err(anyhow::Error::from);
                ensure!(answer.is_ok() == is_allowed, "{target}: {answer:?}, allowed: {is_allowed}");
                ensure!(answer.is_ok() || answer.is_err_and(|e| is_timeout(&e)), "{target}: refused");
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

/// With `--established=keep` only new connections are judged.
#[test]
fn c18_established_keep_keeps_connections() {
    let world = World::start("keep", &["--established=keep"]).unwrap();
    all_went_on(play(&world, &ingress(&json!([{}])), &[silence()], awhile()).unwrap()).unwrap();
    for (client, target) in targets(&world).unwrap() {
        let error = client.timeout(short()).tcp(target).unwrap_err();
        assert!(is_timeout(&error), "{target}: {error:#}");
    }
}
