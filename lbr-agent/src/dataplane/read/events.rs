//! Denials as they happen, from the ring buffer that the programs fill.

use anyhow::Context as _;
use aya::maps::{Map, MapData, RingBuf};
use lbr_common::policy::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The ring buffer `events`. All readers share one position: a second reader takes events away from the first.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Must be called inside a tokio runtime.
    pub(super) fn open(map: Map) -> anyhow::Result<Self> {
        let ring = RingBuf::try_from(map).context("open the ring buffer events")?;
        // SAFETY: the ring owns its file descriptor, gives always the same one and keeps it open until dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        Ok(Self { ring: ring.map_err(std::io::Error::from)? })
    }

    /// Waits until there are events and takes all of them.
    pub async fn take(&mut self) -> std::io::Result<Vec<Event>> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            let ring = guard.get_inner_mut();
            let mut events = Vec::new();
            while let Some(item) = ring.next() {
                events.extend(event(&item));
            }
            guard.clear_ready();
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// An event from the bytes of the ring buffer; none if a program of another version wrote fewer of them.
fn event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: there are enough bytes, which need not be aligned, and `Event` is made of integers only.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_from_bytes_and_a_short_one_is_none() {
        let mut bytes = [0; size_of::<Event>() + 1];
        bytes[1..9].copy_from_slice(&7u64.to_ne_bytes());
        assert_eq!(event(&bytes[1..]), Some(Event { time: 7, ..Event::default() }));
        assert_eq!(event(&bytes[..size_of::<Event>() - 1]), None);
    }
}
