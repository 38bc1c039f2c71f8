//! The data planes that a scenario can run on.

use anyhow::Result;
use lbr_agent::dataplane::Dataplane;
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::service::look_up::{Sender, resolve};
use lbr_common::select::Seeds;
use lbr_common::tuple::Tuple;

use super::{Node, text};

/// Maps, the verdicts of packets by them, and the node around them.
pub trait Plane {
    /// The maps.
    fn dataplane(&mut self) -> Result<&mut dyn Dataplane>;

    /// The fate of a packet that begins a connection, as [`text::verdict`] prints it; `None` if this plane cannot
    /// tell it for such a sender.
    fn verdict(&mut self, tuple: &Tuple, sender: Sender) -> Result<Option<String>>;

    /// The node changes to this one; its agent does not know that yet.
    fn set_node(&mut self, _node: &Node) -> Result<()> {
        Ok(())
    }

    /// The agent is killed, and another one starts.
    fn restart(&mut self) -> Result<()> {
        Ok(())
    }
}

/// In memory, with the same look-ups in user space.
impl Plane for Fake {
    fn dataplane(&mut self) -> Result<&mut dyn Dataplane> {
        Ok(self)
    }

    fn verdict(&mut self, tuple: &Tuple, sender: Sender) -> Result<Option<String>> {
        let resolved = resolve(&self.in_force(), tuple, sender, Seeds::default());
        Ok(Some(text::verdict(resolved.verdict, resolved.backend)))
    }
}
