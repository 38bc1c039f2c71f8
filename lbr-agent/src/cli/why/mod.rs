//! `lbr why`: whether a connection would pass, and which policies decide. Reads the pins; no agent needs to run.

mod answer;
mod ends;
mod find;
mod question;
#[cfg(test)]
mod tests;
mod text;
mod types;

use lbr_common::maps::{self, MapSpec};

pub use self::types::{Connection, End, Frontend, Opinion, Why};

use self::answer::Query;
use super::args::{WhyArgs, WhyOutput};
use super::print;
use crate::dataplane::Pinned;
use crate::desired::Desired;
use crate::serve::report::Report;

/// The maps that an answer needs.
pub const MAPS: &[MapSpec] = &[
    maps::FRONTENDS,
    maps::SLOTS,
    maps::BACKENDS,
    maps::SERVICES,
    maps::SOURCE_RANGES,
    maps::SERVICE_CIDRS,
    maps::ENDPOINTS,
    maps::LINK_POLICY,
    maps::IP_CLASS,
    maps::CIDR_CLASS,
    maps::PORT_CLASS,
    maps::VERDICTS,
    maps::POLICIES,
    maps::RULES,
    maps::SET_MEMBERS,
    maps::POD_NAMES,
];

/// Prints the answer. Returns whether the connection would pass.
pub fn why(args: &WhyArgs) -> anyhow::Result<bool> {
    let pinned = Pinned::open(&args.bpffs)?;
    let why = ask(&pinned.tables_of(MAPS)?, args, &node_name(&pinned)?)?;
    print(&match args.output {
        WhyOutput::Table => text::render(&why),
        WhyOutput::Json => format!("{}\n", serde_json::to_string_pretty(&why)?),
    })?;
    Ok(why.allowed)
}

/// The answer from these tables, which hold the content of [`MAPS`], on the node with this name.
pub fn ask(tables: &Desired, args: &WhyArgs, node: &str) -> anyhow::Result<Why> {
    let port = args.port.as_deref();
    let query = Query { from: &args.from, to: &args.to, port, proto: args.proto, node };
    answer::why(tables, &query)
}

/// Name of this node: the agent's, else the host's.
fn node_name(pinned: &Pinned) -> anyhow::Result<String> {
    let report = pinned.report().and_then(|text| Report::parse(&text));
    match report.map(|report| report.node).filter(|name| !name.is_empty()) {
        Some(name) => Ok(name),
        None => Ok(nix::unistd::gethostname()?.to_string_lossy().into_owned()),
    }
}
