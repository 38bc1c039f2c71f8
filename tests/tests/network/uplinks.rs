//! The node's uplinks, where clients from outside reach ports of the node: found, named, followed, taken over.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lbr_agent::dataplane::Pinned;
use lbr_common::addr::Family;
use lbr_common::link::Uplink;
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::manifests::{Endpoint, EndpointSlice, Service, join};
use lbr_tests::netns::Netns;
use lbr_tests::probe::{Client, Server};
use lbr_tests::topology::{Bed, Host, Node, PodNetwork};

use crate::attached::{UPLINK_HOOKS, programs};
use crate::load::Load;
use crate::world::{PORT, patience, until};

/// At the node's addresses.
pub(crate) const NODE_PORT: u16 = 30_080;
/// Addresses on a link that comes and goes: the node's, and the one behind it.
const SIDE: [&str; 2] = ["198.51.100.1", "198.51.100.2"];
/// One more address for the permanent uplink.
const MORE: &str = "172.18.0.77";

/// Fields are dropped in this order, so processes end before their namespaces.
struct Rig {
    agent: Agent,
    _server: Server,
    outside: Host,
    /// Behind the second uplink.
    side: Netns,
    node: Node,
    is_clsact: bool,
    _bed: Bed,
}

impl Rig {
    fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let mut bed = Bed::new(name)?;
        let node = bed.add_node("here")?;
        let pod = bed.add_pod(&node, "p", PodNetwork::Routed.into())?;
        let server = Server::start(&pod.ns, "p", &pod.addresses(), PORT)?;
        let outside = bed.add_client("outside")?;
        let side = bed.namespace("side")?;
        side.ip(["link set lo up"])?;
        let own = ["--nodeport-addresses=172.18.0.0/16,198.51.100.0/24,fd00:172:18::/64"];
        let arguments: Vec<String> = arguments.iter().chain(&own).map(|text| (*text).to_owned()).collect();
        let is_clsact = arguments.iter().any(|argument| argument == "clsact");
        let options = AgentOptions { arguments, ..AgentOptions::default() };
        let files = [("web.yaml", web(pod.addresses()))];
        let agent = Agent::start_with(&mut bed, &node, &options, &files)?;
        Ok(Self { agent, _server: server, outside, side, node, is_clsact, _bed: bed })
    }

    /// Ids of the programs at both sides of an interface; a missing interface has none.
    fn attached(&self, link: &str) -> Result<Vec<Vec<u64>>> {
        let ids = |(side, hook)| programs(&self.node.ns, self.is_clsact, link, side, hook);
        UPLINK_HOOKS.into_iter().map(ids).collect()
    }

    /// The content of `uplinks`, without the interfaces' numbers.
    fn uplinks(&self) -> Result<Vec<Uplink>> {
        Ok(Pinned::open(self.agent.bpffs())?.tables()?.uplinks.into_values().collect())
    }

    fn node_ports(&self) -> [SocketAddr; 2] {
        self.node.addresses().map(|address| SocketAddr::new(address, NODE_PORT))
    }

    /// Connects the node to `side` by one more link, `eth1`.
    fn plug(&self) -> Result<()> {
        let [own, other] = SIDE;
        self.node.ns.ip([
            format!("link add eth1 type veth peer name eth0 netns {}", self.side.name()),
            format!("addr add {own}/24 dev eth1"),
            "link set eth1 up".to_owned(),
        ])?;
        self.side.ip([format!("addr add {other}/24 dev eth0"), "link set eth0 up".to_owned()])
    }

    fn unplug(&self) -> Result<()> {
        self.node.ns.ip(["link del eth1"])
    }

    /// Asks until the node port answers at an address.
    fn answers(&self, from: &Netns, at: &str) -> Result<()> {
        let to = SocketAddr::new(at.parse()?, NODE_PORT);
        until(patience(), || Client::new(from).tcp(to).map(drop)).with_context(|| to.to_string())
    }
}

/// A Service of type NodePort with this pod.
pub(crate) fn web(pod: [IpAddr; 2]) -> String {
    let cluster_ips = ["10.96.0.10", "fd00:10:96::10"].map(|ip| ip.parse().unwrap());
    let service = Service::new("web", &cluster_ips).spec("type: NodePort");
    let service = service.port("tcp", "TCP", 80, PORT).node_port(NODE_PORT);
    let service = service.port("udp", "UDP", 80, PORT).node_port(NODE_PORT);
    let slices = pod.map(|address| {
        let name = if address.is_ipv6() { "web-v6" } else { "web-v4" };
        let slice = EndpointSlice::new(name, "web", Family::of(address));
        let slice = slice.port("tcp", "TCP", PORT).port("udp", "UDP", PORT);
        slice.endpoint(Endpoint::new(address).node("here")).yaml()
    });
    join([service.yaml()].into_iter().chain(slices))
}

/// Clients from outside notice no end or start of the agent, and no program is attached twice.
fn taken_over(name: &str, attach: &str) {
    let mut rig = Rig::start(name, &["--attach", attach]).unwrap();
    let client = || Client::new(&rig.outside.ns);
    for to in rig.node_ports() {
        until(patience(), || client().tcp(to).map(drop)).unwrap();
    }
    let before = rig.attached("eth0").unwrap();
    assert!(before.iter().all(|ids| ids.len() == 1), "{before:?}");
    let load = Load::start(client(), rig.node_ports());
    for killed in [true, false] {
        if killed {
            rig.agent.kill()
        } else {
            rig.agent.stop().unwrap()
        }
        rig.agent.run().unwrap();
        let after = rig.attached("eth0").unwrap();
        assert!(after.iter().all(|ids| ids.len() == 1), "{after:?}");
        assert!(after != before, "the programs of the agent that ended are still attached");
    }
    assert!(load.stop().unwrap() > 50);
}

#[test]
fn taken_over_tcx() {
    taken_over("ut", "tcx");
}

#[test]
fn taken_over_clsact() {
    taken_over("uc", "clsact");
}

/// Addresses and interfaces that appear, disappear, and appear again.
fn followed(name: &str, attach: &str) {
    let rig = Rig::start(name, &["--attach", attach, "--devices=eth*"]).unwrap();
    rig.answers(&rig.outside.ns, &rig.node.v4.to_string()).unwrap();
    let (v4, v6) = (IpAddr::V4(rig.node.v4).into(), IpAddr::V6(rig.node.v6).into());
    let node = Uplink { v4, v6, node_v4: v4, node_v6: v6 };
    assert_eq!(rig.uplinks().unwrap(), [node]);

    rig.node.ns.ip([format!("addr add {MORE}/16 dev eth0")]).unwrap();
    rig.answers(&rig.outside.ns, MORE).unwrap();
    rig.node.ns.ip([format!("addr del {MORE}/16 dev eth0")]).unwrap();
    let gone: IpAddr = MORE.parse().unwrap();
    until(patience(), || {
        let frontends = Pinned::open(rig.agent.bpffs())?.tables()?.frontends;
        ensure!(frontends.keys().all(|key| key.addr != gone.into()), "{gone} is still served");
        Ok(())
    })
    .unwrap();

    for _ in 0..2 {
        rig.plug().unwrap();
        rig.answers(&rig.side, SIDE[0]).unwrap();
        let attached = rig.attached("eth1").unwrap();
        assert!(attached.iter().all(|ids| ids.len() == 1), "{attached:?}");
        assert_eq!(rig.uplinks().unwrap().len(), 2);
        rig.unplug().unwrap();
        until(patience(), || {
            ensure!(rig.uplinks()? == [node], "{:?}", rig.uplinks());
            Ok(())
        })
        .unwrap();
    }
    // The permanent link is not affected.
    rig.answers(&rig.outside.ns, &rig.node.v6.to_string()).unwrap();
}

#[test]
fn followed_tcx() {
    followed("uf", "tcx");
}

#[test]
fn followed_clsact() {
    followed("ug", "clsact");
}

/// An interface that is not named is left alone, also if programs were attached to it before.
#[test]
fn only_named_uplinks_are_attached() {
    let mut rig = Rig::start("un", &["--devices=eth1"]).unwrap();
    let rejected = || rig.agent.show_text("rejected").unwrap();
    assert!(rejected().contains("--devices=eth1"), "the missing eth1 is not reported: {}", rejected());
    rig.plug().unwrap();
    rig.answers(&rig.side, SIDE[0]).unwrap();
    assert!(!rejected().contains("--devices"), "{}", rejected());
    assert_eq!(rig.attached("eth0").unwrap(), vec![Vec::<u64>::new(); 2]);
    let to = SocketAddr::new(rig.node.v4.into(), NODE_PORT);
    assert!(
        Client::new(&rig.outside.ns).tcp(to).is_err(),
        "{to} is answered by an interface that is not named"
    );

    rig.agent.stop().unwrap();
    rig.agent.replace_argument("--devices=eth1", "--devices=eth0");
    rig.agent.run().unwrap();
    rig.answers(&rig.outside.ns, &rig.node.v4.to_string()).unwrap();
    until(patience(), || {
        let left = rig.attached("eth1")?;
        ensure!(left.iter().all(Vec::is_empty), "still attached to eth1: {left:?}");
        Ok(())
    })
    .unwrap();
}
