//! The maps and programs of the kernel, on a node of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use lbr_agent::dataplane::{AttachMode, Dataplane, Kernel, Options, SnatPorts, XdpChoice};
use lbr_agent::service::look_up::{Resolved, Sender};
use lbr_common::conntrack::Timeouts;
use lbr_common::maps;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Effect, Hook, Verdict};

use super::{Node, Plane, text};
use crate::packet::{Packet, Parsed, chunk, flags};
use crate::testrun::{Action, Flows, Meter, Ran, Sandbox};

/// Above all numbers of links in scenarios.
const CLIENT_LINK: u32 = 1000;

/// Entries of each large map: more than scenarios need, and quickly made.
const ENTRIES: u32 = 1024;

/// The data plane of the agent. One thread only: see [`Sandbox`].
pub struct Real {
    kernel: Option<Kernel>,
    meter: Meter,
    flows: Flows,
    options: Options,
    /// Interfaces of the node, whose indexes are the numbers of the scenario.
    links: BTreeSet<u32>,
    sandbox: Sandbox,
}

impl Real {
    /// A node whose only pod link is the client's, which the agent does not know.
    pub fn load(name: &str) -> Result<Self> {
        let large = maps::PINNED.iter().filter(|spec| spec.max_entries > ENTRIES as usize);
        Self::load_sized(name, large.map(|spec| (spec.name.to_owned(), ENTRIES)).collect())
    }

    /// With maps of these sizes; other maps have their default size.
    pub fn load_sized(name: &str, sizes: BTreeMap<String, u32>) -> Result<Self> {
        let sandbox = Sandbox::enter(name)?;
        sandbox.veth("client", Some(CLIENT_LINK))?;
        let bpffs = sandbox.pins().to_owned();
        let (attach, snat_ports) = (AttachMode::Auto, SnatPorts::new(&[61_000..=65_535], BTreeSet::new()));
        let maglev_seed = lbr_common::maglev::DEFAULT_SEED;
        let options = Options {
            bpffs,
            attach,
            xdp: XdpChoice::Off,
            cgroup: None,
            sizes,
            options: 0,
            snat_ports,
            timeouts: Timeouts::DEFAULT,
            maglev_seed,
        };
        let kernel = Kernel::load(&options)?;
        Ok(Self {
            kernel: Some(kernel),
            meter: Meter::open(sandbox.pins())?,
            flows: Flows::open(sandbox.pins())?,
            options,
            links: BTreeSet::new(),
            sandbox,
        })
    }

    /// The tables that the agent writes.
    pub fn kernel(&mut self) -> Result<&mut Kernel> {
        self.kernel.as_mut().context("the agent does not run")
    }

    /// The options that it was loaded with.
    pub fn options(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Where the maps are pinned.
    pub fn pins(&self) -> &Path {
        self.sandbox.pins()
    }

    /// The agent ends without cleaning up.
    pub fn kill(&mut self) {
        self.kernel = None;
    }

    /// An agent starts.
    pub fn start(&mut self) -> Result<()> {
        self.kernel = Some(Kernel::load(&self.options)?);
        Ok(())
    }

    /// Sets the node's pod links.
    pub fn set_links(&mut self, links: impl IntoIterator<Item = u32>) -> Result<()> {
        let links: BTreeSet<u32> = links.into_iter().collect();
        for gone in self.links.difference(&links) {
            self.sandbox.remove(&link_name(*gone))?;
        }
        for new in links.difference(&self.links) {
            self.sandbox.veth(&link_name(*new), Some(*new))?;
        }
        self.links = links;
        Ok(())
    }

    /// The programs at the pod links, as `pod5 from_pod`, once for each attachment.
    pub fn attached(&self) -> Result<Vec<String>> {
        let mut attached = Vec::new();
        for name in self.links.iter().map(|link| link_name(*link)) {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, programs) = SchedClassifier::query_tcx(&name, direction)?;
                attached.extend(programs.iter().map(|p| format!("{name} {}", p.name_as_str().unwrap_or(""))));
            }
        }
        Ok(attached)
    }

    /// The kernel's numbers of the programs at the pod links.
    pub fn attached_ids(&self) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for name in self.links.iter().map(|link| link_name(*link)) {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                let (_, programs) = SchedClassifier::query_tcx(&name, direction)?;
                ids.extend(programs.iter().map(|program| program.id()));
            }
        }
        Ok(ids)
    }

    /// Waits until programs are attached to these links and no others: the kernel detaches a program a moment after
    /// its pin is gone.
    pub fn expect_attached(&self, links: &[u32]) -> Result<()> {
        let programs =
            |link| [Hook::FromPod, Hook::ToPod].map(|h| format!("{} {}", link_name(link), h.name()));
        let expected: Vec<String> = links.iter().copied().flat_map(programs).collect();
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let attached = self.attached()?;
            if attached == expected {
                return Ok(());
            }
            ensure!(Instant::now() < end, "attached are {attached:?}, not {expected:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The verdict of `from_pod` for the first packet of a connection, as far as Services are concerned. Its flow is removed at
    /// once.
    pub fn ask(&mut self, tuple: &Tuple) -> Result<Resolved> {
        let frame = first_packet(tuple)?;
        let kernel = self.kernel.as_mut().context("the agent does not run")?;
        let ran = self.meter.run(kernel, Hook::FromPod, CLIENT_LINK, CLIENT_LINK, &frame)?;
        let backend = backend(tuple, &frame, &ran).with_context(|| format!("{:?}", ran.verdict))?;
        if let Some(flow) = self.flows.get(tuple) {
            self.flows.remove(&flow.twin_key())?;
            self.flows.remove(tuple)?;
        }
        // Where no Service is concerned, policy decides; scenarios of Services have no policies.
        let is_plain = matches!(ran.verdict, Verdict::Node | Verdict::Allowed);
        let verdict = if is_plain { Verdict::NotService } else { ran.verdict };
        Ok(Resolved { verdict, backend: backend.map(|to| (to.ip().into(), to.port())) })
    }
}

impl Plane for Real {
    fn dataplane(&mut self) -> Result<&mut dyn Dataplane> {
        Ok(self.kernel()?)
    }

    /// Answers for pods only: the programs of other hooks have tests of their own, with a node around them.
    fn verdict(&mut self, tuple: &Tuple, sender: Sender) -> Result<Option<String>> {
        if sender != Sender::Pod {
            return Ok(None);
        }
        let resolved = self.ask(tuple)?;
        Ok(Some(text::verdict(resolved.verdict, resolved.backend)))
    }

    /// The agent's network namespace has interfaces with exactly these indexes. All of them are veths: programs are
    /// attached to other kinds in the same way.
    fn set_node(&mut self, node: &Node) -> Result<()> {
        let uplink = (!node.addresses.is_empty()).then_some(super::UPLINK);
        self.set_links(node.links.keys().copied().chain(uplink))
    }

    fn restart(&mut self) -> Result<()> {
        self.kill();
        self.start()
    }
}

fn link_name(index: u32) -> String {
    format!("pod{index}")
}

fn first_packet(tuple: &Tuple) -> Result<Vec<u8>> {
    let (src, dst) = ends(tuple);
    let packet = match tuple.proto {
        proto::TCP => Packet::tcp(src, dst, flags::SYN),
        proto::UDP => Packet::udp(src, dst).payload(b"hello"),
        proto::SCTP => Packet::sctp(src, dst, chunk::INIT),
        other => bail!("no packet of protocol {other}"),
    };
    Ok(packet.build())
}

fn ends(tuple: &Tuple) -> (SocketAddr, SocketAddr) {
    let at = |addr, port| SocketAddr::new(IpAddr::from(addr), port);
    (at(tuple.src, tuple.src_port), at(tuple.dst, tuple.dst_port))
}

/// The destination of the packet, if it was translated. An error if packet and action do not fit the verdict.
fn backend(tuple: &Tuple, sent: &[u8], ran: &Ran) -> Result<Option<SocketAddr>> {
    let (src, dst) = ends(tuple);
    let effect = ran.verdict.effect();
    let fits = match effect {
        Effect::Pass => ran.action == Action::Pass && ran.packet == sent,
        Effect::Translate => ran.action != Action::Drop,
        Effect::Refuse => ran.action == Action::Redirect,
        Effect::Drop => ran.action == Action::Drop,
    };
    ensure!(fits, "{:?} with {:?}", ran.action, Parsed::frame(&ran.packet));
    if matches!(effect, Effect::Pass | Effect::Drop) {
        return Ok(None);
    }
    let got = Parsed::frame(&ran.packet).map_err(anyhow::Error::msg)?;
    ensure!(got.checksums_ok(), "wrong checksums: {got:?}");
    if effect == Effect::Refuse {
        ensure!((got.src.ip(), got.dst.ip()) == (dst.ip(), src.ip()), "the answer is {got:?}");
        return Ok(None);
    }
    // A pod that reaches itself sees the Service as the client.
    let wanted = if got.dst.ip() == src.ip() { dst.ip() } else { src.ip() };
    ensure!(got.src == SocketAddr::new(wanted, src.port()), "the client became {}", got.src);
    Ok(Some(got.dst))
}
