//! A source port of the node for a client whose backend is on another node (SNAT).
//!
//! A port is held by its use. It is free for each backend, protocol and address of the node that has no flow with it. Of
//! those in use, one whose connection has ended comes first, as soon as the backend has forgotten it (TIME-WAIT); then
//! the unconfirmed flow that was silent for longest gives way. An assured connection never does.

use lbr_common::verdict::Verdict;

use super::store::{NEVER, store};
use crate::maps;
use crate::packet::Packet;
use crate::scratch::{Draft, Meta};
use crate::service;
use crate::step::{self, Step};

/// Candidates that are tried. Each succeeds with the probability that a port is free or gives way.
const ATTEMPTS: u32 = 32;
/// The first candidates must be free or have ended: most of the time one is.
const PATIENT_ATTEMPTS: u32 = 4;
/// The last ones are the oldest that was met.
const OLDEST_FROM: u32 = ATTEMPTS - 2;
/// For how long the port of a connection that has ended is left alone, in nanoseconds: its backend still waits for the
/// client's last segment (LAST-ACK), and answers a SYN with that port such that the client asks again after a second. The
/// first candidate can wait for long, as there are others.
const LONG_REST_NS: u64 = 2_000_000_000;
const REST_NS: u64 = 250_000_000;
/// After this an unconfirmed flow gives way, in nanoseconds: longer than a handshake takes.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Stores the draft with the first source port that no other flow to the same backend needs.
///
/// The first candidate follows from the client's tuple, so that a flow whose entries were evicted finds it again. Then
/// they go round: the next one was not in use for the longest time.
#[inline(always)]
pub(super) fn find_port(packet: &Packet, meta: &Meta, draft: &mut Draft, hash: u32) -> Step {
    (draft.oldest_port, draft.oldest_silence) = (0, 0);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        match try_port(packet, meta, draft, hash, attempt) {
            Err(Verdict::PortTaken) => attempt += 1,
            result => return result,
        }
    }
    Err(Verdict::SnatExhausted)
}

step::global! {
    /// One candidate. [`Verdict::PortTaken`]: it does not do.
    fn try_port(packet: &Packet, meta: &Meta, draft: &mut Draft; hash: u32, attempt: u32) -> Step
        = try_candidate as conntrack_snat_port;
}

#[inline(always)]
fn try_candidate(packet: &Packet, meta: &Meta, draft: &mut Draft, hash: u32, attempt: u32) -> Step {
    let (port, rest, patience) = if attempt == 0 {
        (maps::snat_port(hash >> 4), LONG_REST_NS, NEVER)
    } else if attempt >= OLDEST_FROM && draft.oldest_port != 0 {
        (draft.oldest_port, 0, 0)
    } else {
        draft.next_port = draft.next_port.wrapping_add(1);
        let patience = if attempt < PATIENT_ATTEMPTS { NEVER } else { PATIENCE_NS };
        (maps::snat_port(draft.next_port), REST_NS, patience)
    };
    let to = &mut draft.flow.to;
    to.src_port = port;
    // A Service may have any port of the node.
    let is_own_port = maps::may_be_own_port(port) && service::has_port(&to.src, port, to.proto);
    if is_own_port || maps::is_socket_port(port) || !store(packet, meta, draft, rest, patience)? {
        return Err(Verdict::PortTaken);
    }
    Ok(())
}
