//! The order of all writes, with its reasons.
//!
//! At every moment, also between two writes of which the second fails, a packet that finds a frontend finds
//! its slots and their backends. So an entry is written before those that refer to it and removed after them, and each
//! step leaves out the entries that an earlier step could not prepare.

use super::pass::Pass;

pub(super) fn run(pass: &mut Pass<'_>, allow_removals: bool) {
    // Pods must not wait for Services. An interface that cannot be attached holds up no other.
    pass.write_links();
    // Interfaces that are gone are removed even while the sources have not listed everything.
    pass.remove_links();
    // The same for uplinks. An interface may turn from a pod's link into an uplink, or back.
    pass.remove_uplinks();
    pass.write_uplinks();
    // Until its policies are in force, a pod is open or cut off. Policies do not depend on Services.
    pass.write_policy();
    // Before the Services, which may be very many: flows that the former policies allowed go on until then.
    pass.raise_epoch_of_policy();
    // No packet looks up what is left of the former policies.
    pass.clean_policy();
    // Names before frontends, so that every frontend in force has one.
    pass.write_names();
    // No slot and no table refers to a new backend yet.
    pass.write_backends();
    // Slots below a frontend's count come into force at once, those above it with the count. Each has its backend.
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
        // Before the frontends there are removed: addresses of a removed block are ordinary ones.
        pass.remove_service_cidrs();
    }
    // Before the frontends: the answer to a datagram that leaves now may arrive when its port is a Service's, and a packet
    // from an address that becomes a Service's must not pass a filter that lacks the address.
    pass.write_hints();
    // The count is written last when a Service grows, and first when it shrinks.
    pass.write_frontends();
    // Now that a new address has its ports, its other ports are refused.
    pass.write_addresses();
    if allow_removals {
        // Now that all Services with an address in a block are in force.
        pass.write_service_cidrs();
        // Nothing leads to the slots of a removed frontend any more.
        pass.remove_frontends();
        // No frontend with direct server return looks them up any more.
        pass.reduce_peers();
        // No frontend's count reaches these slots.
        pass.remove_slots();
        // No frontend leads to these tables.
        pass.remove_maglev();
        // No slot and no table leads to these backends. Flows still may.
        pass.remove_backends();
        // Names last, when no frontend has them.
        pass.remove_names();
    }
    // After the backends: a flow that is validated now finds its backend gone. Not a second time if only policies changed.
    pass.raise_epoch();
    if allow_removals {
        // After the backends: a program that connects again is led to one that is there.
        pass.abort_sockets();
    }
    // For `lbr show`; no program reads it.
    pass.write_rejected();
    pass.remove_rejected();
}
