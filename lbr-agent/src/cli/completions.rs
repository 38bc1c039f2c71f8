//! `lbr completions`: scripts that complete subcommands, flags and values in a shell.

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory as _, ValueEnum as _};
use clap_complete::Shell;

use super::args::completions::{CompletionsArgs, ShellName};
use super::args::{Cli, What};
use super::print;

/// Prints the script for a shell.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    print(&script(args.shell)?)
}

fn script(shell: ShellName) -> anyhow::Result<String> {
    let shell = match shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command(), "lbr", &mut text);
    let mut text = String::from_utf8(text)?;
    if shell == Shell::Fish {
        text.push_str(&words_for_fish());
    }
    Ok(text)
}

/// The values of arguments without a flag, which clap's script for fish lacks.
fn words_for_fish() -> String {
    let mut text = String::new();
    for command in command().get_subcommands() {
        for arg in command.get_positionals() {
            let values = arg.get_possible_values();
            let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
            if !names.is_empty() {
                let (command, names) = (command.get_name(), names.join(" "));
                text.push_str(&format!(
                    "complete -c lbr -n \"__fish_lbr_using_subcommand {command}\" -f -a \"{names}\"\n"
                ));
            }
        }
    }
    text
}

/// The command line, with kubectl's names for the subjects of `lbr show`: the help leaves them out, and people type them.
fn command() -> Command {
    let values = What::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
    let names: Vec<String> = values
        .flat_map(|value| value.get_name_and_aliases().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    Cli::command().mut_subcommand("show", |show| {
        show.mut_arg("what", |arg| arg.value_parser(PossibleValuesParser::new(names)))
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command as Process;

    use super::*;

    #[test]
    fn scripts_know_subcommands_flags_and_names_of_kubectl() {
        for shell in ShellName::value_variants() {
            let script = script(*shell).unwrap();
            for word in
                ["monitor", "completions", "manifests", "external-ips", "networkpolicies", "netpol", "svc"]
            {
                assert!(script.contains(word), "{shell:?}: {word}");
            }
        }
    }

    /// What bash completes at the end of a line.
    fn bash(line: &str) -> Option<Vec<String>> {
        let script = script(ShellName::Bash).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words.last()?, words.get(words.len() - 2)?);
        let ask = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; _lbr lbr '{last}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        // Without bash on this machine, there is nothing to ask.
        let output = Process::new("bash").args(["--norc", "-c", &ask]).output().ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn bash_completes() {
        for (line, expected) in [
            ("lbr sh", vec!["show"]),
            ("lbr show netp", vec!["netpol", "netpols"]),
            ("lbr show sv", vec!["svc", "svcs"]),
            ("lbr run --manif", vec!["--manifests"]),
            ("lbr completions b", vec!["bash"]),
        ] {
            if let Some(found) = bash(line) {
                assert_eq!(found, expected, "{line}");
            }
        }
    }
}
