//! An object from a watch: the kept parts of its JSON, not checked yet. Reading them never fails, so that one bad
//! object does not cost its whole list. EndpointSlices are read at once, if they are written as usual: their text is long.

use std::borrow::Cow;
use std::marker::PhantomData;

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{Deserialize, DeserializeSeed as _, Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use super::keep;
use crate::model::convert::Converted;
use crate::model::endpointslice::{self, Metadata, Parts};
use crate::model::{EndpointSlice, Kind, Object, ObjectName, ObjectRef};
use crate::source::decode::{Author, decode};

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
    body: Body,
    kind: PhantomData<W>,
}

#[derive(Clone, Debug)]
enum Body {
    Parts(Value),
    Read(Box<Converted<EndpointSlice>>),
}

impl<W: Watched> Raw<W> {
    /// Kind and name. A missing name is empty.
    pub(super) fn reference(&self) -> ObjectRef {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let namespace = if W::KIND.is_namespaced() { text(&self.metadata.namespace) } else { String::new() };
        ObjectRef { kind: W::KIND, name: ObjectName::new(namespace, text(&self.metadata.name)) }
    }

    /// What it means.
    pub(super) fn decode(self) -> Converted<Object> {
        match self.body {
            Body::Parts(value) => decode(W::KIND, value, Author::ApiServer),
            Body::Read(converted) => converted.map(Object::EndpointSlice),
        }
    }

    fn read_slice(json: &str) -> Option<Self> {
        let parts = Parts::read(json)?;
        let Metadata { name, namespace, resource_version, .. } = parts.metadata;
        let metadata = metadata([name, namespace, resource_version]);
        let body = Body::Read(Box::new(endpointslice::from_parts(parts)));
        Some(Self { metadata, body, kind: PhantomData })
    }

    fn of_parts(mut value: Value) -> Self {
        let text = |field| value.get("metadata")?.get(field)?.as_str();
        let metadata = metadata(["name", "namespace", "resourceVersion"].map(text));
        // Items of a list have no kind.
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".to_owned(), W::KIND.api_version().into());
            fields.insert("kind".to_owned(), W::KIND.as_str().into());
        }
        Self { metadata, body: Body::Parts(value), kind: PhantomData }
    }
}

/// What the watch itself needs of it.
fn metadata([name, namespace, resource_version]: [Option<&str>; 3]) -> ObjectMeta {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let (name, namespace, resource_version) = (text(name), text(namespace), text(resource_version));
    ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() }
}

/// The version of an object or of a list. Versions are numbers that grow (KEP-5504).
pub(super) fn version(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

impl<'de, W: Watched> Deserialize<'de> for Raw<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kept = keep::of(W::KIND);
        if W::KIND != Kind::EndpointSlice {
            return Ok(Self::of_parts(kept.deserialize(deserializer)?));
        }
        // Its text as it came: an event's type comes before its object, so nothing has to be put aside.
        let json = <&RawValue>::deserialize(deserializer)?.get();
        if let Some(read) = Self::read_slice(json) {
            return Ok(read);
        }
        let parts = kept.deserialize(&mut serde_json::Deserializer::from_str(json));
        Ok(Self::of_parts(parts.map_err(D::Error::custom)?))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the body of a slice, from its text and by the parts that are kept.
    fn read(rest: &str) -> (Option<Converted<Object>>, Converted<Object>) {
        let json = format!(r#"{{"kind":"EndpointSlice",{rest}}}"#);
        let kept = keep::of(Kind::EndpointSlice).deserialize(&mut serde_json::Deserializer::from_str(&json));
        let by_parts = Raw::<EndpointSlices>::of_parts(kept.unwrap());
        let read: Raw<EndpointSlices> = serde_json::from_str(&json).unwrap();
        assert_eq!(read.reference(), by_parts.reference(), "{json}");
        assert_eq!(read.meta().resource_version, by_parts.meta().resource_version, "{json}");
        let at_once = matches!(read.body, Body::Read(_)).then(|| read.decode());
        (at_once, by_parts.decode())
    }

    #[test]
    fn slices_mean_the_same_read_at_once() {
        let meta = r#""metadata":{"name":"web-1","namespace":"prod","resourceVersion":"7","uid":"u","labels":
            {"kubernetes.io/service-name":"web","x":"y"},"annotations":{"note":"a \"quoted\" text",
            "endpoints.kubernetes.io/last-change-trigger-time":"2026-11-29T05:06:07Z"}},"addressType":"IPv4""#;
        let usual = [
            String::new(),
            r#","endpoints":null,"ports":null"#.to_owned(),
            r#","endpoints":[],"ports":[]"#.to_owned(),
            r#","endpoints":[{"addresses":["10.0.0.1","10.0.0.2"],"conditions":{"ready":true,"serving":null,
                "terminating":false},"nodeName":"n","zone":"z","targetRef":{"kind":"Pod","name":"web-0"}},
                {"addresses":["10.0.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true},"hints":
                {"forZones":[{"name":"a"},{"name":"b"}],"forNodes":[{"name":"n"}]}}],"ports":[{"name":"http",
                "port":80,"protocol":"TCP"},{"name":"dns","port":53,"protocol":"UDP"}]"#
                .to_owned(),
            // Ports without a name, a number or a protocol, and with wrong ones.
            r#","ports":[{"port":80},{"name":null,"port":81},{"name":"a"},{"name":"b","port":70000},{"name":"c",
                "port":82,"protocol":"GRE"}]"#
                .to_owned(),
            // Addresses that are not served.
            r#","endpoints":[{"addresses":[]},{"addresses":["10.0.0"]},{"addresses":["fd00::1"]},{"addresses":
                ["127.0.0.1"]},{"addresses":["10.0.0.9"]}]"#
                .to_owned(),
        ];
        for rest in usual {
            let (at_once, by_parts) = read(&format!("{meta}{rest}"));
            assert_eq!(at_once, Some(by_parts), "{rest}");
        }
        for address_type in ["IPv6", "FQDN", "ipv4"] {
            let text = meta.replace(r#""IPv4""#, &format!(r#""{address_type}""#));
            let (at_once, by_parts) = read(&format!(r#"{text},"endpoints":[{{"addresses":["fd00::1"]}}]"#));
            assert_eq!(at_once, Some(by_parts), "{address_type}");
        }
        let headless = meta.replace(r#""x""#, r#""service.kubernetes.io/headless""#);
        let (at_once, by_parts) = read(&format!(r#"{headless},"endpoints":[{{"addresses":["10.0.0.1"]}}]"#));
        assert_eq!(at_once, Some(by_parts));
    }

    /// What is written otherwise is read with care: one bad part has its problem, and costs only itself.
    #[test]
    fn unusual_slices_are_read_by_their_parts() {
        let meta = r#""metadata":{"name":"web-1","namespace":"prod"},"addressType":"IPv4""#;
        for rest in [
            r#""metadata":null"#.to_owned(),
            r#""addressType":5"#.to_owned(),
            r#""metadata":{"name":"web\u002d1","namespace":"prod"},"addressType":"IPv4""#.to_owned(),
            format!(r#"{meta},"endpoints":[{{"addresses":null}},{{"addresses":["10.0.0.1"]}}]"#),
            format!(r#"{meta},"endpoints":[{{"addresses":["10.0.0.1"],"conditions":{{"ready":"yes"}}}}]"#),
            format!(r#"{meta},"endpoints":{{}}"#),
            format!(r#"{meta},"ports":[{{"name":"a","port":"80"}}]"#),
        ] {
            let (at_once, _) = read(&rest);
            assert_eq!(at_once, None, "{rest}");
        }
    }
}
