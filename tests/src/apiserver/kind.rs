//! The served kinds: names, and the few fields that selectors may use. The server does not interpret the rest of an
//! object.

use serde_json::Value;

/// A kind of objects.
#[derive(Debug)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version in the group.
    pub version: &'static str,
    /// Name of the kind.
    pub kind: &'static str,
    /// Name in paths.
    pub plural: &'static str,
    /// Name for one object in kubectl.
    pub singular: &'static str,
    /// Other names in kubectl.
    pub short: &'static [&'static str],
    /// Whether objects are in namespaces.
    pub namespaced: bool,
    /// How `status` is treated.
    pub status: Status,
    /// Fields that selectors may use, besides `metadata.name` and `metadata.namespace`.
    pub fields: &'static [Field],
}

/// The treatment of `status` in requests to the object itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The kind has none.
    None,
    /// Only the subresource writes it.
    Subresource,
    /// Like [`Status::Subresource`], but it may be set when the object is created, as nodes do.
    KeptOnCreate,
}

/// A field that selectors may use.
#[derive(Debug)]
pub struct Field {
    /// Its name in a selector.
    pub name: &'static str,
    /// JSON pointers to it: the first one that exists counts. If none does, the value is the empty string, as in Go.
    pub pointers: &'static [&'static str],
}

const fn field(name: &'static str, pointers: &'static [&'static str]) -> Field {
    Field { name, pointers }
}

/// v1 Service.
pub static SERVICE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short: &["svc"],
    namespaced: true,
    status: Status::Subresource,
    fields: &[field("spec.clusterIP", &["/spec/clusterIP"]), field("spec.type", &["/spec/type"])],
};

/// v1 Pod.
pub static POD: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short: &["po"],
    namespaced: true,
    status: Status::Subresource,
    fields: &[
        field("spec.nodeName", &["/spec/nodeName"]),
        field("spec.restartPolicy", &["/spec/restartPolicy"]),
        field("spec.serviceAccountName", &["/spec/serviceAccountName"]),
        field("status.phase", &["/status/phase"]),
        field("status.podIP", &["/status/podIP"]),
    ],
};

/// v1 Namespace.
pub static NAMESPACE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    namespaced: false,
    status: Status::Subresource,
    fields: &[field("status.phase", &["/status/phase"])],
};

/// v1 Node.
pub static NODE: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short: &["no"],
    namespaced: false,
    status: Status::KeptOnCreate,
    fields: &[field("spec.unschedulable", &["/spec/unschedulable"])],
};

/// v1 Event.
pub static EVENT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    namespaced: true,
    status: Status::None,
    fields: &[
        field("involvedObject.kind", &["/involvedObject/kind"]),
        field("involvedObject.name", &["/involvedObject/name"]),
        field("involvedObject.namespace", &["/involvedObject/namespace"]),
        field("involvedObject.uid", &["/involvedObject/uid"]),
        field("reason", &["/reason"]),
        field("reportingComponent", &["/reportingComponent"]),
        field("type", &["/type"]),
    ],
};

/// discovery.k8s.io/v1 EndpointSlice.
pub static ENDPOINT_SLICE: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short: &[],
    namespaced: true,
    status: Status::None,
    fields: &[],
};

/// networking.k8s.io/v1 NetworkPolicy.
pub static NETWORK_POLICY: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short: &["netpol"],
    namespaced: true,
    status: Status::None,
    fields: &[],
};

/// networking.k8s.io/v1 ServiceCIDR.
pub static SERVICE_CIDR: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    short: &[],
    namespaced: false,
    status: Status::Subresource,
    fields: &[],
};

/// events.k8s.io/v1 Event.
pub static EVENTS_EVENT: Kind = Kind {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short: &["ev"],
    namespaced: true,
    status: Status::None,
    fields: &[
        field("reason", &["/reason"]),
        field("regarding.kind", &["/regarding/kind"]),
        field("regarding.name", &["/regarding/name"]),
        field("regarding.namespace", &["/regarding/namespace"]),
        field("reportingController", &["/reportingController"]),
        field("type", &["/type"]),
    ],
};

/// v1 ServiceAccount; this and the next three are for `deploy/`.
pub static SERVICE_ACCOUNT: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short: &["sa"],
    namespaced: true,
    status: Status::None,
    fields: &[],
};

/// apps/v1 DaemonSet.
pub static DAEMON_SET: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short: &["ds"],
    namespaced: true,
    status: Status::Subresource,
    fields: &[],
};

/// rbac.authorization.k8s.io/v1 ClusterRole.
pub static CLUSTER_ROLE: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    short: &[],
    namespaced: false,
    status: Status::None,
    fields: &[],
};

/// rbac.authorization.k8s.io/v1 ClusterRoleBinding.
pub static CLUSTER_ROLE_BINDING: Kind = Kind {
    group: "rbac.authorization.k8s.io",
    version: "v1",
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    short: &[],
    namespaced: false,
    status: Status::None,
    fields: &[],
};

/// All kinds, in the order of discovery.
pub static KINDS: [&Kind; 13] = [
    &SERVICE,
    &POD,
    &NAMESPACE,
    &NODE,
    &EVENT,
    &ENDPOINT_SLICE,
    &NETWORK_POLICY,
    &SERVICE_CIDR,
    &EVENTS_EVENT,
    &SERVICE_ACCOUNT,
    &DAEMON_SET,
    &CLUSTER_ROLE,
    &CLUSTER_ROLE_BINDING,
];

impl Kind {
    /// As in `apiVersion`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As in messages: `services`, or `endpointslices.discovery.k8s.io`.
    pub fn qualified(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The kind in an object's `kind` and `apiVersion`.
    pub fn of(object: &Value) -> Option<&'static Self> {
        let (api, kind) = (object.get("apiVersion")?.as_str()?, object.get("kind")?.as_str()?);
        KINDS.into_iter().find(|known| known.kind == kind && known.api_version() == api)
    }

    /// The kind of a path.
    pub fn at(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS
            .into_iter()
            .find(|known| known.group == group && known.version == version && known.plural == plural)
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.group, self.version, self.plural).cmp(&(other.group, other.version, other.plural))
    }
}
