//! `lbr status`: the agent, what it reads and what is in force, on one screen. Reads the pins and the agent's last report; no
//! agent needs to run.

mod ages;
mod collect;
mod text;
mod types;

use super::args::WhyOutput;
use super::args::status::StatusArgs;
use super::print;
use crate::dataplane::Pinned;

pub(super) use collect::object;
pub(super) use types::Object;

/// Prints the status.
pub fn status(args: &StatusArgs) -> anyhow::Result<()> {
    let status = collect::status(&Pinned::open(&args.bpffs)?, &args.bpffs)?;
    print(&match args.output {
        WhyOutput::Table => text::render(&status),
        WhyOutput::Json => format!("{}\n", serde_json::to_string_pretty(&status)?),
    })
}
