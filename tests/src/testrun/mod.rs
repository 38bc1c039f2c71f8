//! The shipped kernel object on single packets, by `BPF_PROG_TEST_RUN`: no socket, no route, no stack around it.
//!
//! [`Programs`] loads it as the agent does (with its maps pinned, on a bpffs and in a network namespace of its
//! own) and tells what became of a packet: the verdict, from the counters; the action; and the packet.

mod sys;

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, Map, MapData};
use aya::programs::SchedClassifier;
use lbr_agent::dataplane::{AttachMode, Dataplane as _, Kernel, Options};
use lbr_common::flow::{Flow, FragmentKey, FragmentPorts};
use lbr_common::link::{Link, link_flags};
use lbr_common::maps::{self, MapSpec};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{self, Counter, Hook, Verdict};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;
use crate::topology::{Mounts, PREFIX, reap};

/// Verdicts of one hook, side by side in `counters`.
const PER_HOOK: usize = verdict::VERDICTS_PER_HOOK as usize;

/// What the kernel is told to do with a packet (`TC_ACT_*` of linux/pkt_cls.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `TC_ACT_UNSPEC`: on to the next program, and then to the stack.
    Pass,
    /// `TC_ACT_SHOT`.
    Drop,
    /// `TC_ACT_REDIRECT`; where to, no test run tells.
    Redirect,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The one verdict that was counted.
    pub verdict: Verdict,
    /// What the program returned.
    pub action: Action,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// The loaded object. One thread only: it moves that thread into a network namespace until it is dropped.
pub struct Programs {
    /// The tables that the agent writes.
    pub kernel: Kernel,
    /// `flows`, for tests that look at an entry or play the kernel's eviction.
    pub flows: HashMap<MapData, Tuple, Flow>,
    /// `fragments`.
    pub fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    /// Interface indexes of the host sides of pods' veths, in order: reached directly, reached directly, behind
    /// a bridge.
    pub links: [u32; 3],
    counters: MapData,
    cpus: usize,
    is_summed: bool,
    counts: Vec<Counter>,
    pins: PathBuf,
    // In this order: the maps' folder goes when nothing is loaded any more.
    _netns: OwnNetns,
    _mounts: Mounts,
}

impl Programs {
    /// Loads the object into the kernel. Leftovers of dead processes are removed first.
    pub fn load(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        reap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut mounts = Mounts::new(&format!("{PREFIX}{}-{number}-run-{name}", std::process::id()))?;
        let pins = mounts.bpffs()?.join("lbr");
        let netns = OwnNetns::enter()?;
        let links = [veth("pod1")?, veth("pod2")?, veth("pod3")?];
        let options = Options {
            bpffs: pins.clone(),
            attach: AttachMode::Auto,
            cgroup: None,
            sizes: std::collections::BTreeMap::new(),
        };
        let mut kernel = Kernel::load(&options)?;
        for (link, flags) in links.into_iter().zip([link_flags::DIRECT, link_flags::DIRECT, 0]) {
            kernel.links().insert(&link, &Link { flags: flags | link_flags::PEER })?;
        }
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| error_at(what, error))?;
        Ok(Self {
            kernel,
            flows: HashMap::try_from(open(&pins, &maps::FLOWS)?)?,
            fragments: HashMap::try_from(open(&pins, &maps::FRAGMENTS)?)?,
            links,
            counters: MapData::from_pin(pins.join(maps::COUNTERS.name))?,
            cpus,
            is_summed: false,
            counts: vec![Counter::default(); cpus * verdict::COUNTERS as usize],
            pins,
            _netns: netns,
            _mounts: mounts,
        })
    }

    /// Where the maps are pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// From now on packets come with a sum that their device made (`CHECKSUM_COMPLETE`), and a run fails if the
    /// program leaves that wrong. False if the kernel can not.
    pub fn sum_packets(&mut self) -> Result<bool> {
        self.is_summed = true;
        let link = self.links[0];
        // Not IP: no program changes it.
        match self.test_run(Hook::FromPod, link, &[0; 60]) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.is_summed = false;
                Ok(false)
            }
            other => {
                other.context("run with CHECKSUM_COMPLETE")?;
                self.read_counters(Hook::FromPod)?;
                Ok(true)
            }
        }
    }

    /// Runs a packet through a hook at a link.
    pub fn run(&mut self, hook: Hook, link: u32, packet: &[u8]) -> Result<Ran> {
        // Nothing else runs these programs, so the counters are as the last run left them.
        let before = self.counts.clone();
        let (returned, packet_out) = self.test_run(hook, link, packet).context("BPF_PROG_TEST_RUN")?;
        self.read_counters(hook).context("read map counters")?;
        let verdict = self.counted(hook, &before, packet.len())?;
        let action = match returned {
            -1 => Action::Pass,
            2 => Action::Drop,
            7 => Action::Redirect,
            other => bail!("{verdict:?}: action {other}"),
        };
        Ok(Ran { verdict, action, packet: packet_out })
    }

    fn test_run(&mut self, hook: Hook, link: u32, packet: &[u8]) -> io::Result<(i32, Vec<u8>)> {
        // `struct __sk_buff` up to and with `ifindex`, the only field that is not zero.
        let mut ctx = [0; 44];
        ctx[40..].copy_from_slice(&link.to_ne_bytes());
        let program = self.kernel.programs().program_mut(hook.name()).ok_or(io::ErrorKind::NotFound)?;
        let program: &mut SchedClassifier = program.try_into().map_err(io::Error::other)?;
        let fd = program.fd().map_err(io::Error::other)?.as_fd();
        let flags = if self.is_summed { sys::CHECKSUM_COMPLETE } else { 0 };
        let mut out = Vec::new();
        let returned = sys::test_run(fd, packet, &ctx, flags, &mut out)?;
        Ok((returned, out))
    }

    fn read_counters(&mut self, hook: Hook) -> io::Result<()> {
        let first = hook as u32 * verdict::VERDICTS_PER_HOOK;
        let values = &mut self.counts[first as usize * self.cpus..][..PER_HOOK * self.cpus];
        sys::lookup_many(self.counters.fd().as_fd(), first, self.cpus, values)
    }

    /// The verdict whose counter moved, by one packet of this length and no other.
    fn counted(&self, hook: Hook, before: &[Counter], len: usize) -> Result<Verdict> {
        let of_hook = hook as usize * PER_HOOK * self.cpus;
        let both = before.iter().zip(&self.counts).skip(of_hook).take(PER_HOOK * self.cpus);
        let mut moved = both.enumerate().filter(|(_, (a, b))| a != b);
        let (at, (old, new)) = moved.next().context("no verdict was counted")?;
        if let Some((other, _)) = moved.next() {
            bail!("two counters moved: {} and {}", at / self.cpus, other / self.cpus);
        }
        ensure!(new.packets == old.packets + 1, "counted {} times", new.packets - old.packets);
        ensure!(new.bytes == old.bytes + len as u64, "counted {} bytes of {len}", new.bytes - old.bytes);
        let number = at / self.cpus;
        Verdict::ALL.get(number).copied().with_context(|| format!("there is no verdict {number}"))
    }
}

fn open(pins: &Path, spec: &MapSpec) -> Result<Map> {
    let data = MapData::from_pin(pins.join(spec.name)).with_context(|| format!("open map {}", spec.name))?;
    Ok(Map::from_map_data(data)?)
}

/// A veth, both sides here: a test run only wants the index.
fn veth(name: &str) -> Result<u32> {
    let peer = format!("{name}-peer");
    process::run(Command::new("ip").args(["link", "add", name, "type", "veth", "peer", "name", &peer]))?;
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
}

fn error_at(what: &str, error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context(what.to_owned())
}

/// A network namespace without a name, entered by this thread; dropping it goes back to the old one.
struct OwnNetns {
    old: File,
}

impl OwnNetns {
    fn enter() -> Result<Self> {
        let old = File::open("/proc/thread-self/ns/net").context("open this thread's network namespace")?;
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (needs root)")?;
        Ok(Self { old })
    }
}

impl Drop for OwnNetns {
    fn drop(&mut self) {
        // A thread that can not go back stays where it harms nobody.
        let _ = setns(&self.old, CloneFlags::CLONE_NEWNET);
    }
}
