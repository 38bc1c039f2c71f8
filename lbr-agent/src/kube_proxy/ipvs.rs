//! ipvs mode: its interface, which holds the Services' addresses, and its virtual servers.
//!
//! The interface is removed: without its addresses no packet from outside reaches a ClusterIP's virtual server. Each
//! virtual server is listed with the command that removes it: only the operator knows which of them are kube-proxy's,
//! since those of NodePorts have the node's own addresses like any other.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::done::Done;
use crate::netlink::{Family, Socket, attribute, put_text, text};

const INTERFACE: &str = "kube-ipvs0";
const SERVERS: &str = "/proc/thread-self/net/ip_vs";

// linux/if_link.h
const LINK_INFO: u16 = 18;
const LINK_INFO_KIND: u16 = 1;
const LINK_NAME: u16 = 3;

/// Removes the interface, and lists the virtual servers.
pub(super) fn clean(dry_run: bool) -> io::Result<Done> {
    let mut done = Done::default();
    interface(dry_run, &mut done)?;
    match std::fs::read_to_string(SERVERS) {
        Ok(text) => done.left.extend(servers(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            done.notes
                .push("this kernel has no IPVS (or nothing has loaded it): no virtual servers".to_owned());
        }
        Err(error) => return Err(error),
    }
    Ok(done)
}

/// `struct ifinfomsg`: family, type, index, flags, change.
fn link_header() -> Vec<u8> {
    vec![0; 16]
}

fn interface(dry_run: bool, done: &mut Done) -> io::Result<()> {
    let mut socket = Socket::open(Family::Route)?;
    let mut body = link_header();
    put_text(&mut body, LINK_NAME, INTERFACE);
    let answers = match socket.ask(libc::RTM_GETLINK, 0, &body) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        other => other?,
    };
    let kind = answers
        .iter()
        .find_map(|(_, body)| attribute(attribute(body.get(16..)?, LINK_INFO)?, LINK_INFO_KIND).map(text));
    if kind.as_deref() != Some("dummy") {
        let kind = kind.unwrap_or_else(|| "unknown".to_owned());
        done.left
            .push(format!("interface {INTERFACE}: is of type {kind}, and kube-proxy's is of type dummy"));
        return Ok(());
    }
    if !dry_run {
        socket.ask(libc::RTM_DELLINK, 0, &body)?;
    }
    done.removed.push(format!("interface {INTERFACE}"));
    Ok(())
}

/// Lines such as `TCP  0A600001:01BB rr`, `UDP  [fd00:...]:0035 rr` and `FWM  00000001 rr`.
fn servers(text: &str) -> Vec<String> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let flag = match words.next()? {
            "TCP" => "-t",
            "UDP" => "-u",
            "SCTP" => "--sctp-service",
            _ => return None,
        };
        let (address, port) = words.next()?.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let address = match address.strip_prefix('[') {
            Some(v6) => format!("[{}]", v6.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
            None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).to_string(),
        };
        Some(format!(
            "IPVS virtual server {address}:{port}: if it belongs to a Service, `ipvsadm -D {flag} {address}:{port}` removes it"
        ))
    };
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_servers_are_named_with_their_command() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                    -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A600001:01BB rr \n  \
                    -> C0A80001:192B      Masq    1      0          0\n\
                    UDP  [fd00:0000:0000:0000:0000:0000:0000:000a]:0035 rr persistent 10800\nFWM  00000001 rr\n";
        let found = servers(text);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("`ipvsadm -D -t 10.96.0.1:443`"), "{}", found[0]);
        assert!(found[1].contains("`ipvsadm -D -u [fd00::a]:53`"), "{}", found[1]);
    }
}
