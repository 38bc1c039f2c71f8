//! `v1` Namespace.

use k8s_openapi::api::core::v1 as api;

use super::Namespace;
use super::convert::{Converted, Problems, cluster_scoped};

/// The label by which policies select a namespace by name. The API server sets it and allows no change.
const LABEL_NAME: &str = "kubernetes.io/metadata.name";

/// Reduces a Namespace to what matters here.
pub fn from_api(api: api::Namespace) -> Converted<Namespace> {
    let mut problems = Problems::default();
    let name = cluster_scoped(&api.metadata, &mut problems);
    let mut labels = api.metadata.labels.unwrap_or_default();
    labels.insert(LABEL_NAME.to_owned(), name.clone());
    problems.finish(Namespace { name, labels })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_name_is_a_label() {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "labels": {"team": "a", LABEL_NAME: "forged"}},
        });
        let namespace = from_api(serde_json::from_value(object).unwrap()).object.unwrap();
        let labels: Vec<_> = namespace.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [(LABEL_NAME, "shop"), ("team", "a")]);
    }
}
