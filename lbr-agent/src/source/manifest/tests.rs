//! The source on a real folder.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::model::{Extent, Item, Object, ObjectName};

/// A folder that is removed after the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("lbr-manifests-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(unique);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn namespace(name: &str, label: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{x: \"{label}\"}}}}\n---\n")
}

/// Receives with a deadline, and writes changes down: `+a 1`, `-a`, `!1` for the number of rejections, `synced`.
struct Changes(mpsc::Receiver<Change>);

impl Changes {
    fn start(folder: &Folder) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        ManifestSource::open(&folder.0).unwrap().spawn(sender).unwrap();
        Self(receiver)
    }

    fn next_within(&mut self, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.0.try_recv() {
                Ok(Change::Apply(Object::Namespace(n))) => {
                    return Some(format!("+{} {}", n.name, n.labels["x"]));
                }
                Ok(other @ (Change::Apply(_) | Change::Restrict(_) | Change::Addresses(..))) => {
                    panic!("unexpected {other:?}")
                }
                Ok(Change::Delete(r)) => return Some(format!("-{}", r.name)),
                Ok(Change::Rejected(list)) => return Some(format!("!{}", list.len())),
                Ok(Change::Synced(Kind::NetworkPolicy)) => return Some("synced".to_owned()),
                Ok(Change::Synced(_) | Change::Origin(..)) => {}
                Err(_) if Instant::now() > deadline => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Generous, because the test machine is busy.
    fn expect(&mut self, expected: &[&str]) {
        for line in expected {
            assert_eq!(self.next_within(Duration::from_secs(10)).as_deref(), Some(*line));
        }
    }

    fn expect_quiet(&mut self) {
        assert_eq!(self.next_within(Duration::from_millis(600)), None);
    }
}

#[test]
fn a_folder_that_is_missing_is_an_error_in_plain_words() {
    let folder = Folder::new();
    let error = ManifestSource::open(&folder.0.join("no")).unwrap_err().to_string();
    assert!(error.contains("does not exist: create it"), "{error}");
    folder.write("file", "");
    let error = ManifestSource::open(&folder.0.join("file")).unwrap_err().to_string();
    assert!(error.contains("is a file: give a folder"), "{error}");
}

#[test]
fn files_are_followed() {
    let folder = Folder::new();
    folder.write("b.yaml", &namespace("b", "1"));
    folder.write(".hidden.yaml", &namespace("h", "1"));
    folder.write("notes.txt", "not: [yaml");
    fs::create_dir(folder.0.join("dir.yaml")).unwrap();
    let mut changes = Changes::start(&folder);
    changes.expect(&["+b 1", "synced"]);
    folder.write(
        "a.json",
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a","labels":{"x":"1"}}}"#,
    );
    changes.expect(&["+a 1"]);
    // As editors do: written beside it, then renamed over it.
    folder.write("b.yaml.tmp", &namespace("b", "2"));
    fs::rename(folder.0.join("b.yaml.tmp"), folder.0.join("b.yaml")).unwrap();
    changes.expect(&["+b 2"]);
    // Or renamed away, and written anew.
    fs::rename(folder.0.join("b.yaml"), folder.0.join("b.yaml~")).unwrap();
    folder.write("b.yaml", &namespace("b", "3"));
    changes.expect(&["+b 3"]);
    folder.write("b.yaml", "");
    folder.write("b.yaml", &namespace("b", "3"));
    changes.expect_quiet();
    fs::remove_file(folder.0.join("a.json")).unwrap();
    changes.expect(&["-a"]);
}

#[test]
fn a_broken_file_keeps_what_it_had() {
    let folder = Folder::new();
    folder.write("a.yaml", &namespace("a", "1"));
    folder.write("b.yaml", &namespace("b", "1"));
    let mut changes = Changes::start(&folder);
    changes.expect(&["+a 1", "+b 1", "synced"]);
    folder.write("a.yaml", "kind: [");
    changes.expect(&["!1"]);
    fs::write(folder.0.join("b.yaml"), [0xff, 0xfe]).unwrap();
    changes.expect(&["!2"]);
    folder.write("a.yaml", &namespace("a", "2"));
    changes.expect(&["+a 2", "!1"]);
    folder.write("b.yaml", &namespace("c", "1"));
    changes.expect(&["+c 1", "-b", "!0"]);
}

#[test]
fn the_folder_itself_may_go_and_come_back() {
    let folder = Folder::new();
    folder.write("a.yaml", &namespace("a", "1"));
    let mut changes = Changes::start(&folder);
    changes.expect(&["+a 1", "synced"]);
    let elsewhere = folder.0.with_extension("away");
    fs::rename(&folder.0, &elsewhere).unwrap();
    changes.expect_quiet();
    fs::create_dir(&folder.0).unwrap();
    folder.write("a.yaml", &namespace("a", "2"));
    fs::remove_dir_all(&elsewhere).unwrap();
    changes.expect(&["+a 2"]);
    // The new folder is watched, too.
    folder.write("a.yaml", &namespace("a", "3"));
    changes.expect(&["+a 3"]);
}

#[test]
fn a_rejection_is_one_line() {
    let rejected = Rejected {
        extent: Extent::Rejected,
        object: Kind::Service.named(&ObjectName::new("default", "web")).into(),
        origin: "web.yaml, document 2".into(),
        field: "spec.ports[0].port".into(),
        reason: "0 is not a port".into(),
    };
    let expected = "rejected: web.yaml, document 2: Service default/web: spec.ports[0].port: 0 is not a port";
    assert_eq!(rejected.to_string(), expected);
    let object = Item::Text(String::new());
    let bare = Rejected { extent: Extent::Limited, object, field: String::new(), ..rejected };
    assert_eq!(bare.to_string(), "limited: web.yaml, document 2: 0 is not a port");
}
