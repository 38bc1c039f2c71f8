//! A capture in every namespace, which distinguishes "no answer" from "not delivered".

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use lbr_tests::netns::Netns;
use lbr_tests::packet::{Parsed, Transport};
use lbr_tests::probe::{Capture, Frame};

/// A request that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrival {
    /// IP protocol number.
    pub(crate) protocol: u8,
    /// Source port, identifier of an echo, or key of GRE: [`crate::probe`] gives each probe its own.
    pub(crate) ident: u16,
    /// Destination port, or 0.
    pub(crate) port: u16,
    pub(crate) src: IpAddr,
}

/// Records every request that comes in through `eth0` of a namespace.
#[derive(Debug)]
pub(crate) struct Recorder {
    seen: Arc<Mutex<BTreeSet<Arrival>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    pub(crate) fn start(ns: &Netns) -> Result<Self> {
        let capture = Capture::start(ns, "eth0")?;
        let (seen, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let (into, told) = (seen.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let _ = capture.wait(Duration::from_millis(100), |frame| {
                    into.lock().unwrap_or_else(PoisonError::into_inner).extend(arrival(frame));
                    told.load(Ordering::Relaxed)
                });
            }
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// The request with this protocol, identifier and destination port, if it has arrived.
    pub(crate) fn find(&self, protocol: u8, ident: u16, port: u16) -> Option<Arrival> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().find(|a| (a.protocol, a.ident, a.port) == (protocol, ident, port)).copied()
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn arrival(frame: &Frame) -> Option<Arrival> {
    if frame.outgoing {
        return None;
    }
    let packet = Parsed::frame(&frame.bytes).ok()?;
    let pair = |at: usize| Some(u16::from_be_bytes(packet.payload.get(at..at + 2)?.try_into().ok()?));
    let (ident, port) = match (&packet.transport, packet.protocol) {
        (Transport::Tcp { .. } | Transport::Udp | Transport::Sctp { .. }, _) => {
            (packet.src.port(), packet.dst.port())
        }
        (Transport::Icmp { kind: 8 | 128, rest, .. }, _) => ((rest >> 16) as u16, 0),
        (Transport::Other, 47) => (pair(6)?, 0),
        _ => return None,
    };
    Some(Arrival { protocol: packet.protocol, ident, port, src: packet.src.ip() })
}
