//! The agent as a process over an API server: its log, its maps, and its resources.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, MapData};
use lbr_common::id::BackendId;
use lbr_common::maps;
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey};
use lbr_common::tuple::proto;

use crate::agent::binary;
use crate::apiserver::Server;
use crate::process::Proc;
use crate::testrun::open;
use crate::topology::{Bed, Node};

/// The longest time that a start may take.
const START: Duration = Duration::from_secs(600);

/// Killed when dropped.
pub(super) struct Agent {
    process: Proc,
    started: Instant,
    log: PathBuf,
    bpffs: PathBuf,
}

/// One round of the agent's loop with writes, as in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) compiled: Duration,
    /// Including the writes.
    pub(super) in_force: Duration,
}

/// In bytes.
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Agent {
    /// Starts it with maps of its own.
    pub(super) fn start(bed: &mut Bed, node: &Node, server: &Server, name: &str) -> Result<Self> {
        let config = bed.folder().join(format!("kubeconfig-{name}"));
        fs::write(&config, server.kubeconfig()).context("write a kubeconfig")?;
        let log = bed.folder().join(format!("{name}.log"));
        let file = File::create(&log).context("make a log")?;
        let bpffs = bed.bpffs()?.join(name);
        let mut command = node.ns.command(binary()?)?;
        command
            .args(["run", "--node-name", "node", "--socket-lb", "off", "--kubeconfig"])
            .arg(&config)
            .arg("--bpffs")
            .arg(&bpffs)
            .env("NO_COLOR", "1")
            .env("RUST_LOG", "info,lbr_agent::agent=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file);
        let started = Instant::now();
        Ok(Self { process: Proc::spawn(&mut command)?, started, log, bpffs })
    }

    /// The time since the start.
    pub(super) fn wait_until_ready(&mut self) -> Result<Duration> {
        loop {
            let log = self.log()?;
            if log.contains(" ready: ") {
                return Ok(self.started.elapsed());
            }
            if self.process.try_wait()?.is_some() || self.started.elapsed() > START {
                bail!("not ready:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What its log says of the parts of its start, once it is ready.
    pub(super) fn parts_of_start(&self) -> Result<String> {
        parts(&self.log()?).context("the log does not tell the parts of the start")
    }

    /// Waits until it has used no CPU for a second.
    pub(super) fn wait_until_idle(&self) -> Result<()> {
        let end = Instant::now() + START;
        let mut before = self.cpu_time()?;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_secs(1));
            let now = self.cpu_time()?;
            if now - before < Duration::from_millis(30) {
                return Ok(());
            }
            before = now;
        }
        bail!("it never rests:\n{}", self.log()?)
    }

    /// All rounds so far.
    pub(super) fn rounds(&self) -> Result<Vec<Round>> {
        Ok(self.log()?.lines().filter_map(round).collect())
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(&self.log).with_context(|| format!("read {}", self.log.display()))
    }

    /// Its present memory.
    pub(super) fn memory(&self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            kilobytes.map(|kilobytes| kilobytes * 1024).with_context(|| format!("no {name} of the agent"))
        };
        Ok(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }

    /// CPU time of all threads since the start. The kernel counts in hundredths of a second.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let field = |n: usize| fields.split(' ').nth(n).and_then(|text| text.parse::<u64>().ok());
        let ticks = field(11).zip(field(12)).map(|(user, system)| user + system);
        Ok(Duration::from_millis(10 * ticks.context("no times in stat")?))
    }

    /// The maps that it writes.
    pub(super) fn maps(&self) -> Result<Maps> {
        Ok(Maps {
            frontends: HashMap::try_from(open(&self.bpffs, &maps::FRONTENDS)?)?,
            slots: HashMap::try_from(open(&self.bpffs, &maps::SLOTS)?)?,
            backends: HashMap::try_from(open(&self.bpffs, &maps::BACKENDS)?)?,
        })
    }
}

/// The maps as programs see them.
pub(super) struct Maps {
    frontends: HashMap<MapData, FrontendKey, Frontend>,
    slots: HashMap<MapData, SlotKey, Slot>,
    backends: HashMap<MapData, BackendId, Backend>,
}

impl Maps {
    /// The frontend of port 80 of a ClusterIP.
    pub(super) fn service(&self, ip: Ipv4Addr) -> Result<Frontend> {
        let addr = std::net::IpAddr::from(ip).into();
        let key = FrontendKey { addr, port: 80, proto: proto::TCP, ..FrontendKey::default() };
        self.frontends.get(&key, 0).with_context(|| format!("no frontend {ip}"))
    }

    /// Whether new connections are led to this address.
    pub(super) fn leads_to(&self, service: &Frontend, address: Ipv4Addr) -> Result<bool> {
        let address = std::net::IpAddr::from(address).into();
        // A new endpoint has the highest address, and so the last slot.
        let slot = service.slot(service.count.saturating_sub(1));
        let backend = self.slots.get(&slot, 0).and_then(|slot| self.backends.get(&slot.backend, 0));
        match backend {
            Ok(backend) => Ok(backend.addr == address),
            // It was replaced between two reads, or the Service has no endpoint yet.
            Err(aya::maps::MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// `compiled in 1.2ms, in force after 3.4ms writes=...`.
fn round(line: &str) -> Option<Round> {
    let (_, rest) = line.split_once("compiled in ")?;
    let (compiled, rest) = rest.split_once(", in force after ")?;
    Some(Round { compiled: time(compiled)?, in_force: time(rest.split(' ').next()?)? })
}

/// `ready: 3 Service ports, ..., in 1.234 s: list ...`.
fn parts(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains(" ready: "))?;
    Some(line.split_once(" s: ")?.1.to_owned())
}

/// A duration as Rust prints it.
fn time(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_read_from_the_log() {
        let line = "DEBUG compiled in 1.5ms, in force after 2.25s writes=3 removals=1";
        let expected =
            Round { compiled: Duration::from_micros(1_500), in_force: Duration::from_millis(2_250) };
        assert_eq!(round(line), Some(expected));
        let ready = "INFO ready: 3 Service ports, in 1.000 s: list 0.500 s, load 1.000 s, compile 0.001 s";
        assert_eq!(round(ready), None);
        let parts = parts(&format!("{line}\n{ready}\n"));
        assert_eq!(parts.as_deref(), Some("list 0.500 s, load 1.000 s, compile 0.001 s"));
        assert_eq!(time("7.5µs"), Some(Duration::from_nanos(7_500)));
    }
}
