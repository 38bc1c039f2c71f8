//! The tc programs at the pods' links and at the uplinks: attached by tcx and pinned links (kernel 6.6 and later), else
//! by clsact with a fixed priority and handle. Either way they stay when the agent ends, and the next agent replaces
//! them in place.

use std::collections::BTreeSet;
use std::io;

use anyhow::{Context as _, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType, tc};
use lbr_common::verdict::Hook;

use super::pins::Pins;
use super::requirements;
use super::xdp::{XdpAttacher, XdpChoice};
use crate::interface;

/// What an interface leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// A pod.
    Pod,
    /// Everything outside of this node.
    Uplink,
}

impl Side {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::Pod, Self::Uplink];

    /// Its hooks: for packets that come in by the interface, and for those that go out.
    pub(super) const fn hooks(self) -> [(Hook, TcAttachType); 2] {
        match self {
            Self::Pod => [(Hook::FromPod, TcAttachType::Ingress), (Hook::ToPod, TcAttachType::Egress)],
            Self::Uplink => {
                [(Hook::FromNetdev, TcAttachType::Ingress), (Hook::ToNetdev, TcAttachType::Egress)]
            }
        }
    }

    /// The hooks of all interfaces.
    pub(super) fn all_hooks() -> impl Iterator<Item = Hook> {
        Self::ALL.into_iter().flat_map(Self::hooks).map(|(hook, _)| hook)
    }
}

/// Priority of the clsact filters. Other programs' filters may run before or after them.
pub(super) const PRIORITY: u16 = 50;

/// How tc programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachMode {
    /// tcx where the kernel has it, else clsact.
    #[default]
    Auto,
    /// tcx, or an error.
    Tcx,
    /// clsact.
    Clsact,
}

/// Attaches the programs to interfaces.
pub(super) struct Attacher {
    ebpf: Ebpf,
    pins: Pins,
    use_tcx: bool,
    attached: BTreeSet<(Side, u32)>,
    xdp: XdpAttacher,
}

impl Attacher {
    /// Replaces the programs of an earlier run wherever they are still attached. The new ones are loaded already.
    pub(super) fn new(mut ebpf: Ebpf, pins: Pins, mode: AttachMode, xdp: XdpChoice) -> anyhow::Result<Self> {
        let use_tcx = match mode {
            AttachMode::Auto => has_tcx(),
            AttachMode::Tcx if !has_tcx() => {
                bail!(
                    "--attach tcx: Linux {} lacks it (since Linux 6.6): leave the flag out",
                    requirements::release()
                )
            }
            AttachMode::Tcx => true,
            AttachMode::Clsact => false,
        };
        let xdp = XdpAttacher::new(&mut ebpf, &pins, xdp)?;
        let mut attacher = Self { ebpf, pins, use_tcx, attached: BTreeSet::new(), xdp };
        for side in Side::ALL {
            attacher.take_over(side)?;
        }
        Ok(attacher)
    }

    pub(super) fn ebpf(&self) -> &Ebpf {
        &self.ebpf
    }

    pub(super) fn programs(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Attaches both programs, unless they are attached.
    pub(super) fn attach(&mut self, side: Side, ifindex: u32) -> io::Result<()> {
        if self.attached.contains(&(side, ifindex)) {
            return Ok(());
        }
        let name = interface::name(ifindex).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        for (hook, direction) in side.hooks() {
            self.attach_one(ifindex, &name, hook, direction)?;
        }
        self.attached.insert((side, ifindex));
        Ok(())
    }

    /// Attaches the XDP program to an uplink as well, if that is wanted and possible there.
    pub(super) fn attach_xdp(&mut self, ifindex: u32) {
        self.xdp.attach(&mut self.ebpf, &self.pins, ifindex);
    }

    /// Detaches both programs, and XDP's. An interface that is gone took them along, and only its pin is left.
    pub(super) fn detach(&mut self, side: Side, ifindex: u32) -> io::Result<()> {
        if side == Side::Uplink {
            // First, since XDP leaves packets to the tc programs.
            self.xdp.detach(&self.pins, ifindex)?;
        }
        for (hook, direction) in side.hooks() {
            self.pins.remove_link(&pin_name(ifindex, hook))?;
            if !self.use_tcx {
                detach_clsact(ifindex, direction, hook);
            }
        }
        self.attached.remove(&(side, ifindex));
        Ok(())
    }

    fn attach_one(
        &mut self,
        ifindex: u32,
        name: &str,
        hook: Hook,
        direction: TcAttachType,
    ) -> io::Result<()> {
        if self.use_tcx {
            self.attach_tcx(ifindex, name, hook, direction)
        } else {
            self.attach_clsact(name, hook, direction)
        }
    }

    fn attach_tcx(
        &mut self,
        ifindex: u32,
        name: &str,
        hook: Hook,
        direction: TcAttachType,
    ) -> io::Result<()> {
        let pin = self.pins.link(&pin_name(ifindex, hook));
        // A pin that is not in `attached` belongs to a former interface with this index.
        self.pins.remove_link(&pin_name(ifindex, hook))?;
        let program = program(&mut self.ebpf, hook).map_err(io::Error::other)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(name, direction, options).map_err(io_error)?;
        let link = program.take_link(id).map_err(io_error)?;
        let link = FdLink::try_from(link).map_err(io::Error::other)?;
        link.pin(&pin).map_err(io::Error::other)?;
        Pins::protect(&pin)
    }

    fn attach_clsact(&mut self, name: &str, hook: Hook, direction: TcAttachType) -> io::Result<()> {
        match tc::qdisc_add_clsact(name) {
            // clsact exists already. (The error's text is the kernel's, and changes.)
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
            other => other.map_err(io::Error::other)?,
        }
        let program = program(&mut self.ebpf, hook).map_err(io::Error::other)?;
        let place = SchedClassifierLink::attached(name, direction, PRIORITY, handle(hook), None)?;
        let id = match program.attach_to_link(place) {
            Ok(id) => id,
            // There is no filter to replace.
            Err(_) => {
                let options = NlOptions { priority: PRIORITY, handle: handle(hook), classid: None };
                program
                    .attach_with_options(name, direction, TcAttachOptions::Netlink(options))
                    .map_err(io_error)?
            }
        };
        // aya's netlink link detaches when dropped, and the filter must outlive the agent.
        std::mem::forget(program.take_link(id).map_err(io_error)?);
        Ok(())
    }

    /// Replaces the programs that an earlier run left.
    fn take_over(&mut self, side: Side) -> anyhow::Result<()> {
        let mut complete: Option<BTreeSet<u32>> = None;
        for (hook, _) in side.hooks() {
            let mut updated = BTreeSet::new();
            for pin in self.pins.links()? {
                let Some(ifindex) = parse_pin_name(&pin, hook) else { continue };
                match update(program(&mut self.ebpf, hook)?, &self.pins.link(&pin)) {
                    Ok(()) => {
                        updated.insert(ifindex);
                    }
                    // The interface is gone (ENOLINK from the kernel), or the pin is not lbr's.
                    Err(error) => {
                        tracing::debug!("pinned link {pin} is stale and is removed: {error:#}");
                        self.pins.remove_link(&pin)?;
                    }
                }
            }
            complete = Some(complete.map_or_else(|| updated.clone(), |complete| &complete & &updated));
        }
        self.attached.extend(complete.into_iter().flatten().map(|ifindex| (side, ifindex)));
        Ok(())
    }
}

/// Whether the kernel has tcx. Queries the programs at the loopback interface, which every network namespace has: the
/// kernel answers EINVAL only if it does not know the attach type. To name attached programs takes `CAP_SYS_ADMIN`, so
/// a refusal means that it has tcx.
pub fn has_tcx() -> bool {
    let asked = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    asked.map_err(io_error).err().and_then(|error| error.raw_os_error()) != Some(libc::EINVAL)
}

fn update(program: &mut SchedClassifier, pin: &std::path::Path) -> anyhow::Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
    // The pin keeps the link; this process needs no descriptor of it.
    drop(program.take_link(id)?);
    Ok(())
}

fn program(ebpf: &mut Ebpf, hook: Hook) -> anyhow::Result<&mut SchedClassifier> {
    let program = ebpf.program_mut(hook.name());
    Ok(program.with_context(|| format!("the kernel object has no program {}", hook.name()))?.try_into()?)
}

fn detach_clsact(ifindex: u32, direction: TcAttachType, hook: Hook) {
    let Some(name) = interface::name(ifindex) else { return };
    if let Ok(link) = SchedClassifierLink::attached(&name, direction, PRIORITY, handle(hook), None) {
        drop(link);
    }
}

fn handle(hook: Hook) -> TcHandle {
    TcHandle::new(0, minor(hook))
}

/// Distinguishes the filters of the hooks, which have one priority.
pub(super) fn minor(hook: Hook) -> u16 {
    hook as u16 + 1
}

fn pin_name(ifindex: u32, hook: Hook) -> String {
    format!("{ifindex}-{}", hook.name())
}

pub(super) fn parse_pin_name(pin: &str, hook: Hook) -> Option<u32> {
    pin.strip_suffix(hook.name())?.strip_suffix('-')?.parse().ok()
}

fn io_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(call) => call.io_error,
        other => io::Error::other(other),
    }
}
