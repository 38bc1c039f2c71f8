//! kube-proxy's own configuration, so that a cluster's existing one works unchanged: the file of `--config`, and its
//! flags. `fields.rs` is the table of both.
//!
//! kube-proxy ignores most flags beside `--config`. In lbr a flag always wins over the file.

#[cfg(test)]
mod document;
mod fields;
mod file;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;

use anyhow::bail;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use fields::{Fate, ROWS, Row};
pub use settings::{BindAddress, KubeProxySettings, LocalMode};
use value::Value;

use crate::node::NodePortAddress;

/// Heading of these flags in the long help.
const HEADING: &str = "Flags of kube-proxy";

/// `--config`, and kube-proxy's flags as they were typed.
#[derive(Clone, Debug, Default)]
pub struct KubeProxyArgs {
    config: Option<PathBuf>,
    /// Flag and values, for each flag that was given.
    flags: Vec<(&'static str, Vec<String>)>,
}

/// [`KubeProxyArgs`], resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubeProxy {
    /// The settings of the file and the flags.
    pub settings: KubeProxySettings,
    /// Settings without effect, in one line.
    pub ignored: Option<String>,
}

impl KubeProxyArgs {
    /// Reads the file, puts the flags over it.
    pub fn resolve(&self) -> anyhow::Result<KubeProxy> {
        let mut said: Vec<(String, &Row, Value)> = Vec::new();
        if let Some(path) = &self.config {
            let rows = file::read(path)?;
            said.extend(rows.into_iter().map(|(row, value)| (row.field.to_owned(), row, value)));
        }
        for row in ROWS {
            let Some((_, values)) = self.flags.iter().find(|(flag, _)| *flag == row.flag) else { continue };
            // A repeated flag has its last value; lists add up.
            let text = if row.kind.is_list() {
                values.join(",")
            } else {
                values.last().cloned().unwrap_or_default()
            };
            let name = flag_name(row.flag);
            let value = row.kind.of_flag(&text);
            let value = value.map_err(|allowed| anyhow::anyhow!("{name}={text}: {allowed}"))?;
            said.retain(|(_, earlier, _)| earlier.flag != row.flag);
            said.push((name, row, value));
        }
        refuse(&said)?;
        let mut settings = KubeProxySettings::default();
        for (_, row, value) in &said {
            (row.set)(&mut settings, value);
        }
        settings.fill_in();
        Ok(KubeProxy { settings, ignored: ignored(&said) })
    }
}

fn refuse(said: &[(String, &Row, Value)]) -> anyhow::Result<()> {
    for (name, row, value) in said {
        match row.fate {
            Fate::Refused(instead) if !row.is_default(value) => bail!("{name}={}: {instead}", shown(value)),
            _ => {}
        }
    }
    Ok(())
}

fn ignored(said: &[(String, &Row, Value)]) -> Option<String> {
    // Settings with the same reason are named together.
    let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, row, value) in said {
        let Fate::Ignored(why) = row.fate else { continue };
        if row.is_default(value) {
            continue;
        }
        let text = format!("{name}={}", shown(value));
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, names)) => names.push(text),
            None => reasons.push((why, vec![text])),
        }
    }
    let parts: Vec<_> = reasons.iter().map(|(why, names)| format!("{} ({why})", names.join(", "))).collect();
    (!parts.is_empty()).then(|| format!("settings of kube-proxy without effect: {}", parts.join("; ")))
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bool(yes) => yes.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Number(n) => n.to_string(),
        Value::Duration(time) => format!("{time:?}"),
        Value::Address(ip) => ip.to_string(),
        Value::Port(port) => port.to_string(),
        Value::Bind(BindAddress::Off) => "off".to_owned(),
        Value::Bind(BindAddress::At(at)) => at.to_string(),
        Value::List(items) => items.join(","),
        Value::Blocks(blocks) => {
            let block = |block: &NodePortAddress| match block {
                NodePortAddress::Primary => "primary".to_owned(),
                NodePortAddress::Block(block) => block.to_string(),
            };
            blocks.iter().map(block).collect::<Vec<_>>().join(",")
        }
        Value::Any(json) => json.as_str().map_or_else(|| json.to_string(), str::to_owned),
    }
}

fn flag_name(flag: &str) -> String {
    if flag.len() == 1 { format!("-{flag}") } else { format!("--{flag}") }
}

impl FromArgMatches for KubeProxyArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        // Flags that the command itself defines are not read here.
        let values = |flag: &str| matches.try_get_many::<String>(flag).ok().flatten();
        if let Some(config) = values("config").and_then(|mut values| values.next_back()) {
            self.config = Some(PathBuf::from(config));
        }
        let flags = ROWS.iter().filter_map(|row| Some((row.flag, values(row.flag)?.cloned().collect())));
        self.flags = flags.collect();
        Ok(())
    }
}

impl Args for KubeProxyArgs {
    /// Adds the flags of the table. Flags that the command already has keep their meaning.
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .action(ArgAction::Append)
            .help("kube-proxy's own configuration file (KubeProxyConfiguration v1alpha1); flags win over it")
            .long_help(
                "kube-proxy's own configuration file (KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1, \
                 YAML or JSON). Values without effect are named in one line of the log, an invalid value is an error. \
                 Flags win over the file, unlike in kube-proxy, which ignores most of them beside \
                 `--config`",
            );
        let mut command = command.arg(config);
        for row in ROWS.iter().filter(|row| !row.flag.is_empty()) {
            let taken = |arg: &Arg| {
                let names = arg.get_long_and_visible_aliases().into_iter().flatten();
                names.chain(arg.get_all_aliases().into_iter().flatten()).any(|name| name == row.flag)
            };
            if !command.get_arguments().any(taken) {
                command = command.arg(arg(row));
            }
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg(row: &Row) -> Arg {
    let what = match row.fate {
        Fate::Honoured(what) => what.to_owned(),
        Fate::Ignored(why) => format!("accepted without effect: {why}"),
        Fate::Refused(instead) => format!("refused: {instead}"),
    };
    let arg = Arg::new(row.flag)
        .action(ArgAction::Append)
        .value_name("VALUE")
        .allow_hyphen_values(true)
        .hide_short_help(true)
        .help_heading(HEADING)
        .help(what);
    let arg = match row.flag {
        "v" => arg.short('v').long("v"),
        flag => arg.long(flag),
    };
    match row.kind.is_bool() {
        // As with Go's flags: `--x` means true, and a value needs the equals sign.
        true => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        false => arg,
    }
}
