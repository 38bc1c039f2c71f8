//! The walls between modules: words that only some files may use, checked on the text of the sources.

use crate::source_text::code_only;

/// A wall: words that only some files may use.
struct Wall {
    /// A description of the wall.
    name: &'static str,
    /// Whether the wall is about this word.
    word: fn(&str) -> bool,
    /// The files that must not use the words.
    files: fn(&str) -> bool,
}

/// All walls, for [`check`].
const WALLS: [Wall; 4] = [
    Wall {
        name: "the Kubernetes API belongs in lbr-agent/src/source and lbr-agent/src/model, and in tests",
        // `kube_proxy` is the program that lbr replaces, not a crate.
        word: |word| {
            let is_crate = word.starts_with("kube_") && !word.starts_with("kube_proxy");
            word == "kube" || is_crate || word == "k8s_openapi"
        },
        files: |file| !within(file, &["lbr-agent/src/source", "lbr-agent/src/model", "tests"]),
    },
    Wall {
        name: "aya belongs in lbr-agent/src/dataplane and in lbr-ebpf",
        word: |word| matches!(word, "aya" | "aya_ebpf" | "aya_build" | "aya_log" | "aya_obj"),
        files: |file| {
            let may = ["lbr-agent/src/dataplane", "lbr-agent/build.rs", "lbr-common/src/user.rs"];
            !within(file, &may) && !within(file, &["lbr-ebpf", "tests"])
        },
    },
    Wall {
        name: "the kernel object and the contract know no Kubernetes object",
        word: is_kubernetes,
        files: |file| within(file, &["lbr-ebpf", "lbr-common"]),
    },
    Wall {
        name: "only the command line prints: elsewhere use tracing",
        word: |word| matches!(word, "print!" | "println!" | "eprint!" | "eprintln!" | "dbg!"),
        files: |file| {
            let may = ["lbr-agent/src/cli", "lbr-agent/src/main.rs", "tests", "xtask"];
            // Build scripts print to cargo.
            !within(file, &may) && !file.ends_with("/tests.rs") && !file.ends_with("/build.rs")
        },
    },
];

/// Kinds and fields of the API, as they look in identifiers without `_` and in lower case.
const KUBERNETES: [&str; 12] = [
    "kubernetes",
    "kubeproxy",
    "k8s",
    "clusterip",
    "daemonset",
    "endpointslice",
    "externalname",
    "loadbalancer",
    "networkpolic",
    "nodeport",
    "resourceversion",
    "trafficpolicy",
];

fn is_kubernetes(word: &str) -> bool {
    let plain = word.replace('_', "").to_lowercase();
    KUBERNETES.iter().any(|name| plain.contains(name))
}

/// Whether a file is one of these, or is below one of these.
fn within(file: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// The violations in a file: `file:line: word: why`.
pub(crate) fn check(file: &str, text: &str) -> Vec<String> {
    let walls: Vec<&Wall> = WALLS.iter().filter(|wall| (wall.files)(file)).collect();
    let mut found = Vec::new();
    for (number, line) in code_only(text).lines().enumerate() {
        for word in words(line) {
            for wall in walls.iter().filter(|wall| (wall.word)(word)) {
                found.push(format!("{file}:{}: `{word}`: {}", number + 1, wall.name));
            }
        }
    }
    found
}

/// Identifiers of a line; macro names include their `!`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.find(is_part)?;
        let mut end = rest[start..].find(|c| !is_part(c)).map_or(rest.len(), |length| start + length);
        if rest[end..].starts_with('!') && !rest[end..].starts_with("!=") {
            end += 1;
        }
        let word = &rest[start..end];
        rest = &rest[end..];
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaks(file: &str, text: &str) -> bool {
        !check(file, text).is_empty()
    }

    #[test]
    fn the_api_stays_at_the_edge() {
        let text = "use k8s_openapi::api::core::v1::Service;";
        assert!(breaks("lbr-agent/src/compile/services.rs", text));
        assert!(breaks("lbr-agent/src/store.rs", "fn f(client: kube::Client) {}"));
        assert!(!breaks("lbr-agent/src/source/apiserver.rs", text));
        assert!(!breaks("lbr-agent/src/model/service.rs", text));
        assert!(breaks("lbr-agent/src/modelling.rs", text));
        assert!(breaks("lbr-agent/src/store.rs", "use kube_runtime::watcher;"));
        assert!(!breaks("lbr-agent/src/cli/cleanup/mod.rs", "use crate::kube_proxy::clean;"));
    }

    #[test]
    fn aya_stays_in_the_dataplane() {
        assert!(breaks("lbr-agent/src/reconcile/mod.rs", "use aya::maps::HashMap;"));
        assert!(!breaks("lbr-agent/src/dataplane/load.rs", "use aya::maps::HashMap;"));
        assert!(!breaks("lbr-ebpf/src/main.rs", "use aya_ebpf::macros::classifier;"));
        assert!(breaks("lbr-common/src/addr.rs", "unsafe impl aya::Pod for Addr {}"));
        assert!(!breaks("lbr-common/src/user.rs", "unsafe impl aya::Pod for Addr {}"));
    }

    #[test]
    fn the_kernel_knows_no_kubernetes() {
        for word in ["EndpointSlice", "CLUSTER_IP", "network_policies", "NodePortKey"] {
            assert!(breaks("lbr-ebpf/src/service.rs", &format!("let x = {word};")), "{word}");
        }
        assert!(!breaks("lbr-ebpf/src/service.rs", "/// For a ClusterIP.\nstruct Frontend;"));
        assert!(!breaks("lbr-ebpf/src/main.rs", "fn from_pod() {}"));
        assert!(!breaks("lbr-agent/src/compile/mod.rs", "fn cluster_ip() {}"));
    }

    #[test]
    fn only_the_command_line_prints() {
        assert_eq!(
            check("lbr-agent/src/agent.rs", "fn f() {\n    println!(\"x\");\n}"),
            ["lbr-agent/src/agent.rs:2: `println!`: only the command line prints: elsewhere use tracing"]
        );
        assert!(!breaks("lbr-agent/src/cli/show.rs", "println!(\"x\");"));
        assert!(!breaks("lbr-agent/src/compile/tests.rs", "println!(\"took {t:?}\");"));
        assert!(!breaks("lbr-agent/src/agent.rs", "fn print() { if print != 1 {} }"));
        assert!(!breaks("lbr-agent/src/agent.rs", "let s = \"use println!(aya::x)\";"));
    }
}
