//! Names of entries for a person.

use lbr_common::addr::Addr;
use lbr_common::id::PolicySetId;
use lbr_common::policy::{Block, Ports, Prefix, VerdictKey};
use lbr_common::text::{MemberKey, RuleKey};

use crate::model::{Kind, ObjectName, ObjectRef};
use crate::table::PolicyMaps;

/// The policies that make up a set: the only one, or the text for several.
pub(super) fn set(set: PolicySetId, maps: &PolicyMaps) -> (Option<ObjectRef>, String) {
    let first = MemberKey { set, number: 0 };
    let members = maps.set_members.range(first..=MemberKey { number: u32::MAX, ..first });
    let records = members.filter_map(|(_, member)| maps.policies.get(&member.policy).copied());
    let names: Vec<ObjectName> =
        records.map(|policy| ObjectName::new(policy.namespace.as_str(), policy.name.as_str())).collect();
    let text = match names.as_slice() {
        [] => format!("policy set {set}"),
        [only] => return (Some(Kind::NetworkPolicy.named(only)), String::new()),
        [first, second, rest @ ..] if rest.len() > 1 => {
            format!("NetworkPolicy {first}, {second} and {} more", rest.len())
        }
        few => {
            let few: Vec<_> = few.iter().map(ToString::to_string).collect();
            format!("NetworkPolicy {}", few.join(", "))
        }
    };
    (None, text)
}

/// The first of several, and how many there are.
pub(super) fn some<K>(mut keys: impl ExactSizeIterator<Item = K>, text: impl Fn(&K) -> String) -> String {
    let rest = keys.len().saturating_sub(1);
    match (keys.next(), rest) {
        (None, _) => String::new(),
        (Some(first), 0) => text(&first),
        (Some(first), rest) => format!("{} and {rest} more", text(&first)),
    }
}

pub(super) fn ports(key: &Prefix<Ports>) -> String {
    format!("policy set {} port {}", key.data.set, u16::from_be_bytes(key.data.port))
}

pub(super) fn verdict(key: &VerdictKey) -> String {
    format!("policy set {} class {}", key.set, key.class)
}

pub(super) fn rule(key: &RuleKey) -> String {
    format!("policy {} rule {}", key.policy, key.rule)
}

pub(super) fn member(key: &MemberKey) -> String {
    format!("policy set {} member {}", key.set, key.number)
}

pub(super) fn block(key: &Prefix<Block>) -> String {
    let addr = Addr::v6(key.data.addr);
    let before = Block::FAMILY_BITS + if addr.is_v4() { 96 } else { 0 };
    format!("{addr}/{}", key.len.saturating_sub(before))
}
