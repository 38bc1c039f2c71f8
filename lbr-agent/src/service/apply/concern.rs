//! Which flows a change of a frontend concerns.

use lbr_common::epoch::Cell;
use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope};

use crate::table::Delta;

/// The flows of the Services whose frontend is, or was, or is to be there. Beside them those that use the address, or the
/// port, as one that is no Service's: it becomes one's, or their packets would seem to come from one.
pub(super) fn of_frontend(frontends: &Delta<FrontendKey, Frontend>, key: &FrontendKey) -> Vec<Cell> {
    let whole = FrontendKey { port: 0, proto: 0, scope: scope::ANY, ..*key };
    // The other ports of an address of this node are nobody else's, whatever Services have there.
    let mut cells = if key.port != 0 && is_of_node(frontends, &whole) {
        vec![Cell::port(&key.addr, key.port), Cell::port_too(&key.addr, key.port)]
    } else {
        vec![Cell::address(&key.addr), Cell::address_too(&key.addr)]
    };
    let owners = |key: &FrontendKey| [frontends.actual().get(key), frontends.get(key)];
    if key.port == 0 {
        // Each look-up begins with this entry.
        let last = FrontendKey { port: u16::MAX, proto: u8::MAX, scope: u8::MAX, ..*key };
        let there = frontends.actual().range(whole..=last).map(|(_, frontend)| frontend.service);
        cells.extend(there.map(Cell::service));
    }
    cells.extend(owners(key).into_iter().flatten().map(|frontend| Cell::service(frontend.service)));
    cells
}

/// Whether an address is, or is to be, this node's own.
fn is_of_node(frontends: &Delta<FrontendKey, Frontend>, whole: &FrontendKey) -> bool {
    let entries = [frontends.actual().get(whole), frontends.get(whole)];
    entries.into_iter().flatten().any(|whole| whole.flags & frontend_flags::HOST != 0)
}
