//! An image as one tar file: an OCI image layout, plus the file that `docker load` needs.

use anyhow::Result;
use serde_json::{Value, json};

use super::sha256;
use super::tar::{self, Entry};
use crate::arch::Arch;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// The content of an image.
pub(super) struct Image<'a> {
    /// The program.
    pub(super) binary: &'a [u8],
    /// Its architecture.
    pub(super) arch: Arch,
    /// Its name where it is loaded.
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
    /// The image itself.
    pub(super) tarball: Vec<u8>,
    /// Its only layer, a tar file.
    pub(super) layer: Vec<u8>,
    /// Digest of the manifest, as a registry would use it.
    pub(super) digest: String,
}

/// Packs an image. The same input gives the same bytes.
pub(super) fn pack(image: &Image<'_>) -> Result<Packed> {
    let layer = tar::pack(&[Entry { name: "lbr", mode: 0o755, content: image.binary }])?;
    let layer_digest = sha256(&layer);
    let config = config(image, &layer_digest).to_string();
    let config_digest = sha256(config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &config_digest, config.len()),
        "layers": [descriptor(LAYER, &layer_digest, layer.len())],
        "annotations": labels(image),
    });
    let manifest = manifest.to_string();
    let digest = sha256(manifest.as_bytes());
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

fn config(image: &Image<'_>, layer: &str) -> Value {
    let mut config = json!({
        "architecture": image.arch.debian(),
        "os": "linux",
        "config": {
            // Numeric, as there is no /etc/passwd.
            "User": "0:0",
            "Entrypoint": ["/lbr"],
            "WorkingDir": "/",
            "Labels": labels(image),
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    if let Some(created) = &image.created {
        config["created"] = json!(created);
    }
    config
}

/// <https://specs.opencontainers.org/image-spec/annotations/>
fn labels(image: &Image<'_>) -> Value {
    let mut labels = json!({
        "org.opencontainers.image.description":
            "Kubernetes Services and NetworkPolicies in eBPF: the agent of a node",
        // The agent, and the kernel object inside.
        "org.opencontainers.image.licenses": "(Apache-2.0 OR MIT) AND (MIT OR GPL-2.0-only)",
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
        "org.opencontainers.image.title": "lbr",
        "org.opencontainers.image.version": image.version,
    });
    if let Some(created) = &image.created {
        labels["org.opencontainers.image.created"] = json!(created);
    }
    if let Some(revision) = &image.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    labels
}

fn index(image: &Image<'_>, manifest: &str, size: usize) -> Value {
    let mut manifest = descriptor(MANIFEST, manifest, size);
    manifest["platform"] = json!({"architecture": image.arch.debian(), "os": "linux"});
    let tag = image.tag.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    manifest["annotations"] = json!({
        // containerd reads the whole name here.
        "io.containerd.image.name": image.tag,
        "org.opencontainers.image.ref.name": tag,
    });
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    })
}

fn docker(image: &Image<'_>, config: &str, layer: &str) -> Value {
    json!([{
        "Config": format!("blobs/sha256/{config}"),
        "RepoTags": [image.tag],
        "Layers": [format!("blobs/sha256/{layer}")],
    }])
}

fn descriptor(kind: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": size})
}
