//! From the JSON of an object to the model: the same for files and for an API server.

use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::fields::{keep_known_parts, leniently, plain_words};
use crate::model::convert::{Converted, Problem};
use crate::model::{
    EndpointSlice, Kind, NetworkPolicy, Object, Partial, Service, endpointslice, namespace, netpol, node,
    pod, service, servicecidr, unknown,
};

/// Where an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    /// A file: fields that the API does not have may be typos, and are reported.
    Person,
    /// The API server, which has checked the object and may be newer than lbr.
    ApiServer,
}

impl Author {
    /// Reports an unknown field.
    fn unknown(self, kind: Kind, field: String) -> Problem {
        let meant = unknown::suggestions(kind, &field);
        let reason = match (self, meant.is_empty()) {
            (Self::Person, true) => {
                "is not a field of this kind and does nothing: look at how it is spelt".to_owned()
            }
            (Self::Person, false) => {
                format!("is not a field of this kind and does nothing: did you mean {}?", meant.join(" or "))
            }
            (Self::ApiServer, _) => {
                "is not known to this version of lbr, which cannot honour it: upgrade lbr".to_owned()
            }
        };
        Problem { field, reason }
    }
}

/// Reads one object.
pub(super) fn decode(kind: Kind, mut value: Value, author: Author) -> Converted<Object> {
    // Objects of the API server were pruned while they were read.
    if author == Author::Person {
        keep_known_parts(kind, &mut value);
    }
    match kind {
        Kind::Service => service(&value, author).map(Object::Service),
        Kind::EndpointSlice => endpoint_slice(value, author).map(Object::EndpointSlice),
        Kind::Namespace => typed(kind, &value, author, namespace::from_api).map(Object::Namespace),
        Kind::Pod => typed(kind, &value, author, pod::from_api).map(Object::Pod),
        Kind::Node => typed(kind, &value, author, node::from_api).map(Object::Node),
        Kind::NetworkPolicy => network_policy(&value, author).map(Object::NetworkPolicy),
        Kind::ServiceCidr => typed(kind, &value, author, servicecidr::from_api).map(Object::ServiceCidr),
    }
}

/// Value → API type → model. Reports unknown fields of files.
fn typed<A, M>(
    kind: Kind,
    value: &Value,
    author: Author,
    from_api: impl FnOnce(A) -> Converted<M>,
) -> Converted<M>
where
    A: DeserializeOwned + serde::Serialize,
{
    let api: A = match read(value) {
        Ok(api) => api,
        Err(refused) => return refused,
    };
    let unknown = if author == Author::Person { unknown::fields(value, &api) } else { Vec::new() };
    let mut converted = from_api(api);
    converted.problems.extend(unknown.into_iter().map(|field| author.unknown(kind, field)));
    converted
}

fn read<A: DeserializeOwned, M>(value: &Value) -> Result<A, Converted<M>> {
    // Only what cannot be read is read again for the path of the error: noting it costs more than reading.
    let read = A::deserialize(value).or_else(|_| serde_path_to_error::deserialize(value));
    read.map_err(|error| refused(&error.path().to_string(), plain_words(&error.inner().to_string())))
}

/// A NetworkPolicy of another API version or kind than lbr reads: it must not leave its pods open.
pub(super) fn refused_policy(value: &Value, field: &str, reason: String) -> Converted<Object> {
    Converted { partial: partial_policy(value, false), ..refused(field, reason) }
}

fn partial_policy(value: &Value, is_kind: bool) -> Option<Partial> {
    netpol::partial(value, is_kind).map(|partial| Partial::NetworkPolicy(Box::new(partial)))
}

/// An object that cannot be read.
pub(super) fn refused<M>(field: &str, reason: String) -> Converted<M> {
    // The path of the object itself is a dot.
    let field = if field == "." { "" } else { field }.to_owned();
    Converted { object: None, partial: None, problems: vec![Problem { field, reason }] }
}

/// A Service that cannot be read still closes what it evidently closes.
fn service(value: &Value, author: Author) -> Converted<Service> {
    let mut converted = typed::<core::Service, _>(Kind::Service, value, author, service::from_api);
    let ranges = "loadBalancerSourceRanges";
    let is_misspelt = |field: &str| unknown::suggestions(Kind::Service, field).contains(&ranges);
    let misspelt = converted.problems.iter_mut().find(|problem| is_misspelt(&problem.field));
    if let (Some(service), Some(problem)) = (&mut converted.object, misspelt) {
        service.source_ranges.close();
        problem.reason.push_str(" Until then the load balancer's addresses serve no client without a range");
    }
    let has_spec = value.get("spec").and_then(Value::as_object).is_some_and(|spec| !spec.is_empty());
    if converted.object.is_none() && converted.partial.is_none() && has_spec {
        converted.partial = leniently(value.clone()).and_then(service::partial);
    }
    converted
}

/// Fills in the defaults of the API server.
fn endpoint_slice(mut value: Value, author: Author) -> Converted<EndpointSlice> {
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
    let mut converted = typed(Kind::EndpointSlice, &value, author, endpointslice::from_api);
    if unused && author == Author::Person {
        let field = format!("metadata.labels[{}]", endpointslice::LABEL_SERVICE);
        let reason = "is missing: without it the slice belongs to no Service".to_owned();
        converted.problems.push(Problem { field, reason });
    }
    converted
}

/// A NetworkPolicy with an unknown field does not mean what its author thinks, so the field rejects it, whoever wrote it.
/// A policy that is rejected still isolates its pods.
fn network_policy(value: &Value, author: Author) -> Converted<NetworkPolicy> {
    let mut unknown = Vec::new();
    let mut converted = typed(Kind::NetworkPolicy, value, Author::ApiServer, |api| {
        unknown = unknown::fields(value, &api);
        netpol::from_api(api)
    });
    if unknown.iter().any(|field| !field.starts_with("metadata")) {
        converted.object = None;
    }
    let unknown = unknown.into_iter().map(|field| author.unknown(Kind::NetworkPolicy, field));
    converted.problems.extend(unknown);
    if converted.object.is_none() {
        converted.partial = partial_policy(value, true);
    }
    converted
}

#[cfg(test)]
mod tests;
