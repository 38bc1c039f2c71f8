//! The tar file of an image, as other programs read it: tar, sha256sum, and a JSON parser.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;

const CONTENT: &[u8] = b"stands for the binary; its length is no multiple of a block";

fn image<'a>() -> oci::Image<'a> {
    let created = Some("2026-01-02T03:04:05Z".to_owned());
    let revision = Some("0123abc".to_owned());
    let arch = Arch::own();
    oci::Image { binary: CONTENT, arch, tag: "localhost/lbr:1.2.3", version: "1.2.3", created, revision }
}

/// A folder that is removed with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("xtask-image-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// The content of a tar file, as `tar` lists it.
    fn unpack(&self, tarball: &[u8]) -> String {
        let file = self.0.join("packed.tar");
        fs::write(&file, tarball).unwrap();
        said(Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&self.0)).unwrap();
        let mut list = Command::new("tar");
        said(list.args(["--numeric-owner", "--utc", "-tvf"]).arg(&file)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.0.join(name)).unwrap()).unwrap()
    }

    /// The file that a descriptor names, after comparing its size and digest.
    fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
        let path = self.0.join("blobs/sha256").join(&digest);
        assert_eq!(fs::metadata(&path).unwrap().len(), descriptor["size"].as_u64().unwrap());
        assert_eq!(sum(&path), digest);
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sum(path: &Path) -> String {
    let text = said(Command::new("sha256sum").arg(path)).unwrap();
    text.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn every_digest_and_size_is_right_and_the_layer_holds_one_file() {
    let packed = oci::pack(&image()).unwrap();
    let folder = Folder::new("layout");
    let list = folder.unpack(&packed.tarball);
    let mut names: Vec<&str> = list.lines().map(|line| line.split_whitespace().last().unwrap()).collect();
    names.retain(|name| !name.starts_with("blobs/sha256/"));
    assert_eq!(names, ["index.json", "manifest.json", "oci-layout"]);
    assert_eq!(list.lines().count(), 6, "{list}");

    assert_eq!(folder.json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = folder.json("index.json");
    let first = &index["manifests"][0];
    assert_eq!(first["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");
    assert_eq!(first["annotations"]["io.containerd.image.name"], "localhost/lbr:1.2.3");
    assert_eq!(first["digest"], packed.digest.as_str());
    let manifest: Value = serde_json::from_slice(&fs::read(folder.blob(first)).unwrap()).unwrap();
    let config = folder.blob(&manifest["config"]);
    let layer = folder.blob(&manifest["layers"][0]);
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);

    let docker = folder.json("manifest.json");
    assert_eq!(folder.0.join(docker[0]["Config"].as_str().unwrap()), config);
    assert_eq!(folder.0.join(docker[0]["Layers"][0].as_str().unwrap()), layer);
    assert_eq!(docker[0]["RepoTags"][0], "localhost/lbr:1.2.3");

    let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    // The layer is not compressed: one digest for both.
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/lbr"]));
    assert_eq!(config["config"]["User"], "0:0");
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.revision"], "0123abc");
    assert_eq!(labels["org.opencontainers.image.created"], config["created"]);

    let inside = Folder::new("layer");
    let list = inside.unpack(&fs::read(layer).unwrap());
    let words: Vec<&str> = list.split_whitespace().collect();
    assert_eq!(words, ["-rwxr-xr-x", "0/0", &CONTENT.len().to_string(), "1970-01-01", "00:00", "lbr"]);
    assert_eq!(fs::read(inside.0.join("lbr")).unwrap(), CONTENT);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let first = oci::pack(&image()).unwrap().tarball;
    assert!(first == oci::pack(&image()).unwrap().tarball);
    assert!(first != oci::pack(&oci::Image { tag: "other:1", ..image() }).unwrap().tarball);
}

#[test]
fn image_without_a_commit_names_none() {
    let packed = oci::pack(&oci::Image { created: None, revision: None, ..image() }).unwrap();
    let text = String::from_utf8_lossy(&packed.tarball).into_owned();
    assert!(!text.contains("created") && !text.contains("revision"));
}

#[test]
fn names_that_do_not_fit_are_refused() {
    let name = "n".repeat(101);
    assert!(tar::pack(&[tar::Entry { name: &name, mode: 0o644, content: b"" }]).is_err());
}
