//! Runs a program on a packet and reads from the counters what it decided.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapData;
use aya::programs::SchedClassifier;
use lbr_agent::dataplane::Kernel;
use lbr_common::maps;
use lbr_common::verdict::{self, Counter, Hook, Verdict};

use super::{Action, Ran, sys};

/// Verdicts of one hook, side by side in `counters`.
const PER_HOOK: usize = verdict::VERDICTS_PER_HOOK as usize;

/// The counters as the last run left them. Nothing else may run the programs meanwhile.
pub struct Meter {
    counters: MapData,
    cpus: usize,
    is_summed: bool,
    counts: Vec<Counter>,
}

impl Meter {
    /// Opens the counters of a loaded object.
    pub fn open(pins: &Path) -> Result<Self> {
        let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::Error::new(error).context(what))?;
        let mut meter = Self {
            counters: MapData::from_pin(pins.join(maps::COUNTERS.name))?,
            cpus,
            is_summed: false,
            counts: vec![Counter::default(); cpus * verdict::COUNTERS as usize],
        };
        // Those of an earlier load go on counting.
        for hook in Hook::ALL {
            meter.read_counters(hook).context("read map counters")?;
        }
        Ok(meter)
    }

    /// From now on packets come with a sum that their device made (`CHECKSUM_COMPLETE`), and a run fails if the
    /// program leaves that wrong. False if the kernel can not (before 6.16).
    pub fn sum_packets(&mut self, kernel: &mut Kernel, link: u32) -> Result<bool> {
        self.is_summed = true;
        // Not IP: no program changes it.
        match self.test_run(kernel, Hook::FromPod, [link; 2], &[0; 60], 1) {
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

    /// Runs a packet through a hook at a link. `entered_by`: the interface by which it came into the node.
    pub fn run(
        &mut self,
        kernel: &mut Kernel,
        hook: Hook,
        link: u32,
        entered_by: u32,
        packet: &[u8],
    ) -> Result<Ran> {
        // Nothing else runs these programs, so the counters are as the last run left them.
        let before = self.counts.clone();
        let (returned, _, packet_out) =
            self.test_run(kernel, hook, [entered_by, link], packet, 1).context("BPF_PROG_TEST_RUN")?;
        self.read_counters(hook).context("read map counters")?;
        let (verdict, audits) = self.counted(hook, &before, packet.len())?;
        let action = match returned {
            -1 => Action::Pass,
            2 => Action::Drop,
            7 => Action::Redirect,
            other => bail!("{verdict:?}: action {other}"),
        };
        Ok(Ran { verdict, audits, action, packet: packet_out })
    }

    /// How long a run takes, on average over `repeat` runs on the same packet.
    pub fn time(
        &mut self,
        kernel: &mut Kernel,
        hook: Hook,
        link: u32,
        entered_by: u32,
        packet: &[u8],
        repeat: u32,
    ) -> Result<Duration> {
        let (_, nanoseconds, _) =
            self.test_run(kernel, hook, [entered_by, link], packet, repeat).context("BPF_PROG_TEST_RUN")?;
        self.read_counters(hook).context("read map counters")?;
        Ok(Duration::from_nanos(nanoseconds.into()))
    }

    fn test_run(
        &self,
        kernel: &mut Kernel,
        hook: Hook,
        interfaces: [u32; 2],
        packet: &[u8],
        repeat: u32,
    ) -> io::Result<(i32, u32, Vec<u8>)> {
        let ctx = context(interfaces);
        let program = kernel.programs().program_mut(hook.name()).ok_or(io::ErrorKind::NotFound)?;
        let program: &mut SchedClassifier = program.try_into().map_err(io::Error::other)?;
        let fd = program.fd().map_err(io::Error::other)?.as_fd();
        let flags = if self.is_summed { sys::CHECKSUM_COMPLETE } else { 0 };
        let mut out = Vec::new();
        let (returned, nanoseconds) = sys::test_run(fd, packet, &ctx, flags, repeat, &mut out)?;
        Ok((returned, nanoseconds, out))
    }

    fn read_counters(&mut self, hook: Hook) -> io::Result<()> {
        let first = hook as u32 * verdict::VERDICTS_PER_HOOK;
        let values = &mut self.counts[first as usize * self.cpus..][..PER_HOOK * self.cpus];
        sys::lookup_many(self.counters.fd().as_fd(), first, self.cpus, values)
    }

    /// The verdict whose counter moved, and the audits, each by one packet of this length.
    fn counted(&self, hook: Hook, before: &[Counter], len: usize) -> Result<(Verdict, Vec<Verdict>)> {
        let of_hook = hook as usize * PER_HOOK * self.cpus;
        let both = before.iter().zip(&self.counts).skip(of_hook).take(PER_HOOK * self.cpus);
        let (mut verdicts, mut audits) = (Vec::new(), Vec::new());
        for (at, (old, new)) in both.enumerate().filter(|(_, (old, new))| old != new) {
            let number = at / self.cpus;
            let verdict =
                *Verdict::ALL.get(number).with_context(|| format!("there is no verdict {number}"))?;
            let (packets, bytes) = (new.packets - old.packets, new.bytes - old.bytes);
            ensure!(packets == 1, "{verdict:?} was counted {packets} times");
            ensure!(bytes == len as u64, "{bytes} bytes of {len} were counted as {verdict:?}");
            match verdict {
                Verdict::EgressAudited | Verdict::IngressAudited => audits.push(verdict),
                verdict => verdicts.push(verdict),
            }
        }
        match verdicts[..] {
            [verdict] => Ok((verdict, audits)),
            _ => bail!("one verdict should have been counted, not {verdicts:?}"),
        }
    }
}

/// `struct __sk_buff` up to `ingress_ifindex` and `ifindex`, the only fields that are not zero.
fn context(interfaces: [u32; 2]) -> [u8; 44] {
    let mut ctx = [0; 44];
    ctx[36..40].copy_from_slice(&interfaces[0].to_ne_bytes());
    ctx[40..].copy_from_slice(&interfaces[1].to_ne_bytes());
    ctx
}

/// A program that returns at once: what a run takes by itself.
pub struct Empty(OwnedFd);

impl Empty {
    /// Loads it.
    pub fn load() -> Result<Self> {
        sys::load_empty().map(Self).context("load an empty program")
    }

    /// How long a run takes, on average over `repeat` runs.
    pub fn time(&self, link: u32, packet: &[u8], repeat: u32) -> Result<Duration> {
        let run = sys::test_run(self.0.as_fd(), packet, &context([link; 2]), 0, repeat, &mut Vec::new());
        let (_, nanoseconds) = run.context("BPF_PROG_TEST_RUN")?;
        Ok(Duration::from_nanos(nanoseconds.into()))
    }
}
