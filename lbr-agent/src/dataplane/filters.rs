//! Finds lbr's clsact filters over netlink by their priority, handle and name, as [`super::attach`] sets them.

use std::io;

use lbr_common::verdict::Hook;

use super::attach::{PRIORITY, Side, minor};
use crate::done::Done;
use crate::interface;
use crate::netlink::{Family, Socket, attribute, ne_u32, put_text, text};

// linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;

/// `struct tcmsg`, of a filter or a queueing discipline.
#[derive(Clone, Copy, Debug)]
struct Place {
    ifindex: u32,
    handle: u32,
    parent: u32,
    /// Priority in the upper half, protocol in the lower.
    info: u32,
}

/// Length of `struct tcmsg`.
const HEADER: usize = 20;

impl Place {
    fn encode(self) -> Vec<u8> {
        let words = [0, self.ifindex, self.handle, self.parent, self.info];
        words.iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
    }

    fn decode(body: &[u8]) -> Option<Self> {
        let word = |i: usize| ne_u32(body.get(4 * i..)?);
        Some(Self { ifindex: word(1)?, handle: word(2)?, parent: word(3)?, info: word(4)? })
    }
}

/// Removes lbr's filters in this network namespace, and each clsact without other filters: an empty clsact has no
/// effect, and programs that need one create it again.
pub(super) fn remove(dry_run: bool) -> io::Result<Done> {
    let mut done = Done::default();
    let mut socket = Socket::open(Family::Route)?;
    let everywhere = Place { ifindex: 0, handle: 0, parent: 0, info: 0 };
    let disciplines = socket.dump(libc::RTM_GETQDISC, &everywhere.encode())?;
    for (_, body) in &disciplines {
        let (Some(place), Some(kind)) = (Place::decode(body), kind(body)) else { continue };
        if kind == "clsact" && place.parent == TC_H_CLSACT {
            clean(&mut socket, place, dry_run, &mut done)?;
        }
    }
    Ok(done)
}

/// lbr's filters in this network namespace: interface, and hook.
pub(super) fn list() -> io::Result<Vec<(u32, &'static str)>> {
    let mut found = Vec::new();
    let mut socket = Socket::open(Family::Route)?;
    let everywhere = Place { ifindex: 0, handle: 0, parent: 0, info: 0 };
    for (_, body) in &socket.dump(libc::RTM_GETQDISC, &everywhere.encode())? {
        let (Some(clsact), Some(kind)) = (Place::decode(body), kind(body)) else { continue };
        if kind != "clsact" || clsact.parent != TC_H_CLSACT {
            continue;
        }
        for parent in [INGRESS, EGRESS] {
            let ask = Place { ifindex: clsact.ifindex, handle: 0, parent, info: 0 };
            let filters = socket.dump(libc::RTM_GETTFILTER, &ask.encode())?;
            let hooks = filters.iter().filter_map(|(_, body)| hook_of(Place::decode(body)?, body));
            found.extend(hooks.map(|hook| (clsact.ifindex, hook)));
        }
    }
    Ok(found)
}

fn kind(body: &[u8]) -> Option<String> {
    attribute(body.get(HEADER..)?, TCA_KIND).map(text)
}

fn clean(socket: &mut Socket, clsact: Place, dry_run: bool, done: &mut Done) -> io::Result<()> {
    let name = interface::name_or_number(clsact.ifindex);
    let (mut ours, mut others) = (Vec::new(), 0);
    for parent in [INGRESS, EGRESS] {
        let ask = Place { ifindex: clsact.ifindex, handle: 0, parent, info: 0 };
        for (_, body) in socket.dump(libc::RTM_GETTFILTER, &ask.encode())? {
            let Some(place) = Place::decode(&body) else { continue };
            match hook_of(place, &body) {
                Some(hook) => ours.push((place, hook)),
                // The kernel also lists each priority as a whole, beside its filters.
                None if place.info >> 16 == u32::from(PRIORITY) && place.handle == 0 => {}
                None => others += 1,
            }
        }
    }
    if ours.is_empty() {
        return Ok(());
    }
    for (place, hook) in ours {
        if !dry_run {
            let mut body = place.encode();
            put_text(&mut body, TCA_KIND, "bpf");
            ignore_absent(socket.ask(libc::RTM_DELTFILTER, 0, &body))?;
        }
        done.removed.push(format!("clsact filter {hook} at {name}"));
    }
    if others == 0 {
        if !dry_run {
            let mut body = Place { info: 0, ..clsact }.encode();
            put_text(&mut body, TCA_KIND, "clsact");
            ignore_absent(socket.ask(libc::RTM_DELQDISC, 0, &body))?;
        }
        done.removed.push(format!("clsact at {name}, which has no filter any more"));
    }
    Ok(())
}

/// The hook that a filter of lbr is for.
fn hook_of(place: Place, body: &[u8]) -> Option<&'static str> {
    if place.info >> 16 != u32::from(PRIORITY) || kind(body)? != "bpf" {
        return None;
    }
    let name = text(attribute(attribute(body.get(HEADER..)?, TCA_OPTIONS)?, TCA_BPF_NAME)?);
    let hook = Side::all_hooks().find(|hook| place.handle == u32::from(minor(*hook)) && name == hook.name());
    hook.map(Hook::name)
}

fn ignore_absent<T>(result: io::Result<T>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}
