//! Small tables to write into the maps.

use lbr_agent::dataplane::Dataplane;
use lbr_agent::desired::Desired;
use lbr_agent::reconcile::Reconciler;
use lbr_agent::table::Outcome;
use lbr_common::addr::Addr;
use lbr_common::link::{Link, link_flags};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags};
use lbr_common::text::{ServiceName, Text};
use lbr_common::tuple::{Tuple, proto};
use lbr_tests::scenario::{Real, text};

/// Port 80 of 10.96.0.`service`.
pub(crate) fn frontend(service: u32) -> FrontendKey {
    FrontendKey { port: 80, proto: proto::TCP, ..address(service) }
}

/// 10.96.0.`service` as a whole.
pub(crate) fn address(service: u32) -> FrontendKey {
    FrontendKey { addr: Addr::v4([10, 96, 0, service as u8]), ..FrontendKey::default() }
}

/// 10.244.0.`pod`, port 8080.
pub(crate) fn backend(service: u32, pod: u8) -> Backend {
    let addr = Addr::v4([10, 244, 0, pod]);
    Backend { addr, service: service.into(), port: 8080, proto: proto::TCP, sets: 1, ..Backend::default() }
}

/// Services with their pods.
pub(crate) fn services(services: &[(u32, &[u8])]) -> Desired {
    let mut tables = Desired::default();
    for &(service, pods) in services {
        let count = pods.len() as u32;
        let whole = Frontend { flags: frontend_flags::WILDCARD, ..Frontend::default() };
        tables.frontends.insert(address(service), whole);
        tables
            .frontends
            .insert(frontend(service), Frontend { service: service.into(), count, ..Frontend::default() });
        let name = ServiceName { name: Text::new(&format!("s{service}")), ..ServiceName::default() };
        tables.services.insert(service.into(), name);
        for (slot, &pod) in (0..).zip(pods) {
            let id = service * 1000 + u32::from(pod);
            tables.slots.insert(
                SlotKey { service: service.into(), slot, ..SlotKey::default() },
                Slot { backend: id.into() },
            );
            tables.backends.insert(id.into(), backend(service, pod));
        }
    }
    tables
}

/// Pod links that routes end in.
pub(crate) fn links(indexes: &[u32]) -> std::collections::BTreeMap<u32, Link> {
    indexes
        .iter()
        .map(|&index| (index, Link { flags: link_flags::PEER | link_flags::ROUTED, master: 0 }))
        .collect()
}

/// One round of writing.
pub(crate) fn apply(reconciler: &mut Reconciler, tables: &Desired, dataplane: &mut dyn Dataplane) -> Outcome {
    reconciler.apply(tables.clone(), true, dataplane)
}

/// The fates of connections to port 80 of 10.96.0.`service`: each one once, sorted.
pub(crate) fn ask(real: &mut Real, service: u32) -> Vec<String> {
    let ask = |src_port| {
        let (src, dst) = (Addr::v4([10, 244, 9, 9]), address(service).addr);
        let tuple = Tuple { src, dst, src_port, dst_port: 80, proto: proto::TCP, _pad: [0; 3] };
        let resolved = real.ask(&tuple).unwrap();
        text::verdict(resolved.verdict, resolved.backend)
    };
    let mut answers: Vec<String> = (40_000..40_100).map(ask).collect();
    answers.sort();
    answers.dedup();
    answers
}
