//! C16: addresses that a pod behind a bridge claims by ARP and neighbour discovery.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lbr_common::addr::Family;
use lbr_common::maps;
use lbr_common::service::State;
use lbr_tests::packet::{Packet, arp_request, solicitation};
use lbr_tests::probe::send_frames;
use lbr_tests::topology::Pod;

use crate::packets::{arrives, at, isolated, on_link, send};
use crate::stage;
use crate::world::World;

/// The node of the bridged pods.
const NODE: usize = 1;

/// A request to the gateway from each of these addresses.
fn claim(pod: &Pod, (v4, v6): (Ipv4Addr, Ipv6Addr)) -> Result<()> {
    let (gateway4, gateway6) =
        (Ipv4Addr::new(10, 244, 2, 1), Ipv6Addr::new(0xfd00, 0x10, 0x244, 2, 0, 0, 0, 1));
    let arp = arp_request(v4, pod.mac, gateway4);
    send_frames(&pod.ns, "eth0", &[arp, solicitation(v6, pod.mac, gateway6, pod.gateway_mac)])
}

/// Addresses of node-b's pod network that no pod has.
fn free(host: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 244, 2, host), Ipv6Addr::new(0xfd00, 0x10, 0x244, 2, 0, 0, 1, host.into()))
}

#[test]
fn c16_claimed_address_is_no_second_identity() {
    stage::with(|world| {
        // y/b may send nothing, as long as it is known as y/b.
        world.apply(&isolated(&["y"]))?;
        let (from, to) = (world.actor("y/b")?, world.actor("z/a")?);
        let pod = from.pod.as_ref().context("a pod")?;
        let claimed = free(99);
        claim(pod, claimed)?;
        // The node's neighbour entries are in force after that.
        std::thread::sleep(Duration::from_millis(500));
        for source in [IpAddr::from(claimed.0), claimed.1.into()] {
            let before = world.counted(NODE, "spoofed_source")?;
            let ident = world.next_ident();
            let packet = Packet::udp(SocketAddr::new(source, ident), at(to, Family::of(source), 80));
            let frame = on_link(packet.payload(b"second"), from, to)?.build();
            let is_through = arrives(to, |p| p.src.port() == ident, || send(from, &frame))?;
            ensure!(!is_through, "y/b as {source}: arrived");
            ensure!(
                world.counted(NODE, "spoofed_source")? > before,
                "y/b as {source}: not counted as spoofed"
            );
        }
        Ok(())
    })
    .unwrap();
}

/// `state.epoch`, the number of compilations, and the agent's processor time in clock ticks.
fn work(world: &World) -> Result<(u32, u64, u64)> {
    let path = world.agents[NODE].bpffs().join(maps::STATE.name);
    let state: Array<MapData, State> = Map::from_map_data(MapData::from_pin(path)?)?.try_into()?;
    let mut text = String::new();
    world.nodes[NODE].ns.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:10249")?;
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut text)?;
        Ok(())
    })?;
    let rounds = text.lines().find_map(|line| line.strip_prefix("lbr_compile_duration_seconds_count "));
    let id = world.agents[NODE].id().context("the agent runs")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Ok((state.get(&0, 0)?.epoch, rounds.context("rounds are counted")?.parse()?, ticks(11) + ticks(12)))
}

#[test]
fn c16_many_claimed_addresses_cost_no_work() {
    stage::with(|world| {
        let pod = world.actor("y/b")?.pod.as_ref().context("a pod")?;
        // Earlier changes are written by now.
        std::thread::sleep(Duration::from_millis(500));
        let before = work(world)?;
        let begin = std::time::Instant::now();
        for host in 100..250 {
            claim(pod, free(host))?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let took = begin.elapsed();
        let after = work(world)?;
        // A hundred clock ticks are one second.
        let share = (after.2 - before.2) as f64 / 100.0 / took.as_secs_f64();
        println!(
            "{} epochs, {} rounds, {:.1} % of a processor",
            after.0 - before.0,
            after.1 - before.1,
            share * 100.0
        );
        ensure!(after.0 == before.0, "the epoch went from {} to {}", before.0, after.0);
        ensure!(after.1 == before.1, "{} rounds", after.1 - before.1);
        ensure!(share < 0.25, "{share} of a processor");
        Ok(())
    })
    .unwrap();
}
