//! An end of a connection as typed: `pod/x`, `svc/ns/x`, `ns/x`, `node/x`, `IP`, each also with `:port`.

use std::net::IpAddr;

use anyhow::bail;
use lbr_common::addr::Addr;

/// What a name is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Pod,
    Service,
}

impl Kind {
    /// As it begins the unambiguous spelling.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Service => "svc",
        }
    }
}

/// One way to read a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// `None`: a pod or a Service.
    pub(super) kind: Option<Kind>,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject<'a> {
    Address(Addr),
    /// This node, or the one with the name.
    Node(Option<&'a str>),
    /// Every way to read the name: `pod/x` may also be the pod x of a namespace `pod`.
    Named(Vec<Name<'a>>),
}

/// Reads an end, and the port behind it.
pub(super) fn read(text: &str) -> anyhow::Result<(Subject<'_>, Option<&str>)> {
    let (subject, port) = split(text)?;
    // People copy addresses in brackets from URLs.
    let bare = subject.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(subject);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok((Subject::Address(ip.into()), port));
    }
    let parts: Vec<&str> = subject.split('/').collect();
    let named = |kind, namespace, name| Name { kind, namespace, name };
    let subject = match parts.as_slice() {
        ["node" | "nodes"] => Subject::Node(None),
        ["node" | "nodes" | "no", name] => Subject::Node(Some(name)),
        &[first, name] => {
            let by_kind = kind(first).map(|kind| named(Some(kind), "default", name));
            Subject::Named(by_kind.into_iter().chain([named(None, first, name)]).collect())
        }
        &[first, namespace, name] => match kind(first) {
            Some(kind) => Subject::Named(vec![named(Some(kind), namespace, name)]),
            None => bail!(
                "{text}: {first} is neither pod nor svc: write pod/NAMESPACE/NAME or svc/NAMESPACE/NAME"
            ),
        },
        _ => Subject::Named(Vec::new()),
    };
    Ok((subject, port))
}

fn kind(word: &str) -> Option<Kind> {
    match word {
        "pod" | "pods" | "po" => Some(Kind::Pod),
        "svc" | "svcs" | "service" | "services" => Some(Kind::Service),
        _ => None,
    }
}

/// The port behind the last colon that is not one of an IPv6 address.
fn split(text: &str) -> anyhow::Result<(&str, Option<&str>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text, None));
    }
    if text.starts_with('[') {
        let Some(end) = text.find(']') else { bail!("{text}: the bracket is not closed: write [IPv6]:PORT") };
        return match text[end + 1..].strip_prefix(':') {
            Some(port) if !port.is_empty() => Ok((&text[..=end], Some(port))),
            None if end + 1 == text.len() => Ok((text, None)),
            _ => bail!("{text}: after the bracket comes nothing, or :PORT"),
        };
    }
    match text.rsplit_once(':') {
        None => Ok((text, None)),
        Some((_, "")) => bail!("{text}: a port is missing behind the colon"),
        Some((subject, _)) if subject.contains(':') => {
            bail!("{text}: write an IPv6 address with a port as [IPv6]:PORT")
        }
        Some((subject, port)) => Ok((subject, Some(port))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_kind_a_namespace_and_a_port_or_not() {
        let named = |kind, namespace, name| Name { kind, namespace, name };
        let (pod, svc) = (Some(Kind::Pod), Some(Kind::Service));
        for (text, names, port) in [
            ("shop/web", vec![named(None, "shop", "web")], None),
            ("shop/web:80", vec![named(None, "shop", "web")], Some("80")),
            ("pod/web", vec![named(pod, "default", "web"), named(None, "pod", "web")], None),
            ("po/web:http", vec![named(pod, "default", "web"), named(None, "po", "web")], Some("http")),
            ("svc/web", vec![named(svc, "default", "web"), named(None, "svc", "web")], None),
            ("services/web", vec![named(svc, "default", "web"), named(None, "services", "web")], None),
            ("pods/shop/web", vec![named(pod, "shop", "web")], None),
            ("service/shop/web:53", vec![named(svc, "shop", "web")], Some("53")),
            ("web", vec![], None),
        ] {
            assert_eq!(read(text).unwrap(), (Subject::Named(names), port), "{text}");
        }
    }

    #[test]
    fn addresses_and_nodes() {
        let address = |text: &str| Subject::Address(text.parse::<IpAddr>().unwrap().into());
        for (text, subject, port) in [
            ("10.0.0.1", address("10.0.0.1"), None),
            ("10.0.0.1:80", address("10.0.0.1"), Some("80")),
            ("fd00::1", address("fd00::1"), None),
            ("[fd00::1]", address("fd00::1"), None),
            ("[fd00::1]:80", address("fd00::1"), Some("80")),
            ("[10.0.0.1]:80", address("10.0.0.1"), Some("80")),
            ("node", Subject::Node(None), None),
            ("node/n1", Subject::Node(Some("n1")), None),
            ("nodes/n1:30080", Subject::Node(Some("n1")), Some("30080")),
        ] {
            assert_eq!(read(text).unwrap(), (subject, port), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_read_says_what_to_write() {
        for (text, words) in [
            ("deploy/shop/web", "write pod/NAMESPACE/NAME"),
            ("[fd00::1", "not closed"),
            ("[fd00::1]80", "nothing, or :PORT"),
            ("[fd00::1]:", "nothing, or :PORT"),
            ("10.0.0.1:", "a port is missing"),
            ("fd00::x:80", "[IPv6]:PORT"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
