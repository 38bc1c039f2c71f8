//! The shipped kernel object on single packets, by `BPF_PROG_TEST_RUN`: no socket, no route, no stack around it.
//!
//! [`Programs`] loads it as the agent does (with its maps pinned, on a bpffs and in a network namespace of its own)
//! and returns the fate of a packet: the verdict, from the counters; the action; and the packet. [`Pool`] lends one
//! loaded object to many tests, one after the other, each time in its state right after loading.

mod flows;
mod meter;
mod pool;
mod pristine;
mod raw_map;
mod sandbox;
pub(crate) mod sys;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData};
use lbr_agent::dataplane::{AttachMode, Dataplane as _, Hints, Kernel, Options, SnatPorts, XdpChoice};
use lbr_common::conntrack::Timeouts;
use lbr_common::flow::{FragmentKey, FragmentPorts};
use lbr_common::link::{Link, Uplink, link_flags};
use lbr_common::maps::{self, MapSpec};
use lbr_common::verdict::{Hook, Verdict};

use crate::netns::{ip, sysctl};

pub use flows::Flows;
pub use meter::{Empty, Meter};
pub use pool::{Pool, Shared, say};
pub use raw_map::RawMap;
pub use sandbox::Sandbox;

/// For tests that write tables without the agent: no look-up is spared by hints.
pub const ALL_HINTS: Hints = Hints { udp_own_ports: 1, service_filter: u64::MAX, own_port_filter: u64::MAX };

/// The return value of a program (`TC_ACT_*` of linux/pkt_cls.h, `XDP_*` of linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `TC_ACT_UNSPEC`: on to the next program, and then to the stack. `XDP_PASS`: on to tc.
    Pass,
    /// `TC_ACT_SHOT`, `XDP_DROP`.
    Drop,
    /// `TC_ACT_REDIRECT`; a test run does not show where to.
    Redirect,
    /// `XDP_TX`: out by the interface that it came in by.
    Transmit,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The one verdict that was counted.
    pub verdict: Verdict,
    /// Audits that were counted beside it, once each.
    pub audits: Vec<Verdict>,
    /// What the program returned.
    pub action: Action,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// The loaded object on a node that forwards. One thread only: it moves that thread into a network namespace until it
/// is dropped.
pub struct Programs {
    /// The tables that the agent writes.
    pub kernel: Kernel,
    /// `flows` and `unconfirmed`, for tests that look at an entry or play the kernel's eviction.
    pub flows: Flows,
    /// `fragments`.
    pub fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    /// Interface indexes of the host sides of pods' veths, in order: reached directly, reached directly, behind
    /// a bridge.
    pub links: [u32; 3],
    meter: Meter,
    sandbox: Sandbox,
}

impl Programs {
    /// An interface that belongs to no pod.
    pub const WIRE: u32 = 1;

    /// Loads the object into the kernel with these [`maps::config::options`]. Leftovers of dead processes are
    /// removed first.
    pub fn load(name: &str, options: u32) -> Result<Self> {
        let mut programs = Self::load_without_links(name, options)?;
        programs.insert_links()?;
        Ok(programs)
    }

    /// The same with the socket programs, for sockets that this thread opens.
    pub fn load_with_sockets(name: &str) -> Result<Self> {
        let mut sandbox = Sandbox::enter(name)?;
        let cgroup = sandbox.enter_cgroup()?;
        let mut programs = Self::load_in(sandbox, 0, Some(cgroup))?;
        programs.insert_links()?;
        Ok(programs)
    }

    fn load_without_links(name: &str, options: u32) -> Result<Self> {
        Self::load_in(Sandbox::enter(name)?, options, None)
    }

    fn load_in(sandbox: Sandbox, options: u32, cgroup: Option<PathBuf>) -> Result<Self> {
        // Before links exist by which the kernel would send packets.
        sysctl("ipv4/ip_forward", "1")?;
        sysctl("ipv6/conf/all/forwarding", "1")?;
        let links = [sandbox.veth("pod1", None)?, sandbox.veth("pod2", None)?, sandbox.veth("pod3", None)?];
        let pins = sandbox.pins();
        let options = Options {
            bpffs: pins.to_owned(),
            attach: AttachMode::Auto,
            xdp: XdpChoice::Native,
            cgroup,
            sizes: std::collections::BTreeMap::new(),
            options,
            snat_ports: SnatPorts::new(&[61_000..=65_535], std::collections::BTreeSet::new()),
            timeouts: Timeouts::DEFAULT,
            maglev_seed: lbr_common::maglev::DEFAULT_SEED,
        };
        let mut kernel = Kernel::load(&options)?;
        kernel.set_hints(ALL_HINTS)?;
        Ok(Self {
            kernel,
            flows: Flows::open(pins)?,
            fragments: HashMap::try_from(open(pins, &maps::FRAGMENTS)?)?,
            links,
            meter: Meter::open(pins)?,
            sandbox,
        })
    }

    /// Writes the entries of the pods' links, which attaches the programs unless they are attached.
    fn insert_links(&mut self) -> Result<()> {
        for (link, flags) in self.links.into_iter().zip([link_flags::ROUTED, link_flags::ROUTED, 0]) {
            self.kernel.tables().links.insert(&link, &Link { flags: flags | link_flags::PEER, master: 0 })?;
        }
        Ok(())
    }

    /// All maps of the object: those that are pinned, and the others.
    pub fn raw_maps(&mut self) -> Result<Vec<RawMap>> {
        let pinned = maps::PINNED.iter().map(|spec| RawMap::pinned(self.sandbox.pins(), spec.name));
        let mut all = pinned.collect::<Result<Vec<_>>>()?;
        let programs = self.kernel.programs().context("the programs are not loaded")?;
        for (name, map) in programs.maps() {
            if !maps::PINNED.iter().any(|spec| spec.name == name) {
                all.push(RawMap::loaded(name, map)?);
            }
        }
        Ok(all)
    }

    /// Makes another pod's veth, with this interface index.
    pub fn veth(&self, index: u32) -> Result<()> {
        self.sandbox.veth(&format!("veth{index}"), Some(index)).map(drop)
    }

    /// Makes an uplink of this name with these addresses of the node, and the programs at it.
    pub fn uplink(&mut self, name: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<u32> {
        let index = self.sandbox.veth(name, None)?;
        ip([
            format!("addr add {v4}/24 dev {name}"),
            format!("addr add {v6}/64 dev {name} nodad"),
            format!("link set {name} up"),
        ])?;
        let (v4, v6) = (IpAddr::from(v4).into(), IpAddr::from(v6).into());
        let value = Uplink { v4, v6, node_v4: v4, node_v6: v6 };
        self.kernel.tables().uplinks.insert(&index, &value)?;
        Ok(index)
    }

    /// Where the maps are pinned.
    pub fn pins(&self) -> &Path {
        self.sandbox.pins()
    }

    /// See [`Meter::sum_packets`].
    pub fn sum_packets(&mut self) -> Result<bool> {
        self.meter.sum_packets(&mut self.kernel, self.links[0])
    }

    /// Runs a packet through a hook at a link.
    ///
    /// A packet to a pod comes from another node.
    pub fn run(&mut self, hook: Hook, link: u32, packet: &[u8]) -> Result<Ran> {
        let entered_by = if hook == Hook::ToPod { Self::WIRE } else { link };
        self.run_at(hook, link, entered_by, packet)
    }

    /// The average time of a run, over `repeat` runs on the same packet.
    pub fn time(&mut self, hook: Hook, link: u32, packet: &[u8], repeat: u32) -> Result<Duration> {
        self.time_at(hook, link, link, packet, repeat)
    }

    /// The same for a packet that entered the node by this interface; 0: the node sends it.
    pub fn time_at(
        &mut self,
        hook: Hook,
        link: u32,
        entered_by: u32,
        packet: &[u8],
        repeat: u32,
    ) -> Result<Duration> {
        self.meter.time(&mut self.kernel, hook, link, entered_by, packet, repeat)
    }

    /// Runs a packet that entered the node by this interface; 0: the node sends it.
    pub fn run_at(&mut self, hook: Hook, link: u32, entered_by: u32, packet: &[u8]) -> Result<Ran> {
        self.meter.run(&mut self.kernel, hook, link, entered_by, packet)
    }

    /// Takes the counters as they are now for those of the last run: to be called after packets that a socket has sent.
    pub fn forget_others(&mut self) -> Result<()> {
        self.meter.start_over()
    }

    /// Runs a packet of the node itself through the hook before a pod.
    pub fn run_from_node(&mut self, link: u32, packet: &[u8]) -> Result<Ran> {
        self.run_at(Hook::ToPod, link, 0, packet)
    }
}

/// Opens a map by its pin.
pub fn open(pins: &Path, spec: &MapSpec) -> Result<Map> {
    let data = MapData::from_pin(pins.join(spec.name)).with_context(|| format!("open map {}", spec.name))?;
    Ok(Map::from_map_data(data)?)
}
