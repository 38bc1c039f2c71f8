//! `flows`, for tests.

use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};
use lbr_common::conntrack::State;
use lbr_common::flow::Flow;
use lbr_common::maps;
use lbr_common::tuple::Tuple;

/// `flows`.
pub struct Flows(HashMap<MapData, Tuple, Flow>);

impl Flows {
    /// Opens it by its pin.
    pub fn open(pins: &Path) -> Result<Self> {
        Ok(Self(HashMap::try_from(super::open(pins, &maps::FLOWS)?)?))
    }

    /// The entry that a packet with this tuple finds.
    pub fn get(&self, key: &Tuple) -> Option<Flow> {
        self.0.get(key, 0).ok()
    }

    /// Whether there is an entry of an assured connection.
    pub fn is_confirmed(&self, key: &Tuple) -> bool {
        self.get(key).is_some_and(|flow| flow.state().is_confirmed())
    }

    /// Writes an entry, as the programs do.
    pub fn insert(&mut self, key: &Tuple, flow: &Flow) -> Result<()> {
        let mut flow = *flow;
        flow.note_places(key);
        self.0.insert(key, flow, 0).context("write a flow")
    }

    /// Removes the entry, like an eviction by the kernel.
    pub fn remove(&mut self, key: &Tuple) -> Result<()> {
        self.0.remove(key).context("remove a flow")
    }

    /// Makes every flow an established one, like handshakes and time.
    pub fn establish(&mut self) -> Result<()> {
        for key in self.keys() {
            let flow = self.0.get(&key, 0).context("read a flow")?;
            self.insert(&key, &Flow { state: State::Established as u32, ..flow })?;
        }
        Ok(())
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Tuple> {
        self.0.keys().filter_map(Result::ok).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// The number of entries of assured connections, and the number of others.
    pub fn len(&self) -> (usize, usize) {
        let flows: Vec<Flow> = self.0.iter().filter_map(Result::ok).map(|(_, flow)| flow).collect();
        let confirmed = flows.iter().filter(|flow| flow.state().is_confirmed()).count();
        (confirmed, flows.len() - confirmed)
    }
}
