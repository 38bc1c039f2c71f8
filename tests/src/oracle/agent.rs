//! An agent that sees one cluster after the other: the engine that ships.

use anyhow::{Result, ensure};
use lbr_agent::cluster::Change;
use lbr_agent::dataplane::Dataplane;
use lbr_agent::engine::Engine;
use lbr_agent::model::Kind;
use lbr_agent::node::NodeView;

use super::Case;
use super::history::changes;

/// An engine, and what it has seen.
#[derive(Debug)]
pub struct Agent {
    /// The engine.
    pub engine: Engine,
    seen: Case,
}

impl Agent {
    /// Takes over the maps. Its sources have listed everything: the first cluster that it sees is written as a whole.
    pub fn start(dataplane: &mut dyn Dataplane) -> Result<Self> {
        let mut engine = Engine::start(NodeView::default(), dataplane)?;
        for kind in Kind::ALL {
            engine.take(Change::Synced(kind));
        }
        Ok(Self { engine, seen: Case::default() })
    }

    /// Takes what sources send when the cluster becomes this one.
    pub fn take(&mut self, case: &Case, dataplane: &mut dyn Dataplane) -> Result<()> {
        for change in changes(&self.seen, case)? {
            self.engine.take(change);
        }
        self.engine.set_node(|node| node.clone_from(&case.node), dataplane);
        self.seen = case.clone();
        Ok(())
    }

    /// Compiles what is new, which must make the same tables as a compile from scratch.
    pub fn compile(&mut self, dataplane: &mut dyn Dataplane) -> Result<()> {
        self.engine.compile(dataplane);
        let is_same = self.engine.desired() == self.engine.from_scratch();
        ensure!(is_same, "compiled from scratch, the tables are others");
        Ok(())
    }
}
