//! An image as one tar file: an OCI image layout, with the file that `docker load` looks for as well.

use anyhow::Result;

use super::json::Json;
use super::sha256;
use super::tar::{self, Entry};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What goes into an image.
pub(super) struct Image<'a> {
    /// The program.
    pub(super) binary: &'a [u8],
    /// What it is called where it is loaded.
    pub(super) tag: &'a str,
    /// Version of lbr.
    pub(super) version: &'a str,
    /// Time of the commit.
    pub(super) created: Option<String>,
    /// Id of the commit.
    pub(super) revision: Option<String>,
}

/// An image.
pub(super) struct Packed {
    /// All of it.
    pub(super) tarball: Vec<u8>,
    /// Its only layer, a tar file.
    pub(super) layer: Vec<u8>,
    /// Digest of the manifest, by which a registry would know it.
    pub(super) digest: String,
}

/// Packs an image. The same input gives the same bytes.
pub(super) fn pack(image: &Image<'_>) -> Result<Packed> {
    let layer = tar::pack(&[Entry { name: "lbr", mode: 0o755, content: image.binary }])?;
    let layer_digest = sha256::hex(&layer);
    let config = config(image, &layer_digest).to_string();
    let config_digest = sha256::hex(config.as_bytes());
    let layers = Json::List(vec![descriptor(LAYER, &layer_digest, layer.len(), vec![])]);
    let manifest = Json::Object(vec![
        ("schemaVersion", Json::Number(2)),
        ("mediaType", Json::text(MANIFEST)),
        ("config", descriptor(CONFIG, &config_digest, config.len(), vec![])),
        ("layers", layers),
        ("annotations", labels(image)),
    ]);
    let manifest = manifest.to_string();
    let digest = sha256::hex(manifest.as_bytes());
    let index = index(image, &digest, manifest.len()).to_string();
    let docker = docker(image, &config_digest, &layer_digest).to_string();

    let blob = |digest: &str| format!("blobs/sha256/{digest}");
    let mut files = [
        (blob(&config_digest), config.as_bytes()),
        (blob(&layer_digest), layer.as_slice()),
        (blob(&digest), manifest.as_bytes()),
        ("index.json".to_owned(), index.as_bytes()),
        ("manifest.json".to_owned(), docker.as_bytes()),
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
    ];
    files.sort();
    let entries: Vec<Entry<'_>> =
        files.iter().map(|(name, content)| Entry { name, mode: 0o644, content }).collect();
    Ok(Packed { tarball: tar::pack(&entries)?, layer, digest: format!("sha256:{digest}") })
}

/// The processor, as Go and so OCI calls it.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn config(image: &Image<'_>, layer: &str) -> Json {
    let mut fields = Vec::new();
    if let Some(created) = &image.created {
        fields.push(("created", Json::text(created)));
    }
    fields.push(("architecture", Json::text(architecture())));
    fields.push(("os", Json::text("linux")));
    let start = vec![
        // Numbers: there is no /etc/passwd.
        ("User", Json::text("0:0")),
        ("Entrypoint", Json::List(vec![Json::text("/lbr")])),
        ("WorkingDir", Json::text("/")),
        ("Labels", labels(image)),
    ];
    fields.push(("config", Json::Object(start)));
    let layers = Json::List(vec![Json::text(format!("sha256:{layer}"))]);
    fields.push(("rootfs", Json::Object(vec![("type", Json::text("layers")), ("diff_ids", layers)])));
    Json::Object(fields)
}

/// <https://specs.opencontainers.org/image-spec/annotations/>
fn labels(image: &Image<'_>) -> Json {
    let about = "Kubernetes Services and NetworkPolicies in eBPF: the agent of a node";
    let mut fields = vec![
        ("org.opencontainers.image.description", Json::text(about)),
        // The agent, and the kernel object inside.
        ("org.opencontainers.image.licenses", Json::text("(Apache-2.0 OR MIT) AND (MIT OR GPL-2.0-only)")),
        ("org.opencontainers.image.source", Json::text(env!("CARGO_PKG_REPOSITORY"))),
        ("org.opencontainers.image.title", Json::text("lbr")),
        ("org.opencontainers.image.version", Json::text(image.version)),
    ];
    if let Some(created) = &image.created {
        fields.push(("org.opencontainers.image.created", Json::text(created)));
    }
    if let Some(revision) = &image.revision {
        fields.push(("org.opencontainers.image.revision", Json::text(revision)));
    }
    fields.sort_by_key(|(name, _)| *name);
    Json::Object(fields)
}

fn index(image: &Image<'_>, manifest: &str, size: usize) -> Json {
    let platform =
        Json::Object(vec![("architecture", Json::text(architecture())), ("os", Json::text("linux"))]);
    let tag = image.tag.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let names = Json::Object(vec![
        // containerd takes the whole name from here.
        ("io.containerd.image.name", Json::text(image.tag)),
        ("org.opencontainers.image.ref.name", Json::text(tag)),
    ]);
    let more = vec![("platform", platform), ("annotations", names)];
    Json::Object(vec![
        ("schemaVersion", Json::Number(2)),
        ("mediaType", Json::text("application/vnd.oci.image.index.v1+json")),
        ("manifests", Json::List(vec![descriptor(MANIFEST, manifest, size, more)])),
    ])
}

fn docker(image: &Image<'_>, config: &str, layer: &str) -> Json {
    Json::List(vec![Json::Object(vec![
        ("Config", Json::text(format!("blobs/sha256/{config}"))),
        ("RepoTags", Json::List(vec![Json::text(image.tag)])),
        ("Layers", Json::List(vec![Json::text(format!("blobs/sha256/{layer}"))])),
    ])])
}

fn descriptor(kind: &str, digest: &str, size: usize, more: Vec<(&'static str, Json)>) -> Json {
    let own = vec![
        ("mediaType", Json::text(kind)),
        ("digest", Json::text(format!("sha256:{digest}"))),
        ("size", Json::Number(size)),
    ];
    Json::Object(own.into_iter().chain(more).collect())
}
