//! The parts of objects that are kept while they are read: the rest is skipped and takes no memory.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::model::Kind;

/// A part of an object. In a list it applies to each item.
#[derive(Debug)]
pub(super) enum Keep {
    /// All of it.
    All,
    /// These fields of it. A name that ends in `*` matches every name with that beginning.
    Fields(&'static [(&'static str, Keep)]),
}

use Keep::{All, Fields};

const META: Keep = Fields(&[
    ("name", All),
    ("namespace", All),
    ("uid", All),
    ("resourceVersion", All),
    ("deletionTimestamp", All),
    ("labels", All),
    ("annotations", Fields(&[("lbr.dev/*", All), ("endpoints.kubernetes.io/last-change-trigger-time", All)])),
]);
/// All but the name of the pod, which is most of the text of a large slice.
const ENDPOINTS: Keep =
    Fields(&[("addresses", All), ("conditions", All), ("hints", All), ("nodeName", All), ("zone", All)]);
const CONTAINERS: Keep = Fields(&[("name", All), ("ports", All), ("restartPolicy", All)]);

/// The parts that are kept of a kind. NetworkPolicies are kept whole: lbr must notice unknown fields.
pub(super) fn of(kind: Kind) -> &'static Keep {
    match kind {
        Kind::Pod => &Fields(&[
            ("metadata", META),
            (
                "spec",
                Fields(&[
                    ("nodeName", All),
                    ("hostNetwork", All),
                    ("containers", CONTAINERS),
                    ("initContainers", CONTAINERS),
                ]),
            ),
            ("status", Fields(&[("phase", All), ("podIP", All), ("podIPs", All)])),
        ]),
        Kind::Node => &Fields(&[
            ("metadata", META),
            ("spec", Fields(&[("podCIDRs", All), ("taints", All)])),
            ("status", Fields(&[("addresses", All)])),
        ]),
        Kind::Namespace => &Fields(&[("metadata", META)]),
        Kind::Service => {
            &Fields(&[("metadata", META), ("spec", All), ("status", Fields(&[("loadBalancer", All)]))])
        }
        Kind::EndpointSlice => {
            &Fields(&[("metadata", META), ("addressType", All), ("endpoints", ENDPOINTS), ("ports", All)])
        }
        Kind::NetworkPolicy | Kind::ServiceCidr => &Fields(&[("metadata", META), ("spec", All)]),
    }
}

impl<'de> DeserializeSeed<'de> for &Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            All => serde::Deserialize::deserialize(deserializer),
            Fields(fields) => deserializer.deserialize_any(Parts { keep: self, fields }),
        }
    }
}

/// Whether an entry of [`Keep::Fields`] is for this field.
fn names(field: &str, key: &str) -> bool {
    field.strip_suffix('*').map_or(field == key, |start| key.starts_with(start))
}

struct Parts<'a> {
    keep: &'a Keep,
    fields: &'static [(&'static str, Keep)],
}

impl<'de> Visitor<'de> for Parts<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a group of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match self.fields.iter().find(|(field, _)| names(field, &key)) {
                Some((_, keep)) => {
                    kept.insert(key, map.next_value_seed(keep)?);
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.keep)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    // Other values are kept for the converters to check.
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests;
