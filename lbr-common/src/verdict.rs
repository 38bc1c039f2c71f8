//! What can happen to a packet, by name. Hooks, counters, `lbr show` and tests all use this list.

/// Where a verdict was reached.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// tc ingress of the host side of a pod's veth: packets that a pod sends.
    FromPod = 0,
    /// tc egress of the host side of a pod's veth: packets that reach a pod by the stack.
    ToPod = 1,
    /// cgroup socket programs: sockets of the node's own network namespace.
    Socket = 2,
    /// tc ingress of an uplink: what comes by the wire.
    FromNetdev = 3,
    /// tc egress of an uplink: what the node itself sends.
    ToNetdev = 4,
    /// XDP of an uplink: what comes by the wire, before it has a packet buffer.
    Xdp = 5,
}

impl Hook {
    /// All of them, in order of their number.
    pub const ALL: [Self; 6] =
        [Self::FromPod, Self::ToPod, Self::Socket, Self::FromNetdev, Self::ToNetdev, Self::Xdp];

    /// Name for people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::Socket => "socket",
            Self::FromNetdev => "from_netdev",
            Self::ToNetdev => "to_netdev",
            Self::Xdp => "xdp",
        }
    }
}

/// What a verdict does to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Goes on as it was.
    Pass,
    /// Goes on translated.
    Translate,
    /// The sender gets an answer: ICMP port unreachable, a TCP reset, or `ECONNREFUSED` from the system call.
    Refuse,
    /// Ends here.
    Drop,
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $effect:ident, $text:literal;)*) => {
        /// Why a packet went the way it went. One counter for each and every [`Hook`].
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[must_use]
        pub enum Verdict {
            $($(#[$doc])* $name = $number,)*
        }

        impl Verdict {
            /// All of them, in order of their number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name for people and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it does to the packet.
            #[inline(always)]
            pub const fn effect(self) -> Effect {
                match self { $(Self::$name => Effect::$effect,)* }
            }
        }
    };
}

verdicts! {
    /// Neither IPv4 nor IPv6 (ARP, for instance).
    NotIp = 0, Pass, "not_ip";
    /// The destination is no Service's.
    NotService = 1, Pass, "not_service";
    /// Carries a VLAN tag: lbr's Services are for untagged pod traffic.
    VlanTagged = 2, Pass, "vlan_tagged";
    /// Steered by a routing header that is not used up: the destination is not the last one.
    RoutingHeader = 3, Pass, "routing_header";
    /// A fragment without ports whose first fragment was not seen, for an address that is no Service's.
    FragmentNotTracked = 4, Pass, "fragment_not_tracked";
    /// From a client to a backend: destination translated.
    ToBackend = 5, Translate, "to_backend";
    /// From a backend to its client: source translated.
    ToClient = 6, Translate, "to_client";
    /// An ICMP error about a translated packet, translated with the packet that it quotes.
    IcmpError = 7, Translate, "icmp_error";
    /// `connect` to a Service: the socket is connected to a backend.
    SocketConnect = 8, Translate, "socket_connect";
    /// `sendmsg` to a Service on a socket without a connection.
    SocketSend = 9, Translate, "socket_send";
    /// `recvmsg` or `getpeername` shows the Service in place of the backend.
    SocketShow = 10, Translate, "socket_show";
    /// The Service has no usable endpoint.
    NoEndpoint = 11, Refuse, "no_endpoint";
    /// The address is a Service's, the port is not.
    NoSuchPort = 12, Refuse, "no_such_port";
    /// Headers that contradict each other or the packet's length.
    Malformed = 13, Drop, "malformed";
    /// More IPv6 extension headers than lbr follows.
    TooManyHeaders = 14, Drop, "too_many_headers";
    /// A fragment for a Service whose first fragment was not seen.
    FragmentUnknown = 15, Drop, "fragment_unknown";
    /// The Service is for endpoints on this node only (Local traffic policy), and there is none.
    NoLocalEndpoint = 16, Drop, "no_local_endpoint";
    /// The chosen slot or its backend is not in the maps: the agent's writes and this packet crossed.
    BackendMissing = 17, Drop, "backend_missing";
    /// The kernel did not take a new entry of `flows`.
    FlowTableFull = 18, Drop, "flow_table_full";
    /// Every source port tried for this backend is in use by a flow to another frontend.
    PortsExhausted = 19, Drop, "ports_exhausted";
    /// A helper refused to change the packet.
    RewriteFailed = 20, Drop, "rewrite_failed";
    /// To a Service, of a kind that gets no refusal (an ICMP error, multicast source).
    Unanswerable = 21, Drop, "unanswerable";
    /// A connection without a Service, allowed by the policies of both its ends, or their answer.
    Allowed = 22, Pass, "allowed";
    /// From the node itself, or to one of its addresses: not subject to policy.
    Node = 23, Pass, "node";
    /// Neighbour discovery and multicast listener messages of ICMPv6: never judged.
    NeighborDiscovery = 24, Pass, "neighbor_discovery";
    /// The sender's policies isolate it, and none allows this.
    EgressDenied = 25, Drop, "egress_denied";
    /// The receiver's policies isolate it, and none allows this.
    IngressDenied = 26, Drop, "ingress_denied";
    /// The source address does not belong to the link that the packet came from.
    SpoofedSource = 27, Drop, "spoofed_source";
    /// A router advertisement or a redirect, which is no pod's business.
    RouterMessage = 28, Drop, "router_message";
    /// The pod is not known yet, and the agent was started with `--pending=deny`.
    PodPending = 29, Drop, "pod_pending";
    /// The pod is isolated, and policy does not judge packets of this kind: a routing header,
    /// or no address of the pod.
    NotJudged = 30, Drop, "not_judged";
    /// Passed, but would be denied by the sender's audited policies. Counted beside the packet's own
    /// verdict, once for each connection.
    EgressAudited = 31, Pass, "egress_audited";
    /// Passed, but would be denied by the receiver's audited policies. Counted beside the packet's own
    /// verdict, once for each connection.
    IngressAudited = 32, Pass, "ingress_audited";
    /// To an address of a ServiceCIDR that no Service has: by the default route it would loop between routers.
    UnallocatedAddress = 33, Drop, "unallocated_address";
    /// The Service serves only the clients of its `loadBalancerSourceRanges`.
    SourceNotInRanges = 34, Drop, "source_not_in_ranges";
    /// The node has no route to where the packet has to go, or none by an uplink with an address.
    NoRoute = 35, Drop, "no_route";
    /// Does not fit the next link, and may not be cut.
    TooBig = 36, Refuse, "too_big";
    /// Travelled too far (RFC 791, time to live; RFC 8200, hop limit).
    HopLimit = 37, Refuse, "hop_limit";
    /// Every source port for this backend on another node is in use.
    SnatExhausted = 38, Refuse, "snat_exhausted";
    /// `bind` to a NodePort of a Service: connections to it would never reach the socket.
    PortTaken = 39, Refuse, "port_taken";
    /// An address that is not valid there: a loopback, unspecified, group or Service address as the source, or an
    /// IPv4-mapped one in an IPv6 header.
    Martian = 40, Drop, "martian";
    /// XDP leaves the packet to `from_netdev`.
    LeftToTc = 41, Pass, "left_to_tc";
    /// No room in the IP header for the frontend's address, which the backend's node needs to answer directly.
    NoRoomForOption = 42, Drop, "no_room_for_option";
    /// A TCP segment that opens nothing, for a port of a node that is a Service's, and of no connection that lbr
    /// translates: a connection of the node itself, or of what its stack masquerades. Left to the stack.
    StackConnection = 43, Pass, "stack_connection";
    /// A TCP segment that opens nothing, to an address that only Services have, and of no known connection.
    NoConnection = 44, Refuse, "no_connection";
    /// A RST of no known connection, which passes where one would be allowed, and begins nothing.
    StrayReset = 45, Pass, "stray_reset";
    /// A pod sent a VLAN tag: its address could not be checked.
    TaggedByPod = 46, Drop, "tagged_by_pod";
    /// A pod sent an IP packet in a packet into the cluster, where it could pass for a node's (direct server return).
    TunnelFromPod = 47, Drop, "tunnel_from_pod";
    /// The frame is not addressed to this host alone: to another one (the interface is promiscuous), a group, or all.
    OtherHost = 48, Pass, "other_host";
    /// IPv4 that does not fit the next link and may be cut, which only a node's stack does, and that is not on this way.
    /// The sender hears the MTU as if it might not be cut, and cuts for it.
    NeedsFragmentation = 49, Refuse, "needs_fragmentation";
    /// The kernel handed the packet over without its Ethernet header, as Linux does behind a generic XDP program for
    /// frames in several pieces (`xdp.frags`). Services are not served at this uplink.
    NoLinkHeader = 50, Pass, "no_link_header";
    /// The first fragment of an SCTP packet whose ports change: its checksum covers the fragments to come.
    SctpFragment = 51, Drop, "sctp_fragment";
}

/// Room for each hook in `counters`.
pub const VERDICTS_PER_HOOK: u32 = 64;

/// Index in `counters` of a verdict at a hook.
#[inline(always)]
pub const fn counter_index(hook: Hook, verdict: Verdict) -> u32 {
    hook as u32 * VERDICTS_PER_HOOK + verdict as u32
}

/// Entries of `counters`.
pub const COUNTERS: u32 = Hook::ALL.len() as u32 * VERDICTS_PER_HOOK;

/// Value of `counters` (one for each CPU), since the maps were made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets, or system calls at [`Hook::Socket`].
    pub packets: u64,
    /// Bytes of these packets with their link header; 0 at [`Hook::Socket`].
    pub bytes: u64,
}

const _: () = assert!(Verdict::ALL.len() < VERDICTS_PER_HOOK as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_unique() {
        for (n, v) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*v as usize, n);
            assert!(Verdict::ALL[..n].iter().all(|w| w.name() != v.name()), "{}", v.name());
        }
        for (n, h) in Hook::ALL.iter().enumerate() {
            assert_eq!(*h as usize, n);
        }
    }
}
