//! The benchmarks: the cost of a Service between two pods of one node (this module) and for clients outside
//! ([`node_port`]), of policies ([`policy`]), of each program by itself ([`programs`]), and of changes ([`revalidate`]), and
//! the limits of large clusters ([`scale`]).
//!
//! Every configuration has a bed of its own. Each round measures all of them in turn, in a rotated order, and each
//! result is a ratio to `direct` of the same round, so that other load on the machine affects all of them alike.

mod ends;
pub mod generate;
pub mod load;
mod nftables;
pub mod node_port;
pub mod policy;
pub mod programs;
mod report;
pub mod revalidate;
mod rig;
mod rounds;
pub mod scale;
pub mod verifier;

use std::fmt;

pub use report::{Outcome, Summary};
pub use rounds::{Plan, run};

/// The configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Config {
    /// To the pod's address; no Service anywhere.
    Direct,
    /// Through a Service, with the nftables rules that kube-proxy would write.
    Nftables,
    /// Through a Service, with lbr.
    Lbr,
    /// To the pod's address while lbr is attached: the cost for traffic without a Service.
    LbrPod,
}

/// The metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Metric {
    /// Connect, one byte there and back, close: connections per second.
    TcpCrr,
    /// One byte there and back over one connection: per second.
    TcpRr,
    /// One byte there and back in datagrams: per second.
    UdpRr,
    /// iperf3, one stream: bits per second.
    TcpStream,
    /// Frames of 64 bytes with a datagram each, of some hundred flows: those that arrive in a second.
    UdpPps,
    /// The same, each of a new client: 10,000 are sent in a second.
    UdpNew,
}

impl Metric {
    /// Unit of the absolute figure.
    pub fn unit(self) -> &'static str {
        if self == Self::TcpStream { "bit/s" } else { "1/s" }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TcpCrr => "tcp_crr",
            Self::TcpRr => "tcp_rr",
            Self::UdpRr => "udp_rr",
            Self::TcpStream => "tcp_stream",
            Self::UdpPps => "udp_pps",
            Self::UdpNew => "udp_new",
        }
    }

    /// Packets are sent and counted, without an answer.
    fn counts_packets(self) -> bool {
        matches!(self, Self::UdpPps | Self::UdpNew)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Nftables => "nftables",
            Self::Lbr => "lbr",
            Self::LbrPod => "lbr-pod",
        })
    }
}
