//! Cases from `tests/scenarios/policies`, with one file for each row of the truth tables in
//! `docs/policy-semantics.md`.
//!
//! ```yaml
//! row: B16
//! about: what the row says
//! cases:
//!   - name: what this case shows
//!     policies:
//!       - {in: x, podSelector: {}, ingress: []}     # `in` is the namespace, the rest is `spec`
//!     pods: {y/a: {metadata: {labels: {a: b}}}}     # merged into the Pod (RFC 7386); null removes it
//!     namespaces: {y: {metadata: {labels: {a: b}}}} # the same
//!     objects: [...]                                # more objects, as for kubectl
//!     allowed: [x/b y/a -> x/a tcp/80 udp/80]
//!     denied: [ext-100 -> x/a tcp/80 v4 pod-ip]
//!     refused: [x/b -> x/a tcp/82]
//! ```
//!
//! A line of probes is *sources -> destinations probes*. Sources and destinations: names of [`crate::cast`], `pods`
//! for every pod (but the other side), `self` and `localhost` for the sender. Probes: `tcp/80`, `udp/80`, `sctp/80`,
//! `icmp` (echo), `gre`. Each is tried with both families and, from pods with TCP and UDP, by the address and by the
//! Service, unless `v4`, `v6`, `pod-ip` or `cluster-ip` says otherwise.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use lbr_common::addr::Family;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) row: String,
    /// A description of the row.
    #[serde(rename = "about")]
    _about: String,
    pub(crate) cases: Vec<Case>,
}

/// One state of the cluster, and the traffic that passes in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) policies: Vec<Map<String, Value>>,
    #[serde(default)]
    pub(crate) pods: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) namespaces: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) objects: Vec<Value>,
    #[serde(default)]
    pub(crate) allowed: Vec<String>,
    #[serde(default)]
    pub(crate) denied: Vec<String>,
    #[serde(default)]
    pub(crate) refused: Vec<String>,
}

/// The fate of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It arrives, and the answer comes back.
    Allowed,
    /// It does not arrive, and there is no answer.
    Denied,
    /// It arrives, and is refused for lack of a listener.
    Refused,
}

/// The packet or connection of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Tcp(u16),
    Udp(u16),
    /// An INIT, by hand: only its arrival counts.
    Sctp(u16),
    /// Echo request and reply.
    Icmp,
    /// Only its arrival counts.
    Gre,
}

/// A line of probes.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) expect: Expect,
    pub(crate) from: Vec<String>,
    pub(crate) to: Vec<String>,
    pub(crate) what: Vec<What>,
    /// Over IPv4, over IPv6.
    pub(crate) families: &'static [Family],
    /// By the address, by the Service.
    pub(crate) via: [bool; 2],
}

impl File {
    /// The folder of the files.
    pub(crate) fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/policies")
    }

    /// Paths by row, in lower case: `a1`.
    pub(crate) fn all() -> Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::new();
        for entry in Self::folder().read_dir().with_context(|| Self::folder().display().to_string())? {
            let path = entry?.path();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let row = stem.split('-').next().unwrap_or_default().to_owned();
            ensure!(files.insert(row.clone(), path).is_none(), "two files for row {row}");
        }
        Ok(files)
    }

    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        // `y` is a namespace here, not a boolean.
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(&text, options)
            .with_context(|| format!("read {}", path.display()))
    }
}

impl Case {
    pub(crate) fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for (texts, expect) in [
            (&self.allowed, Expect::Allowed),
            (&self.denied, Expect::Denied),
            (&self.refused, Expect::Refused),
        ] {
            for text in texts {
                lines.push(Line::parse(text, expect).with_context(|| format!("{text:?}"))?);
            }
        }
        Ok(lines)
    }
}

impl Line {
    pub(crate) fn parse(text: &str, expect: Expect) -> Result<Self> {
        let (from, rest) = text.split_once("->").context("no arrow")?;
        let from = from.split_whitespace().map(str::to_owned).collect();
        let mut line =
            Self { expect, from, to: Vec::new(), what: Vec::new(), families: &Family::ALL, via: [true; 2] };
        for word in rest.split_whitespace() {
            match word {
                "v4" => line.families = &[Family::V4],
                "v6" => line.families = &[Family::V6],
                "pod-ip" => line.via = [true, false],
                "cluster-ip" => line.via = [false, true],
                _ => match What::parse(word)? {
                    Some(what) => line.what.push(what),
                    None => line.to.push(word.to_owned()),
                },
            }
        }
        if line.from.is_empty() || line.to.is_empty() || line.what.is_empty() {
            bail!("a line needs a source, a destination and a probe");
        }
        Ok(line)
    }
}

impl What {
    fn parse(word: &str) -> Result<Option<Self>> {
        Ok(Some(match word.split_once('/') {
            None if word == "icmp" => Self::Icmp,
            None if word == "gre" => Self::Gre,
            Some(("tcp", port)) => Self::Tcp(port.parse()?),
            Some(("udp", port)) => Self::Udp(port.parse()?),
            Some(("sctp", port)) => Self::Sctp(port.parse()?),
            _ => return Ok(None),
        }))
    }

    /// IP protocol number.
    pub(crate) fn number(self, family: Family) -> u8 {
        match self {
            Self::Tcp(_) => 6,
            Self::Udp(_) => 17,
            Self::Sctp(_) => 132,
            Self::Icmp if family.is_v6() => 58,
            Self::Icmp => 1,
            Self::Gre => 47,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Sctp(port) => write!(f, "sctp/{port}"),
            Self::Icmp => f.write_str("icmp"),
            Self::Gre => f.write_str("gre"),
        }
    }
}

/// Merges `patch` into `target` (RFC 7386).
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}
