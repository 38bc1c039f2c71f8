//! Policies in maps that are too small for them: a connection that the specification denies, and denied before, does
//! not pass; with room again, everything is as specified.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::net::IpAddr;

use lbr_agent::dataplane::fake::Fake;
use lbr_agent::policy::judge::{Side, judge};
use lbr_agent::table::Outcome;
use lbr_common::tuple::Tuple;
use lbr_tests::oracle::history::{History, Moment};
use lbr_tests::oracle::{Agent, Answer, Case, check, tuple_text};
use serde_json::Value;

const HISTORIES: u64 = 60;
const STEPS: usize = 12;
const TUPLES: usize = 60;
/// Writes of the agent after each step: removals make room for the next write.
const ROUNDS: usize = 4;

/// Writes after a change as the agent does; returns the outcome, and how many policies were left out.
fn write(agent: &mut Agent, fake: &mut Fake) -> (Outcome, usize) {
    agent.compile(fake).unwrap();
    let outcome = agent.engine.write(fake);
    (outcome, agent.engine.without_room().len())
}

/// Whether this end lets a connection pass; an end that is no pod of this node allows everything.
fn passes(side: Side) -> bool {
    side.passes()
}

fn may_pass(answer: &Answer) -> bool {
    !matches!(answer, Answer::Denied)
}

/// Both ends of a connection.
fn expected(case: &Case, tuple: &Tuple) -> [Answer; 2] {
    let expected = case.expected(tuple);
    [expected.egress, expected.ingress]
}

/// Whether a rule allowed it before, for the former pods or for the present ones.
fn was_allowed(before: &[Moment], now: &Case, tuple: &Tuple, side: usize) -> bool {
    let is_policy = |object: &Value| object["kind"] == "NetworkPolicy";
    let end = IpAddr::from(if side == 0 { tuple.src } else { tuple.dst }).to_string();
    let is_end = |object: &Value| {
        let ips = object["status"]["podIPs"].as_array();
        ips.is_some_and(|ips| ips.iter().any(|ip| ip["ip"] == end.as_str()))
    };
    before.iter().any(|then| {
        let mut with_policies = now.clone();
        with_policies.objects.retain(|object| !is_policy(object));
        with_policies.objects.extend(then.case.objects.iter().filter(|o| is_policy(o)).cloned());
        let mut with_pod = with_policies.clone();
        with_pod.objects.retain(|object| !is_end(object));
        with_pod.objects.extend(then.case.objects.iter().filter(|o| is_end(o)).cloned());
        let allowed = |case: &Case| matches!(expected(case, tuple)[side], Answer::Allowed(_));
        [&then.case, &with_policies, &with_pod].into_iter().any(allowed)
    })
}

#[test]
fn policy_without_room_opens_nothing() {
    let (mut short, mut closed, mut held) = (0, 0, 0);
    for seed in 0..HISTORIES {
        let mut fake = Fake::new(seed).with_faults(0);
        let sizes =
            [("verdicts", 4 + seed % 40), ("port_class", 3 + seed % 17), ("cidr_class", 1 + seed % 7)];
        for (map, size) in sizes.into_iter().chain([("ip_class", 2 + seed % 11)]) {
            fake.set_max_entries(map, u32::try_from(size).unwrap());
        }
        let history = History::random(seed, STEPS, true);
        let mut agent = Agent::start(&mut fake).unwrap();
        for (step, moment) in history.moments.iter().enumerate() {
            if moment.restart {
                agent = Agent::start(&mut fake).unwrap();
            }
            agent.take(&moment.case, &mut fake).unwrap();
            for round in 0..ROUNDS {
                let (outcome, without_room) = write(&mut agent, &mut fake);
                short += usize::from(!outcome.problems.is_empty());
                held += without_room;
                let tables = fake.in_force();
                for tuple in moment.case.tuples(seed + step as u64, TUPLES) {
                    let judged = judge(&tables, &tuple);
                    let got = [passes(judged.egress), passes(judged.ingress)];
                    let now = expected(&moment.case, &tuple).map(|answer| may_pass(&answer));
                    for side in 0..2 {
                        closed += usize::from(now[side] && !got[side]);
                        let before = &history.moments[..step];
                        assert!(
                            !got[side] || now[side] || was_allowed(before, &moment.case, &tuple, side),
                            "{}\nseed {seed}, step {step}, round {round}, side {side}: {} passes",
                            history.yaml(),
                            tuple_text(&tuple),
                        );
                    }
                }
            }
        }
        for (map, _) in sizes.into_iter().chain([("ip_class", 0)]) {
            fake.set_max_entries(map, 100_000);
        }
        let moment = history.moments.last().unwrap();
        let (outcome, without_room) = write(&mut agent, &mut fake);
        assert!(outcome.is_converged() && without_room == 0, "seed {seed}: {outcome:?}");
        check(&moment.case, &fake.in_force(), &moment.case.tuples(seed, TUPLES)).unwrap();
    }
    // Otherwise the run proves nothing.
    assert!(
        short > 200 && closed > 200 && held > 200,
        "{short} writes lacked room, {closed} closed, {held} held"
    );
}
