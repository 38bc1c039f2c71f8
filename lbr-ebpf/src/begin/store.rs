//! Both entries of a flow, unless its answers could not be told from another flow's.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lbr_common::flow::{Flow, IDLE_NS};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::flow;
use crate::maps::FLOWS;
use crate::scratch::Scratch;
use crate::step::{self, DONE};

/// Whether [`store`] did.
#[inline(always)]
pub(super) fn is_stored(verdict: Verdict) -> Result<bool, Verdict> {
    match verdict {
        DONE => Ok(true),
        Verdict::NoService => Ok(false),
        verdict => Err(verdict),
    }
}

step::global! {
    /// Stores both entries of a flow. [`DONE`]; [`Verdict::NoService`]: its answers could not be told from another
    /// flow's, which lives, or ended less than `rest` nanoseconds ago; or why it can not be.
    pub(super) fn store(work: &mut Scratch, attempt: u32, rest: i64) -> Verdict = store_both as flow_store;
}

#[inline(always)]
fn store_both(work: &mut Scratch, attempt: u32, rest: i64) -> Verdict {
    match try_store(work, attempt, rest) {
        Ok(true) => DONE,
        Ok(false) => Verdict::NoService,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn try_store(work: &mut Scratch, attempt: u32, rest: i64) -> Result<bool, Verdict> {
    let key = &work.packet.tuple;
    work.reply_key = work.flow.twin_key();
    work.flow.write_twin(key, &mut work.reply);
    // The answer's entry first: whoever sees the packet that follows finds it. The first attempt usually does; where
    // several are needed, to look is cheaper than to fail to insert.
    let mut existing = if attempt == 0 { None } else { FLOWS.get_ptr_mut(&work.reply_key) };
    if existing.is_none() && FLOWS.insert(&work.reply_key, &work.reply, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU was faster, or the kernel had no room.
        existing = Some(FLOWS.get_ptr_mut(&work.reply_key).ok_or(Verdict::FlowTableFull)?);
    }
    if let Some(existing) = existing {
        // SAFETY: as in `flow::find`.
        let existing = unsafe { &mut *existing };
        if existing.to != work.reply.to {
            let over = over_for(&work.reply_key, existing, work.reply.last_seen);
            if over < rest {
                if over != flow::ALIVE {
                    work.resting_port = work.flow.to.src_port;
                }
                return Ok(false);
            }
        }
        if !renew(existing, &work.reply) {
            insert(&work.reply_key, &work.reply)?;
        }
    }
    if let Some(existing) = FLOWS.get_ptr_mut(key) {
        // SAFETY: as in `flow::find`.
        if renew(unsafe { &mut *existing }, &work.flow) {
            return Ok(true);
        }
    }
    insert(key, &work.flow)?;
    Ok(true)
}

/// Begins an entry again in place if it already says the same; cheaper than to replace it.
#[inline(always)]
fn renew(existing: &mut Flow, new: &Flow) -> bool {
    if existing.to != new.to || existing.backend != new.backend || existing.link != new.link {
        return false;
    }
    existing.from = new.from;
    existing.flags = new.flags;
    existing.epoch = new.epoch;
    existing.audited = new.audited;
    existing.last_seen = new.last_seen;
    true
}

/// For how many nanoseconds a flow has been over, so that another may take its tuple, or [`flow::ALIVE`].
#[inline(always)]
fn over_for(key: &Tuple, flow: &Flow, now: u64) -> i64 {
    let idle = if flow.to.proto == proto::TCP { flow::TCP_IDLE_NS } else { IDLE_NS };
    let silence = flow::silence(flow, now);
    if silence > idle { silence as i64 } else { flow::over_for(key, flow, now) }
}

#[inline(always)]
pub(super) fn insert(key: &Tuple, flow: &Flow) -> Result<(), Verdict> {
    FLOWS.insert(key, flow, u64::from(BPF_ANY)).map_err(|_| Verdict::FlowTableFull)
}
