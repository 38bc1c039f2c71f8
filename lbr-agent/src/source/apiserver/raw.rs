//! An object from a watch: the kept parts of its JSON, not checked yet. Reading them never fails, so that one bad
//! object does not cost its whole list.

use std::borrow::Cow;
use std::marker::PhantomData;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{Deserialize, DeserializeSeed as _, Deserializer};
use serde_json::Value;

use super::keep;
use crate::model::{Kind, ObjectName, ObjectRef};

/// A kind with its type in the API.
pub(super) trait Watched: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Its path in the API.
    type Api: Resource<DynamicType = ()>;
    /// Its kind in lbr.
    const KIND: Kind;
}

macro_rules! watched {
    ($($name:ident: $api:ty, $kind:ident;)*) => {$(
        #[derive(Clone, Debug)]
        pub(super) struct $name;

        impl Watched for $name {
            type Api = $api;
            const KIND: Kind = Kind::$kind;
        }
    )*};
}

watched! {
    Services: core::Service, Service;
    EndpointSlices: discovery::EndpointSlice, EndpointSlice;
    Namespaces: core::Namespace, Namespace;
    Pods: core::Pod, Pod;
    Nodes: core::Node, Node;
    NetworkPolicies: networking::NetworkPolicy, NetworkPolicy;
    ServiceCidrs: networking::ServiceCIDR, ServiceCidr;
}

/// An object from a watch, see the module.
#[derive(Clone, Debug)]
pub(super) struct Raw<W> {
    metadata: ObjectMeta,
    pub(super) value: Value,
    kind: PhantomData<W>,
}

impl<W: Watched> Raw<W> {
    /// Kind and name. A missing name is empty.
    pub(super) fn reference(&self) -> ObjectRef {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let namespace = if W::KIND.is_namespaced() { text(&self.metadata.namespace) } else { String::new() };
        ObjectRef { kind: W::KIND, name: ObjectName::new(namespace, text(&self.metadata.name)) }
    }
}

/// The version of an object or of a list. Versions are numbers that grow (KEP-5504).
pub(super) fn version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

impl<'de, W: Watched> Deserialize<'de> for Raw<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = keep::of(W::KIND).deserialize(deserializer)?;
        let text = |field: &str| value.pointer(&format!("/metadata/{field}"))?.as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        // Items of a list have no kind.
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".to_owned(), W::KIND.api_version().into());
            fields.insert("kind".to_owned(), W::KIND.as_str().into());
        }
        Ok(Self { metadata, value, kind: PhantomData })
    }
}

impl<W: Watched> Resource for Raw<W> {
    type DynamicType = ();
    type Scope = <W::Api as Resource>::Scope;

    fn kind(dt: &()) -> Cow<'_, str> {
        W::Api::kind(dt)
    }

    fn group(dt: &()) -> Cow<'_, str> {
        W::Api::group(dt)
    }

    fn version(dt: &()) -> Cow<'_, str> {
        W::Api::version(dt)
    }

    fn plural(dt: &()) -> Cow<'_, str> {
        W::Api::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
