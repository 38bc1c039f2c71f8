//! The order of all writes of Services, with its reasons.
//!
//! At every moment, also between two writes of which the second fails, a packet that finds a frontend finds
//! its slots and their backends. So an entry is written before those that refer to it and removed after them, and each
//! step leaves out the entries that an earlier step could not prepare.

use super::apply::{Services, Steps};
use crate::table::Pass;

impl Services {
    /// Writes what differs, as far as possible now.
    pub(crate) fn apply(&mut self, pass: &mut Pass<'_>) {
        run(&mut self.steps(pass));
    }
}

fn run(steps: &mut Steps<'_, '_>) {
    // Names before frontends, so that every frontend in force has one.
    steps.write_names();
    // No slot and no table refers to a new backend yet.
    steps.write_backends();
    // Slots below a frontend's count come into force at once, those above it with the count. Each has its backend.
    steps.write_slots();
    // No frontend leads to a new table yet: it comes into force as a whole, with the frontend.
    steps.write_maglev();
    // A frontend with source ranges serves no client without them, and one with direct server return must know which
    // clients may not be answered directly.
    steps.write_source_ranges();
    steps.write_peers();
    if steps.pass.allow_removals {
        // Revoke first.
        steps.remove_source_ranges();
        // Before the frontends there are removed: addresses of a removed block are ordinary ones.
        steps.remove_service_cidrs();
    }
    // Before the frontends: the answer to a datagram that leaves now may arrive when its port is a Service's, and a packet
    // from an address that becomes a Service's must not pass a filter that lacks the address.
    steps.write_hints();
    // The count is written last when a Service grows, and first when it shrinks.
    steps.write_frontends();
    // Now that a new address has its ports, its other ports are refused.
    steps.write_addresses();
    if steps.pass.allow_removals {
        // Now that all Services with an address in a block are in force.
        steps.write_service_cidrs();
        // Nothing leads to the slots of a removed frontend any more.
        steps.remove_frontends();
        // No frontend with direct server return looks them up any more.
        steps.reduce_peers();
        // No frontend's count reaches these slots.
        steps.remove_slots();
        // No frontend leads to these tables.
        steps.remove_maglev();
        // No slot and no table leads to these backends. Flows still may.
        steps.remove_backends();
        // Names last, when no frontend has them.
        steps.remove_names();
    }
    // After the backends: a flow that is validated now finds its backend gone. Not a second time if only policies changed.
    steps.pass.raise_epoch();
    if steps.pass.allow_removals {
        // After the backends: a program that connects again is led to one that is there.
        steps.abort_sockets();
    }
}
