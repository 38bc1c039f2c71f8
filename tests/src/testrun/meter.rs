//! Runs a program on a packet, and reads its verdict from the counters.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapData;
use lbr_agent::dataplane::{Kernel, XdpMode};
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
        meter.start_over()?;
        Ok(meter)
    }

    /// Takes the present counters, from an earlier load or set by a test, as those of the last run. Packets come
    /// without a device checksum again.
    pub(super) fn start_over(&mut self) -> Result<()> {
        self.is_summed = false;
        for hook in Hook::ALL {
            self.read_counters(hook).context("read map counters")?;
        }
        Ok(())
    }

    /// From now on packets come with a checksum by their device (`CHECKSUM_COMPLETE`), and a run fails if the program
    /// leaves it wrong. False if the kernel does not support that (before 6.16).
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

    /// Runs a packet through a hook at a link. `entered_by`: the interface by which it entered the node.
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
        let action = match (hook, returned) {
            (Hook::Xdp, 2) => Action::Pass,
            (Hook::Xdp, 1) => Action::Drop,
            (Hook::Xdp, 3) => Action::Transmit,
            (Hook::Xdp, other) => bail!("{verdict:?}: XDP action {other}"),
            (_, -1) => Action::Pass,
            (_, 2) => Action::Drop,
            (_, 7) => Action::Redirect,
            (_, other) => bail!("{verdict:?}: action {other}"),
        };
        Ok(Ran { verdict, audits, action, packet: packet_out })
    }

    /// The average time of a run, over `repeat` runs on the same packet.
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
        let ctx = context(hook, interfaces, packet.len());
        let name = if hook == Hook::Xdp { XdpMode::Native.program() } else { hook.name() };
        let program = kernel
            .programs()
            .and_then(|programs| programs.program_mut(name))
            .ok_or(io::ErrorKind::NotFound)?;
        let fd = program.fd().map_err(io::Error::other)?.as_fd();
        let flags = if self.is_summed && hook != Hook::Xdp { sys::CHECKSUM_COMPLETE } else { 0 };
        let mut out = Vec::new();
        let (returned, nanoseconds) = sys::test_run(fd, packet, &words(&ctx), flags, repeat, &mut out)?;
        Ok((returned, nanoseconds, out))
    }

    fn read_counters(&mut self, hook: Hook) -> io::Result<()> {
        let first = hook as u32 * verdict::VERDICTS_PER_HOOK;
        let values = &mut self.counts[first as usize * self.cpus..][..PER_HOOK * self.cpus];
        sys::lookup_many(self.counters.fd().as_fd(), first, self.cpus, values)
    }

    /// The verdict whose counter changed, and the audits, each by one packet of this length.
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

/// The context of a packet of this length: the interface by which it entered the node, and the one where it is.
fn context(hook: Hook, [entered_by, link]: [u32; 2], len: usize) -> Vec<u32> {
    match hook {
        // `struct xdp_md`: begin, end, begin of what a driver adds, interface, queue, interface to send by.
        Hook::Xdp => vec![0, len as u32, 0, link, 0, 0],
        // `struct __sk_buff` up to `ingress_ifindex` and `ifindex`, the only fields that are not zero.
        _ => vec![0, 0, 0, 0, 0, 0, 0, 0, 0, entered_by, link],
    }
}

fn words(ctx: &[u32]) -> Vec<u8> {
    ctx.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A program that returns at once: the cost of a run itself.
pub struct Empty {
    program: OwnedFd,
    hook: Hook,
}

impl Empty {
    /// Loads one of the hook's program type.
    pub fn load(hook: Hook) -> Result<Self> {
        let program = sys::load_empty(hook == Hook::Xdp).context("load an empty program")?;
        Ok(Self { program, hook })
    }

    /// The average time of a run, over `repeat` runs.
    pub fn time(&self, link: u32, packet: &[u8], repeat: u32) -> Result<Duration> {
        let ctx = words(&context(self.hook, [link; 2], packet.len()));
        let run = sys::test_run(self.program.as_fd(), packet, &ctx, 0, repeat, &mut Vec::new());
        let (_, nanoseconds) = run.context("BPF_PROG_TEST_RUN")?;
        Ok(Duration::from_nanos(nanoseconds.into()))
    }
}
