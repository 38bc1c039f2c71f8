//! Faults that tests inject: into which requests, and into the delivery of events.

use std::time::Duration;

use super::kind::Kind;
use super::request::Verb;

/// The requests that a fault affects. The default is all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct When {
    /// Only this kind.
    pub kind: Option<&'static Kind>,
    /// Only this verb.
    pub verb: Option<Verb>,
}

impl When {
    /// Requests of one verb for one kind.
    pub fn is(verb: Verb, kind: &'static Kind) -> Self {
        Self { kind: Some(kind), verb: Some(verb) }
    }

    /// All requests of one verb.
    pub fn verb(verb: Verb) -> Self {
        Self { kind: None, verb: Some(verb) }
    }

    /// All requests for one kind.
    pub fn kind(kind: &'static Kind) -> Self {
        Self { kind: Some(kind), verb: None }
    }

    pub(super) fn matches(&self, kind: Option<&Kind>, verb: Verb) -> bool {
        self.kind.is_none_or(|wanted| kind == Some(wanted)) && self.verb.is_none_or(|wanted| wanted == verb)
    }
}

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// It is refused with this status code, and `Retry-After` in seconds.
    Refuse(u16, Option<u64>),
    /// It is not answered, until the server stops.
    Hang,
    /// It is executed, and answered this much later.
    Delay(Duration),
    /// The connection breaks in the middle of the list item or watch event that follows so many whole ones; or in the
    /// middle of an answer with one object.
    Cut(usize),
    /// The item or event after so many others is not JSON.
    Malformed(usize),
}

/// The damage to a body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Damage {
    None,
    Cut { after: usize },
    Malformed { at: usize },
}

impl Fault {
    pub(super) fn damage(self) -> Damage {
        match self {
            Self::Cut(after) => Damage::Cut { after },
            Self::Malformed(at) => Damage::Malformed { at },
            Self::Refuse(..) | Self::Hang | Self::Delay(_) => Damage::None,
        }
    }
}

/// The pending faults, in the order in which they were injected.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(usize, When, Fault)>);

impl Faults {
    pub(super) fn add(&mut self, times: usize, when: When, fault: Fault) {
        self.0.push((times, when, fault));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn left(&self) -> usize {
        self.0.iter().map(|(times, ..)| times).sum()
    }

    /// The fault of this request.
    pub(super) fn take(&mut self, kind: Option<&Kind>, verb: Verb) -> Option<Fault> {
        let (times, _, fault) =
            self.0.iter_mut().find(|(times, when, _)| *times > 0 && when.matches(kind, verb))?;
        *times -= 1;
        Some(*fault)
    }
}

/// The delivery of a kind's events to watches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Delivery {
    /// Nothing is sent.
    pub(super) held: bool,
    /// Events up to this revision are sent in another order.
    pub(super) reordered_until: u64,
    /// Each event is sent twice.
    pub(super) twice: bool,
    /// Delay of each event.
    pub(super) delay: Duration,
}

/// The order in which held events are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they happened.
    Kept,
    /// The last object of a list first. The events of one object stay in their order.
    ObjectsReversed,
}

/// How watches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Between events, as after `timeoutSeconds`.
    Clean,
    /// The connection breaks.
    Broken,
    /// With an ERROR event with code 410.
    Expired,
}
