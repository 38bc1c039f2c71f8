//! The cost of policies for a packet and for the agent: the shipped object on single packets, with maps that the real
//! compiler and reconciler filled.
//!
//! Every number of policies has a loaded object of its own, on a thread of its own in a network namespace of its own.
//! Each round measures them in turn.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_agent::cluster::Change;
use lbr_agent::engine::Engine;
use lbr_agent::model::{
    Kind, NetworkPolicy, Object, ObjectName, ObjectRef, Peer, Pod, PolicyPort, PolicyRule, PortSet, Protocol,
    Requirement, Selector,
};
use lbr_agent::node::NodeView;
use lbr_agent::node::links::LocalLink;
use lbr_agent::reconcile::Reconciler;
use lbr_common::link::{Link, link_flags};
use lbr_common::verdict::{Hook, Verdict};

use crate::interrupt;
use crate::packet::{Packet, flags};
use crate::testrun::Programs;

/// Pods of the node, in replicas of three.
const LOCAL: u32 = 250;
/// Pods that differ in the label that policies select.
const APPS: u32 = 500;
/// New flows in one round. Each needs a source port of its own.
const FLOWS: u16 = 1_000;
/// Changes of a policy that are timed.
const CHANGES: u16 = 21;
/// The first of the addresses of pods that come, which are no others'.
const COMES: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// Packets of one flow in one round.
const PACKETS: u32 = 200_000;

/// The extent of the benchmark.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often everything is measured in turn.
    pub rounds: usize,
    /// Numbers of policies; the others are compared with the first one.
    pub policies: Vec<u32>,
    /// Pods of the cluster.
    pub pods: u32,
}

/// The state for one number of policies.
struct State {
    policies: u32,
    ask: Sender<u16>,
    times: Receiver<Result<[f64; 2]>>,
    said: String,
}

/// Measures, and returns a table.
pub fn run(plan: &Plan) -> Result<String> {
    ensure!(plan.rounds > 0 && plan.rounds <= 50, "between 1 and 50 rounds: each takes new ports");
    let states = plan.policies.iter().map(|&n| start(n, plan.pods)).collect::<Result<Vec<_>>>()?;
    let mut times: BTreeMap<u32, [Vec<f64>; 2]> = BTreeMap::new();
    for round in 0..plan.rounds {
        interrupt::check()?;
        for turn in 0..states.len() {
            let state = &states[(turn + round) % states.len()];
            state.ask.send(u16::try_from(round)?).context("the thread has ended")?;
            let [begin, go_on] = state.times.recv().context("the thread has ended")??;
            let all = times.entry(state.policies).or_default();
            all[0].push(begin);
            all[1].push(go_on);
        }
    }
    let mut text = String::new();
    writeln!(text, "{:>9}  {:>22}  {:>22}  the agent", "policies", "new flow", "established packet")?;
    let base = times.get(&plan.policies[0]).cloned().unwrap_or_default();
    for state in &states {
        let cells = times[&state.policies].iter().zip(&base).map(|(own, base)| {
            let ratios = own.iter().zip(base).map(|(own, base)| own / base).collect();
            format!("{:>7.0} ns  x {:<7.2}", median(own.clone()), median(ratios))
        });
        let cells: Vec<_> = cells.collect();
        writeln!(text, "{:>9}  {:>22}  {:>22}  {}", state.policies, cells[0], cells[1], state.said)?;
    }
    Ok(text)
}

fn start(policies: u32, pods: u32) -> Result<State> {
    let (ask, asked) = channel::<u16>();
    let (tell, times) = channel();
    let (ready, is_ready) = channel();
    std::thread::spawn(move || {
        let mut programs = match set_up(policies, pods) {
            Ok((programs, said)) => {
                let _ = ready.send(Ok(said));
                programs
            }
            Err(error) => return drop(ready.send(Err(error))),
        };
        while let Ok(round) = asked.recv() {
            if tell.send(measure(&mut programs, round)).is_err() {
                return;
            }
        }
    });
    let said = is_ready.recv().context("the thread has ended")??;
    Ok(State { policies, ask, times, said })
}

fn set_up(policies: u32, pods: u32) -> Result<(Programs, String)> {
    let mut programs = Programs::load("bench-policy", 0)?;
    let mut node = NodeView { name: "node".to_owned(), ..NodeView::default() };
    node.links.addresses.insert(address(0).into(), programs.links[0]);
    // The links that the programs are attached to already.
    let attached = Reconciler::load(&mut programs.kernel)?.actual().links;
    node.links.links = attached.iter().map(|(index, link)| (*index, local(link))).collect();
    let mut engine = Engine::start(node, &mut programs.kernel)?;
    for change in cluster(policies, pods).into_iter().map(Change::Apply).chain(Kind::ALL.map(Change::Synced))
    {
        engine.take(change);
    }
    let before = resident();
    let begin = Instant::now();
    engine.compile(&mut programs.kernel);
    let compiled = begin.elapsed();
    let begin = Instant::now();
    let outcome = engine.write(&mut programs.kernel);
    ensure!(outcome.is_converged(), "not in force: {:?}", outcome.problems.first());
    let written = begin.elapsed();
    let tables = engine.desired();
    let (verdicts, classes) = (tables.verdicts.len(), tables.classes.len());
    let more = resident().saturating_sub(before) / 1024;
    let spread = |mut times: Vec<Duration>| {
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        format!("after {median:.1?} (longest of {}: {longest:.1?})", times.len())
    };
    let of_policy = spread(change(&mut programs, &mut engine)?);
    let mut said = format!(
        "compiled in {compiled:.0?}, written in {written:.0?}: {verdicts} verdicts, {classes} classes; {more} MB more; \
         in force: a changed policy {of_policy}",
    );
    if policies > 0 {
        let of_pod = spread(come(&mut programs, &mut engine)?);
        let of_peer = spread(relabel(&mut programs, &mut engine, pods)?);
        write!(said, ", a pod that comes {of_pod}, a relabelled peer {of_peer}")?;
    }
    Ok((programs, said))
}

fn local(link: &Link) -> LocalLink {
    let has = |flag: u32| link.flags & flag != 0;
    let master = (!has(link_flags::ROUTED)).then_some(link.master);
    LocalLink { name: String::new(), has_peer: has(link_flags::PEER), master }
}

/// Changes a policy back and forth, as the agent's loop does. Returns the time of each change until the programs
/// decide by it; afterwards everything is as before.
fn change(programs: &mut Programs, engine: &mut Engine) -> Result<Vec<Duration>> {
    const ASKED: u16 = 7_777;
    let name = ObjectName::new("default", "changed");
    let allows = |port| {
        let ports = vec![PolicyPort { protocol: Protocol::Tcp, ports: PortSet::Range(port, port) }];
        let pods =
            Selector { requirements: vec![Requirement::In("app".to_owned(), ["app-0".to_owned()].into())] };
        let egress = Some(vec![PolicyRule { peers: Vec::new(), ports }]);
        let policy = NetworkPolicy { name: name.clone(), pods, egress, ..NetworkPolicy::default() };
        Change::Apply(Object::NetworkPolicy(policy))
    };
    let mut times = Vec::new();
    for turn in 0..CHANGES {
        let is_open = turn % 2 == 0;
        let begin = Instant::now();
        write(allows(if is_open { ASKED } else { ASKED + 1 }), programs, engine)?;
        expect(programs, [address(0), address(LOCAL)], (100 + turn, ASKED), is_open)?;
        times.push(begin.elapsed());
    }
    write(Change::Delete(ObjectRef { kind: Kind::NetworkPolicy, name }), programs, engine)?;
    Ok(times)
}

/// A pod of this node comes under the policies of its app, and goes. Returns the times until the programs judge it.
fn come(programs: &mut Programs, engine: &mut Engine) -> Result<Vec<Duration>> {
    let name = ObjectName::new("default", "comes");
    let mut times = Vec::new();
    for turn in 0..CHANGES {
        let ip = Ipv4Addr::from(u32::from(COMES) + u32::from(turn));
        let links = programs.links[0];
        engine.set_node(|node| _ = node.links.addresses.insert(ip.into(), links), &mut programs.kernel);
        let labels = [("app".to_owned(), "app-0".to_owned())].into();
        let pod = Pod {
            name: name.clone(),
            labels,
            ips: vec![ip.into()],
            node: "node".to_owned(),
            ..Pod::default()
        };
        let begin = Instant::now();
        write(Change::Apply(Object::Pod(pod)), programs, engine)?;
        expect(programs, [ip, address(LOCAL)], (100 + turn, 7_777), false)?;
        times.push(begin.elapsed());
        expect(programs, [ip, address(LOCAL)], (200 + turn, 8_080), true)?;
        engine.set_node(|node| _ = node.links.addresses.remove(&ip.into()), &mut programs.kernel);
        write(Change::Delete(ObjectRef { kind: Kind::Pod, name: name.clone() }), programs, engine)?;
    }
    Ok(times)
}

/// A pod of another node gets the label of a peer, and loses it. Returns the times until the programs judge by it.
fn relabel(programs: &mut Programs, engine: &mut Engine, pods: u32) -> Result<Vec<Duration>> {
    // The app of the first peer of the first policy.
    let (allowed, other) = (format!("app-{}", LOCAL % APPS), "none".to_owned());
    let ip = address(pods);
    let mut times = Vec::new();
    for turn in 0..CHANGES {
        let is_peer = turn % 2 == 0;
        let label = if is_peer { &allowed } else { &other };
        let labels = [("app".to_owned(), label.clone())].into();
        let name = ObjectName::new("default", "relabelled");
        let pod = Pod { name, labels, ips: vec![ip.into()], node: "another".to_owned(), ..Pod::default() };
        let begin = Instant::now();
        write(Change::Apply(Object::Pod(pod)), programs, engine)?;
        expect(programs, [address(0), ip], (300 + turn, 8_080), is_peer)?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// A round of the agent's loop.
fn write(change: Change, programs: &mut Programs, engine: &mut Engine) -> Result<()> {
    engine.take(change);
    engine.compile(&mut programs.kernel);
    let outcome = engine.write(&mut programs.kernel);
    ensure!(outcome.is_converged(), "not in force: {:?}", outcome.problems.first());
    Ok(())
}

/// Sends the first packet of a connection from a pod behind the first link, and checks what is said of it.
fn expect(programs: &mut Programs, [src, dst]: [Ipv4Addr; 2], ports: (u16, u16), passes: bool) -> Result<()> {
    let (from, to) = (SocketAddr::new(src.into(), ports.0), SocketAddr::new(dst.into(), ports.1));
    let syn = Packet::tcp(from, to, flags::SYN).build();
    let verdict = programs.run(Hook::FromPod, programs.links[0], &syn)?.verdict;
    let expected = if passes { Verdict::Allowed } else { Verdict::EgressDenied };
    ensure!(verdict == expected, "{from} to {to}: {verdict:?} is not {expected:?}");
    Ok(())
}

/// Medians in nanoseconds: of a packet that begins a flow, and of one that belongs to one.
fn measure(programs: &mut Programs, round: u16) -> Result<[f64; 2]> {
    let to = SocketAddr::new(IpAddr::V4(address(LOCAL)), 8080);
    let from = |port| SocketAddr::new(IpAddr::V4(address(0)), port);
    let link = programs.links[0];
    let first = 1_024 + round * FLOWS;
    let mut begins = Vec::new();
    for port in first..first + FLOWS {
        let syn = Packet::tcp(from(port), to, flags::SYN).build();
        begins.push(programs.time(Hook::FromPod, link, &syn, 1)?.as_nanos() as f64);
    }
    let ack = Packet::tcp(from(first), to, flags::ACK).payload(b"established").build();
    let ran = programs.run(Hook::FromPod, link, &ack)?;
    ensure!(ran.verdict == Verdict::Allowed, "measured the wrong thing: {:?}", ran.verdict);
    let time: Duration = programs.time(Hook::FromPod, link, &ack, PACKETS)?;
    Ok([median(begins), time.as_nanos() as f64])
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Resident memory in kilobytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn address(pod: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + pod)
}

/// Pods with one of [`APPS`] labels; policies that each select three pods of the node and let them talk with two
/// other apps, on a port and a range.
fn cluster(policies: u32, pods: u32) -> Vec<Object> {
    let app = |n: u32| format!("app-{}", n % APPS);
    let is_app = |n: u32| {
        let requirements = vec![Requirement::In("app".to_owned(), [app(n)].into())];
        Selector { requirements }
    };
    let pod = |n: u32| {
        let labels = if n < LOCAL { [("app".to_owned(), app(n / 3))] } else { [("app".to_owned(), app(n))] };
        Object::Pod(Pod {
            name: ObjectName::new("default", format!("pod-{n}")),
            labels: labels.into(),
            ips: vec![address(n).into()],
            node: if n < LOCAL { "node" } else { "another" }.to_owned(),
            ..Pod::default()
        })
    };
    let policy = |n: u32| {
        // The first policy selects the measured pod, and allows its connection.
        let subject = n % (LOCAL / 3);
        let peers = [LOCAL + n * 7, LOCAL + n * 13 + 1].map(|peer| Peer::Pods(is_app(peer)));
        let port = |ports| PolicyPort { protocol: Protocol::Tcp, ports };
        let high = 9_000 + 100 * u16::try_from(n % 5).unwrap_or(0);
        let ports = vec![port(PortSet::Range(8080, 8080)), port(PortSet::Range(high, high + 99))];
        let rules = Some(vec![PolicyRule { peers: peers.into(), ports }]);
        Object::NetworkPolicy(NetworkPolicy {
            name: ObjectName::new("default", format!("policy-{n}")),
            audit: false,
            pods: is_app(subject),
            ingress: rules.clone(),
            egress: rules,
            edit: None,
        })
    };
    (0..pods).map(pod).chain((0..policies).map(policy)).collect()
}
