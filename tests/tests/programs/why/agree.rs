//! Whether an answer is what happened.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbr_agent::cli::why::{Connection, Opinion, Why};
use lbr_common::tuple::Tuple;
use lbr_common::user::{proto_name, socket_text};
use lbr_common::verdict::{Effect, Hook, Verdict};
use lbr_tests::oracle::{Answer, Case, Question, Rule};

use super::way::{Fate, is_own};

/// Kinds of results, and how often each came: a test that never meets one shows nothing about it.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<String, u32>);

impl Seen {
    fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub(super) fn check_that_every_kind_came(&self) {
        for kind in [
            "passed: no end is a pod of this node",
            "passed: allowed, straight",
            "passed: allowed, by a Service",
            "passed: allowed, by a socket",
            "passed: allowed, in fragments",
            "passed: audited",
            "egress_denied",
            "ingress_denied",
            "no_endpoint",
            "no_local_endpoint",
            "no_such_port",
            "source_not_in_ranges",
            "unallocated_address",
            "martian",
            "not_judged",
            "unanswerable",
            "refused to a socket",
        ] {
            assert!(self.0.contains_key(kind), "none of {kind}");
        }
    }
}

/// What `lbr why` prints, or its error.
pub(super) type Told = Result<Why, String>;

/// Compares the answer to a question with what happened.
pub(super) fn check(
    case: &Case,
    question: &Question,
    told: &Told,
    fate: &Fate,
    seen: &mut Seen,
) -> Result<(), String> {
    if matches!(fate.socket, Some(libc::EACCES | libc::ENETUNREACH)) {
        // No program says that: the stack does, about 127.255.255.255, a broadcast address.
        seen.count("broadcast by a socket");
        return Ok(());
    }
    fragments_follow(fate)?;
    if last(fate) == Some(Verdict::SctpFragment) && !fate.later.is_empty() {
        // `lbr why --help` says so: the answer is about whole packets.
        seen.count("dropped: a fragment of SCTP");
        return Ok(());
    }
    let why = match told {
        Ok(why) => why,
        Err(error) if error.contains("no policy judges this") || error.contains("each node judges") => {
            seen.count("passed: no end is a pod of this node");
            let is_so = fate.passed && fate.translated.is_none();
            return is_so.then_some(()).ok_or_else(|| "it does not just pass".to_owned());
        }
        Err(error) => return Err(format!("no answer: {error}")),
    };
    if why.spoofed.is_some() {
        seen.count("martian");
        // The address alone decides where no Service has it.
        let is_so =
            !fate.passed && matches!(last(fate), Some(Verdict::Martian | Verdict::UnallocatedAddress));
        return is_so.then_some(()).ok_or_else(|| "the answer is martian".to_owned());
    }
    let refused = why.services.iter().map(|service| service.counter).find(|counter| !counter.is_empty());
    if let Some(counter) = refused {
        if why.allowed {
            return Err("refused, and allowed".to_owned());
        }
        seen.count(counter);
        return was_refused(counter, fate, seen);
    }
    let connection = taken(question, why, fate)?;
    if connection.allowed != fate.passed {
        return Err(format!("the answer is {}, and the packet is not", verb(connection.allowed)));
    }
    if !fate.passed {
        let expected = match (&connection.egress, &connection.ingress) {
            (Opinion::Denied { .. }, _) => Verdict::EgressDenied,
            (_, Opinion::NotJudged) => Verdict::NotJudged,
            _ => Verdict::IngressDenied,
        };
        seen.count(expected.name());
        let got = last(fate);
        if got != Some(expected) {
            return Err(format!("the answer is {}, and the packet is {got:?}", expected.name()));
        }
    } else {
        seen.count(match (fate.socket, fate.translated) {
            (Some(_), Some(_)) => "passed: allowed, by a socket",
            (_, Some(_)) => "passed: allowed, by a Service",
            _ => "passed: allowed, straight",
        });
        if !fate.later.is_empty() {
            seen.count("passed: allowed, in fragments");
        }
        let audits = [
            (&connection.audited_egress, Verdict::EgressAudited),
            (&connection.audited_ingress, Verdict::IngressAudited),
        ];
        for (told, verdict) in audits {
            if told.is_some() != fate.audits.contains(&verdict) {
                return Err(format!("audited {told:?}, and the packet {:?}", fate.audits));
            }
            if told.is_some() {
                seen.count("passed: audited");
            }
        }
    }
    as_specified(case, question, connection)
}

fn verb(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}

fn last(fate: &Fate) -> Option<Verdict> {
    fate.ran.last().map(|(_, verdict)| *verdict)
}

/// A Service refuses the connection.
fn was_refused(counter: &str, fate: &Fate, seen: &mut Seen) -> Result<(), String> {
    let verdict = Verdict::ALL.iter().find(|verdict| verdict.name() == counter);
    if fate.passed {
        return Err(format!("the answer is {counter}, and it passes"));
    }
    match (fate.socket, verdict.map(|verdict| verdict.effect())) {
        (None | Some(0), _) if last(fate).map(Verdict::name) == Some(counter) => Ok(()),
        (Some(libc::ECONNREFUSED), Some(Effect::Refuse)) | (Some(libc::EPERM), Some(Effect::Drop)) => {
            seen.count("refused to a socket");
            Ok(())
        }
        _ => Err(format!("the answer is {counter}")),
    }
}

/// The connection of the answer that the packet began.
fn taken<'a>(question: &Question, why: &'a Why, fate: &Fate) -> Result<&'a Connection, String> {
    let tuple = &question.tuple;
    if why.connections.is_empty() {
        return Err("no connection in the answer".to_owned());
    }
    if why.allowed != why.connections.iter().all(|connection| connection.allowed) {
        return Err("the exit code is not that of the connections".to_owned());
    }
    let Some((ip, port)) = fate.translated else {
        return match (fate.passed, why.services.is_empty(), &why.connections[..]) {
            (true, true, [connection]) | (false, _, [connection]) => Ok(connection),
            // Which endpoint it was for is not in the packet.
            (false, _, connections) => {
                let denied = |side: &Opinion| matches!(side, Opinion::Denied { .. });
                let by_it = |connection: &&Connection| match last(fate) {
                    Some(Verdict::EgressDenied) => denied(&connection.egress),
                    Some(Verdict::NotJudged) => connection.ingress == Opinion::NotJudged,
                    _ => !denied(&connection.egress) && denied(&connection.ingress),
                };
                connections.iter().find(by_it).ok_or_else(|| "no connection is denied so".to_owned())
            }
            _ => Err("it is not translated, and should be".to_owned()),
        };
    };
    let address = format!("{}/{}", socket_text(ip.into(), port), proto_name(tuple.proto));
    let to_it = why.connections.iter().find(|connection| match port {
        // Direct server return: IP in IP has no port.
        0 => endpoint(connection).is_some_and(|(address, _)| address == ip),
        _ => connection.destination.address == address,
    });
    to_it.filter(|_| !why.services.is_empty()).ok_or_else(|| format!("it goes to {address}"))
}

/// Every fragment passes with the first one, and none reaches a pod without it.
fn fragments_follow(fate: &Fate) -> Result<(), String> {
    for later in &fate.later {
        let reaches_pod = later.passed && later.ran.last().is_some_and(|(hook, _)| *hook == Hook::ToPod);
        let ip = |fate: &Fate| fate.translated.map(|(ip, _)| ip);
        let is_so = match fate.passed {
            true => later.passed && ip(later) == ip(fate),
            false => !reaches_pod && later.translated.is_none(),
        };
        if !is_so {
            return Err("a later fragment is not treated as the first one".to_owned());
        }
    }
    Ok(())
}

/// The policies that the answer names are those of the specification.
fn as_specified(case: &Case, question: &Question, connection: &Connection) -> Result<(), String> {
    let mut tuple = question.tuple;
    if is_own(case, tuple.src.into()) {
        return Ok(());
    }
    if let Some((ip, port)) = endpoint(connection) {
        tuple = Tuple { dst: ip.into(), dst_port: port, ..tuple };
    }
    let expected = case.expected(&tuple);
    for (told, expected) in [(&connection.egress, &expected.egress), (&connection.ingress, &expected.ingress)]
    {
        if !is_opinion(told, expected) {
            return Err(format!("the specification says {expected:?}"));
        }
    }
    Ok(())
}

/// Address and port of `10.0.0.2:8080/TCP`.
fn endpoint(connection: &Connection) -> Option<(IpAddr, u16)> {
    let text = connection.destination.address.split('/').next()?;
    let at: std::net::SocketAddr = text.parse().ok()?;
    Some((at.ip(), at.port()))
}

fn is_opinion(told: &Opinion, expected: &Answer) -> bool {
    match (told, expected) {
        (Opinion::Denied { .. }, Answer::Denied)
        | (Opinion::NotIsolated, Answer::NotIsolated)
        | (Opinion::Itself | Opinion::Node, Answer::Exempt)
        | (Opinion::NoPod | Opinion::OtherNode | Opinion::Pending | Opinion::NotJudged, Answer::NoPod) => {
            true
        }
        (Opinion::Allowed { policy, rule, .. }, Answer::Allowed(rules)) => rules
            .iter()
            .any(|expected| &name(expected) == policy && rule.ends_with(&format!("[{}]", expected.rule))),
        _ => false,
    }
}

fn name(rule: &Rule) -> String {
    format!("{}/{}", rule.namespace, rule.policy)
}
