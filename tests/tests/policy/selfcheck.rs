//! Foundations of the other tests: a lost request is seen as such, and distinguished from a lost answer.

use anyhow::Result;

use crate::case::{Case, Expect, Line};
use crate::probe::{Got, short};
use crate::stage;
use crate::world::World;

/// The results of these probes while node-a drops packets for y/b.
fn without_y_b(world: &World, line: &str) -> Result<Vec<Got>> {
    world.apply(&Case::default())?;
    let lost = world
        .actor("y/b")?
        .addresses
        .map(|ip| if ip.is_ipv6() { format!("{ip}/128") } else { format!("{ip}/32") });
    let node = &world.actor("node-a")?.ns;
    node.ip(lost.iter().map(|net| format!("route add blackhole {net}")))?;
    let probes = world.probes(&[Line::parse(line, Expect::Allowed)?]);
    let wrong = probes.map(|probes| world.wrong(&probes, short()));
    node.ip(lost.iter().map(|net| format!("route del blackhole {net}")))?;
    Ok(wrong?.into_iter().map(|(_, got)| got).collect())
}

#[test]
fn a_lost_request_is_denied() {
    let got = stage::with(|world| without_y_b(world, "x/a -> y/b tcp/80 udp/80 sctp/80 icmp gre")).unwrap();
    // Five kinds over both families, and two of them through the Service as well.
    assert_eq!(got, vec![Got::Denied; 14]);
}

/// IPv6 only: without the way back, `rp_filter` drops the request of IPv4.
#[test]
fn a_lost_answer_is_no_denial() {
    let got = stage::with(|world| without_y_b(world, "y/b -> x/a tcp/80 udp/80 icmp pod-ip v6")).unwrap();
    assert_eq!(got, vec![Got::NoAnswer; 3]);
}

#[test]
fn no_other_packet_is_lost() {
    let line = Line::parse("pods -> pods ext-100 tcp/80 udp/80 icmp", Expect::Allowed).unwrap();
    let wrong = stage::with(|world| {
        world.apply(&Case::default())?;
        let wrong = world.wrong(&world.probes(&[line])?, short());
        let again: Vec<_> = wrong.into_iter().map(|(probe, _)| probe).collect();
        Ok::<_, anyhow::Error>(world.wrong(&again, crate::probe::long()))
    });
    assert!(wrong.as_ref().is_ok_and(Vec::is_empty), "{wrong:?}");
}
