//! The order of the parts, with its reasons. Each part has an order of its own.

use super::Reconciler;
use crate::table::{Pass, number, remove, write};

pub(super) fn run(reconciler: &mut Reconciler, pass: &mut Pass<'_>) {
    let Reconciler { links, policy, services, report, .. } = reconciler;
    if pass.dataplane.can_attach() {
        // Pods must not wait for Services.
        links.apply(pass);
    } else if links.wait_for_programs() {
        pass.outcome.waits_for_programs = true;
        return;
    }
    // Until its policies are in force, a pod is open or cut off. Policies do not depend on Services, which may be very many.
    policy.apply(pass);
    services.apply(pass);
    // For `lbr show`; no program reads it.
    let rejected = &mut report.rejected;
    write(rejected, pass.dataplane.tables().rejected, |_, _| true, number, &mut pass.outcome);
    remove(rejected, pass.dataplane.tables().rejected, |_| true, number, &mut pass.outcome);
}
