//! Events as text, and which of them are shown.

use std::fmt;

use lbr_common::addr::Addr;
use lbr_common::policy::{Event, direction};
use lbr_common::user::{proto_name, socket_text};
use lbr_common::verdict::{Effect, Hook, Verdict};
use serde::Serialize;

use crate::cli::names;
use crate::desired::Desired;

/// Which events are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    /// Older events are skipped: programs left them while no monitor ran.
    pub(super) since: u64,
    /// Show only packets that audited policies would deny; else only dropped ones.
    pub(super) audit: bool,
    /// Number of unreported packets, from events that are not shown.
    pub(super) missed: u32,
}

impl Filter {
    /// The event if it is shown, with the number of packets missing since the last one shown.
    pub(super) fn pass(&mut self, mut event: Event) -> Option<Event> {
        if event.time < self.since {
            return None;
        }
        let audited = matches!(verdict(&event), Some(Verdict::EgressAudited | Verdict::IngressAudited));
        let dropped = verdict(&event).is_none_or(|verdict| verdict.effect() == Effect::Drop);
        event.suppressed = event.suppressed.saturating_add(self.missed);
        let shown = if self.audit { audited } else { dropped };
        self.missed = if shown { 0 } else { event.suppressed };
        shown.then_some(event)
    }
}

fn verdict(event: &Event) -> Option<Verdict> {
    Verdict::ALL.get(usize::from(event.verdict)).copied()
}

/// Whether the policies of one end decided. In other events the direction means nothing.
fn is_of_policies(event: &Event) -> bool {
    use Verdict::{EgressAudited, EgressDenied, IngressAudited, IngressDenied};
    matches!(verdict(event), Some(EgressDenied | IngressDenied | EgressAudited | IngressAudited))
}

/// An event with names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    time: String,
    verdict: String,
    /// The end whose policies decided; `None` if no policy did.
    direction: Option<&'static str>,
    hook: &'static str,
    link: u32,
    protocol: String,
    /// `namespace/name`, if it is a known pod.
    source_pod: Option<String>,
    source: String,
    destination_pod: Option<String>,
    destination: String,
    /// The pod whose policies these are, or its address if it is not known. Empty without a set of policies.
    judged_pod: String,
    /// The policies that isolate this pod, none of which allows the packet.
    policies: Vec<String>,
    /// Packets like this one, or of other kinds, that were not reported because there were too many.
    suppressed: u32,
}

impl Line {
    /// `time`: the text to show.
    pub(super) fn new(tables: &Desired, event: &Event, time: String) -> Self {
        let tuple = &event.tuple;
        let direction = u32::from(event.direction);
        let judged = if direction == direction::INGRESS { &tuple.dst } else { &tuple.src };
        let judged_pod = if event.set.is_none() {
            String::new()
        } else {
            names::pod(tables, judged).unwrap_or_else(|| judged.to_string())
        };
        let hook = Hook::ALL.get(usize::from(event.hook)).map_or("unknown", |hook| hook.name());
        Self {
            time,
            verdict: verdict(event)
                .map_or_else(|| format!("verdict {}", event.verdict), |v| v.name().to_owned()),
            direction: is_of_policies(event).then(|| names::direction_name(direction)),
            hook,
            link: event.ifindex,
            protocol: proto_name(tuple.proto).into_owned(),
            source_pod: names::pod(tables, &tuple.src),
            source: end(tuple.src, tuple.src_port),
            destination_pod: names::pod(tables, &tuple.dst),
            destination: end(tuple.dst, tuple.dst_port),
            judged_pod,
            policies: if event.set.is_none() {
                Vec::new()
            } else {
                names::isolating(tables, event.set, direction)
            },
            suppressed: event.suppressed,
        }
    }
}

fn end(addr: Addr, port: u16) -> String {
    if port == 0 { addr.to_string() } else { socket_text(addr, port) }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |pod: &Option<String>, address: &str| match pod {
            Some(pod) => format!("{pod} ({address})"),
            None => address.to_owned(),
        };
        let source = end(&self.source_pod, &self.source);
        let destination = end(&self.destination_pod, &self.destination);
        let Self { time, verdict, protocol, .. } = self;
        let direction = self.direction.map(|direction| format!(" {direction}")).unwrap_or_default();
        write!(f, "{time} {verdict}{direction}: {source} -> {destination} {protocol}")?;
        if !self.judged_pod.is_empty() {
            let policies = match self.policies.as_slice() {
                [] => "(no longer in the maps)".to_owned(),
                all => all.join(", "),
            };
            write!(f, ", policies of {}: {policies}", self.judged_pod)?;
        }
        match self.suppressed {
            0 => Ok(()),
            more => write!(f, " (+{more} more not shown)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use lbr_common::id::PolicySetId;
    use lbr_common::tuple::{Tuple, proto};

    use super::*;
    use crate::cli::example::{self, AUDIT_SET, SET, WEB, addr, addr6};

    fn event(verdict: Verdict, direction: u32, set: PolicySetId) -> Event {
        let tuple = Tuple {
            src: addr(3),
            dst: WEB,
            src_port: 40000,
            dst_port: 8080,
            proto: proto::TCP,
            ..Tuple::default()
        };
        let direction = u16::try_from(direction).unwrap();
        Event { time: 100, tuple, set, direction, verdict: verdict as u8, ..Event::default() }
    }

    fn text(event: &Event) -> String {
        Line::new(&example::tables(), event, "08:15:30.250".to_owned()).to_string()
    }

    #[test]
    fn a_denial_names_both_ends_and_the_policies() {
        let denied = event(Verdict::IngressDenied, direction::INGRESS, SET);
        assert_eq!(
            text(&denied),
            "08:15:30.250 ingress_denied ingress: default/stranger (10.0.0.3:40000) -> default/web-0 \
             (10.0.0.2:8080) TCP, policies of default/web-0: default/web"
        );
        let more = Event { suppressed: 12, ..denied };
        assert!(text(&more).ends_with("default/web (+12 more not shown)"), "{}", text(&more));
    }

    #[test]
    fn an_audited_denial_names_the_policies_that_isolate_that_way() {
        let mut audited = event(Verdict::EgressAudited, direction::EGRESS, AUDIT_SET);
        audited.tuple =
            Tuple { src: WEB, dst: addr(77), dst_port: 53, proto: proto::UDP, ..Tuple::default() };
        assert_eq!(
            text(&audited),
            "08:15:30.250 egress_audited egress: default/web-0 (10.0.0.2) -> 10.0.0.77:53 UDP, policies of \
             default/web-0: default/later"
        );
    }

    #[test]
    fn what_no_policy_denied_names_none_and_no_direction() {
        let mut spoofed = event(Verdict::SpoofedSource, direction::INGRESS, PolicySetId::NONE);
        spoofed.tuple = Tuple { src: addr6(7), dst: addr6(1), proto: proto::ICMPV6, ..Tuple::default() };
        assert_eq!(text(&spoofed), "08:15:30.250 spoofed_source: fd00::7 -> default/client (fd00::1) ICMPv6");
        for verdict in [Verdict::RouterMessage, Verdict::PodPending, Verdict::NotJudged] {
            let text = text(&event(verdict, direction::INGRESS, PolicySetId::NONE));
            assert!(text.contains(&format!(" {}: default/", verdict.name())), "{text}");
        }
        let direction_of = |event| Line::new(&example::tables(), event, "t".to_owned()).direction;
        assert_eq!(direction_of(&spoofed), None);
        // A closed pod has no set, and is denied all the same.
        assert_eq!(
            direction_of(&event(Verdict::EgressDenied, direction::EGRESS, PolicySetId::NONE)),
            Some("egress")
        );
        let newer = Event { verdict: 200, ..event(Verdict::NotIp, direction::EGRESS, PolicySetId::NONE) };
        assert!(text(&newer).contains(" verdict 200: "), "{}", text(&newer));
        let gone = Event { set: 999.into(), ..event(Verdict::IngressDenied, direction::INGRESS, SET) };
        assert!(
            text(&gone).ends_with("policies of default/web-0: (no longer in the maps)"),
            "{}",
            text(&gone)
        );
    }

    #[test]
    fn json_has_the_same() {
        let denied = event(Verdict::IngressDenied, direction::INGRESS, SET);
        let line = Line::new(&example::tables(), &denied, "t".to_owned());
        let json = serde_json::to_value(&line).unwrap();
        assert_eq!(json["source_pod"], "default/stranger");
        assert_eq!(json["destination"], "10.0.0.2:8080");
        assert_eq!(json["policies"][0], "default/web");
    }

    #[test]
    fn drops_and_audits_are_kept_apart_and_old_ones_left_out() {
        let denied = event(Verdict::EgressDenied, direction::EGRESS, SET);
        let spoofed = event(Verdict::SpoofedSource, direction::EGRESS, PolicySetId::NONE);
        let audited = event(Verdict::IngressAudited, direction::INGRESS, AUDIT_SET);
        let shown = |audit, event| Filter { since: 100, audit, missed: 0 }.pass(event).is_some();
        assert_eq!([denied, spoofed, audited].map(|e| shown(false, e)), [true, true, false]);
        assert_eq!([denied, spoofed, audited].map(|e| shown(true, e)), [false, false, true]);
        assert!(!shown(false, Event { time: 99, ..denied }));
    }

    #[test]
    fn missing_packets_are_reported_with_the_next_event_that_is_shown() {
        let mut filter = Filter { since: 0, audit: false, missed: 0 };
        let audited = Event { suppressed: 5, ..event(Verdict::IngressAudited, direction::INGRESS, SET) };
        let denied = Event { suppressed: 2, ..event(Verdict::IngressDenied, direction::INGRESS, SET) };
        assert_eq!(filter.pass(audited), None);
        assert_eq!(filter.pass(denied).map(|e| e.suppressed), Some(7));
        assert_eq!(filter.pass(denied).map(|e| e.suppressed), Some(2));
    }
}
