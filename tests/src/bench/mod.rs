//! The benchmark: what a Service costs between two pods of one node.
//!
//! Every configuration has a bed of its own. All are measured in turn within each round, in an order that is
//! rotated, and each result is a ratio to `direct` of the same round: what the machine does meanwhile hits
//! all of them alike.

pub mod load;
mod nftables;
pub mod policy;
mod report;
mod rig;
mod rounds;
pub mod scale;

use std::fmt;

pub use report::{Outcome, Summary};
pub use rounds::{Plan, run};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Config {
    /// To the pod's address; no Service anywhere.
    Direct,
    /// Through a Service, with the nftables rules that kube-proxy would write.
    Nftables,
    /// Through a Service, with lbr.
    Lbr,
    /// To the pod's address while lbr is attached: what traffic that needs no Service pays.
    LbrPod,
}

/// What is measured.
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
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::TcpCrr, Self::TcpRr, Self::UdpRr, Self::TcpStream];

    /// Unit of the absolute figure.
    pub fn unit(self) -> &'static str {
        if self == Self::TcpStream { "bit/s" } else { "1/s" }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TcpCrr => "tcp_crr",
            Self::TcpRr => "tcp_rr",
            Self::UdpRr => "udp_rr",
            Self::TcpStream => "tcp_stream",
        })
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
