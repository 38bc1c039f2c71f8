//! The XDP program at the uplinks of a node: attached, taken over, detached, and apart from other XDP programs.
//!
//! Needs root.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aya::programs::{Xdp, XdpMode};
use lbr_agent::dataplane::Pinned;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::agent::{Agent, AgentOptions, binary};
use lbr_tests::netns::Netns;
use lbr_tests::probe::{Client, Server};
use lbr_tests::process;
use lbr_tests::topology::{Bed, Node};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(10);

fn json(command: &mut Command) -> Value {
    serde_json::from_slice(&process::run(command).unwrap().stdout).unwrap()
}

/// Mode (1 is native, 2 generic) and id of the program at an interface.
fn attached(ns: &Netns, interface: &str) -> Option<(u64, u64)> {
    let shown = json(ns.command("ip").unwrap().args(["-j", "link", "show", "dev", interface]));
    let xdp = &shown[0]["xdp"];
    Some((xdp["mode"].as_u64()?, xdp["prog"]["id"].as_u64()?))
}

/// The XDP mode of an interface in `lbr show uplinks`.
fn shown(agent: &Agent, interface: &str) -> Option<String> {
    let rows = agent.show("uplinks").unwrap();
    let row = rows.as_array()?.iter().find(|row| row["name"] == interface)?;
    Some(row["xdp"].as_str()?.to_owned())
}

/// Id of the kernel's link that this pin holds.
fn link_id(pin: &Path) -> u64 {
    json(Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(pin))["id"].as_u64().unwrap()
}

fn metrics(ns: &Netns) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", 10249))?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        Ok(std::io::read_to_string(stream)?)
    };
    ns.run(ask).unwrap()
}

fn start(bed: &mut Bed, node: &Node, arguments: &[&str]) -> Agent {
    let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let agent =
        Agent::start_with(bed, node, &AgentOptions { arguments, ..AgentOptions::default() }, &[]).unwrap();
    until(|| shown(&agent, "eth0").is_some());
    agent
}

/// Ends the agent, and starts another one with other arguments on the same pins.
fn restart(bed: &mut Bed, node: &Node, mut agent: Agent, arguments: &[&str]) -> Agent {
    agent.kill();
    start(bed, node, arguments)
}

/// Attaches a program that no agent knows, for frames in several pieces. It leaves when what it returns is dropped.
fn foreign_program(ns: &Netns, interface: &str, mode: XdpMode) -> aya::Ebpf {
    ns.run(|| {
        let mut ebpf = aya::Ebpf::load(lbr_agent::dataplane::OBJECT)?;
        let program: &mut Xdp = ebpf.program_mut("xdp_native").unwrap().try_into()?;
        program.load()?;
        program.attach(interface, mode)?;
        Ok(ebpf)
    })
    .unwrap()
}

#[track_caller]
fn until(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "still not so after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn next_agent_takes_over_the_program() {
    let mut bed = Bed::new("xdpt").unwrap();
    let node = bed.add_node("n").unwrap();
    let ns = node.ns.clone();
    let agent = start(&mut bed, &node, &["--xdp=native"]);
    until(|| shown(&agent, "eth0").as_deref() == Some("native"));
    let (mode, first) = attached(&ns, "eth0").unwrap();
    assert_eq!(mode, 1);
    let pin = agent.bpffs().join(format!("attached/{}-xdp", ns.ifindex("eth0").unwrap()));
    let link = link_id(&pin);

    // It keeps the link, so the interface is never without a program.
    let agent = restart(&mut bed, &node, agent, &["--xdp=native"]);
    let (mode, second) = attached(&ns, "eth0").unwrap();
    assert_eq!((mode, link_id(&pin)), (1, link));
    assert_ne!(second, first);
    let text = metrics(&ns);
    assert!(text.contains("lbr_uplink_xdp{interface=\"eth0\",mode=\"native\"} 1"), "{text}");

    let agent = restart(&mut bed, &node, agent, &["--xdp=generic"]);
    until(|| shown(&agent, "eth0").as_deref() == Some("generic"));
    assert_eq!(attached(&ns, "eth0").unwrap().0, 2);

    // With `auto`, virtual interfaces such as veths are left out.
    let agent = restart(&mut bed, &node, agent, &["--xdp=auto"]);
    until(|| agent.said().contains("uplink eth0: no XDP, as --xdp=auto leaves virtual interfaces out"));
    assert_eq!((shown(&agent, "eth0").as_deref(), attached(&ns, "eth0")), (Some("off"), None));

    let agent = restart(&mut bed, &node, agent, &["--xdp=native"]);
    until(|| attached(&ns, "eth0").is_some());
    let mut agent = restart(&mut bed, &node, agent, &[]);
    assert_eq!((shown(&agent, "eth0").as_deref(), attached(&ns, "eth0")), (Some("off"), None));

    agent.kill();
    let mut agent = start(&mut bed, &node, &["--xdp=native"]);
    until(|| attached(&ns, "eth0").is_some());
    agent.kill();
    let mut cleanup = ns.command(binary().unwrap()).unwrap();
    let did = process::run(cleanup.arg("cleanup").arg("--bpffs").arg(agent.bpffs())).unwrap();
    let did = String::from_utf8_lossy(&did.stdout).into_owned();
    assert!(did.contains("removed: XDP program at eth0, pinned at"), "{did}");
    assert_eq!(attached(&ns, "eth0"), None);
}

/// An uplink that cannot have XDP does not affect the others.
#[test]
fn uplink_that_cannot_have_xdp_is_reported() {
    let mut bed = Bed::new("xdpf").unwrap();
    let node = bed.add_node("n").unwrap();
    let ns = node.ns.clone();
    ns.ip([
        "link add up1 type bridge",
        "addr add 198.51.100.1/24 dev up1",
        "link set up1 up",
        "link add up2 type veth peer name other",
        "addr add 198.51.101.1/24 dev up2",
        "link set up2 up",
        "link set other up",
    ])
    .unwrap();
    // A program of another owner, at the veth.
    let foreign = foreign_program(&ns, "up2", XdpMode::Driver);
    let before = attached(&ns, "up2");
    assert!(before.is_some());

    let agent = start(&mut bed, &node, &["--xdp=native", "--devices=eth0,up*"]);
    until(|| shown(&agent, "up2").is_some() && shown(&agent, "up1").is_some());
    until(|| shown(&agent, "eth0").as_deref() == Some("native"));
    let said = agent.said();
    for (interface, why) in
        [("up1", "its driver has no native XDP"), ("up2", "another XDP program is attached there")]
    {
        let line = format!("uplink {interface}: native XDP failed: {why}");
        assert_eq!(said.matches(&line).count(), 1, "{line}: {said}");
        assert_eq!(shown(&agent, interface).as_deref(), Some("off"));
    }
    assert_eq!(attached(&ns, "up2"), before);
    drop(foreign);

    // An interface that is removed takes its program along, and leaves no pin.
    let index = ns.ifindex("up2").unwrap();
    let pin = agent.bpffs().join(format!("attached/{index}-xdp"));
    let agent = restart(&mut bed, &node, agent, &["--xdp=native", "--devices=eth0,up*"]);
    until(|| shown(&agent, "up2").as_deref() == Some("native"));
    assert!(pin.exists());
    ns.ip(["link del up2"]).unwrap();
    until(|| shown(&agent, "up2").is_none() && !pin.exists());
    assert_eq!(shown(&agent, "eth0").as_deref(), Some("native"));
}

/// Behind a generic program for frames in several pieces, Linux hands packets to tc without their Ethernet header. lbr does
/// not read what it would take for an IP header: packets pass, and are counted.
#[test]
fn foreign_generic_program_with_frags_costs_services_only() {
    let mut bed = Bed::new("xdpg").unwrap();
    let node = bed.add_node("n").unwrap();
    let outside = bed.add_client("outside").unwrap();
    let _foreign = foreign_program(&node.ns, "eth0", XdpMode::Skb);
    let agent = start(&mut bed, &node, &[]);
    let _server = Server::start(&node.ns, "n", &node.addresses(), 8080).unwrap();
    for address in node.addresses() {
        let to = std::net::SocketAddr::new(address, 8080);
        assert_eq!(Client::new(&outside.ns).tcp(to).unwrap().name, "n");
    }
    let counts = Pinned::open(agent.bpffs()).unwrap().counters().unwrap();
    let of = |verdict| counts.iter().any(|c| (c.hook, c.verdict) == (Hook::FromNetdev, verdict));
    assert!(of(Verdict::NoLinkHeader), "{counts:?}");
    assert!(!of(Verdict::Malformed) && !of(Verdict::Martian), "{counts:?}");
}
