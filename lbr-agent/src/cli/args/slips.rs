//! Tips for command lines that cannot be read, beyond similar names, which clap finds.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Error, ValueEnum};

use super::{Cli, What};

/// Flags of other tools, and how lbr says it. The first word: the subcommand, or `*`.
const OTHER_NAMES: &[(&str, &[&str], &str)] = &[
    ("run", &["-f", "--filename", "--file", "--folder", "--dir", "--directory", "--path"], "--manifests DIR"),
    ("run", &["-i", "--interface", "--interfaces", "--iface", "--device"], "--devices PATTERN"),
    (
        "run",
        &["--context"],
        "--kubeconfig FILE, whose current context counts (`kubectl config view --minify --flatten` writes one)",
    ),
    ("run", &["--node", "--nodename", "--hostname"], "--node-name NAME"),
    ("show", &["--json"], "-o json"),
    ("status", &["--json"], "-o json"),
    ("why", &["--json"], "-o json"),
    ("why", &["-p"], "--port PORT"),
    ("why", &["-n", "--namespace"], "the namespace in the name: NAMESPACE/POD"),
    ("show", &["-n", "--namespace", "-A", "--all-namespaces"], "no flag: lbr shows all namespaces"),
];

/// Adds a tip to an error, where a frequent slip explains it.
pub(super) fn with_tip(mut error: Error, arguments: &[OsString]) -> Error {
    let words: Vec<String> =
        arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let Some(tip) = tip(&error, &words) else { return error };
    let mut tips = match error.get(ContextKind::Suggested) {
        Some(ContextValue::StyledStrs(tips)) => tips.clone(),
        _ => Vec::new(),
    };
    tips.push(StyledStr::from(tip));
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    error
}

fn tip(error: &Error, words: &[String]) -> Option<String> {
    let cli = Cli::command();
    let subcommand = words.iter().find_map(|word| cli.find_subcommand(word));
    let name = subcommand.map_or("", Command::get_name);
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidArg) else { return None };
            one_dash(&cli, words)
                .or_else(|| other_name(name, wrong))
                .or_else(|| elsewhere(&cli, name, wrong))
                .or_else(|| no_flag(name, wrong))
        }
        ErrorKind::MissingRequiredArgument if name == "show" => {
            let what = subcommand?.get_arguments().find(|arg| arg.get_id() == "what")?;
            let values = what.get_possible_values();
            let names: Vec<&str> = values.iter().map(clap::builder::PossibleValue::get_name).collect();
            Some(format!("say what to show: {}", names.join(", ")))
        }
        ErrorKind::InvalidValue if name == "show" && error.get(ContextKind::SuggestedValue).is_none() => {
            let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidValue) else { return None };
            similar_alias(wrong)
        }
        _ => None,
    }
}

/// Another name of a subject of `lbr show` that looks like a word.
fn similar_alias(wrong: &str) -> Option<String> {
    let values: Vec<_> = What::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
    let names =
        values.iter().flat_map(|value| value.get_name_and_aliases().map(|name| (name, value.get_name())));
    let (like, name, of) = names
        .map(|(name, of)| (strsim::jaro(name, &wrong.to_lowercase()), name, of))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    (like > 0.7).then(|| format!("'{name}' is another name of '{of}'"))
}

/// `-bpffs` for `--bpffs`, as programs in Go allow.
fn one_dash(cli: &Command, words: &[String]) -> Option<String> {
    let meant = |word: &String| {
        let name = word.strip_prefix('-').filter(|rest| !rest.starts_with('-') && rest.len() > 1)?;
        let name = name.split('=').next()?;
        let is_known = cli.get_subcommands().any(|command| has_flag(command, name));
        is_known.then(|| format!("names of flags have two dashes: `-{word}`"))
    };
    words.iter().find_map(meant)
}

fn other_name(subcommand: &str, wrong: &str) -> Option<String> {
    let wrong = wrong.split(['=', ' ']).next()?;
    let fits =
        |(command, names, _): &&(&str, &[&str], &str)| *command == subcommand && names.contains(&wrong);
    OTHER_NAMES.iter().find(fits).map(|(_, _, ours)| format!("in place of `{wrong}`, lbr has {ours}"))
}

/// A flag of another subcommand, or before its own.
fn elsewhere(cli: &Command, subcommand: &str, wrong: &str) -> Option<String> {
    let name = wrong.strip_prefix("--")?.split(['=', ' ']).next()?;
    let others = cli.get_subcommands().filter(|command| command.get_name() != subcommand);
    let others: Vec<String> =
        others.filter(|c| has_flag(c, name)).map(|command| format!("`lbr {}`", command.get_name())).collect();
    if others.is_empty() {
        return None;
    }
    let order = if subcommand.is_empty() { ": write it behind that word" } else { "" };
    Some(format!("`--{name}` is a flag of {}{order}", others.join(", ")))
}

/// A word that is no flag, where none is wanted.
fn no_flag(subcommand: &str, wrong: &str) -> Option<String> {
    match subcommand {
        _ if wrong.starts_with('-') => None,
        "run" => Some(format!("a folder of manifests is given as `--manifests {wrong}`")),
        "why" => {
            Some(format!("the port is given as `--port {wrong}`, or behind the destination, as `IP:{wrong}`"))
        }
        "show" => {
            Some("`lbr show` prints everything of a kind: search its output, or use `-o json`".to_owned())
        }
        _ => None,
    }
}

fn has_flag(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|arg| {
        let names = arg.get_long_and_visible_aliases().into_iter().flatten();
        names.chain(arg.get_all_aliases().into_iter().flatten()).any(|known| known == name)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn slips_say_what_was_meant() {
        for (line, words) in [
            ("run --bffs /x", "'--bpffs'"),
            ("run --manifest /x", "'--manifests'"),
            ("run --link_include x", "'--link-include'"),
            ("run --bindaddress 10.0.0.1", "'--bind-address'"),
            ("run --cluster_cidr 10.0.0.0/8", "'--cluster-cidr'"),
            ("show services --bffs /x", "'--bpffs'"),
            ("why a/b c/d --prot tcp", "'--proto'"),
            ("cleanup --dryrun", "'--dry-run'"),
            ("run -bpffs /x", "two dashes: `--bpffs`"),
            ("run -manifests=/x", "two dashes: `--manifests=/x`"),
            ("--manifests /x", "flag of `lbr run`: write it behind that word"),
            ("show services --manifests /x", "flag of `lbr run`"),
            ("run --dry-run", "flag of `lbr cleanup`"),
            ("run /x", "given as `--manifests /x`"),
            ("run -f /x", "lbr has --manifests DIR"),
            ("run --context kind", "--kubeconfig FILE"),
            ("show services --json", "lbr has -o json"),
            ("show services -n default", "lbr shows all namespaces"),
            ("why a/b c/d 80", "`--port 80`"),
            ("show services web", "prints everything of a kind"),
            ("show", "say what to show: services, backends"),
            ("show servcies", "'services'"),
            ("show netpool", "'netpol' is another name of 'policies'"),
            ("show networkpolciy", "'networkpolicy' is another name of 'policies'"),
            ("show deployments", "[possible values: services, backends"),
            ("shw services", "'show'"),
            ("run --attach tx", "[possible values: auto, tcx, clsact]"),
            ("run --external-ips 10.0.0.1", "write 10.0.0.1/32"),
            ("run --external-ips 10.0.0.0/8,fd00::1", "write fd00::1/128"),
        ] {
            let words_of: Vec<OsString> =
                std::iter::once("lbr").chain(line.split(' ')).map(OsString::from).collect();
            let error = Cli::try_parse_from(&words_of).unwrap_err();
            let said = with_tip(error, &words_of).to_string();
            assert!(said.contains(words), "lbr {line}: {said}");
        }
    }

    #[test]
    fn what_needs_no_tip_gets_none() {
        for line in ["run --help", "--version", "run --nothing-like-it", "run --manifests"] {
            let words: Vec<OsString> =
                std::iter::once("lbr").chain(line.split(' ')).map(OsString::from).collect();
            let error = Cli::try_parse_from(&words).unwrap_err();
            let plain = error.to_string();
            assert_eq!(with_tip(error, &words).to_string(), plain, "lbr {line}");
        }
    }
}
