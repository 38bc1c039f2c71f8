//! Where a packet goes: the one match from verdict to action, routes, refusals.

pub(crate) mod exit;
pub(crate) mod fib;
pub(crate) mod refuse;
pub(crate) mod reset;
pub(crate) mod route;
