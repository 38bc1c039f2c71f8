//! Traffic through each Service is counted once, whichever program translates it.

use lbr_agent::dataplane::Pinned;
use lbr_common::service::Traffic;
use lbr_common::verdict::{Hook, Verdict};

use super::world::{PORT, PROTOS, World, at, nets, opening, packet};

fn traffic(world: &World) -> Vec<(u32, Traffic)> {
    let mut all = Pinned::open(world.programs.pins()).unwrap().traffic().unwrap();
    all.sort_unstable_by_key(|(service, _)| *service);
    all.into_iter().map(|(service, traffic)| (service.id, traffic)).collect()
}

#[test]
fn requests_and_responses_of_each_service() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("traffic");
            world.service(at(net.service, 80), proto, &[at(net.local, 8080)]);
            world.service(at(net.service2, 80), proto, &[at(net.remote, 8080)]);
            assert_eq!(traffic(&world), []);
            let mut expected = [Traffic::default(), Traffic::default()];
            let ways =
                [(net.service, net.local, Hook::FromPod, 1), (net.service2, net.remote, Hook::ToPod, 0)];
            for (number, (service, backend, hook, link)) in ways.into_iter().enumerate() {
                let to = at(service, 80);
                for port in [PORT, PORT + 1] {
                    let client = at(net.client, port);
                    let first = opening(proto, client, to);
                    let frames = [first.build(), packet(proto, client, to).build()];
                    let answer = packet(proto, at(backend, 8080), client).build();
                    for frame in &frames {
                        assert_eq!(world.send(frame).verdict, Verdict::ToBackend);
                        expected[number].request_bytes += frame.len() as u64;
                    }
                    assert_eq!(world.run(hook, link, &answer).verdict, Verdict::ToClient);
                    expected[number].response_bytes += answer.len() as u64;
                    expected[number].connections += 1;
                    expected[number].request_packets += 2;
                    expected[number].response_packets += 1;
                }
            }
            // Packets without a Service and refused packets are not counted.
            world.send(&packet(proto, at(net.client, PORT), at(net.other, 80)).build());
            world.send(&packet(proto, at(net.client, PORT), at(net.service, 81)).build());
            assert_eq!(traffic(&world), [(1, expected[0]), (2, expected[1])]);
        }
    }
}
