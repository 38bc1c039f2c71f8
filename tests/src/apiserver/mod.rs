//! A Kubernetes API server for tests, in this process.
//!
//! [`Server`] speaks HTTP, or HTTPS with an authority of its own, well enough for kube-rs and kubectl. A test changes
//! objects directly ([`Server::put`], [`Server::delete`]), injects faults ([`Server::fault`] and the methods below
//! it), and reads the requests ([`Server::requests`]).
//!
//! ```text
//! listen ─> handle ─┬─> discovery
//!                   ├─> read ──> store + history     a list of the past: the present, with changes undone
//!                   ├─> write ─> store ──┐
//!                   └─> watch <─ history <┘          each watch pulls what it has not sent
//! ```
//!
//! **Objects** are JSON; the server interprets only their metadata and the fields of selectors ([`Kind::fields`]). An
//! object's text is made once, and shared by all lists and watches.
//!
//! **As in Kubernetes:** one revision for all kinds; no event for a change that changes nothing; the rules of
//! `resourceVersion`, `resourceVersionMatch`, `limit` and `continue`; selectors on watches (an object that stops
//! matching is DELETED with its last matching state, one that begins to match is ADDED); bookmarks and
//! `sendInitialEvents`; a deleted object's event carries the revision of the deletion; finalizers; 401, 404, 409,
//! 410, 415 and 422 as `Status`; `status` is only written through its subresource.
//!
//! **Deliberately not as in Kubernetes:**
//! - Nothing is validated or defaulted except metadata: no protocol `TCP`, no allocated cluster IP, no
//!   generation.
//! - No controllers: no EndpointSlices from Services, no deletion of a Namespace's contents, no `default` Namespace.
//! - Pods are deleted at once, without a grace period. A terminating Pod is one that was put with a
//!   `deletionTimestamp`.
//! - Server-side apply merges the given fields and tracks no owners, so it neither removes fields nor finds
//!   conflicts. Its body must be JSON, as kubectl and kube-rs send it.
//! - v1 Events and events.k8s.io Events are two collections here, not two views of one.
//! - No tables (kubectl prints NAME and AGE), no metadata-only objects, no protobuf (so `kubectl create -f`, but not
//!   `kubectl create namespace x`), gzip, HTTP/2, watch by the old paths, JSON patch, dry run, OpenAPI schemas, RBAC,
//!   admission. A future version is refused at once, not after three seconds.
//! - A list is current even where `resourceVersion=0` would allow an older one.

mod delete;
mod discovery;
mod event;
mod failure;
mod fault;
mod handle;
mod history;
mod kind;
mod listen;
mod object;
mod objects;
mod patch;
mod read;
mod reply;
mod request;
mod selector;
mod server;
mod shared;
mod store;
mod time;
mod tls;
mod trouble;
mod watch;
mod write;

pub use fault::{End, Fault, Order, When};
pub use kind::{
    CLUSTER_ROLE, CLUSTER_ROLE_BINDING, DAEMON_SET, ENDPOINT_SLICE, EVENT, EVENTS_EVENT, Field, KINDS, Kind,
    NAMESPACE, NETWORK_POLICY, NODE, POD, SERVICE, SERVICE_ACCOUNT, SERVICE_CIDR, Status,
};
pub use request::Verb;
pub use server::{Options, Server};
pub use shared::{Request, StreamingLists};
