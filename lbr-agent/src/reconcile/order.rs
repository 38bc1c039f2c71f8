//! The order of all writes, with its reasons.
//!
//! At every moment, also between two writes of which the second fails, a packet that finds a frontend finds
//! its slots and their backends. So what is referred to is written first and removed last, and each step
//! leaves out what an earlier step could not prepare.

use super::pass::Pass;

pub(super) fn run(pass: &mut Pass<'_>, allow_removals: bool) {
    // Pods must not wait for Services, and one interface that can not be attached concerns no other.
    pass.write_links();
    // Gone interfaces are no matter of what the sources have listed.
    pass.remove_links();
    // The same for what leads to the outside. An interface may turn from one kind into the other.
    pass.remove_uplinks();
    pass.write_uplinks();
    // A pod is open, or cut off, until its policies are there. They ask nothing of Services.
    pass.write_policy();
    // At once: until then what was allowed before goes on, and there may be very many Services.
    pass.raise_epoch_of_policy();
    // No packet asks for what is left of the old ones.
    pass.clean_policy();
    // Before their frontends, so that whatever is in force has a name.
    pass.write_names();
    // Nothing refers to a new backend yet.
    pass.write_backends();
    // Those below a count come into force at once, those above it with the count. Each has its backend.
    pass.write_slots();
    // No frontend leads to a new table yet: it comes into force as a whole, with the frontend.
    pass.write_maglev();
    // A frontend with source ranges serves no client without them, and one with direct server return must know which
    // clients may not be answered directly.
    pass.write_source_ranges();
    pass.write_peers();
    if allow_removals {
        // Revoke first.
        pass.remove_source_ranges();
        // Before an address of theirs is given up.
        pass.remove_service_cidrs();
    }
    // A datagram that leaves now may be answered when the port is a Service's, and no packet from an address that becomes a
    // Service's may pass a filter that does not know it.
    pass.write_hints();
    // The count comes last when a service grows, and first when it shrinks.
    pass.write_frontends();
    // Now that its ports are there, the rest of a new address is refused.
    pass.write_addresses();
    if allow_removals {
        // Now that whoever has an address there is known.
        pass.write_service_cidrs();
        // Nothing leads to the slots of a removed frontend any more.
        pass.remove_frontends();
        // No frontend with direct server return asks for them any more.
        pass.reduce_peers();
        // No count reaches them.
        pass.remove_slots();
        // Nor to tables.
        pass.remove_maglev();
        // No slot and no table leads to them. Flows still may.
        pass.remove_backends();
        // Last, when nothing is in force under it.
        pass.remove_names();
    }
    // After the backends: a flow that looks now finds its backend gone. Not again, if policies were all.
    pass.raise_epoch();
    // For people, no program reads it.
    pass.write_rejected();
    pass.remove_rejected();
}
