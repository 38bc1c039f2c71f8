//! Traffic: servers that report their identity, clients, crafted frames and captures.

mod client;
mod long;
mod raw;
pub mod sctp;
mod server;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::{Context as _, Error};

pub use client::{Client, Protocol, ask_on, error_kind, is_refused, is_timeout};
pub use long::{LongLived, Report};
pub use raw::{Capture, Frame, send_frames};
pub use server::Server;

/// The answer of a server: its identity, and its view of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the server.
    pub name: String,
    /// The client, as the server sees it.
    pub peer: SocketAddr,
    /// The server's own address of this connection.
    pub local: SocketAddr,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.peer, self.local)
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split_whitespace();
        let mut word = || words.next().with_context(|| format!("not an identity: {text:?}"));
        Ok(Self { name: word()?.to_owned(), peer: word()?.parse()?, local: word()?.parse()? })
    }
}

/// The request for a server's identity. Any other datagram is echoed.
const WHO: &str = "who";

/// `len` bytes in which every place looks different.
pub fn pattern(len: usize) -> Vec<u8> {
    // A linear congruential generator (Numerical Recipes): it shows any damage, shift or swap.
    let mut state = u32::try_from(len).unwrap_or(u32::MAX);
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

/// Sum of FNV-1a over the bytes, to compare sent and received data.
fn digest(mut sum: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    sum
}
