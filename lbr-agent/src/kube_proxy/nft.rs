//! nf_tables: the tables of iptables-nft, and those of kube-proxy's nftables mode, over netlink.
//!
//! Everything is removed in one transaction, bound to the generation of the rules that lbr read: if another process
//! changes them meanwhile, the kernel rejects the transaction, and lbr reads the rules again.

use std::collections::BTreeMap;
use std::io;

use super::names::{self, NFT_TABLE, TABLES};
use super::plan::{Chain, Plan, Rule, Table, plan};
use crate::done::Done;
use crate::netlink::{Family, Message, Socket, attribute, attributes, put_attribute, put_text, text};

/// linux/netfilter/nf_tables.h
mod attr {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_HANDLE: u16 = 3;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const EXPR_NAME: u16 = 1;
    pub(super) const EXPR_DATA: u16 = 2;
    pub(super) const IMMEDIATE_DATA: u16 = 2;
    pub(super) const DATA_VERDICT: u16 = 2;
    pub(super) const VERDICT_CHAIN: u16 = 2;
    pub(super) const GEN_ID: u16 = 1;
    pub(super) const BATCH_GENID: u16 = 1;
}

/// How often lbr reads the rules again because another process changed them.
const ATTEMPTS: usize = 20;

/// An address family, as nf_tables numbers and names it.
const FAMILIES: [(u8, &str); 2] = [(libc::NFPROTO_IPV4 as u8, "ip"), (libc::NFPROTO_IPV6 as u8, "ip6")];

/// What lbr found of one family.
#[derive(Debug)]
struct Found {
    family: (u8, &'static str),
    /// kube-proxy's own table.
    own_table: bool,
    /// What to remove from iptables' tables.
    plans: Vec<(&'static str, Plan)>,
}

/// Removes kube-proxy's chains and tables. One line for each thing.
pub(super) fn clean(dry_run: bool) -> io::Result<Done> {
    for _ in 0..ATTEMPTS {
        let mut socket = match Socket::open(Family::Netfilter) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(none()),
            other => other?,
        };
        let generation = match generation(&mut socket) {
            // This kernel has no nf_tables.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                return Ok(none());
            }
            other => other?,
        };
        let found =
            FAMILIES.iter().map(|family| look(&mut socket, *family)).collect::<io::Result<Vec<_>>>()?;
        let done = tell(&found);
        let messages = messages(&found);
        if dry_run || messages.is_empty() {
            return Ok(done);
        }
        let mut begin = header(0, 10);
        put_attribute(&mut begin, attr::BATCH_GENID, &generation);
        match socket.batch(&messages, &begin, &header(0, 10)) {
            Ok(()) => return Ok(done),
            // Another process changed the rules after lbr read them.
            Err(error) if error.raw_os_error() == Some(libc::ERESTART) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("another process keeps changing the rules: is kube-proxy still running?"))
}

fn none() -> Done {
    Done { notes: vec!["this kernel has no nf_tables".to_owned()], ..Done::default() }
}

/// `struct nfgenmsg`: family, version, resource (big endian).
fn header(family: u8, resource: u16) -> Vec<u8> {
    let resource = resource.to_be_bytes();
    vec![family, 0, resource[0], resource[1]]
}

fn kind(message: i32) -> u16 {
    // Both fit into a byte.
    (libc::NFNL_SUBSYS_NFTABLES << 8 | message) as u16
}

fn generation(socket: &mut Socket) -> io::Result<Vec<u8>> {
    let answers = socket.ask(kind(libc::NFT_MSG_GETGEN), 0, &header(0, 0))?;
    let id = answers.iter().find_map(|(_, body)| attribute(body.get(4..)?, attr::GEN_ID));
    id.map(<[u8]>::to_vec)
        .ok_or_else(|| io::Error::other("the kernel does not name the generation of its rules"))
}

fn look(socket: &mut Socket, family: (u8, &'static str)) -> io::Result<Found> {
    let mut dump = |message| -> io::Result<Vec<Message>> {
        let answers = socket.dump(kind(message), &header(family.0, 0))?;
        Ok(answers.into_iter().filter(|(_, body)| body.first() == Some(&family.0)).collect())
    };
    let tables = dump(libc::NFT_MSG_GETTABLE)?;
    let names = tables.iter().filter_map(|(_, body)| attribute(body.get(4..)?, attr::TABLE_NAME)).map(text);
    let own_table = names.into_iter().any(|name| name == NFT_TABLE);
    let chains: Vec<_> =
        dump(libc::NFT_MSG_GETCHAIN)?.iter().filter_map(|(_, body)| read_chain(body)).collect();
    let any =
        |table: &str| chains.iter().any(|(of, chain)| of == table && names::is_chain(table, &chain.name));
    let mut plans = Vec::new();
    if TABLES.iter().any(|table| any(table)) {
        let rules: Vec<_> =
            dump(libc::NFT_MSG_GETRULE)?.iter().filter_map(|(_, body)| read_rule(body)).collect();
        for table in TABLES {
            plans.push((table, plan(&assemble(table, &chains, &rules))));
        }
    }
    Ok(Found { family, own_table, plans })
}

fn assemble(name: &str, chains: &[(String, Chain)], rules: &[(String, String, Rule)]) -> Table {
    let mut table = Table { name: name.to_owned(), chains: Vec::new() };
    table.chains = chains.iter().filter(|(of, _)| of == name).map(|(_, chain)| chain.clone()).collect();
    let places: BTreeMap<String, usize> =
        table.chains.iter().enumerate().map(|(i, chain)| (chain.name.clone(), i)).collect();
    for (_, chain, rule) in rules.iter().filter(|(of, _, _)| of == name) {
        if let Some(chain) = places.get(chain).and_then(|i| table.chains.get_mut(*i)) {
            chain.rules.push(rule.clone());
        }
    }
    table
}

/// Table and chain.
fn read_chain(body: &[u8]) -> Option<(String, Chain)> {
    let body = body.get(4..)?;
    let table = text(attribute(body, attr::CHAIN_TABLE)?);
    let name = text(attribute(body, attr::CHAIN_NAME)?);
    let base = attribute(body, attr::CHAIN_HOOK).is_some();
    Some((table, Chain { name, base, rules: Vec::new() }))
}

/// Table, chain and rule.
fn read_rule(body: &[u8]) -> Option<(String, String, Rule)> {
    let body = body.get(4..)?;
    let table = text(attribute(body, attr::RULE_TABLE)?);
    let chain = text(attribute(body, attr::RULE_CHAIN)?);
    let id = u64::from_be_bytes(*attribute(body, attr::RULE_HANDLE)?.first_chunk()?);
    let target = attribute(body, attr::RULE_EXPRESSIONS)
        .and_then(|list| attributes(list).find_map(|(_, expression)| jump_target(expression)));
    Some((table, chain, Rule { id, target }))
}

/// The chain that an expression jumps or goes to.
fn jump_target(expression: &[u8]) -> Option<String> {
    if text(attribute(expression, attr::EXPR_NAME)?) != "immediate" {
        return None;
    }
    let data = attribute(attribute(expression, attr::EXPR_DATA)?, attr::IMMEDIATE_DATA)?;
    attribute(attribute(data, attr::DATA_VERDICT)?, attr::VERDICT_CHAIN).map(text)
}

fn tell(found: &[Found]) -> Done {
    let mut done = Done::default();
    for Found { family: (_, family), own_table, plans } in found {
        if *own_table {
            done.removed.push(format!("nftables table {family} {NFT_TABLE}"));
        }
        for (table, plan) in plans {
            super::tell(&mut done, &format!("{family} {table} (nf_tables)"), plan);
        }
    }
    done
}

fn messages(found: &[Found]) -> Vec<Message> {
    let mut messages = Vec::new();
    for Found { family: (family, _), own_table, plans } in found {
        let mut push = |message, texts: &[(u16, &str)], handle: Option<u64>| {
            let mut body = header(*family, 0);
            for (attribute, text) in texts {
                put_text(&mut body, *attribute, text);
            }
            if let Some(handle) = handle {
                put_attribute(&mut body, attr::RULE_HANDLE, &handle.to_be_bytes());
            }
            messages.push((kind(message), body));
        };
        if *own_table {
            push(libc::NFT_MSG_DELTABLE, &[(attr::TABLE_NAME, NFT_TABLE)], None);
        }
        for (table, plan) in plans {
            for jump in &plan.jumps {
                let place = [(attr::RULE_TABLE, *table), (attr::RULE_CHAIN, &jump.chain)];
                push(libc::NFT_MSG_DELRULE, &place, Some(jump.rule));
            }
            // All rules first: the kernel removes a chain only when no rule leads to it.
            for chain in &plan.chains {
                push(libc::NFT_MSG_DELRULE, &[(attr::RULE_TABLE, *table), (attr::RULE_CHAIN, chain)], None);
            }
            for chain in &plan.chains {
                push(libc::NFT_MSG_DELCHAIN, &[(attr::CHAIN_TABLE, *table), (attr::CHAIN_NAME, chain)], None);
            }
        }
    }
    messages
}
