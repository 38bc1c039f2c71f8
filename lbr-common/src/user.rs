//! What only the agent needs of the shared types: leave to copy them in and out of maps, and text forms.

use core::fmt::{Display, Formatter, Result};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::string::ToString as _;

use crate::addr::Addr;
use crate::conntrack::Timeouts;
use crate::epoch::{EpochBlock, NearEpochs};
use crate::flow::{Flow, FragmentKey, FragmentPorts, SocketKey, SocketPeer};
use crate::id::{BackendId, ClassId, PolicyId, PortClassId, ServiceId};
use crate::link::{Link, Uplink};
use crate::maglev::{MaglevKey, MaglevPart};
use crate::policy::{Allow, Block, DenialKey, Endpoint, Event, Policy, Ports, VerdictKey, Versioned};
use crate::service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange, State, Traffic,
};
use crate::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RejectedRecord, RuleKey, RuleText, ServiceName,
};
use crate::tuple::{Tuple, proto};
use crate::verdict::Counter;

macro_rules! pod {
    ($($t:ty),* $(,)?) => {
        // SAFETY: each is `#[repr(C)]` or `#[repr(transparent)]` (size asserted beside its definition: no implicit padding),
        // made of integers and arrays of integers only, so every bit pattern is valid.
        $(unsafe impl aya::Pod for $t {})*
    };
}

pod!(
    BackendId,
    ClassId,
    PolicyId,
    PortClassId,
    ServiceId,
    Addr,
    Tuple,
    FrontendKey,
    Frontend,
    SlotKey,
    Slot,
    Backend,
    MaglevKey,
    MaglevPart,
    EpochBlock,
    NearEpochs,
    State,
    Link,
    Uplink,
    Affinity,
    AffinityKey,
    SourceRange,
    Flow,
    FragmentKey,
    FragmentPorts,
    SocketKey,
    SocketPeer,
    ServiceName,
    RejectedRecord,
    Counter,
    Traffic,
    Policy,
    Endpoint,
    Versioned<u32>,
    Versioned<ClassId>,
    Timeouts,
    Block,
    Ports,
    VerdictKey,
    Allow,
    DenialKey,
    Event,
    PolicyRecord,
    RuleKey,
    RuleText,
    MemberKey,
    Member,
    ClassRecord,
    PodName,
);

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        if addr.is_v4() { Ipv4Addr::from(addr.v4_octets()).into() } else { Ipv6Addr::from(addr.bytes).into() }
    }
}

impl Display for Addr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// `TCP`, `UDP`, …, or the number.
pub fn proto_name(number: u8) -> std::borrow::Cow<'static, str> {
    match number {
        proto::TCP => "TCP".into(),
        proto::UDP => "UDP".into(),
        proto::SCTP => "SCTP".into(),
        proto::ICMP => "ICMP".into(),
        proto::ICMPV6 => "ICMPv6".into(),
        other => std::format!("{other}").into(),
    }
}

/// `10.96.0.10:80` or `[fd00::a]:80`.
pub fn socket_text(addr: Addr, port: u16) -> std::string::String {
    std::net::SocketAddr::new(addr.into(), port).to_string()
}
