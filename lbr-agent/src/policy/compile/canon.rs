//! One byte sequence for each content, and a hash of it that is the same in every run.

use crate::model::{PolicyPort, PortSet, Requirement, Selector};

/// To be raised when the same content is compiled to other port numbers: a new agent must not take over a set of an old
/// one then.
const LAYOUT: u64 = 1;

/// Bytes unique to a content: texts carry their length, lists their number of entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Canon(Vec<u8>);

impl Canon {
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn len(&mut self, len: usize) -> &mut Self {
        self.number(len as u64)
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.len(bytes.len());
        self.0.extend(bytes);
        self
    }

    /// The order of requirements has no meaning.
    pub(super) fn selector(&mut self, selector: &Selector) -> &mut Self {
        let mut requirements: Vec<_> = selector.requirements.iter().collect();
        requirements.sort();
        requirements.dedup();
        self.len(requirements.len());
        for requirement in requirements {
            let (tag, key, values) = match requirement {
                Requirement::In(key, values) => (0, key, Some(values)),
                Requirement::NotIn(key, values) => (1, key, Some(values)),
                Requirement::Exists(key) => (2, key, None),
                Requirement::DoesNotExist(key) => (3, key, None),
            };
            self.number(tag).text(key).len(values.map_or(0, |v| v.len()));
            for value in values.into_iter().flatten() {
                self.text(value);
            }
        }
        self
    }

    pub(super) fn port(&mut self, port: &PolicyPort) -> &mut Self {
        self.number(port.protocol.number().into());
        match &port.ports {
            PortSet::All => self.number(0),
            PortSet::Range(first, last) => self.number(1).number((*first).into()).number((*last).into()),
            PortSet::Named(name) => self.number(2).text(name),
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A hash that is the same in every run.
    pub(super) fn hash(&self) -> u64 {
        hash(&self.0)
    }
}

/// FNV-1a, seeded with [`LAYOUT`].
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let start = LAYOUT.to_be_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    bytes.iter().fold(start, step)
}
