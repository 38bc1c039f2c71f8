//! `lbr version`: the version, and which kernel object it is.

use serde::Serialize;

use super::args::WhyOutput;
use super::args::status::StatusArgs;
use super::print;
use super::status::{Object, object};
use crate::dataplane::Pinned;

#[derive(Debug, Serialize)]
struct Version {
    version: &'static str,
    object: Object,
    /// Version of the agent that loaded the object in force.
    agent_version: Option<String>,
    /// When it did.
    in_force_since: Option<String>,
    /// Why there is no object in force.
    none: Option<String>,
}

/// Prints the versions. Without pins, those of this binary only.
pub fn version(args: &StatusArgs) -> anyhow::Result<()> {
    let (pinned, none) = match Pinned::open(&args.bpffs) {
        Ok(pinned) => (Some(pinned), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    let (object, report) = object(pinned.as_ref())?;
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        object,
        agent_version: report.as_ref().map(|report| report.version.clone()),
        in_force_since: report.map(|report| report.started),
        none,
    };
    print(&match args.output {
        WhyOutput::Table => text(&version),
        WhyOutput::Json => format!("{}\n", serde_json::to_string_pretty(&version)?),
    })
}

fn text(version: &Version) -> String {
    let Version { version, object, agent_version, in_force_since, none } = version;
    let in_force = match (&object.in_force, none) {
        (Some(hash), _) => {
            let by = agent_version.as_deref().unwrap_or("?");
            let since = in_force_since.as_deref().unwrap_or("?");
            format!("sha256 {hash}\n               loaded by lbr {by} at {since}: {}", sameness(object))
        }
        (None, Some(none)) => format!("none: {none}"),
        (None, None) => "not known: its agent left no report".to_owned(),
    };
    format!("lbr {version}\nkernel object  sha256 {}\nin force       {in_force}\n", object.here)
}

/// Whether the object in force is this binary's, and how that is known.
pub(super) fn sameness(object: &Object) -> &'static str {
    match (object.same, object.confirmed) {
        (_, Some(false)) => {
            "not known: other programs are attached than the last report says; restart the agent"
        }
        (Some(true), Some(true)) => "the same, and its programs are attached",
        (Some(true), None) => "the same, as the agent reports",
        (Some(false), _) => {
            "another one than this binary's; the agent of this binary replaces it when it starts"
        }
        (None, _) => "not known",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_objects_are_told_apart() {
        let object = |in_force: Option<&str>, same, confirmed| Object {
            here: "aa".into(),
            in_force: in_force.map(str::to_owned),
            same,
            confirmed,
        };
        let of = |object: Object, none: Option<&str>| {
            text(&Version {
                version: "1.0.0",
                object,
                agent_version: Some("0.9.0".into()),
                in_force_since: Some("2026-01-01T00:00:00Z".into()),
                none: none.map(str::to_owned),
            })
        };
        assert_eq!(
            of(object(Some("bb"), Some(false), Some(true)), None),
            "lbr 1.0.0\nkernel object  sha256 aa\nin force       sha256 bb\n               loaded by lbr 0.9.0 at \
             2026-01-01T00:00:00Z: another one than this binary's; the agent of this binary replaces it when it \
             starts\n"
        );
        assert!(of(object(Some("aa"), Some(true), None), None).contains("the same, as the agent reports"));
        assert!(of(object(Some("aa"), None, Some(false)), None).contains("other programs are attached"));
        assert!(of(object(None, None, None), Some("no maps")).ends_with("in force       none: no maps\n"));
        assert!(of(object(None, None, None), None).contains("left no report"));
    }
}
