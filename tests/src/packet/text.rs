//! A packet as one line of text, like tcpdump's.

use std::fmt;

use super::parse::{Fragment, Parsed, Transport};

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.src, self.dst)?;
        match &self.transport {
            Transport::Tcp { flags, seq, ack } => {
                let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
                let set = names.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
                let set: Vec<&str> = set.map(|(_, name)| *name).collect();
                write!(f, " TCP [{}] seq {seq} ack {ack}", set.join(" "))?;
            }
            Transport::Udp => write!(f, " UDP")?,
            Transport::Sctp { tag, chunk } => write!(f, " SCTP chunk {chunk} tag {tag:#x}")?,
            Transport::Icmp { kind, code, rest } => write!(f, " ICMP {kind}/{code} {rest:#010x}")?,
            Transport::IcmpError { kind, code, rest, quoted } => {
                write!(f, " ICMP error {kind}/{code} {rest:#010x} about ({quoted:?})")?;
            }
            Transport::Other => write!(f, " protocol {}", self.protocol)?,
            Transport::Cut => write!(f, " protocol {}, header cut", self.protocol)?,
        }
        if let Some(Fragment { id, offset, more }) = self.fragment {
            write!(f, " fragment {id:#x} at {offset}{}", if more { "+" } else { "" })?;
        }
        for (what, list) in [("options", &self.options), ("extension headers", &self.exts)] {
            if !list.is_empty() {
                write!(f, " {what} {list:02x?}")?;
            }
        }
        if !self.vlans.is_empty() {
            write!(f, " VLAN {:?}", self.vlans)?;
        }
        write!(f, " ttl {}, {} bytes", self.ttl, self.payload.len())?;
        for error in &self.wrong {
            write!(f, ", BAD {error}")?;
        }
        Ok(())
    }
}
