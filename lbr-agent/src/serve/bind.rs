//! Sockets to listen on.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::os::fd::AsRawFd as _;

use anyhow::Context as _;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
};

/// Listens at an address; errors name the flag and the address.
pub(super) fn listener(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = if address.ip().is_unspecified() {
        both_families(address.port()).or_else(|error| match error {
            nix::Error::EAFNOSUPPORT | nix::Error::EADDRNOTAVAIL => TcpListener::bind(address),
            error => Err(error.into()),
        })
    } else {
        TcpListener::bind(address)
    };
    let listener = listener.with_context(|| format!("{flag}: listen on {address}"))?;
    listener.set_nonblocking(true).with_context(|| format!("{flag}: listen on {address}"))?;
    Ok(listener)
}

/// As Go does for either unspecified address: IPv4 and IPv6, whatever `net.ipv6.bindv6only` says.
fn both_families(port: u16) -> nix::Result<TcpListener> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?;
    listen(&fd, Backlog::MAXCONN)?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn an_address_in_use_is_named_with_its_flag() {
        let first = listener("--x", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = format!("{:#}", listener("--metrics-bind-address", address).unwrap_err());
        assert_eq!(
            error,
            format!("--metrics-bind-address: listen on {address}: Address already in use (os error 98)")
        );
    }

    #[test]
    fn an_unspecified_address_means_both_families() {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let listener = listener("--x", address.parse().unwrap()).unwrap();
            let port = listener.local_addr().unwrap().port();
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            if std::path::Path::new("/proc/net/if_inet6").exists() {
                TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            }
        }
    }
}
