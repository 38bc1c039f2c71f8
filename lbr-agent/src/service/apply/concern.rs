//! Which flows a change of a frontend concerns.

use lbr_common::epoch::Place;
use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope};

use crate::table::Delta;

/// The flows of the Services whose frontend is, or was, or is to be there. Beside them those that use the address, or the
/// port, as one that is no Service's: it becomes one's, or their packets would seem to come from one.
pub(super) fn of_frontend(frontends: &Delta<FrontendKey, Frontend>, key: &FrontendKey) -> Vec<Place> {
    let whole = FrontendKey { port: 0, proto: 0, scope: scope::ANY, ..*key };
    // The other ports of an address of this node are nobody else's, whatever Services have there.
    let mut places = if key.port != 0 && is_of_node(frontends, &whole) {
        vec![Place::port(&key.addr, key.port)]
    } else {
        vec![Place::address(&key.addr)]
    };
    let owners = |key: &FrontendKey| [frontends.actual().get(key), frontends.get(key)];
    if key.port == 0 {
        // Each look-up begins with this entry.
        let last = FrontendKey { port: u16::MAX, proto: u8::MAX, scope: u8::MAX, ..*key };
        let there = frontends.actual().range(whole..=last).map(|(_, frontend)| frontend.service);
        places.extend(there.map(Place::service));
    }
    places.extend(owners(key).into_iter().flatten().map(|frontend| Place::service(frontend.service)));
    places
}

/// Whether an address is, or is to be, this node's own.
fn is_of_node(frontends: &Delta<FrontendKey, Frontend>, whole: &FrontendKey) -> bool {
    let entries = [frontends.actual().get(whole), frontends.get(whole)];
    entries.into_iter().flatten().any(|whole| whole.flags & frontend_flags::HOST != 0)
}
