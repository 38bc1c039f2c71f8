//! A rule as YAML, as a person would write it.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::model::{Peer, PolicyPort, PolicyRule, PortSet, Requirement, Selector};

/// The rule; `field` is `from` or `to`.
pub(super) fn yaml(rule: &PolicyRule, field: &str) -> String {
    let mut lines = Vec::new();
    if !rule.peers.is_empty() {
        lines.push(format!("{field}:"));
        for peer in &rule.peers {
            push_item(&mut lines, peer_lines(peer));
        }
    }
    if !rule.ports.is_empty() {
        lines.push("ports:".to_owned());
        for port in &rule.ports {
            push_item(&mut lines, port_lines(port));
        }
    }
    if lines.is_empty() { "{}".to_owned() } else { lines.join("\n") }
}

fn push_item(lines: &mut Vec<String>, item: Vec<String>) {
    let starts = std::iter::once("- ").chain(std::iter::repeat("  "));
    lines.extend(item.iter().zip(starts).map(|(line, start)| format!("{start}{line}")));
}

fn peer_lines(peer: &Peer) -> Vec<String> {
    let mut lines = Vec::new();
    match peer {
        Peer::Pods(pods) => selector(&mut lines, "podSelector", pods),
        Peer::Namespaces(namespaces) => selector(&mut lines, "namespaceSelector", namespaces),
        Peer::Both(namespaces, pods) => {
            selector(&mut lines, "namespaceSelector", namespaces);
            selector(&mut lines, "podSelector", pods);
        }
        Peer::Block { cidr, except } => {
            lines.extend(["ipBlock:".to_owned(), format!("  cidr: {}", address(&cidr.to_string()))]);
            if !except.is_empty() {
                lines.push("  except:".to_owned());
                lines.extend(except.iter().map(|net| format!("  - {}", address(&net.to_string()))));
            }
        }
    }
    lines
}

fn selector(lines: &mut Vec<String>, field: &str, selector: &Selector) {
    if selector.requirements.is_empty() {
        lines.push(format!("{field}: {{}}"));
        return;
    }
    lines.push(format!("{field}:"));
    let mut labels: Vec<(&str, &str)> = Vec::new();
    let mut expressions = Vec::new();
    for requirement in &selector.requirements {
        match requirement {
            // A YAML map has each key once.
            Requirement::In(key, values) if values.len() == 1 && labels.iter().all(|(k, _)| k != key) => {
                labels.extend(values.iter().map(|value| (key.as_str(), value.as_str())));
            }
            Requirement::In(key, values) => expressions.push(expression(key, "In", Some(values))),
            Requirement::NotIn(key, values) => expressions.push(expression(key, "NotIn", Some(values))),
            Requirement::Exists(key) => expressions.push(expression(key, "Exists", None)),
            Requirement::DoesNotExist(key) => expressions.push(expression(key, "DoesNotExist", None)),
        }
    }
    if !labels.is_empty() {
        lines.push("  matchLabels:".to_owned());
        let label = |(key, value): &(&str, &str)| format!("    {}: {}", scalar(key), scalar(value));
        lines.extend(labels.iter().map(label));
    }
    if !expressions.is_empty() {
        lines.push("  matchExpressions:".to_owned());
        lines.extend(expressions.iter().map(|expression| format!("  - {expression}")));
    }
}

fn expression(key: &str, operator: &str, values: Option<&BTreeSet<String>>) -> String {
    let mut text = format!("{{key: {}, operator: {operator}", scalar(key));
    if let Some(values) = values {
        let values: Vec<String> = values.iter().map(|value| scalar(value)).collect();
        // Writing to a string does not fail.
        let _ = write!(text, ", values: [{}]", values.join(", "));
    }
    text.push('}');
    text
}

fn port_lines(port: &PolicyPort) -> Vec<String> {
    let protocol = lbr_common::user::proto_name(port.protocol.number());
    let mut lines = vec![format!("protocol: {protocol}")];
    match &port.ports {
        PortSet::All => {}
        PortSet::Range(first, last) => {
            lines.push(format!("port: {first}"));
            if first != last {
                lines.push(format!("endPort: {last}"));
            }
        }
        PortSet::Named(name) => lines.push(format!("port: {}", scalar(name))),
    }
    lines
}

/// Text as a YAML scalar that reads back as this text: plain if that is unambiguous, else quoted.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" | "null"
    );
    if plain && !word { text.to_owned() } else { quoted(text) }
}

/// An address block. In YAML a colon has a meaning only at the start or end of a word.
fn address(text: &str) -> String {
    if text.starts_with(':') { quoted(text) } else { text.to_owned() }
}

/// Quoted as in JSON, which is YAML too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
