//! The answer as text, the summary first.

use std::fmt::Write as _;

use super::types::{Connection, Frontend, Opinion, Why};

/// How many connections are listed; a Service may have thousands of endpoints.
const LISTED: usize = 10;

/// One line: allowed or denied, and why.
pub(super) fn summary(services: &[Frontend], connections: &[Connection]) -> String {
    let refused = services.iter().filter(|s| !s.refused.is_empty()).collect::<Vec<_>>();
    let denied: Vec<_> = connections.iter().filter(|c| !c.allowed).collect();
    let total = connections.len() + refused.len();
    let part = match refused.len() + denied.len() {
        n if n < total => format!("{n} of {total} connections, "),
        _ => String::new(),
    };
    if let Some(service) = refused.first() {
        return format!(
            "denied: {part}refused by Service {} at {}: {}",
            service.service, service.address, service.refused
        );
    }
    if let Some(connection) = denied.first() {
        return format!("denied: {part}{}", denial(connection));
    }
    match connections.iter().find_map(caveat) {
        Some(caveat) => format!("allowed, {caveat}"),
        None => "allowed".to_owned(),
    }
}

fn denial(connection: &Connection) -> String {
    let Connection { source, destination, egress, ingress, .. } = connection;
    match (egress, ingress) {
        (Opinion::Denied { policies }, _) => denied(policies, "egress", source.name()),
        (_, Opinion::Denied { policies }) => denied(policies, "ingress", destination.name()),
        (_, Opinion::NotJudged) => not_judged(destination.name()),
        _ => String::new(),
    }
}

fn not_judged(who: &str) -> String {
    format!(
        "{who} is not the address of a known pod, but routed to a pod that is isolated for ingress (counter not_judged)"
    )
}

fn denied(policies: &[String], direction: &str, who: &str) -> String {
    match policies {
        [] => format!(
            "{who} is isolated for {direction}, and no policy in force allows this: see `lbr show rejected`"
        ),
        [policy] => format!("{policy} isolates {who} for {direction} and does not allow this"),
        all => format!("{} isolate {who} for {direction}, and none of them allows this", all.join(", ")),
    }
}

/// What the answer does not cover.
fn caveat(connection: &Connection) -> Option<String> {
    let Connection { source, destination, egress, ingress, .. } = connection;
    let ends = [(egress, source, "egress"), (ingress, destination, "ingress")];
    ends.iter().find_map(|(opinion, end, direction)| match opinion {
        Opinion::OtherNode => Some(format!(
            "as far as this node decides: {direction} of {} is judged on its own node",
            end.name()
        )),
        Opinion::Pending => {
            let pending = "is not known yet (with `lbr run --pending=deny` it is denied until then)";
            Some(format!("as long as the pod at {} {pending}", end.name()))
        }
        _ => None,
    })
}

/// The whole answer.
pub(super) fn render(why: &Why) -> String {
    let mut out = format!("{}\n", why.summary);
    if !why.taken.is_empty() {
        line(&mut out, &format!("note: {}", why.taken));
    }
    for service in &why.services {
        let Frontend { service: name, address, port, endpoints, refused, counter } = service;
        let leads = match (refused.is_empty(), endpoints) {
            (false, _) => format!("is refused: {refused} (counter {counter})"),
            (true, 1) => "leads to 1 endpoint".to_owned(),
            (true, n) => format!("leads to one of {n} endpoints"),
        };
        line(&mut out, &format!("\nService {name} at {address}, port {port}, {leads}"));
    }
    for group in groups(&why.connections) {
        out.push('\n');
        let verdict = if group[0].allowed { "allowed" } else { "denied" };
        for connection in group.iter().take(LISTED) {
            let (source, destination) = (&connection.source, &connection.destination);
            let (source, destination) =
                (end(&source.pod, &source.address), end(&destination.pod, &destination.address));
            line(&mut out, &format!("{source} -> {destination}: {verdict}"));
        }
        if group.len() > LISTED {
            line(&mut out, &format!("and {} more: {verdict}", group.len() - LISTED));
        }
        opinions(&mut out, &group);
    }
    out
}

/// Connections with the same opinions at both ends, in the order of the first of each.
fn groups(connections: &[Connection]) -> Vec<Vec<&Connection>> {
    let mut groups: Vec<Vec<&Connection>> = Vec::new();
    let same = |a: &Connection, b: &Connection| {
        (&a.egress, &a.ingress) == (&b.egress, &b.ingress)
            && (&a.audited_egress, &a.audited_ingress) == (&b.audited_egress, &b.audited_ingress)
    };
    for connection in connections {
        match groups.iter_mut().find(|group| same(group[0], connection)) {
            Some(group) => group.push(connection),
            None => groups.push(vec![connection]),
        }
    }
    groups
}

fn opinions(out: &mut String, group: &[&Connection]) {
    let connection = group[0];
    let source = one(group.iter().map(|c| c.source.name()), "the sender");
    let destination = one(group.iter().map(|c| c.destination.name()), "the receiver");
    let sides = [
        ("egress", source, &connection.egress, &connection.audited_egress),
        ("ingress", destination, &connection.ingress, &connection.audited_ingress),
    ];
    for (direction, who, opinion, audited) in sides {
        line(out, &format!("  {direction:8} {}", sentence(opinion, direction, who)));
        rule(out, opinion);
        if let Some(audited) = audited {
            let sentence = sentence(audited, direction, who);
            line(out, &format!("  {:8} if the audited policies were enforced: {sentence}", ""));
            rule(out, audited);
        }
    }
}

/// The name, if all have the same.
fn one<'a>(mut names: impl Iterator<Item = &'a str>, otherwise: &'a str) -> &'a str {
    let first = names.next().unwrap_or(otherwise);
    if names.all(|name| name == first) { first } else { otherwise }
}

fn sentence(opinion: &Opinion, direction: &str, who: &str) -> String {
    match opinion {
        Opinion::Allowed { policy, rule, .. } => format!("allowed by {policy}, {rule}:"),
        Opinion::Denied { policies } => format!("denied: {}", denied(policies, direction, who)),
        Opinion::NotIsolated => format!("allowed: no policy isolates {who} for {direction}"),
        Opinion::Itself => "allowed: a pod always reaches itself".to_owned(),
        Opinion::Node => "allowed: policies do not judge traffic from or to this node itself".to_owned(),
        Opinion::OtherNode => {
            format!("not judged here: {who} is not a pod of this node; run `lbr why` on its node")
        }
        Opinion::NoPod => format!("not judged: {who} is not the address of a known pod"),
        Opinion::NotJudged => format!("denied: {}", not_judged(who)),
        Opinion::Pending => {
            format!("not judged yet: the pod at {who} is not known yet; `lbr run --pending` decides")
        }
    }
}

fn rule(out: &mut String, opinion: &Opinion) {
    let Opinion::Allowed { yaml, .. } = opinion else { return };
    let yaml = if yaml.trim().is_empty() { "(the text of the rule is not in the maps)" } else { yaml };
    for text in yaml.lines() {
        line(out, &format!("  {:8}   {text}", ""));
    }
}

fn end(pod: &Option<String>, address: &str) -> String {
    match pod {
        Some(pod) => format!("{pod} ({address})"),
        None => address.to_owned(),
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(out, "{}", text.trim_end());
}
