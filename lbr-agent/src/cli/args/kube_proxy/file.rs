//! kube-proxy's configuration file: YAML or JSON, checked field by field against the table.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Map, Value as Json};

use super::fields::{ROWS, Row};
use super::value::Value;
use crate::source::manifest::documents;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// The fields that the file sets.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<(&'static Row, Value)>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("--config {}: cannot be read", path.display()))?;
    parse(&text).with_context(|| format!("--config {}", path.display()))
}

pub(super) fn parse(text: &str) -> anyhow::Result<Vec<(&'static Row, Value)>> {
    let parts = documents::split(text);
    let [document] = parts.as_slice() else {
        bail!("one document of {KIND} is wanted, there are {}", parts.len())
    };
    let json = documents::read(document).map_err(|error| anyhow::anyhow!(error))?;
    let Json::Object(mut fields) = json else { bail!("is no {KIND}, but {}", shown(&json)) };
    for (name, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        match fields.remove(name) {
            Some(Json::String(found)) if found == wanted => {}
            Some(Json::String(found)) if name == "apiVersion" && found == "v1" && is_kubeconfig(&fields) => {
                bail!("is a kubeconfig: give it as --kubeconfig")
            }
            Some(found) => bail!("{name} is {}: lbr reads {wanted} only", shown(&found)),
            None => bail!("{name} is missing: {wanted} is wanted"),
        }
    }
    let mut said = Vec::new();
    walk("", &fields, &mut said)?;
    Ok(said)
}

fn is_kubeconfig(fields: &Map<String, Json>) -> bool {
    fields.get("kind").and_then(Json::as_str) == Some("Config")
}

fn walk(
    above: &str,
    fields: &Map<String, Json>,
    said: &mut Vec<(&'static Row, Value)>,
) -> anyhow::Result<()> {
    for (name, json) in fields {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        if let Some(row) = ROWS.iter().find(|row| row.field == path) {
            // The list of cluster CIDRs is a text in the file.
            let value = row.kind.of_json(&listed(row, json));
            let value = value.map_err(|allowed| anyhow::anyhow!("{path} is {}: {allowed}", shown(json)))?;
            said.extend(value.map(|value| (row, value)));
            continue;
        }
        let inner = format!("{path}.");
        ensure!(
            ROWS.iter().any(|row| row.field.starts_with(&inner)),
            "{path}: no version of {KIND} up to Kubernetes 1.36 has this field: correct its name, or remove it"
        );
        match json {
            Json::Object(fields) => walk(&path, fields, said)?,
            Json::Null => {}
            other => bail!("{path} is {}: fields are wanted there", shown(other)),
        }
    }
    Ok(())
}

/// `clusterCIDR` is one text with commas.
fn listed(row: &Row, json: &Json) -> Json {
    match json {
        Json::String(text) if row.field == "clusterCIDR" => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            Json::Array(parts.map(|part| Json::String(part.to_owned())).collect())
        }
        other => other.clone(),
    }
}

/// A value in a message.
fn shown(json: &Json) -> String {
    let text = json.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
