//! NodePorts among the ports that the kernel gives to sockets.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use lbr_common::service::{FrontendKey, scope};

/// A warning for the operator; `None`: no NodePort is among them.
///
/// A socket of the node, or a client that the node masquerades, may send from such a port. Answers to it look like
/// requests to the Service.
pub(crate) fn warning(
    frontends: impl Iterator<Item = FrontendKey>,
    ephemeral: &RangeInclusive<u16>,
) -> Option<String> {
    let is_met = |port: &u16| ephemeral.contains(port);
    let node_ports = frontends.filter(|key| key.scope == scope::HOST_LOCAL).map(|key| key.port);
    let met: BTreeSet<u16> = node_ports.filter(is_met).collect();
    let first = met.first()?;
    let (start, end) = (ephemeral.start(), ephemeral.end());
    Some(format!(
        "{} NodePorts, the first of them {first}, are among the ports that the kernel gives to sockets \
         (net.ipv4.ip_local_port_range: {start}-{end}). lbr distinguishes answers from requests, but a UDP socket of the \
         node that is older than the Service loses datagrams to it: keep both ranges apart, or add the NodePorts to \
         net.ipv4.ip_local_reserved_ports",
        met.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_ports_that_meet_sockets_are_named() {
        let keys = [
            (0, scope::HOST_LOCAL),
            (30_080, scope::HOST_LOCAL),
            (40_000, scope::ANY),
            (40_001, scope::HOST_LOCAL),
        ];
        let keys =
            || keys.into_iter().map(|(port, scope)| FrontendKey { port, scope, ..FrontendKey::default() });
        assert_eq!(warning(keys(), &(32_768..=40_000)), None);
        let text = warning(keys(), &(32_768..=60_999)).unwrap_or_default();
        assert!(
            text.starts_with("1 NodePorts, the first of them 40001") && text.contains("32768-60999"),
            "{text}"
        );
    }
}
