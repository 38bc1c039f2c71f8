//! The XDP program at the uplinks: attached by pinned links, so that it stays when the agent ends and is replaced in
//! place. It only takes work off the tc programs, so an uplink without it is no error.

use std::collections::BTreeSet;
use std::io;

use anyhow::Context as _;
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpError, XdpLink};
use aya::programs::{ProgramError, Xdp, xdp};

use super::pins::Pins;
use crate::interface;
use crate::netlink::{Family, Socket, attribute, text};

/// Where the program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpChoice {
    /// Nowhere.
    #[default]
    Off,
    /// At interfaces with a device of their own (not veth, bond, vlan, ...), in the driver.
    Auto,
    /// In the driver of every uplink.
    Native,
    /// Behind the driver of every uplink, on packet buffers.
    Generic,
}

impl XdpChoice {
    /// Whether it takes the program with this name.
    pub(super) fn takes(self, program: &str) -> bool {
        match self {
            Self::Off => false,
            Self::Auto | Self::Native => program == XdpMode::Native.program(),
            Self::Generic => program == XdpMode::Generic.program(),
        }
    }
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// The driver runs it.
    Native,
    /// The kernel runs it, behind the driver.
    Generic,
}

impl XdpMode {
    /// Name for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// End of the names of its pins. They record the mode, since the kernel's link does not.
    const fn suffix(self) -> &'static str {
        match self {
            Self::Native => "-xdp",
            Self::Generic => "-xdp_generic",
        }
    }

    /// Name of its program in the kernel object.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Native => "xdp_native",
            Self::Generic => "xdp_generic",
        }
    }

    const fn flag(self) -> xdp::XdpMode {
        match self {
            Self::Native => xdp::XdpMode::Driver,
            Self::Generic => xdp::XdpMode::Skb,
        }
    }
}

/// Interface and mode of a pin.
pub(super) fn parse_pin_name(pin: &str) -> Option<(u32, XdpMode)> {
    let of = |mode: XdpMode| Some((pin.strip_suffix(mode.suffix())?.parse().ok()?, mode));
    [XdpMode::Native, XdpMode::Generic].into_iter().find_map(of)
}

/// Attaches the program to uplinks.
pub(super) struct XdpAttacher {
    choice: XdpChoice,
    /// Uplinks that were tried, with or without success: a driver that refused once would refuse again.
    seen: BTreeSet<u32>,
}

impl XdpAttacher {
    /// Replaces the program of an earlier run with the loaded one wherever it is still wanted, and detaches it
    /// elsewhere.
    pub(super) fn new(ebpf: &mut Ebpf, pins: &Pins, choice: XdpChoice) -> anyhow::Result<Self> {
        let mut attacher = Self { choice, seen: BTreeSet::new() };
        for pin in pins.links()? {
            let Some((ifindex, mode)) = parse_pin_name(&pin) else { continue };
            if attacher.mode_at(ifindex) == Some(mode) {
                match update(program(ebpf, mode)?, &pins.link(&pin)) {
                    Ok(()) => {
                        attacher.seen.insert(ifindex);
                        continue;
                    }
                    Err(error) => tracing::debug!("pinned link {pin} is stale and is removed: {error:#}"),
                }
            }
            pins.remove_link(&pin)?;
        }
        Ok(attacher)
    }

    /// Attaches the program to an uplink, once, and logs the result.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, pins: &Pins, ifindex: u32) {
        if self.choice == XdpChoice::Off || !self.seen.insert(ifindex) {
            return;
        }
        let name = interface::name_or_number(ifindex);
        let Some(mode) = self.mode_at(ifindex) else {
            tracing::info!(
                "uplink {name}: no XDP, as --xdp=auto leaves virtual interfaces out; tc does the work"
            );
            return;
        };
        let mode_name = mode.name();
        match attach(ebpf, pins, ifindex, mode) {
            Ok(()) => {
                tracing::info!("uplink {name}: XDP, {mode_name}");
                if mode == XdpMode::Native && kind(ifindex).is_ok_and(|kind| kind.as_deref() == Some("veth"))
                {
                    tracing::warn!(
                        "uplink {name} is a veth: what XDP sends arrives only if its other end runs an XDP program \
                         too, or has GRO on (`ethtool -K DEVICE gro on` there); if not, leave --xdp=native out"
                    );
                }
            }
            Err(error) => {
                let why = reason(&error, mode);
                if self.choice == XdpChoice::Auto && error.raw_os_error() == Some(libc::EOPNOTSUPP) {
                    tracing::info!("uplink {name}: no XDP: {why}; tc does the work");
                } else {
                    tracing::error!("uplink {name}: {mode_name} XDP failed: {why}; tc does the work");
                }
            }
        }
    }

    /// Detaches the program from an interface.
    pub(super) fn detach(&mut self, pins: &Pins, ifindex: u32) -> io::Result<()> {
        self.seen.remove(&ifindex);
        for mode in [XdpMode::Native, XdpMode::Generic] {
            pins.remove_link(&pin_name(ifindex, mode))?;
        }
        Ok(())
    }

    fn mode_at(&self, ifindex: u32) -> Option<XdpMode> {
        match self.choice {
            XdpChoice::Off => None,
            XdpChoice::Native => Some(XdpMode::Native),
            XdpChoice::Generic => Some(XdpMode::Generic),
            XdpChoice::Auto => is_device(ifindex).unwrap_or(false).then_some(XdpMode::Native),
        }
    }
}

fn program(ebpf: &mut Ebpf, mode: XdpMode) -> anyhow::Result<&mut Xdp> {
    let name = mode.program();
    let program = ebpf.program_mut(name);
    Ok(program.with_context(|| format!("the kernel object has no program {name}"))?.try_into()?)
}

fn attach(ebpf: &mut Ebpf, pins: &Pins, ifindex: u32, mode: XdpMode) -> io::Result<()> {
    let name = pin_name(ifindex, mode);
    // A pin that was not taken over belongs to a former interface with this index.
    pins.remove_link(&name)?;
    let program = program(ebpf, mode).map_err(io::Error::other)?;
    let id = program.attach_to_if_index(ifindex, mode.flag()).map_err(io_error)?;
    let link = FdLink::try_from(program.take_link(id).map_err(io_error)?).map_err(io::Error::other)?;
    link.pin(pins.link(&name)).map_err(io::Error::other)?;
    Pins::protect(&pins.link(&name))
}

fn update(program: &mut Xdp, pin: &std::path::Path) -> anyhow::Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let id = program.attach_to_link(XdpLink::try_from(link)?)?;
    // The pin keeps the link; this process needs no descriptor of it.
    drop(program.take_link(id)?);
    Ok(())
}

fn pin_name(ifindex: u32, mode: XdpMode) -> String {
    format!("{ifindex}{}", mode.suffix())
}

/// Whether an interface is a device of its own, not a virtual one.
fn is_device(ifindex: u32) -> io::Result<bool> {
    Ok(kind(ifindex)?.is_none())
}

/// The kind of a virtual interface, as the kernel names it: veth, bond, vlan, ...; `None` for a device of its own. A
/// veth takes the program, but drops what XDP sends unless the other end polls (`veth_xdp_xmit` in the kernel), for an
/// XDP program of its own or for GRO. The kernel reports no error.
fn kind(ifindex: u32) -> io::Result<Option<String>> {
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    /// Length of `struct ifinfomsg`, in words.
    const HEADER: usize = 4;
    let ask: [u32; HEADER] = [0, ifindex, 0, 0];
    let ask: Vec<u8> = ask.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let answers = Socket::open(Family::Route)?.ask(libc::RTM_GETLINK, 0, &ask)?;
    let attributes = answers.first().and_then(|(_, body)| body.get(4 * HEADER..)).unwrap_or_default();
    if answers.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    Ok(attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND)).map(text))
}

/// The reason, as something that the operator can act on.
fn reason(error: &io::Error, mode: XdpMode) -> String {
    match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached there, and is left alone".to_owned()
        }
        Some(libc::EOPNOTSUPP) if mode == XdpMode::Native => "its driver has no native XDP".to_owned(),
        Some(libc::EINVAL | libc::ERANGE | libc::ENOSPC) => {
            format!("its driver refuses, because of its MTU, its number of queues or LRO: {error}")
        }
        _ => error.to_string(),
    }
}

fn io_error(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(call) => call.io_error,
        ProgramError::XdpError(XdpError::NetlinkError(ref netlink)) => {
            netlink.raw_os_error().map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
        }
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_tell_interface_and_mode() {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            assert_eq!(parse_pin_name(&pin_name(7, mode)), Some((7, mode)));
        }
        for other in ["xdp", "-xdp", "a-xdp", "7-xdp_other", "7-from_netdev"] {
            assert_eq!(parse_pin_name(other), None, "{other}");
        }
    }
}
