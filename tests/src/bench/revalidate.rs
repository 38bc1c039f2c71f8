//! What changes of others cost the packets of many active flows: at XDP and at tc, with changes of Services and pods that
//! these flows have nothing to do with, and without any, in turn.
//!
//! Flows take turns. Between two packets of one there are all changes of a pass, so each packet finds that something has
//! changed since the flow's last one. A packet is one test run (see [`super::programs`]), and changes are written by a real
//! agent.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lbr_agent::dataplane::Pinned;
use lbr_common::addr::{Addr, Family};
use lbr_common::conntrack::State;
use lbr_common::flow::Flow;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};

use super::programs::node::{Net, Node, PORT, Web, nets};
use super::report::Summary;
use super::rounds::progress;
use crate::interrupt;
use crate::manifests::{Endpoint, EndpointSlice, Service, join};
use crate::packet::{Packet, flags};

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often everything is measured in turn.
    pub rounds: usize,
    /// Active flows.
    pub flows: u32,
    /// Changes while each flow has one packet.
    pub changes: u32,
}

/// Packets after a change that are not counted: the agent has just used this CPU's caches for its own work.
const UNCOUNTED: u32 = 200;

/// Ways of packets: the program, where the backend is, and a name for that.
const WAYS: [(Hook, Web, &str); 2] =
    [(Hook::Xdp, Web::There, "backend elsewhere"), (Hook::FromNetdev, Web::Here, "backend here")];

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: peers, namespace: \
    default}\nspec: {podSelector: {matchLabels: {pod: isolated}}, ingress: [{from: [{podSelector: {matchLabels: {pod: \
    peer}}}]}]}\n";

/// A prime, so that each flow gets its turn.
const STRIDE: u32 = 7_919;

/// Nanoseconds for a packet, in each round.
#[derive(Default)]
struct Found {
    quiet: Vec<f64>,
    busy: Vec<f64>,
    /// Packets of XDP that were left to tc.
    left: [u64; 2],
}

/// Measures, and returns a table.
pub fn run(plan: &Plan) -> Result<String> {
    ensure!(plan.rounds > 0 && plan.changes > 0, "nothing to measure");
    ensure!(plan.flows / plan.changes > 2 * UNCOUNTED, "too few flows between two changes");
    let mut node = Node::set_up()?;
    let [net, _] = nets()?;
    // Without a policy that asks about them, other nodes' pods change nothing.
    node.set_file("policy.yaml", POLICY)?;
    let mut change = 0;
    let mut text = format!(
        "{:<12} {:<18} {:>12} {:>12} {:>8}  {:<12} {}\n",
        "program", "to a Service", "no changes", "changes", "ratio", "lowest..", "left to tc"
    );
    for way in WAYS {
        let (hook, web, _) = way;
        make_flows(&mut node, &net, hook, web, plan.flows)?;
        let mut found = Found::default();
        for round in 0..plan.rounds {
            interrupt::check()?;
            progress(&format!("{}: round {} of {}", hook.name(), round + 1, plan.rounds));
            for busy in if round % 2 == 0 { [false, true] } else { [true, false] } {
                // The first pass is like the second one, which so finds what it leaves.
                pass(&mut node, &net, way, plan, busy.then_some(&mut change))?;
                let left = left_to_tc(&node)?;
                let time = pass(&mut node, &net, way, plan, busy.then_some(&mut change))?;
                let all = if busy { &mut found.busy } else { &mut found.quiet };
                all.push(time);
                found.left[usize::from(busy)] += left_to_tc(&node)? - left;
            }
        }
        row(&mut text, way, &found);
    }
    progress("");
    let Plan { rounds, flows, changes } = plan;
    let _ = writeln!(
        text,
        "\n{rounds} rounds of one packet for each of {flows} flows, without and with {changes} changes meanwhile (a Service \
         or a pod comes, changes or goes). A time is the mean of the middle half of single test runs, with nothing taken \
         off."
    );
    Ok(text)
}

/// One packet for each flow. Returns nanoseconds for one.
fn pass(
    node: &mut Node,
    net: &Net,
    (hook, web, _): (Hook, Web, &str),
    plan: &Plan,
    mut change: Option<&mut u32>,
) -> Result<f64> {
    let link = node.links().uplink;
    let between = plan.flows.div_ceil(plan.changes);
    let mut times = Vec::new();
    let mut turn = 0;
    for number in 0..plan.flows {
        if number % between == 0
            && let Some(change) = &mut change
        {
            make_change(node, net, **change)?;
            **change += 1;
        }
        // In no order that a cache would like.
        turn = (turn + STRIDE) % plan.flows;
        let packet = packet(net, web, turn);
        let time = node.programs.time_at(hook, link, link, &packet, 1)?;
        if number % between >= UNCOUNTED {
            times.push(time.as_nanos() as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    let middle = &times[times.len() / 4..times.len() - times.len() / 4];
    Ok(middle.iter().sum::<f64>() / middle.len() as f64)
}

fn row(text: &mut String, (hook, _, name): (Hook, Web, &str), found: &Found) {
    let ratios: Vec<f64> = found.busy.iter().zip(&found.quiet).map(|(busy, quiet)| busy / quiet).collect();
    let (quiet, busy) = (Summary::of(&found.quiet).median, Summary::of(&found.busy).median);
    let Summary { median, min, max } = Summary::of(&ratios);
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{:<12} {name:<18} {quiet:>9.0} ns {busy:>9.0} ns {median:>8.3}  {:<12} {}, {}",
        hook.name(),
        format!("{min:.3}..{max:.3}"),
        found.left[0],
        found.left[1],
    );
}

/// The client with this number.
fn client(net: &Net, number: u32) -> SocketAddr {
    let [_, b, c, d] = number.to_be_bytes();
    let host = match net.outside {
        IpAddr::V4(_) => IpAddr::from([100, 64 + b, c, d]),
        IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 9, 0, 0, 0, b.into(), u16::from_be_bytes([c, d])]),
    };
    SocketAddr::new(host, 40_000)
}

fn packet(net: &Net, web: Web, number: u32) -> Vec<u8> {
    let to = SocketAddr::new(net.node, web.node_port());
    Packet::tcp(client(net, number), to, flags::ACK).payload(&[0; 6]).build()
}

/// The flows of all clients, in the place of others: copies of one that a packet began.
fn make_flows(node: &mut Node, net: &Net, hook: Hook, web: Web, count: u32) -> Result<()> {
    node.forget_flows()?;
    let (first, to) = (client(net, 0), SocketAddr::new(net.node, web.node_port()));
    let uplink = node.links().uplink;
    let syn = Packet::tcp(first, to, flags::SYN).build();
    let ran = node.programs.run_at(Hook::FromNetdev, uplink, uplink, &syn)?;
    ensure!(ran.verdict == Verdict::ToBackend, "{:?}", ran.verdict);
    let key = |number| {
        let from = client(net, number);
        Tuple {
            src: from.ip().into(),
            dst: to.ip().into(),
            src_port: from.port(),
            dst_port: to.port(),
            proto: proto::TCP,
            _pad: [0; 3],
        }
    };
    let made = node.programs.flows.get(&key(0)).context("the flow did not begin")?;
    for number in 0..count {
        let key = key(number);
        // From the future, so that none has to be kept alive, which would bring its twin back.
        let last_seen = made.last_seen.wrapping_add(1 << 45);
        let flow = Flow { state: State::Established as u32, last_seen, ..made };
        node.programs.flows.insert(&key, &flow)?;
    }
    let verdict = node.programs.run_at(hook, uplink, uplink, &packet(net, web, 0))?.verdict;
    ensure!(verdict == Verdict::ToBackend, "{verdict:?} in place of a known flow");
    Ok(())
}

fn left_to_tc(node: &Node) -> Result<u64> {
    let counts = Pinned::open(node.programs.pins())?.counters()?;
    let is_left = |hook, verdict| hook == Hook::Xdp && verdict == Verdict::LeftToTc;
    Ok(counts.iter().filter(|c| is_left(c.hook, c.verdict)).map(|c| c.counter.packets).sum())
}

/// The change with this number, of an object that no flow uses.
fn make_change(node: &mut Node, net: &Net, number: u32) -> Result<()> {
    let at = |n: u32| Addr::v4([10, 244, 100 + (n >> 8) as u8 % 100, n as u8]).into();
    let object = number / 8;
    let (name, file) = (format!("other{object}"), "other.yaml");
    let service = |backends: u32| {
        let addr = Addr::v4([10, 96, 1 + (object >> 8) as u8 % 200, object as u8]).into();
        let service = Service::new(&name, &[addr]).spec("type: NodePort").port("tcp", "TCP", 80, PORT);
        let slice = EndpointSlice::new(&name, &name, Family::V4).port("tcp", "TCP", PORT);
        let add = |slice: EndpointSlice, n| slice.endpoint(Endpoint::new(at(object * 3 + n)).node("other"));
        join([
            service.node_port(31_000 + (object % 1_000) as u16).yaml(),
            (0..backends).fold(slice, add).yaml(),
        ])
    };
    let pod = |labels: &str| {
        let ip: IpAddr = at(object * 3);
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{{labels}}}}}\nspec: \
             {{nodeName: other, containers: []}}\nstatus: {{phase: Running, podIP: \"{ip}\", podIPs: [{{ip: \"{ip}\"}}]}}\n"
        )
    };
    debug_assert!(net.node.is_ipv4());
    let text = match number % 8 {
        0 => service(3),
        1 => service(2),
        2 => service(1),
        3 => service(3),
        4 => String::new(),
        5 => pod("pod: peer"),
        6 => pod("pod: none"),
        _ => String::new(),
    };
    node.set_file(file, &text)
}
