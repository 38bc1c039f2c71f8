//! Flags of `lbr completions`.

use clap::{Args, ValueEnum};

/// `lbr completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    pub shell: ShellName,
}

/// Shells with a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShellName {
    /// `source <(lbr completions bash)`, or save it as /etc/bash_completion.d/lbr.
    Bash,
    /// `source <(lbr completions zsh)`, or save it as `_lbr` in a folder of `$fpath`.
    Zsh,
    /// `lbr completions fish | source`, or save it as ~/.config/fish/completions/lbr.fish.
    Fish,
}
