//! lbr's kernel object. It knows no Kubernetes word: packets, frontends, backends, flows.
//!
//! This file holds the entry points only. Each tc hook, and that of XDP, is a pipeline in `hooks/`, read top to bottom; its
//! steps live in the files beside this one, and [`exit::run`] turns every verdict into an action and a
//! counter.
#![no_std]
#![no_main]
// For `step::lend`, which is empty assembly.
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value a map's key is copied to the stack, of which there are 512 bytes"
)]

mod conntrack;
mod counters;
mod forward;
mod hooks;
mod maps;
mod nat;
mod packet;
mod policy;
mod scratch;
mod service;
mod step;

use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext, XdpContext};
use lbr_common::addr::Family;
use lbr_common::verdict::Hook;

use crate::forward::exit;
use crate::hooks::socket;
use crate::packet::frame::Frame;
use crate::packet::skb::Skb;

/// tc ingress of the host side of a pod's veth.
#[classifier]
fn from_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    exit::run(skb, Hook::FromPod, hooks::from_pod::run)
}

/// tc egress of the host side of a pod's veth.
#[classifier]
fn to_pod(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    exit::run(skb, Hook::ToPod, hooks::to_pod::run)
}

/// tc ingress of an uplink.
#[classifier]
fn from_netdev(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    exit::run(skb, Hook::FromNetdev, hooks::from_netdev::run)
}

/// tc egress of an uplink.
#[classifier]
fn to_netdev(ctx: TcContext) -> i32 {
    let skb = Skb::new(ctx.skb.skb);
    exit::run(skb, Hook::ToNetdev, hooks::to_netdev::run)
}

/// XDP of an uplink, also of those whose frames come in several pieces.
#[aya_ebpf::macros::xdp(frags)]
fn xdp_native(ctx: XdpContext) -> u32 {
    exit::run_xdp(Frame::new(ctx.ctx), hooks::xdp::run)
}

/// The same in generic mode, where frames come in one piece. Behind a generic program for several pieces, Linux hands
/// packets to tc without their Ethernet header: the copy that it makes for the program (`skb_pp_cow_data`) has no
/// `mac_len`.
#[aya_ebpf::macros::xdp]
fn xdp_generic(ctx: XdpContext) -> u32 {
    exit::run_xdp(Frame::new(ctx.ctx), hooks::xdp::run)
}

/// `bind` on an IPv4 socket.
#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    socket::bind(ctx.sock_addr, Family::V4)
}

/// `bind` on an IPv6 socket.
#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    socket::bind(ctx.sock_addr, Family::V6)
}

/// `connect` on an IPv4 socket.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    socket::connect(ctx.sock_addr, Family::V4)
}

/// `connect` on an IPv6 socket.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    socket::connect(ctx.sock_addr, Family::V6)
}

/// `sendmsg` with an address on an IPv4 datagram socket.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::send(ctx.sock_addr, Family::V4)
}

/// `sendmsg` with an address on an IPv6 datagram socket.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    socket::send(ctx.sock_addr, Family::V6)
}

/// `recvmsg` that asks for the sender on an IPv4 datagram socket.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::show(ctx.sock_addr, Family::V4)
}

/// `recvmsg` that asks for the sender on an IPv6 datagram socket.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::show(ctx.sock_addr, Family::V6)
}

/// `getpeername` on an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::show(ctx.sock_addr, Family::V4)
}

/// `getpeername` on an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::show(ctx.sock_addr, Family::V6)
}

/// The kernel lends some helpers to GPL-compatible programs only; "Dual MIT/GPL" is one of the strings that it
/// accepts (`include/linux/license.h`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
