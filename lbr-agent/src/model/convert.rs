//! Shared parts of the converters: how they report, and the checks that more than one kind needs.
//!
//! An object that the API server would refuse is rejected as a whole, as by `kubectl apply`, so that its last accepted
//! version stays in force. A part that is legal, but unsafe or not translated by lbr, costs only that part.
//! EndpointSlices are the exception: one bad endpoint never holds back the others, because a slice that is not read any
//! more keeps dead endpoints alive.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Kind, Object, ObjectName, ObjectRef, Partial, Protocol, netpol, service};

/// The result for an API object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted<T> {
    /// The accepted parts; `None` if the object is rejected as a whole.
    pub object: Option<T>,
    /// What can be read of a rejected object, for kinds of which that matters.
    pub partial: Option<Partial>,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
}

impl<T> Converted<T> {
    /// The same for another type.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Converted<U> {
        Converted { object: self.object.map(f), partial: self.partial, problems: self.problems }
    }
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field as kubectl writes it; empty for the object as a whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Collects problems while an object is converted.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    refused: bool,
}

impl Problems {
    /// Leaves out only this part.
    pub(super) fn part(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.list.push(Problem { field: field.into(), reason: reason.into() });
    }

    /// Rejects the whole object.
    pub(super) fn refuse(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.refused = true;
        self.part(field, reason);
    }

    pub(super) fn finish<T>(self, object: T) -> Converted<T> {
        Converted { object: (!self.refused).then_some(object), partial: None, problems: self.list }
    }

    /// Whether the whole object is rejected.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }
}

impl Kind {
    /// The word after `kind:` in YAML.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::ServiceCidr)
    }
}

impl Kind {
    /// The object of this kind with this name.
    pub(crate) fn named(self, name: &ObjectName) -> ObjectRef {
        ObjectRef { kind: self, name: name.clone() }
    }
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

impl Partial {
    /// Kind and name.
    pub fn reference(&self) -> ObjectRef {
        let (kind, name) = match self {
            Self::NetworkPolicy(partial) => (Kind::NetworkPolicy, partial.name()),
            Self::Service(partial) => (Kind::Service, partial.name()),
        };
        ObjectRef { kind, name: name.clone() }
    }

    /// What is in force with this as the present version, after the last accepted one. `None`: nothing.
    pub fn over(&self, accepted: Option<&Object>) -> Option<Object> {
        match (self, accepted) {
            (Self::NetworkPolicy(partial), Some(Object::NetworkPolicy(last))) => {
                Some(Object::NetworkPolicy(partial.over(last)))
            }
            (Self::NetworkPolicy(partial), _) => Some(Object::NetworkPolicy(partial.alone())),
            (Self::Service(partial), Some(Object::Service(last))) => {
                Some(Object::Service(partial.over(last)))
            }
            (Self::Service(_), _) => None,
        }
    }

    /// What to tell people about that, if something is in force.
    pub fn consequence(&self, has_accepted: bool) -> Option<&'static str> {
        match (self, has_accepted) {
            (Self::NetworkPolicy(_), true) => Some(netpol::EDITED),
            (Self::NetworkPolicy(_), false) => Some(netpol::FALLBACK),
            (Self::Service(_), true) => Some(service::EDITED),
            (Self::Service(_), false) => None,
        }
    }
}

impl Object {
    /// Kind and name.
    pub fn reference(&self) -> ObjectRef {
        let (kind, name) = match self {
            Self::Service(o) => (Kind::Service, o.name.clone()),
            Self::EndpointSlice(o) => (Kind::EndpointSlice, o.name.clone()),
            Self::Namespace(o) => (Kind::Namespace, ObjectName::cluster(&o.name)),
            Self::Pod(o) => (Kind::Pod, o.name.clone()),
            Self::Node(o) => (Kind::Node, ObjectName::cluster(&o.name)),
            Self::NetworkPolicy(o) => (Kind::NetworkPolicy, o.name.clone()),
            Self::ServiceCidr(o) => (Kind::ServiceCidr, ObjectName::cluster(&o.name)),
        };
        ObjectRef { kind, name }
    }
}

/// Namespace and name of a namespaced object.
pub(super) fn namespaced(meta: &ObjectMeta, problems: &mut Problems) -> ObjectName {
    let namespace = meta.namespace.clone().unwrap_or_default();
    check_name("metadata.namespace", &namespace, problems);
    ObjectName::new(namespace, cluster_scoped(meta, problems))
}

/// Name of a cluster-scoped object.
pub(super) fn cluster_scoped(meta: &ObjectMeta, problems: &mut Problems) -> String {
    let name = meta.name.clone().unwrap_or_default();
    check_name("metadata.name", &name, problems);
    name
}

fn check_name(field: &str, name: &str, problems: &mut Problems) {
    if let Err(reason) = valid_name(name) {
        problems.refuse(field, reason);
    }
}

/// The API's rule for names (DNS-1123 subdomain). Without it `lbr show` could print anything.
pub(crate) fn valid_name(name: &str) -> Result<(), String> {
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !l.is_empty() && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    match name {
        "" => Err("is missing".to_owned()),
        n if n.len() > 253 || !n.split('.').all(label) => {
            Err(format!("{n:?} is not a name: use lower case letters, digits, '-' and '.'"))
        }
        _ => Ok(()),
    }
}

/// The API's rule for shorter names (DNS-1123 label), which fit into the maps.
pub(super) fn valid_label(name: &str) -> Result<(), String> {
    match valid_name(name) {
        Ok(()) if name.len() > 63 || name.contains('.') => {
            Err(format!("{name:?} is too long or has a dot: use up to 63 lower case letters, digits and '-'"))
        }
        checked => checked,
    }
}

/// `protocol`: absent means TCP, as in the API.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(format!("{other:?} is not a protocol: write TCP, UDP or SCTP")),
    }
}

/// A port number of the API, which has 32 bits there.
pub(super) fn port_number(number: i32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(format!("{number} is not a port: write a number from 1 to 65535")),
    }
}

/// An address as text.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let addr: IpAddr = text.parse().map_err(|_| {
        format!("{text:?} is not an IP address: write it like 10.0.0.1 (no leading zeros) or fd00::1")
    })?;
    match addr {
        // The maps hold IPv4 addresses in this form, so this would be the IPv4 address's frontend.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("{text:?} is an IPv4-mapped IPv6 address: write the IPv4 address"))
        }
        _ => Ok(addr),
    }
}

/// The reason for a text that is no address block.
pub(super) fn not_a_block(text: &str) -> String {
    match text.trim().parse::<IpAddr>() {
        Ok(ip) => {
            let length = if ip.is_ipv4() { 32 } else { 128 };
            format!("{text:?} is an address, and a block is wanted: write {ip}/{length}")
        }
        Err(_) => format!("{text:?} is not an address block: write it like 10.0.0.0/8 or fd00::/8"),
    }
}

/// The reason for a text where a number was meant, if it looks like one. YAML's versions and programs read these
/// differently, so lbr keeps them as text.
pub(crate) fn like_a_number(text: &str) -> Option<String> {
    let plain = text.replace('_', "");
    let is_number = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit());
    if !is_number || plain.len() > 18 {
        return None;
    }
    let decimal = plain.trim_start_matches('0');
    let decimal = if decimal.is_empty() { "0" } else { decimal };
    if text.contains('_') {
        return Some(format!(
            "is {text}, which some programs read as text: write {decimal} without underscores"
        ));
    }
    if decimal == plain {
        return Some(format!("is {text:?}, but must be a whole number without quotes"));
    }
    match u64::from_str_radix(&plain, 8) {
        Ok(octal) if octal.to_string() != decimal => Some(format!(
            "is {text}, and with a leading zero some programs read {octal} (octal), others {decimal}: write {octal} or \
             {decimal}"
        )),
        _ => Some(format!("is {text}, with a leading zero, which some programs refuse: write {decimal}")),
    }
}

/// The reason if no packet may be sent to this address on behalf of a client: it would reach the node itself or its
/// neighbours (CVE-2021-25737).
pub(crate) fn unsafe_address(addr: IpAddr) -> Option<String> {
    let kind = match addr {
        a if a.is_loopback() => "a loopback",
        a if a.is_unspecified() => "the unspecified",
        a if a.is_multicast() => "a multicast",
        IpAddr::V4(a) if a.is_link_local() => "a link-local",
        IpAddr::V4(a) if a.is_broadcast() => "the broadcast",
        IpAddr::V6(a) if a.is_unicast_link_local() => "a link-local",
        _ => return None,
    };
    Some(format!("{addr} is {kind} address, which lbr translates neither from nor to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["web", "a.b-c.d1", "0"] {
            assert_eq!(valid_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "A", "a/b", "a b", &"a".repeat(254)] {
            assert!(valid_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn labels() {
        for good in ["web", "a-b", &"a".repeat(63)] {
            assert_eq!(valid_label(good), Ok(()), "{good}");
        }
        for bad in ["", "a.b", "A", &"a".repeat(64)] {
            assert!(valid_label(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ports() {
        for (number, valid) in [(-1, false), (0, false), (1, true), (65535, true), (65536, false)] {
            assert_eq!(port_number(number).is_ok(), valid, "{number}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1", "fd00::1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0", "010.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.1/32"] {
            assert!(address(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn texts_that_look_like_numbers() {
        for (text, words) in [
            ("80", "without quotes"),
            ("0120", "read 80 (octal), others 120: write 80 or 120"),
            ("080", "write 80"),
            ("00", "write 0"),
            ("1_000", "write 1000 without underscores"),
        ] {
            let reason = like_a_number(text).unwrap();
            assert!(reason.contains(words), "{text}: {reason}");
        }
        for text in ["", "_", "http", "1:20", "-1", "8e1"] {
            assert_eq!(like_a_number(text), None, "{text}");
        }
    }

    #[test]
    fn texts_that_are_no_block() {
        assert!(not_a_block("10.0.0.1").contains("write 10.0.0.1/32"));
        assert!(not_a_block("fd00::1").contains("write fd00::1/128"));
        assert!(not_a_block("ten").contains("write it like 10.0.0.0/8"));
    }

    #[test]
    fn unsafe_addresses() {
        for bad in [
            "127.0.0.1",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(unsafe_address(bad.parse().unwrap()).is_some(), "{bad}");
        }
        for good in ["10.0.0.1", "8.8.8.8", "fd00::1", "2001:db8::1"] {
            assert!(unsafe_address(good.parse().unwrap()).is_none(), "{good}");
        }
    }

    #[test]
    fn protocols() {
        assert_eq!(protocol(None), Ok(Protocol::Tcp));
        assert_eq!(protocol(Some("SCTP")), Ok(Protocol::Sctp));
        assert!(protocol(Some("tcp")).is_err());
    }
}
