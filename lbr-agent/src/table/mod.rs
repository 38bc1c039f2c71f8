//! What a map should hold, what it holds, and the difference: plain ([`Delta`]), and for maps whose values change together
//! at one switch (`Staged`). No part of lbr writes a map in another way.

mod compact;
mod delta;
mod maps;
mod outcome;
mod pass;
mod prefix;
mod staged;
mod stored;
mod write;

pub(crate) use self::compact::{compact, compact_set};
pub use self::delta::Delta;
pub(crate) use self::maps::{LinkMaps, PolicyMaps, ReportMaps, ServiceMaps};
pub use self::outcome::{Outcome, Problem};
pub(crate) use self::pass::{Due, Pass};
pub(crate) use self::prefix::starts_with;
pub(crate) use self::staged::Staged;
pub use self::stored::{Absent, Stored, in_force};
pub(crate) use self::write::{insert, number, remove, write};
