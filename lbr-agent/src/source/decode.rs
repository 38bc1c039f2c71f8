//! From the JSON of an object to the model: the same for files and for an API server.

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use serde_json::Value;

use super::fields::{keep_known_parts, plain_words, unknown_fields};
use crate::model::convert::{Converted, Problem};
use crate::model::{Kind, Object, endpointslice, namespace, netpol, node, pod, service, servicecidr};

/// Where an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// A file: fields that the API does not have may be typos, and are reported.
    Person,
    /// The API server, which has checked the object and may be newer than lbr.
    ApiServer,
}

impl Author {
    /// The reason reported for an unknown field.
    fn unknown(self) -> &'static str {
        match self {
            Self::Person => "is not a field of this kind and does nothing: look at how it is spelt",
            Self::ApiServer => "is not known to this version of lbr, which cannot honour it: upgrade lbr",
        }
    }
}

/// Reads one object.
pub(super) fn decode(kind: Kind, mut value: Value, author: Author) -> Converted<Object> {
    // Objects of the API server were pruned while they were read.
    if author == Author::Person {
        keep_known_parts(kind, &mut value);
    }
    match kind {
        Kind::Service => typed::<core::Service, _>(value, author, service::from_api).map(Object::Service),
        Kind::EndpointSlice => endpoint_slice(value, author).map(Object::EndpointSlice),
        Kind::Namespace => {
            typed::<core::Namespace, _>(value, author, namespace::from_api).map(Object::Namespace)
        }
        Kind::Pod => typed::<core::Pod, _>(value, author, pod::from_api).map(Object::Pod),
        Kind::Node => typed::<core::Node, _>(value, author, node::from_api).map(Object::Node),
        Kind::NetworkPolicy => network_policy(value, author).map(Object::NetworkPolicy),
        Kind::ServiceCidr => {
            typed::<networking::ServiceCIDR, _>(value, author, servicecidr::from_api).map(Object::ServiceCidr)
        }
    }
}

/// Value → API type → model.
fn typed<A, M>(value: Value, author: Author, from_api: impl Fn(A) -> Converted<M>) -> Converted<M>
where
    A: serde::de::DeserializeOwned + serde::Serialize,
{
    match author {
        Author::Person => strict(value, author, from_api),
        Author::ApiServer => match read(&value) {
            Ok(api) => from_api(api),
            Err(refused) => refused,
        },
    }
}

/// As [`typed`], and reports unknown fields.
fn strict<A, M>(value: Value, author: Author, from_api: impl Fn(A) -> Converted<M>) -> Converted<M>
where
    A: serde::de::DeserializeOwned + serde::Serialize,
{
    let api: A = match read(&value) {
        Ok(api) => api,
        Err(refused) => return refused,
    };
    let unknown = unknown_fields(&value, &api);
    let mut converted = from_api(api);
    for field in unknown {
        converted.problems.push(Problem { field, reason: author.unknown().to_owned() });
    }
    converted
}

fn read<A: serde::de::DeserializeOwned, M>(value: &Value) -> Result<A, Converted<M>> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| refused(&error.path().to_string(), plain_words(&error.inner().to_string())))
}

/// A NetworkPolicy of another API version or kind than lbr reads: it must not leave its pods open.
pub(super) fn refused_policy(value: &Value, field: &str, reason: String) -> Converted<Object> {
    Converted { fallback: netpol::isolation(value).map(Object::NetworkPolicy), ..refused(field, reason) }
}

/// An object that cannot be read.
pub(super) fn refused<M>(field: &str, reason: String) -> Converted<M> {
    // The path of the object itself is a dot.
    let field = if field == "." { "" } else { field }.to_owned();
    Converted { object: None, fallback: None, problems: vec![Problem { field, reason }] }
}

/// Fills in the defaults of the API server.
fn endpoint_slice(mut value: Value, author: Author) -> Converted<crate::model::EndpointSlice> {
    if let Some(ports) = value.get_mut("ports").and_then(Value::as_array_mut) {
        for port in ports.iter_mut().filter_map(Value::as_object_mut) {
            let name = port.entry("name").or_insert(Value::Null);
            if name.is_null() {
                *name = "".into();
            }
        }
    }
    let label = value.pointer("/metadata/labels").and_then(|l| l.get(endpointslice::LABEL_SERVICE));
    let unused = label.is_none();
    let mut converted = typed::<discovery::EndpointSlice, _>(value, author, endpointslice::from_api);
    if unused && author == Author::Person {
        let field = format!("metadata.labels[{}]", endpointslice::LABEL_SERVICE);
        let reason = "is missing: without it the slice belongs to no Service".to_owned();
        converted.problems.push(Problem { field, reason });
    }
    converted
}

/// A NetworkPolicy with an unknown field does not mean what its author thinks, so the field rejects it. A policy that
/// cannot be converted still isolates its pods.
fn network_policy(value: Value, author: Author) -> Converted<crate::model::NetworkPolicy> {
    let isolation = netpol::isolation(&value);
    let mut converted = strict::<networking::NetworkPolicy, _>(value, author, netpol::from_api);
    if converted.problems.iter().any(|p| p.reason == author.unknown()) {
        // Without the field that was meant, a rule may allow everything: no rule counts.
        (converted.object, converted.fallback) = (None, None);
    }
    if converted.object.is_none() && converted.fallback.is_none() {
        converted.fallback = isolation;
    }
    converted
}
