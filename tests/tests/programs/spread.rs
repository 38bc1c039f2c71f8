//! The choice of a backend.

use std::collections::BTreeMap;

use lbr_common::verdict::Verdict;
use lbr_tests::testrun::Action;

use super::world::{PROTOS, World, at, expect, nets, opening, part};

/// Connections for each case, at most.
const CONNECTIONS: u16 = 10_000;
/// 99.9 % quantile of the chi-square distribution with 4 degrees of freedom. An even choice exceeds it once in a
/// thousand runs for each of the four cases, so a failed case is tried again with other ports.
const LIMIT: f64 = 18.47;

/// Pearson's chi-square over connections with consecutive source ports, as a kernel hands them out.
#[test]
fn choice_of_backends_is_even() {
    let mut world = World::new("spread");
    let connections = CONNECTIONS / part() as u16;
    for net in nets() {
        for proto in PROTOS {
            let service = at(net.service, 80);
            let backends: Vec<_> = (0..5).map(|n| at(net.remote, 8080 + n)).collect();
            world.service(service, proto, &backends);
            let chi_squares = [20_000, 40_000].map(|from| {
                let mut seen: BTreeMap<_, f64> = backends.iter().map(|b| (*b, 0.0)).collect();
                for port in from..from + connections {
                    let frame = opening(proto, at(net.client, port), service).build();
                    let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Pass);
                    *seen.get_mut(&out.dst).unwrap() += 1.0;
                }
                let even = f64::from(connections) / backends.len() as f64;
                let chi_square: f64 = seen.values().map(|n| (n - even).powi(2) / even).sum();
                println!("{} protocol {proto} from port {from}: {chi_square:.1}", net.family.name());
                chi_square
            });
            assert!(chi_squares.iter().any(|c| *c < LIMIT), "{chi_squares:?}: not below {LIMIT}");
        }
    }
}
