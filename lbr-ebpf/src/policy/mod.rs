//! Whether policies allow a connection: endpoints, classes, verdicts. See `lbr_common::policy`.

pub(crate) mod query;
pub(crate) mod receiver;
pub(crate) mod report;
pub(crate) mod source;

use aya_ebpf::btf_maps::lpm_trie::Key;
use lbr_common::addr::Addr;
use lbr_common::id::{ClassId, PolicySetId};
use lbr_common::policy::{Block, OTHER_PORTS, Policy, Ports, VerdictKey, class, direction, policy_flags};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Verdict;

use crate::maps::{self, CIDR_CLASS, ENDPOINTS, IP_CLASS, LINK_POLICY, PORT_CLASS, VERDICTS};
use crate::policy::query::Query;
use crate::scratch::Meta;
use crate::step::{self, Encoded as _, Step};

/// Looks up the policy at the source of `Query::tuple`.
#[inline(always)]
fn look_up_sender(meta: &Meta, query: &mut Query) {
    endpoint(&query.tuple.src, meta.generation, &mut query.sender);
}

/// Looks up the policy at the destination of `Query::tuple`.
#[inline(always)]
pub(crate) fn look_up_receiver(meta: &Meta, query: &mut Query) {
    query.receiver_link = endpoint(&query.tuple.dst, meta.generation, &mut query.receiver);
}

/// Looks up the policies at both ends of `Query::tuple`.
#[inline(always)]
pub(crate) fn look_up_ends(meta: &Meta, query: &mut Query) {
    look_up_sender(meta, query);
    look_up_receiver(meta, query);
}

step::global! {
    /// Asks the policies of both ends, which were looked up before, about `Query::tuple`.
    ///
    /// What a pod sends to itself is never judged, nor what it sends to the node. What the node sends does not come
    /// here: where a packet entered says so, its address does not.
    pub(crate) fn judge(meta: &Meta, query: &mut Query) -> Step = judge_both as policy_judge;
}

#[inline(always)]
fn judge_both(meta: &Meta, query: &mut Query) -> Step {
    let (sender, receiver) = (query.sender.flags, query.receiver.flags);
    query.set = PolicySetId::NONE;
    query.forget_audits();
    if query.tuple.src == query.tuple.dst || receiver & policy_flags::NODE != 0 {
        return Ok(());
    }
    if (sender | receiver) & policy_flags::PENDING != 0 && maps::denies_pending() {
        return Err(Verdict::PodPending);
    }
    const ASKED: u32 = policy_flags::ISOLATED_OUT | policy_flags::AUDIT_OUT;
    if sender & ASKED != 0 {
        Step::decode(judge_end(query, meta.generation, direction::EGRESS))?;
    }
    const ASKED_IN: u32 = policy_flags::ISOLATED_IN | policy_flags::AUDIT_IN;
    if receiver & ASKED_IN != 0 {
        Step::decode(judge_end(query, meta.generation, direction::INGRESS))?;
    }
    Ok(())
}

/// Whether the pod at this link is isolated in a direction: packets that policy does not judge are dropped then.
#[inline(always)]
pub(crate) fn isolates(meta: &Meta, flag: u32) -> bool {
    link(meta) & flag != 0
}

/// What is known of the pods behind the link that the packet is at: bits of [`policy_flags`].
#[inline(always)]
pub(crate) fn link(meta: &Meta) -> u32 {
    link_at(meta.ifindex, meta.generation)
}

/// What is known of the pods behind any link.
#[inline(always)]
pub(crate) fn link_at(ifindex: u32, generation: u32) -> u32 {
    let entry = LINK_POLICY.get_ptr(ifindex);
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    entry.map_or(0, |entry| unsafe { (*entry).at(generation) })
}

/// Asks [`ask_end`] in a stack frame of its own: once for each end would be too much for the caller's.
#[inline(never)]
fn judge_end(query: &mut Query, generation: u32, way: u32) -> u32 {
    ask_end(query, generation, way).encode()
}

/// One end's policies, the audited ones too: what those would deny is reported when the packet passes.
#[inline(always)]
fn ask_end(query: &mut Query, generation: u32, way: u32) -> Step {
    let is_egress = way == direction::EGRESS;
    let policy = if is_egress { &query.sender } else { &query.receiver };
    let (isolated, audited) = if is_egress {
        (policy_flags::ISOLATED_OUT, policy_flags::AUDIT_OUT)
    } else {
        (policy_flags::ISOLATED_IN, policy_flags::AUDIT_IN)
    };
    let tuple = &query.tuple;
    let class = class_of(if is_egress { &tuple.dst } else { &tuple.src }, generation);
    query.direction = way;
    if policy.flags & isolated != 0 && !allows(policy.set, way, class, tuple) {
        query.set = policy.set;
        return Err(if is_egress { Verdict::EgressDenied } else { Verdict::IngressDenied });
    }
    if policy.flags & audited != 0 && !allows(policy.audit, way, class, tuple) {
        let audited = if is_egress { &mut query.audited_out } else { &mut query.audited_in };
        *audited = policy.audit;
    }
    Ok(())
}

#[inline(always)]
fn allows(set: PolicySetId, way: u32, class: ClassId, tuple: &Tuple) -> bool {
    let ports = Ports { set, direction: way as u8, proto: tuple.proto, port: tuple.dst_port.to_be_bytes() };
    let ports = PORT_CLASS.get(&Key::new(Ports::FULL, ports)).copied().unwrap_or(OTHER_PORTS);
    let mut key = VerdictKey { set, direction: way, class, ports };
    if VERDICTS.get_ptr(&key).is_some() {
        return true;
    }
    key.class = class::ANY;
    VERDICTS.get_ptr(&key).is_some()
}

/// The class of a peer's address.
#[inline(always)]
fn class_of(addr: &Addr, generation: u32) -> ClassId {
    if let Some(entry) = IP_CLASS.get_ptr(addr) {
        // SAFETY: as in `link`.
        let class = unsafe { (*entry).at(generation) };
        if class != class::ABSENT {
            return class;
        }
    }
    CIDR_CLASS.get(&Key::new(Block::FULL, Block::of(addr))).map_or(class::NONE, |class| class.at(generation))
}

/// What is known of an address goes to `policy`. Gives the link that it is behind; 0: none, or not known.
#[inline(never)]
pub(crate) fn endpoint(addr: &Addr, generation: u32, policy: &mut Policy) -> u32 {
    let Some(entry) = ENDPOINTS.get_ptr(addr) else {
        *policy = Policy { set: PolicySetId::NONE, audit: PolicySetId::NONE, flags: 0 };
        return 0;
    };
    // SAFETY: as in `link`.
    unsafe {
        *policy = (*entry).policy.at(generation);
        (*entry).ifindex
    }
}
