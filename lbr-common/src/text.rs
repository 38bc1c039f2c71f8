//! Names for people, kept in maps that no program reads: what makes `lbr show` work without the agent.

use crate::id::{PolicyId, PolicySetId};

/// Up to `N` bytes of UTF-8, filled up with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<const N: usize> {
    /// The text; what follows it is zero.
    pub bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// As much of `text` as fits, cut at a character boundary.
    pub fn new(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = [0; N];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self { bytes }
    }

    /// The text up to the first zero; empty if it is not UTF-8.
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|&b| b == 0).unwrap_or(N);
        core::str::from_utf8(&self.bytes[..end]).unwrap_or("")
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N] }
    }
}

/// Value of `services`, keyed by [`crate::service::Frontend::service`]: which Service port it is. Whole names: a new
/// agent finds the numbers by them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceName {
    /// Namespace of the Service (DNS label, 63 bytes at most).
    pub namespace: Text<64>,
    /// Name of the Service (DNS label, 63 bytes at most).
    pub name: Text<64>,
    /// Name of the port, empty if it has none (DNS label, 63 bytes at most).
    pub port: Text<64>,
}

/// Value of `rejected`, keyed by a running number: an object that is not in force, or a part that an object in force
/// lacks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RejectedRecord {
    /// `Kind namespace/name`.
    pub object: Text<192>,
    /// Where it came from: file and document number, or the API server.
    pub origin: Text<252>,
    /// How much is not in force: [`extent::REJECTED`] or [`extent::LIMITED`].
    pub extent: u32,
    /// Path of the field, as kubectl writes it: `spec.ports[0].port`.
    pub field: Text<128>,
    /// What is wrong with it, for a person.
    pub reason: Text<256>,
}

/// Values of [`RejectedRecord::extent`].
pub mod extent {
    /// The object is not in force as it is written.
    pub const REJECTED: u32 = 0;
    /// The object is in force but for the field.
    pub const LIMITED: u32 = 1;
}

/// Value of `policies`, keyed by a policy id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyRecord {
    /// Namespace of the policy.
    pub namespace: Text<64>,
    /// Name of the policy.
    pub name: Text<256>,
    /// See [`policy_kind`].
    pub kind: u32,
    /// Pods of this node that it selects.
    pub pods: u32,
    /// Rules for what comes in.
    pub ingress_rules: u32,
    /// Rules for what goes out.
    pub egress_rules: u32,
}

/// Bits of [`PolicyRecord::kind`].
pub mod policy_kind {
    /// Isolates what comes in.
    pub const INGRESS: u32 = 1;
    /// Isolates what goes out.
    pub const EGRESS: u32 = 2;
    /// Only counts and reports.
    pub const AUDIT: u32 = 4;
    /// Isolates and allows nothing: the maps have no room for its rules.
    pub const WITHOUT_ROOM: u32 = 8;
}

/// Key of `rules`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleKey {
    /// Key of `policies`.
    pub policy: PolicyId,
    /// See [`crate::policy::direction`].
    pub direction: u32,
    /// Index in the policy's list for this direction.
    pub rule: u32,
}

/// Value of `rules`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleText {
    /// The rule in YAML, as far as it fits.
    pub yaml: Text<512>,
}

/// Key of `set_members`: which policies make up a set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberKey {
    /// [`crate::policy::Policy::set`] or [`crate::policy::Policy::audit`].
    pub set: PolicySetId,
    /// Running number.
    pub number: u32,
}

/// Value of `set_members`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Hash of all that the set consists of: a new agent finds its number by it.
    pub hash: u64,
    /// Key of `policies`.
    pub policy: PolicyId,
    /// Reserved, zero.
    pub _pad: u32,
}

/// Value of `classes`, keyed by class id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClassRecord {
    /// Hash of all that the class consists of: a new agent finds its number by it.
    pub hash: u64,
    /// Addresses of pods in this class.
    pub pods: u32,
    /// Address blocks in this class.
    pub blocks: u32,
    /// What its addresses match, for a person, as far as it fits.
    pub matches: Text<496>,
}

/// Value of `pod_names`, keyed by the address of a pod of the cluster.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Namespace of the Pod.
    pub namespace: Text<64>,
    /// Name of the Pod, as far as it fits.
    pub name: Text<192>,
}

const _: () = assert!(size_of::<PolicyRecord>() == 336);
const _: () = assert!(size_of::<RuleKey>() == 12);
const _: () = assert!(size_of::<RuleText>() == 512);
const _: () = assert!(size_of::<MemberKey>() == 8);
const _: () = assert!(size_of::<Member>() == 16);
const _: () = assert!(size_of::<ClassRecord>() == 512);
const _: () = assert!(size_of::<PodName>() == 256);
const _: () = assert!(size_of::<ServiceName>() == 192);
const _: () = assert!(size_of::<RejectedRecord>() == 832);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_a_character() {
        assert_eq!(Text::<4>::new("abcdef").as_str(), "abcd");
        assert_eq!(Text::<4>::new("abcé").as_str(), "abc");
        assert_eq!(Text::<4>::new("").as_str(), "");
    }
}
