//! The older iptables has its own interface in the kernel. `iptables-legacy-save` and `iptables-legacy-restore` use it;
//! where they are not installed, the output says what the operator should run.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::names::TABLES;
use super::plan::{Chain, Plan, Rule, Table, plan};
use crate::done::Done;

/// The commands' names, and the file that lists the tables in this network namespace.
const FAMILIES: [(&str, &str); 2] = [
    ("iptables", "/proc/thread-self/net/ip_tables_names"),
    ("ip6tables", "/proc/thread-self/net/ip6_tables_names"),
];

/// Removes kube-proxy's chains and rules. One line for each thing.
pub(super) fn clean(dry_run: bool) -> anyhow::Result<Done> {
    let mut done = Done::default();
    for (command, names) in FAMILIES {
        // Without the file, this kernel has no such interface.
        let present = std::fs::read_to_string(names).unwrap_or_default();
        for table in TABLES.iter().filter(|table| present.lines().any(|line| line == **table)) {
            clean_table(command, table, dry_run, &mut done)
                .with_context(|| format!("{command}-legacy, table {table}"))?;
        }
    }
    Ok(done)
}

fn clean_table(command: &str, table: &str, dry_run: bool, done: &mut Done) -> anyhow::Result<()> {
    let save = Command::new(format!("{command}-legacy-save")).args(["-t", table]).output();
    let saved = match save {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            done.left.push(format!(
                "{command}-legacy table {table}: the kernel has it, and {command}-legacy-save is not installed here to \
                 look into it. On the node: `{command}-legacy-save -t {table} | grep KUBE-`; if that prints something, \
                 restart the node, or run `kube-proxy --cleanup` from the image of kube-proxy"
            ));
            return Ok(());
        }
        other => other.with_context(|| format!("start {command}-legacy-save"))?,
    };
    ensure!(
        saved.status.success(),
        "{command}-legacy-save: {}",
        String::from_utf8_lossy(&saved.stderr).trim_end()
    );
    let text = String::from_utf8_lossy(&saved.stdout);
    let plan = plan(&parse(table, &text));
    super::tell(done, &format!("{command} {table} (legacy)"), &plan);
    if dry_run || plan.is_empty() {
        return Ok(());
    }
    let mut child = Command::new(format!("{command}-legacy-restore"))
        .args(["--wait", "10", "--noflush", "--table", table])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {command}-legacy-restore"))?;
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(script(table, &text, &plan).as_bytes()));
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{command}-legacy-restore: {}",
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    written.unwrap_or(Ok(())).context("write the rules")
}

/// Parses the output of `iptables-save`. A rule's id is its line.
fn parse(name: &str, text: &str) -> Table {
    let mut table = Table { name: name.to_owned(), chains: Vec::new() };
    for (id, line) in text.lines().enumerate() {
        if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            let (Some(name), Some(policy)) = (words.next(), words.next()) else { continue };
            table.chains.push(Chain { name: name.to_owned(), base: policy != "-", rules: Vec::new() });
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let words = words(rest);
            let mut after = words.iter().skip_while(|word| *word != "-j" && *word != "-g").skip(1);
            let rule = Rule { id: id as u64, target: after.next().cloned() };
            if let Some(chain) = table.chains.iter_mut().find(|chain| Some(&chain.name) == words.first()) {
                chain.rules.push(rule);
            }
        }
    }
    table
}

/// Input for `iptables-restore --noflush`, where naming a chain empties it.
fn script(table: &str, saved: &str, plan: &Plan) -> String {
    let lines: Vec<&str> = saved.lines().collect();
    let mut script = vec![format!("*{table}")];
    script.extend(plan.chains.iter().map(|chain| format!(":{chain} - [0:0]")));
    let rules = plan.jumps.iter().filter_map(|jump| lines.get(usize::try_from(jump.rule).ok()?));
    script.extend(rules.filter_map(|line| Some(format!("-D {}", line.strip_prefix("-A ")?))));
    script.extend(plan.chains.iter().map(|chain| format!("-X {chain}")));
    script.push("COMMIT\n".to_owned());
    script.join("\n")
}

/// Words of a line. A quoted word may hold spaces and, behind a backslash, quotes. [`QUOTE`] replaces its quotes, so
/// that a comment `-j` differs from the option.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let last = words.last_mut();
        match (c, last) {
            ('\\', Some(last)) if quoted => last.extend(chars.next()),
            ('"', Some(last)) => {
                quoted = !quoted;
                last.push(QUOTE);
            }
            (' ', _) if !quoted => words.push(String::new()),
            (c, Some(last)) => last.push(c),
            (_, None) => {}
        }
    }
    words
}

/// Replaces quotes, so that a quoted word equals no option.
const QUOTE: char = '\u{0}';

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-2GMJWGJ2MAUYJLYH - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "say \" -j KUBE-SERVICES" -j MINE
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -g KUBE-SERVICES
-A OUTPUT -p tcp
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-2GMJWGJ2MAUYJLYH
-A MINE -j DNAT --to-destination 10.0.0.1
COMMIT
"#;

    #[test]
    fn targets_are_read_and_comments_are_not() {
        let table = parse("nat", SAVED);
        let targets =
            |i: usize| -> Vec<_> { table.chains[i].rules.iter().map(|r| r.target.as_deref()).collect() };
        assert_eq!(targets(0), [Some("MINE"), Some("KUBE-SERVICES")]);
        assert_eq!(targets(1), [Some("KUBE-SERVICES"), None]);
        assert_eq!(table.chains.iter().filter(|chain| chain.base).count(), 2);
    }

    #[test]
    fn the_script_names_only_kube_proxys() {
        let plan = plan(&parse("nat", SAVED));
        let wanted = r#"*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-2GMJWGJ2MAUYJLYH - [0:0]
-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-D OUTPUT -g KUBE-SERVICES
-X KUBE-SERVICES
-X KUBE-SVC-2GMJWGJ2MAUYJLYH
COMMIT
"#;
        assert_eq!(script("nat", SAVED, &plan), wanted);
    }
}
