//! Flags of `lbr status` and `lbr version`.

use std::path::PathBuf;

use clap::Args;

use super::WhyOutput;
use crate::dataplane::DEFAULT_BPFFS;

/// `lbr status`, `lbr version`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: WhyOutput,

    /// Folder on a BPF filesystem that the agent uses.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,
}
