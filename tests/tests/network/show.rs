//! The output of `lbr show` for a live scenario, and the maps after everything is deleted.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_tests::agent;
use lbr_tests::manifests::{Service, join};
use lbr_tests::probe::{Client, ask_on};
use lbr_tests::process;
use lbr_tests::topology::PodNetwork;
use serde_json::Value;

use crate::catalog::{self, ONE, WEB, simple};
use crate::world::{Check, PORT, Place, Plan, World, at, ends, patience, run, soon, until, vip};

const KINDS: [&str; 7] = ["services", "backends", "flows", "links", "uplinks", "rejected", "counters"];

const CHECKS: &[Check] = &[
    ("tables and JSON agree", tables),
    ("content", content),
    ("bad files", bad_files),
    ("what is in force but for a field", limited),
    ("what is not read", not_read),
    ("a deleted file", deleted_file),
    ("after the agent is gone", |world| {
        world.agents[0].kill();
        tables(world)?;
        content(world)?;
        world.agents[0].run()
    }),
    ("everything deleted", everything_deleted),
];

#[test]
fn show_agrees_with_the_scenario() {
    let plan = Plan::new(PodNetwork::Routed, Place::SameNode);
    let mut world = World::start("sh", plan, catalog::all).unwrap();
    run(&mut world, CHECKS);
}

fn rows(world: &World, kind: &str) -> Result<Vec<Value>> {
    Ok(world.agent().show(kind)?.as_array().with_context(|| format!("{kind} are no list"))?.clone())
}

/// A table has one line for each JSON object, and a value in each column.
fn tables(world: &mut World) -> Result<()> {
    world.ask().tcp(at(WEB, 80)[0])?;
    for kind in KINDS {
        for format in ["table", "wide"] {
            // Idle times and counters change all the time; the number of rows does not.
            let count = rows(world, kind)?.len();
            let mut command = world.node.ns.command(agent::binary()?)?;
            command.args(["show", kind, "-o", format, "--bpffs"]).arg(world.agent().bpffs());
            let text = String::from_utf8(process::run(&mut command)?.stdout)?;
            let lines: Vec<&str> = text.lines().collect();
            ensure!(lines.len() == count + 1, "{kind} -o {format}: {count} objects in JSON, but\n{text}");
            let titles = lines[0].split_whitespace().count();
            ensure!(titles >= 3, "{kind} -o {format}: {}", lines[0]);
            for line in &lines[1..] {
                let cells = line.split_whitespace().count();
                ensure!(cells >= titles, "{kind} -o {format}: an empty cell in\n{line}");
            }
        }
    }
    Ok(())
}

fn content(world: &mut World) -> Result<()> {
    let to = at(ONE, 80)[1];
    let stream = world.ask().tcp_stream(to)?;
    ask_on(&stream)?;
    let web: Vec<Value> = rows(world, "services")?.into_iter().filter(|row| row["name"] == "web").collect();
    ensure!(web.len() == 4, "two protocols and two families, but {web:?}");
    let mut wanted: Vec<String> = ends(&world.first(3), PORT).iter().map(ToString::to_string).collect();
    wanted.sort();
    let mut found: Vec<String> = web.iter().filter(|row| row["protocol"] == "TCP").flat_map(texts).collect();
    found.sort();
    ensure!(found == wanted, "{found:?}");
    let backends = rows(world, "backends")?;
    let one = backends
        .iter()
        .find(|row| row["name"] == "one" && row["address"] == world.backends[0].v6.to_string());
    let one = one.context("no backend of `one`")?;
    ensure!(one["state"] == "active" && one["link"] == world.backends[0].link.as_str(), "{one}");
    let flows = rows(world, "flows")?;
    let client = stream.local_addr()?.to_string();
    let flow = flows.iter().find(|row| row["client"] == client.as_str()).context("the flow is not shown")?;
    let backend = ends(&world.first(1), PORT)[1].to_string();
    ensure!(flow["frontend"] == to.to_string() && flow["backend"] == backend.as_str(), "{flow}");
    ensure!(flow["state"] == "established" && flow["service"] == "default/one:tcp", "{flow}");
    let links = rows(world, "links")?;
    let pods = world.bed.pods().values();
    let named =
        pods.map(|pod| links.iter().any(|row| row["name"] == pod.link.as_str() && row["path"] == "direct"));
    ensure!(named.clone().count() == links.len() && named.into_iter().all(|found| found), "{links:?}");
    let counters = rows(world, "counters")?;
    let counted = |verdict: &str| {
        counters.iter().any(|row| row["verdict"] == verdict && row["packets"].as_u64() > Some(0))
    };
    ensure!(counted("to_backend") && counted("to_client"), "{counters:?}");
    Ok(())
}

fn texts(row: &Value) -> Vec<String> {
    let all = row["endpoints"].as_array().into_iter().flatten();
    all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Conflicts between objects, and health check ports: in `lbr show rejected` and in the log, with file and document.
fn limited(world: &mut World) -> Result<()> {
    const TAKEN: u16 = 32_101;
    const BOTH: u16 = 32_102;
    let balancer = |name: &str, n: u8, number: u16| {
        let service = Service::new(name, &vip(n)).port("", "TCP", 80, PORT).spec("type: LoadBalancer");
        service.spec("externalTrafficPolicy: Local").spec(&format!("healthCheckNodePort: {number}")).yaml()
    };
    let node_port = Service::new("holder", &vip(202)).port("", "TCP", 80, PORT).node_port(BOTH);
    let twice = Service::new("zz-twice", &vip(WEB)).port("web", "TCP", 80, PORT).port("own", "TCP", 99, PORT);
    let nowhere = Service::new("zz-nowhere", &vip(WEB)).port("", "TCP", 80, PORT);
    let documents = [
        balancer("busy", 200, TAKEN),
        balancer("both", 201, BOTH),
        node_port.spec("type: NodePort").yaml(),
        twice.yaml(),
        nowhere.yaml(),
    ];
    let listener = Client::new(&world.node.ns).inside(|| Ok(TcpListener::bind(("0.0.0.0", TAKEN))?))?;
    world.write("limited.yaml", &join(documents))?;
    let expected = [
        ("limited", "busy", 1, "spec.healthCheckNodePort", "Address already in use"),
        ("limited", "both", 2, "spec.healthCheckNodePort", "NodePort of Service default/holder"),
        ("limited", "zz-twice", 4, "spec.ports[0]", "already belongs to Service default/web"),
        ("rejected", "zz-nowhere", 5, "spec.ports[0]", "already belongs to Service default/web"),
    ];
    let is = |row: &Value, (state, name, document, field, reason): (&str, &str, u32, &str, &str)| {
        row["state"] == state
            && row["object"] == format!("Service default/{name}")
            && row["origin"] == format!("limited.yaml, document {document}")
            && row["field"] == field
            && row["reason"].as_str().is_some_and(|text| text.contains(reason))
    };
    world.agent().wait_for("rejected", patience(), |shown| {
        let rows = shown.as_array().map_or(&[][..], Vec::as_slice);
        expected.iter().all(|one| rows.iter().any(|row| is(row, *one)))
    })?;
    for (state, name, document, field, reason) in expected {
        let begin = format!("{state}: limited.yaml, document {document}: Service default/{name}: {field}: ");
        until(patience(), || {
            let log = world.agent().said();
            let lines = log.lines().filter(|line| line.contains(&begin)).count();
            ensure!(lines > 0 && log.contains(reason), "{begin}: {lines} lines\n{log}");
            Ok(())
        })?;
    }
    // The port is tried again.
    drop(listener);
    world.agent().wait_for("rejected", patience() * 3, |shown| {
        !shown.as_array().is_some_and(|rows| rows.iter().any(|row| row["object"] == "Service default/busy"))
    })?;
    world.agent().remove("limited.yaml")?;
    let none = |shown: &Value| shown.as_array().is_some_and(Vec::is_empty);
    world.agent().wait_for("rejected", patience(), none)?;
    Ok(())
}

/// Each thing in the folder that is not read is named once.
fn not_read(world: &mut World) -> Result<()> {
    let folder = world.agent().manifests().to_owned();
    std::fs::create_dir(folder.join("below"))?;
    for name in ["packed.yaml.gz", "template.yaml.j2"] {
        std::fs::write(folder.join(name), "kind: x")?;
    }
    for words in [
        "below/: folders are not read: move their manifests into this one",
        "packed.yaml.gz: compressed files are not read: unpack them here",
        "template.yaml.j2: only *.yaml, *.yml and *.json are read",
    ] {
        until(patience() * 2, || {
            let log = world.agent().said();
            ensure!(log.matches(words).count() == 1, "{words}\n{log}");
            Ok(())
        })?;
    }
    std::fs::remove_dir(folder.join("below"))?;
    world.agent().remove("packed.yaml.gz")?;
    world.agent().remove("template.yaml.j2")
}

/// A cut file or a wrong one does not affect the others, and its error is shown with file, document and field.
fn bad_files(world: &mut World) -> Result<()> {
    let good = simple("web", WEB, &world.first(3), PORT);
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fine\n---\napiVersion: v1\nkind: \
                 Service\nmetadata:\n  name: wrong\nspec:\n  clusterIP: 10.96.0.300\n  ports:\n    - port: 80\n";
    world.write("wrong.yaml", wrong)?;
    // Cut in the middle of a word.
    world.write("web.yaml", &good[..good.len() / 2 + 3])?;
    world.write("binary.yaml", "\u{0}\u{1}{{{")?;
    let shown = world.agent().wait_for("rejected", patience(), |shown| {
        shown
            .as_array()
            .is_some_and(|rows| rows.iter().any(|row| row["object"].to_string().contains("wrong")))
    })?;
    let all = shown.as_array().context("a list")?;
    let row = all.iter().find(|row| row["object"].to_string().contains("wrong")).context("wrong")?;
    let origin = row["origin"].as_str().unwrap_or_default();
    ensure!(origin.contains("wrong.yaml") && origin.contains('2'), "file and document: {row}");
    ensure!(row["field"] == "spec.clusterIP", "field: {row}");
    ensure!(row["reason"].as_str().is_some_and(|reason| reason.contains("10.96.0.300")), "reason: {row}");
    for to in at(WEB, 80).into_iter().chain(at(ONE, 80)) {
        world.ask().tcp(to).context("the last good state")?;
    }
    world.wait_for("web", &ends(&world.first(3), PORT))?;
    world.write("web.yaml", &good)?;
    for name in ["wrong.yaml", "binary.yaml"] {
        world.agent().remove(name)?;
    }
    let none = |shown: &Value| shown.as_array().is_some_and(Vec::is_empty);
    world.agent().wait_for("rejected", patience(), none)?;
    Ok(())
}

/// A Service of a deleted file is gone within a second: its address does not answer.
fn deleted_file(world: &mut World) -> Result<()> {
    let text = simple("one", ONE, &world.first(1), PORT);
    let begin = Instant::now();
    world.agent().remove("one.yaml")?;
    let client = world.ask().timeout(Duration::from_millis(50));
    until(soon(), || {
        ensure!(client.tcp(at(ONE, 80)[0]).is_err(), "still there");
        Ok(())
    })?;
    println!("    gone after {:?}", begin.elapsed());
    world.wait_for("one", &[])?;
    world.write("one.yaml", &text)?;
    world.wait_for("one", &ends(&world.first(1), PORT)).map(drop)
}

/// The maps end up empty, open connections stay, and new objects work.
fn everything_deleted(world: &mut World) -> Result<()> {
    let stream = world.ask().tcp_stream(at(WEB, 80)[0])?;
    let files = catalog::all(world);
    for (name, _) in &files {
        world.agent().remove(name)?;
    }
    let none = |shown: &Value| shown.as_array().is_some_and(Vec::is_empty);
    for kind in ["services", "backends", "rejected"] {
        world.agent().wait_for(kind, patience(), none)?;
    }
    for map in ["frontends", "slots", "backends", "services", "rejected"] {
        until(patience(), || {
            let mut command = std::process::Command::new("bpftool");
            command.args(["-j", "map", "dump", "pinned"]).arg(world.agent().bpffs().join(map));
            let dump: Value = serde_json::from_slice(&process::run(&mut command)?.stdout)?;
            ensure!(dump.as_array().is_some_and(Vec::is_empty), "left in {map}: {dump}");
            Ok(())
        })?;
    }
    ask_on(&stream).context("a connection that was open")?;
    for (name, text) in &files {
        world.agent().write(name, text)?;
    }
    world.wait_for("web", &ends(&world.first(3), PORT))?;
    world.ask().tcp(at(WEB, 80)[1]).map(drop)
}
