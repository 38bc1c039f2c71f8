//! The comparison itself: right tables pass, and one wrong verdict is found.

use lbr_agent::desired::{Desired, EndpointPolicy};
use lbr_common::addr::Addr;
use lbr_common::policy::{Allow, Policy, Ports, Prefix, VerdictKey, direction, policy_flags};
use lbr_common::text::{PolicyRecord, Text};
use lbr_common::tuple::Tuple;
use lbr_tests::oracle::{Answer, Case, check};

#[test]
fn tables_made_of_the_right_answers_pass_and_wrong_ones_do_not() {
    let (mut allowed, mut found) = (0, 0);
    for seed in 1..300 {
        let case = Case::random(seed);
        let tuples = case.tuples(seed, 100);
        let tables = right(&case, &tuples);
        check(&case, &tables, &tuples).unwrap_or_else(|m| panic!("seed {seed}: {}\n{}", m.what, case.yaml()));
        for key in tables.verdicts.keys() {
            let mut wrong = tables.clone();
            wrong.verdicts.remove(key);
            allowed += 1;
            found += usize::from(check(&case, &wrong, &tuples).is_err());
            let mut wrong = tables.clone();
            wrong.verdicts.insert(*key, Allow { policy: 1.into(), rule: 99 });
            assert!(check(&case, &wrong, &tuples).is_err(), "another rule");
        }
        for addr in tables.endpoints.keys() {
            let mut wrong = tables.clone();
            wrong.endpoints.remove(addr);
            let asked = tuples.iter().any(|t| t.src != t.dst && [t.src, t.dst].contains(addr));
            assert!(!asked || check(&case, &wrong, &tuples).is_err(), "{addr}");
        }
    }
    assert!(found == allowed && allowed > 1000, "{found} of {allowed}");
}

/// One set for each pod, one class for each address, and one port class for each connection.
fn right(case: &Case, tuples: &[Tuple]) -> Desired {
    let mut tables = Desired::default();
    let node = Policy { flags: policy_flags::NODE, ..Policy::default() };
    for ip in &case.node.links.node_addresses {
        tables.endpoints.insert(Addr::from(*ip), EndpointPolicy { ifindex: 0, policy: node });
    }
    for (number, tuple) in (1..).zip(tuples) {
        let expected = case.expected(tuple);
        let ends = [
            (tuple.dst, tuple.src, &expected.ingress, false, direction::INGRESS, policy_flags::ISOLATED_IN),
            (
                tuple.dst,
                tuple.src,
                &expected.audited_ingress,
                true,
                direction::INGRESS,
                policy_flags::AUDIT_IN,
            ),
            (tuple.src, tuple.dst, &expected.egress, false, direction::EGRESS, policy_flags::ISOLATED_OUT),
            (
                tuple.src,
                tuple.dst,
                &expected.audited_egress,
                true,
                direction::EGRESS,
                policy_flags::AUDIT_OUT,
            ),
        ];
        for (subject, peer, answer, audited, direction, flag) in ends {
            if matches!(answer, Answer::NoPod | Answer::Exempt) {
                continue;
            }
            let set = 1 + 2 * number_of(tuples, subject) + u32::from(audited);
            let endpoint = &mut tables.endpoints.entry(subject).or_default().policy;
            endpoint.flags |= policy_flags::POD;
            if *answer == Answer::NotIsolated {
                continue;
            }
            endpoint.flags |= flag;
            *if audited { &mut endpoint.audit } else { &mut endpoint.set } = set.into();
            let class = 2 + number_of(tuples, peer);
            tables.ip_class.insert(peer, class.into());
            let port = tuple.dst_port.to_be_bytes();
            let data = Ports { set: set.into(), direction: direction as u8, proto: tuple.proto, port };
            let ports = *tables.port_class.entry(Prefix { data, len: Ports::FULL }).or_insert(number.into());
            if let Answer::Allowed(rules) = answer {
                let (id, record) = (tables.policies.len() as u32, &rules[rules.len() - 1]);
                let (namespace, name) = (Text::new(&record.namespace), Text::new(&record.policy));
                tables
                    .policies
                    .insert(id.into(), PolicyRecord { namespace, name, ..PolicyRecord::default() });
                let key = VerdictKey { set: set.into(), direction, class: class.into(), ports };
                tables.verdicts.insert(key, Allow { policy: id.into(), rule: record.rule as u32 });
            }
        }
    }
    tables
}

/// The same number for the same address.
fn number_of(tuples: &[Tuple], addr: Addr) -> u32 {
    let ends = tuples.iter().flat_map(|t| [t.src, t.dst]);
    ends.into_iter().position(|end| end == addr).map_or(0, |n| n as u32)
}
