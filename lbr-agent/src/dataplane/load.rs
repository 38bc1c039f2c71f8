//! Loads the kernel object with pinned maps. It takes over the maps of an earlier run with their content.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use aya::maps::{Array, Map, MapData};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use lbr_common::ABI_VERSION;
use lbr_common::conntrack::Timeouts;
use lbr_common::id::BackendId;
use lbr_common::maps::{self, MapSpec};
use lbr_common::service::{Backend, State};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::attach::{AttachMode, Attacher};
use super::epochs::Epochs;
use super::handles::open;
use super::pins::Pins;
use super::programs::Refused;
use super::requirements::{self, Abilities};
use super::snat::SnatPorts;
use super::stale_sockets::StaleSockets;
use super::tables::KernelTables;
use super::xdp::XdpChoice;
use super::{Concerned, Dataplane, Hints, Tables, WriteError, bpffs, programs, rights, sockets};

/// The kernel object that this binary carries.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lbr-ebpf"));

/// SHA-256 of [`OBJECT`], in hexadecimal.
pub fn object_hash() -> String {
    Sha256::digest(OBJECT).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder on bpffs for the pins.
    pub bpffs: PathBuf,
    /// How tc programs are attached.
    pub attach: AttachMode,
    /// Where the XDP program is attached.
    pub xdp: XdpChoice,
    /// A cgroup2 folder whose sockets are translated; `None`: the socket programs are not attached.
    pub cgroup: Option<PathBuf>,
    /// Map sizes that differ from those in `lbr_common::maps`.
    pub sizes: BTreeMap<String, u32>,
    /// How policy is enforced: bits of `lbr_common::maps::config::options`.
    pub options: u32,
    /// Source ports of the node for clients whose backend is on another node. `None`: there are no such clients.
    pub snat_ports: Option<SnatPorts>,
    /// How long flows live without packets.
    pub timeouts: Timeouts,
    /// Secret of [`lbr_common::maglev::hash`], the same on all nodes.
    pub maglev_seed: u64,
}

/// The real dataplane.
pub struct Kernel {
    tables: KernelTables,
    /// `links` and `uplinks` attach through it; `None`: the programs are not loaded yet.
    attacher: RefCell<Option<Attacher>>,
    state: Array<MapData, State>,
    epochs: Epochs,
    /// `None`: no socket is translated, or the kernel cannot abort any.
    stale: Option<StaleSockets>,
    /// `None`: the programs are loaded, or were refused.
    loading: Option<Loading>,
}

/// Programs that the kernel verifies, and how they are attached then.
struct Loading {
    thread: JoinHandle<(Ebpf, Vec<Refused>)>,
    /// Their pins are removed again if the programs are refused.
    pins: Pins,
    attach: AttachMode,
    xdp: XdpChoice,
    cgroup: Option<PathBuf>,
    maglev_seed: u64,
}

impl Kernel {
    /// Loads the object, pins its maps, and updates the programs at interfaces that an earlier run left.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        Self::load_object(options, OBJECT)
    }

    /// The same with another object than the one that this binary carries.
    pub fn load_object(options: &Options, object: &[u8]) -> anyhow::Result<Self> {
        let (mut kernel, _) = Self::open_object(options, object)?;
        kernel.attach_programs()?;
        Ok(kernel)
    }

    /// Pins the maps, and lets the kernel verify the programs on threads of their own. The receiver is told when it has
    /// done so: then [`Dataplane::attach_programs`] attaches them. The maps can be read and written at once, for the
    /// programs that an earlier run left.
    pub fn open(options: &Options) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        Self::open_object(options, OBJECT)
    }

    fn open_object(options: &Options, object: &[u8]) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        rights::check()?;
        Self::open_permitted(options, object).map_err(rights::hint)
    }

    /// In this order: checks of the kernel, pins, maps.
    fn open_permitted(options: &Options, object: &[u8]) -> anyhow::Result<(Self, oneshot::Receiver<()>)> {
        bpffs::check(&options.bpffs)?;
        options.cgroup.as_deref().map_or(Ok(()), sockets::check)?;
        let abilities = requirements::check()?;
        let (netns, cgroup) = node_sockets(options.cgroup.as_deref())?;
        let xdp = usable_xdp(options.xdp, abilities);
        let pins = Pins::create(&options.bpffs)?;
        let seed = adopt_state(&pins.map(maps::STATE.name))?;
        let ebpf = load_maps(object, &pins, netns, seed, abilities, options)?;

        let mut state = Array::try_from(open(&pins, &maps::STATE)?)?;
        let previous: State = state.get(&0, 0)?;
        state.set(0, State { abi: ABI_VERSION, seed, ..previous }, 0).context("write map state")?;
        let tables = KernelTables::open(&pins)?;
        let epochs = Epochs::open(&pins)?;
        let stale = cgroup.map_or(Ok(None), |_| StaleSockets::open(&pins))?;

        let (done, loaded) = oneshot::channel();
        let loading = Loading {
            thread: verify(ebpf, cgroup.is_some(), xdp, done)?,
            pins,
            attach: options.attach,
            xdp,
            cgroup: cgroup.map(Path::to_owned),
            maglev_seed: options.maglev_seed,
        };
        let attacher = RefCell::new(None);
        let kernel = Self { tables, attacher, state, epochs, stale, loading: Some(loading) };
        Ok((kernel, loaded))
    }

    /// Everything that the kernel may refuse comes first; then programs are attached and replaced.
    fn attach_loaded(&mut self, loading: Loading) -> anyhow::Result<()> {
        let Loading { thread, mut pins, attach, mut xdp, cgroup, maglev_seed } = loading;
        let Ok((mut ebpf, refused)) = thread.join() else {
            bail!("the thread that loads the programs panicked")
        };
        for (name, error) in refused {
            let release = requirements::release();
            if !xdp.takes(&name) {
                return Err(error).with_context(|| {
                    format!("Linux {release} refuses program {name}; nothing was attached or replaced")
                });
            }
            tracing::error!(
                "--xdp: no uplink has it, as Linux {release} refuses the program: {error:#}; tc does the work"
            );
            xdp = XdpChoice::Off;
        }
        pins.keep();
        let state: State = self.state.get(&0, 0)?;
        self.state.set(0, State { maglev_seed, ..state }, 0).context("write map state")?;
        if let Some(cgroup) = cgroup {
            sockets::attach(&mut ebpf, &pins, &cgroup)?;
        }
        self.attacher = RefCell::new(Some(Attacher::new(ebpf, pins, attach, xdp)?));
        Ok(())
    }

    /// Kernel ids of the loaded programs, by name.
    fn program_ids(&self) -> BTreeMap<String, u32> {
        let attacher = self.attacher.borrow();
        let programs = attacher.iter().flat_map(|attacher| attacher.ebpf().programs());
        programs.filter_map(|(name, program)| Some((name.to_owned(), program.info().ok()?.id()))).collect()
    }

    /// The loaded programs, for tests that run them on packets. `None`: they are not loaded yet.
    pub fn programs(&mut self) -> Option<&mut Ebpf> {
        self.attacher.get_mut().as_mut().map(Attacher::programs)
    }
}

/// Starts to verify the programs that this node attaches.
fn verify(
    mut ebpf: Ebpf,
    with_sockets: bool,
    xdp: XdpChoice,
    done: oneshot::Sender<()>,
) -> anyhow::Result<JoinHandle<(Ebpf, Vec<Refused>)>> {
    let verify = move || {
        let refused = programs::load(&mut ebpf, |name, program| match program {
            Program::CgroupSockAddr(_) => with_sockets,
            Program::Xdp(_) => xdp.takes(name),
            _ => true,
        });
        // Nobody waits for it if the agent ends.
        let _ = done.send(());
        (ebpf, refused)
    };
    std::thread::Builder::new().name("load".to_owned()).spawn(verify).context("start a thread")
}

impl Dataplane for Kernel {
    fn tables(&mut self) -> Tables<'_> {
        self.tables.borrow(&self.attacher)
    }

    fn can_attach(&self) -> bool {
        self.attacher.borrow().is_some()
    }

    fn attach_programs(&mut self) -> anyhow::Result<BTreeMap<String, u32>> {
        if let Some(loading) = self.loading.take() {
            self.attach_loaded(loading).map_err(rights::hint)?;
        }
        Ok(self.program_ids())
    }

    fn generation(&mut self) -> Result<u32, WriteError> {
        Ok(self.read_state()?.generation)
    }

    fn set_generation(&mut self, generation: u32) -> Result<(), WriteError> {
        let state = self.read_state()?;
        self.write_state(State { generation, ..state })?;
        wait_for_programs();
        Ok(())
    }

    fn set_hints(&mut self, hints: Hints) -> Result<(), WriteError> {
        let state = self.read_state()?;
        let Hints { udp_own_ports, service_filter, own_port_filter } = hints;
        self.write_state(State { udp_own_ports, service_filter, own_port_filter, ..state })
    }

    /// The cells first: with the new epoch, a flow of which none has changed is up to date.
    fn raise_epoch(&mut self, flows: &Concerned) -> Result<(), WriteError> {
        let state = self.read_state()?;
        let epoch = state.epoch.wrapping_add(1);
        self.epochs.raise(flows, epoch)?;
        self.write_state(State { epoch, ..state })
    }

    fn abort_sockets(&mut self, backends: &BTreeMap<BackendId, Backend>) -> std::io::Result<usize> {
        self.stale.as_ref().map_or(Ok(0), |stale| stale.abort(backends))
    }
}

impl Kernel {
    fn read_state(&self) -> Result<State, WriteError> {
        self.state.get(&0, 0).map_err(state_error)
    }

    fn write_state(&mut self, state: State) -> Result<(), WriteError> {
        self.state.set(0, state, 0).map_err(state_error)
    }
}

fn state_error(error: aya::maps::MapError) -> WriteError {
    WriteError::Io { map: maps::STATE.name, source: std::io::Error::other(error) }
}

/// Waits until every program that runs now has ended. Programs run under RCU, and membarrier(2) waits for a grace period.
/// Without it (`CONFIG_MEMBARRIER`), a packet on its way may miss an entry that is removed next.
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0) };
    if failed != 0 {
        tracing::debug!("membarrier: {}", std::io::Error::last_os_error());
    }
}

/// The namespace whose sockets are translated, and the cgroup to do it at.
fn node_sockets(cgroup: Option<&Path>) -> anyhow::Result<(u64, Option<&Path>)> {
    match netns_cookie() {
        Ok(cookie) => Ok((cookie, cgroup)),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            if cgroup.is_some() {
                tracing::error!(
                    "processes of the node are not connected to backends: Linux {} lacks SO_NETNS_COOKIE (since \
                     Linux 5.14). Pods and clients outside are served",
                    requirements::release()
                );
            }
            Ok((0, None))
        }
        Err(error) => Err(error).context("read the cookie of this network namespace"),
    }
}

/// Where XDP is to be attached, as far as the kernel can.
fn usable_xdp(choice: XdpChoice, abilities: Abilities) -> XdpChoice {
    if choice == XdpChoice::Off || abilities.xdp {
        return choice;
    }
    tracing::error!(
        "--xdp: no uplink has it, as Linux {} lacks bpf_xdp_load_bytes (since Linux 5.18); tc does the work",
        requirements::release()
    );
    XdpChoice::Off
}

/// How many slots `unconfirmed` has, and how many of them each CPU. Without a flag: such that unconfirmed flows, of two
/// entries each, take half of `flows`.
fn ring(sizes: &BTreeMap<String, u32>, cpus: usize) -> (u32, u32) {
    let size = |spec: &MapSpec| sizes.get(spec.name).copied();
    let flows = size(&maps::FLOWS).unwrap_or(maps::FLOWS.max_entries as u32);
    let cpus = u32::try_from(cpus).unwrap_or(1).max(1);
    let slots = (size(&maps::UNCONFIRMED).unwrap_or(flows / 4) / cpus).max(1);
    (slots.saturating_mul(cpus), slots)
}

/// Reads the object and creates its maps, or takes over the pinned ones. The programs are not loaded yet.
fn load_maps(
    object: &[u8],
    pins: &Pins,
    netns: u64,
    seed: u64,
    abilities: Abilities,
    options: &Options,
) -> anyhow::Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // Statistics only: a full log needs a larger buffer, for which aya loads the program again.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    let abilities = abilities.bits();
    loader.override_global(maps::config::ABILITIES, &abilities, true);
    loader.override_global(maps::config::NODE_NETNS, &netns, true);
    loader.override_global(maps::config::HASH_SEED, &seed, true);
    loader.override_global(maps::config::OPTIONS, &options.options, false);
    let snat = options.snat_ports.as_ref().map(|ports| (ports.ranges(), ports.taken()));
    if let Some((ranges, taken)) = &snat {
        loader.override_global(maps::config::SNAT_RANGES, ranges.as_flattened(), true);
        loader.override_global(maps::config::SNAT_TAKEN, taken.as_slice(), true);
    }
    loader.override_global(maps::config::TIMEOUTS, &options.timeouts, true);
    let (ring, slots) = ring(&options.sizes, aya::util::nr_cpus().map_err(|(_, error)| error)?);
    loader.override_global(maps::config::RING_SLOTS, &slots, true);
    for spec in &maps::PINNED {
        loader.map_pin_path(spec.name, pins.map(spec.name));
        if let Some(size) = options.sizes.get(spec.name) {
            loader.map_max_entries(spec.name, *size);
        }
        if spec.name == maps::UNCONFIRMED.name {
            loader.map_max_entries(spec.name, ring);
        }
    }
    let ebpf = loader.load(object).context("load the kernel object")?;
    for spec in &maps::PINNED {
        let path = pins.map(spec.name);
        Pins::protect(&path).with_context(|| format!("set the mode of {}", path.display()))?;
    }
    Ok(ebpf)
}

/// The secret of the maps that are pinned there, or a new one. Refuses maps of another layout.
fn adopt_state(path: &Path) -> anyhow::Result<u64> {
    if !path.exists() {
        let mut seed = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut seed).context("read /dev/urandom")?;
        return Ok(u64::from_ne_bytes(seed));
    }
    let refuse = || {
        format!(
            "{} is of another version of lbr: drain the node, remove the folder and start again",
            path.parent().unwrap_or(path).display()
        )
    };
    let map = Map::from_map_data(MapData::from_pin(path)?).with_context(refuse)?;
    let state: Array<MapData, State> = Array::try_from(map).with_context(refuse)?;
    let State { abi, seed, .. } = state.get(&0, 0)?;
    if abi != ABI_VERSION && abi != 0 {
        bail!("{} (layout {abi}, this lbr writes {ABI_VERSION})", refuse());
    }
    Ok(seed)
}

/// `SO_NETNS_COOKIE` of the network namespace of this thread.
fn netns_cookie() -> std::io::Result<u64> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` is 8 bytes, as `len` says, and lives across the call.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut len,
        )
    };
    if failed == 0 { Ok(cookie) } else { Err(std::io::Error::last_os_error()) }
}
