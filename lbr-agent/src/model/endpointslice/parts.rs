//! The parts of an EndpointSlice that matter, as they stand in its JSON. Slices are most of what a large cluster sends, so
//! they are read without a copy.

use std::collections::BTreeMap;

use k8s_openapi::api::discovery::v1 as api;
use serde::Deserialize;

/// Of a slice. A field that is absent or null is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Parts<'a> {
    /// `metadata`.
    #[serde(borrow)]
    pub metadata: Metadata<'a>,
    #[serde(borrow)]
    pub(super) address_type: &'a str,
    #[serde(borrow)]
    pub(super) endpoints: Option<Vec<Endpoint<'a>>>,
    #[serde(borrow)]
    pub(super) ports: Option<Vec<Port<'a>>>,
}

/// Of the slice's metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// `name`.
    #[serde(borrow)]
    pub name: Option<&'a str>,
    /// `namespace`.
    #[serde(borrow)]
    pub namespace: Option<&'a str>,
    /// `resourceVersion`.
    #[serde(borrow)]
    pub resource_version: Option<&'a str>,
    #[serde(borrow)]
    pub(super) labels: Option<BTreeMap<&'a str, &'a str>>,
    pub(super) annotations: Option<Annotations>,
}

/// An annotation may be a long text with any characters, such as a whole object: only those that are used are read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations {
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(super) triggered: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Endpoint<'a> {
    #[serde(borrow)]
    pub(super) addresses: Vec<&'a str>,
    pub(super) conditions: Option<Conditions>,
    #[serde(borrow)]
    pub(super) hints: Option<Hints<'a>>,
    #[serde(borrow)]
    pub(super) node_name: Option<&'a str>,
    #[serde(borrow)]
    pub(super) zone: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hints<'a> {
    #[serde(borrow)]
    pub(super) for_nodes: Option<Vec<Hint<'a>>>,
    #[serde(borrow)]
    pub(super) for_zones: Option<Vec<Hint<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Hint<'a> {
    #[serde(borrow)]
    pub(super) name: &'a str,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a str>,
    pub(super) port: Option<i32>,
    #[serde(borrow)]
    pub(super) protocol: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// Reads them. `None`: not written as API servers do, with escaped characters for example; or not a slice.
    pub fn read(json: &'a str) -> Option<Self> {
        let mut parts: Self = serde_json::from_str(json).ok()?;
        // A port of the API has a name, which may be empty.
        parts.ports.iter_mut().flatten().for_each(|port| _ = port.name.get_or_insert(""));
        Some(parts)
    }
}

impl<'a> From<&'a api::EndpointSlice> for Parts<'a> {
    fn from(slice: &'a api::EndpointSlice) -> Self {
        let metadata = &slice.metadata;
        let labels = metadata.labels.as_ref();
        let triggered = metadata.annotations.as_ref().and_then(|all| all.get(super::ANNOTATION_TRIGGERED));
        let port = |port: &'a api::EndpointPort| Port {
            name: port.name.as_deref(),
            port: port.port,
            protocol: port.protocol.as_deref(),
        };
        Self {
            metadata: Metadata {
                name: metadata.name.as_deref(),
                namespace: metadata.namespace.as_deref(),
                resource_version: metadata.resource_version.as_deref(),
                labels: labels.map(|all| all.iter().map(|(key, value)| (&**key, &**value)).collect()),
                annotations: Some(Annotations { triggered: triggered.cloned() }),
            },
            address_type: &slice.address_type,
            endpoints: slice.endpoints.as_ref().map(|all| all.iter().map(Endpoint::from).collect()),
            ports: slice.ports.as_ref().map(|all| all.iter().map(port).collect()),
        }
    }
}

impl<'a> From<&'a api::Endpoint> for Endpoint<'a> {
    fn from(endpoint: &'a api::Endpoint) -> Self {
        let conditions = |c: &api::EndpointConditions| Conditions {
            ready: c.ready,
            serving: c.serving,
            terminating: c.terminating,
        };
        let hints = |hints: &'a api::EndpointHints| Hints {
            for_nodes: hints
                .for_nodes
                .as_ref()
                .map(|all| all.iter().map(|n| Hint { name: &n.name }).collect()),
            for_zones: hints
                .for_zones
                .as_ref()
                .map(|all| all.iter().map(|z| Hint { name: &z.name }).collect()),
        };
        Self {
            addresses: endpoint.addresses.iter().map(String::as_str).collect(),
            conditions: endpoint.conditions.as_ref().map(conditions),
            hints: endpoint.hints.as_ref().map(hints),
            node_name: endpoint.node_name.as_deref(),
            zone: endpoint.zone.as_deref(),
        }
    }
}
