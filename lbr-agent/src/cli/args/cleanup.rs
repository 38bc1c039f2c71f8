//! Flags of `lbr cleanup`.

use std::path::PathBuf;

use clap::Args;

use crate::dataplane::DEFAULT_BPFFS;

/// `lbr cleanup`.
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// Remove what kube-proxy left, and nothing of lbr.
    #[arg(long)]
    pub kube_proxy: bool,

    /// Only print what would be removed.
    #[arg(long)]
    pub dry_run: bool,

    /// Clean up even while an agent runs. That agent goes on with maps that no program reads: stop it soon.
    #[arg(long, conflicts_with = "kube_proxy")]
    pub force: bool,

    /// Folder on a BPF filesystem that the agent used.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BPFFS, conflicts_with = "kube_proxy")]
    pub bpffs: PathBuf,
}
