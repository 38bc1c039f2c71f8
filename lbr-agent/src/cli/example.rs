//! A small node for the tests of the commands: tables as the agent would write them.
//!
//! | pod | address | |
//! |---|---|---|
//! | default/client | 10.0.0.1, fd00::1 | not isolated |
//! | default/web-0 | 10.0.0.2 | policy `web` isolates ingress, audited policy `later` would isolate egress |
//! | default/stranger | 10.0.0.3 | not isolated |
//! | other/far | 10.0.0.20, fd00::20 | on another node |
//!
//! `web` allows client to TCP 8080 (rule 0) and 10.9.0.0/16 to every port (rule 1).

use lbr_common::addr::Addr;
use lbr_common::id::{BackendId, ClassId, PolicyId, PolicySetId, PortClassId, ServiceId};
use lbr_common::policy::{
    Allow, Block, OTHER_PORTS, Policy, Ports, Prefix, VerdictKey, class, direction, policy_flags,
};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags};
use lbr_common::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RuleKey, RuleText, ServiceName, Text, policy_kind,
};
use lbr_common::tuple::proto;

use crate::desired::{Desired, EndpointPolicy};

pub(super) const SET: PolicySetId = PolicySetId { id: 3 };
pub(super) const AUDIT_SET: PolicySetId = PolicySetId { id: 4 };
pub(super) const CLIENT: Addr = addr(1);
pub(super) const WEB: Addr = addr(2);
pub(super) const FAR: Addr = addr(20);
pub(super) const NODE: Addr = addr(254);

const POLICY_WEB: PolicyId = PolicyId { id: 1 };
const POLICY_LATER: PolicyId = PolicyId { id: 2 };
const CLASS_CLIENT: ClassId = class::FIRST;
const CLASS_BLOCK: ClassId = class::FIRST.next();
const PORTS_8080: PortClassId = OTHER_PORTS.next();

pub(super) const fn addr(last: u8) -> Addr {
    Addr::v4([10, 0, 0, last])
}

pub(super) fn addr6(last: u8) -> Addr {
    std::net::IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()]).into()
}

pub(super) fn tables() -> Desired {
    let mut tables = Desired::default();
    endpoints(&mut tables);
    policies(&mut tables);
    service(&mut tables, 1.into(), "web", 10, &[WEB]);
    service(&mut tables, 2.into(), "mixed", 11, &[WEB, FAR]);
    service(&mut tables, 3.into(), "empty", 12, &[]);
    service(&mut tables, 4.into(), "self", 13, &[CLIENT]);
    tables
}

fn endpoints(tables: &mut Desired) {
    let plain = Policy { flags: policy_flags::POD, ..Policy::default() };
    let flags = policy_flags::POD | policy_flags::ISOLATED_IN | policy_flags::AUDIT_OUT;
    let mut add =
        |addr, link, policy| tables.endpoints.insert(addr, EndpointPolicy { ifindex: link, policy });
    add(CLIENT, 1, plain);
    add(addr6(1), 1, plain);
    add(WEB, 2, Policy { set: SET, audit: AUDIT_SET, flags });
    add(addr(3), 3, plain);
    add(addr(9), 9, Policy { flags: policy_flags::PENDING, ..Policy::default() });
    add(NODE, 0, Policy { flags: policy_flags::NODE, ..Policy::default() });
    let pods = [
        (CLIENT, "default", "client"),
        (addr6(1), "default", "client"),
        (WEB, "default", "web-0"),
        (addr(3), "default", "stranger"),
        (FAR, "other", "far"),
        (addr6(20), "other", "far"),
    ];
    for (addr, namespace, name) in pods {
        let name = PodName { namespace: Text::new(namespace), name: Text::new(name) };
        tables.pod_names.insert(addr, name);
    }
}

fn policies(tables: &mut Desired) {
    let policy = |name, kind, ingress_rules| PolicyRecord {
        namespace: Text::new("default"),
        name: Text::new(name),
        kind,
        pods: 1,
        ingress_rules,
        egress_rules: 0,
    };
    tables.policies.insert(POLICY_WEB, policy("web", policy_kind::INGRESS, 2));
    tables.policies.insert(POLICY_LATER, policy("later", policy_kind::EGRESS | policy_kind::AUDIT, 0));
    for (set, number, policy) in
        [(SET, 0, POLICY_WEB), (AUDIT_SET, 0, POLICY_WEB), (AUDIT_SET, 1, POLICY_LATER)]
    {
        tables.set_members.insert(MemberKey { set, number }, Member { policy, ..Member::default() });
    }
    tables.ip_class.insert(CLIENT, CLASS_CLIENT);
    tables.ip_class.insert(addr6(1), CLASS_CLIENT);
    let block = Block::of(&Addr::v4([10, 9, 0, 0]));
    tables.cidr_class.insert(Prefix { data: block, len: Block::FAMILY_BITS + 96 + 16 }, CLASS_BLOCK);
    let ports = Ports { set: SET, direction: 0, proto: proto::TCP, port: 8080u16.to_be_bytes() };
    tables.port_class.insert(Prefix { data: ports, len: Ports::FULL }, PORTS_8080);
    for (class, ports, rule) in
        [(CLASS_CLIENT, PORTS_8080, 0), (CLASS_BLOCK, PORTS_8080, 1), (CLASS_BLOCK, OTHER_PORTS, 1)]
    {
        let key = VerdictKey { set: SET, direction: direction::INGRESS, class, ports };
        tables.verdicts.insert(key, Allow { policy: POLICY_WEB, rule });
    }
    let yaml = [
        "from:\n- podSelector:\n    matchLabels:\n      app: client\nports:\n- port: 8080\n",
        "from:\n- ipBlock:\n    cidr: 10.9.0.0/16\n",
    ];
    for (rule, yaml) in (0..).zip(yaml) {
        let key = RuleKey { policy: POLICY_WEB, direction: direction::INGRESS, rule };
        tables.rules.insert(key, RuleText { yaml: Text::new(yaml) });
    }
    let class = ClassRecord { hash: 1, pods: 2, blocks: 0, matches: Text::new("pods app=client in default") };
    tables.classes.insert(CLASS_CLIENT, class);
}

/// Port 80 of 10.96.0.`last`, to port 8080.
fn service(tables: &mut Desired, id: ServiceId, name: &str, last: u8, backends: &[Addr]) {
    let key = |port, proto| FrontendKey {
        addr: Addr::v4([10, 96, 0, last]),
        port,
        proto,
        ..FrontendKey::default()
    };
    let whole = Frontend { flags: frontend_flags::WILDCARD, ..Frontend::default() };
    tables.frontends.insert(key(0, 0), whole);
    let count = u32::try_from(backends.len()).unwrap();
    tables.frontends.insert(key(80, proto::TCP), Frontend { service: id, count, ..Frontend::default() });
    for (slot, &addr) in (0..).zip(backends) {
        let backend = BackendId { id: id.id * 100 + slot };
        tables.slots.insert(SlotKey { service: id, slot, ..SlotKey::default() }, Slot { backend });
        let value =
            Backend { addr, port: 8080, proto: proto::TCP, service: id, sets: 1, ..Backend::default() };
        tables.backends.insert(backend, value);
    }
    let name =
        ServiceName { namespace: Text::new("default"), name: Text::new(name), port: Text::new("http") };
    tables.services.insert(id, name);
}
