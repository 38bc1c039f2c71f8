//! The walls between modules: words that only some files may use, checked on the text of the sources.
//!
//! In the agent, parts (features) stand side by side on common ground, below the engine. So do sources, which know no part:
//!
//! ```text
//! agent.rs ─┬─> engine, reconcile, compile ─> parts: link, policy, service ─┬─> ground: table, ids, node, cluster ─> model
//! serve ... └─> source, events.rs ──────────────────────────────────────────┘
//! ```

use crate::source_text::code_only;

/// A wall: words that only some files may use.
struct Wall {
    /// A description of the wall.
    name: &'static str,
    /// Whether the wall is about this word. A word behind `crate::` has this before it.
    word: fn(&str) -> bool,
    /// The files that must not use the words.
    files: fn(&str) -> bool,
}

/// All walls, for [`check`].
const WALLS: [Wall; 9] = [
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
        name: "a part knows no other part, and sources and the ground know none",
        word: |word| part(word).is_some(),
        files: |file| [&PARTS[..], &GROUND, &SOURCES].into_iter().any(|places| in_agent(file, places)),
    },
    Wall {
        name: "what stands below the engine knows neither it nor what drives it",
        word: |word| is_module(word, &ENGINE) || is_module(word, &DRIVERS),
        files: |file| {
            let below = [&PARTS[..], &GROUND, &SOURCES, &["dataplane"]];
            // A part's tests may play it in the engine.
            below.into_iter().any(|places| in_agent(file, places)) && !is_test(file)
        },
    },
    Wall {
        name: "the engine knows neither the sources nor what drives it",
        word: |word| is_module(word, &["source", "events"]) || is_module(word, &DRIVERS),
        files: |file| in_agent(file, &ENGINE) && !is_test(file),
    },
    Wall {
        name: "several modules in one `use` hide from these walls: write one `use` for each",
        word: |word| word == "crate::{",
        files: |file| within(file, &["lbr-agent/src"]),
    },
    Wall {
        name: "the engine and what it stands on never wait: no tokio",
        word: |word| word == "tokio",
        files: |file| [&PARTS[..], &GROUND, &ENGINE].into_iter().any(|places| in_agent(file, places)),
    },
    Wall {
        name: "only the command line prints: elsewhere use tracing",
        word: |word| matches!(word, "print!" | "println!" | "eprint!" | "eprintln!" | "dbg!"),
        files: |file| {
            let may = ["lbr-agent/src/cli", "lbr-agent/src/main.rs", "tests", "xtask"];
            // Build scripts print to cargo.
            !within(file, &may) && !is_test(file) && !file.ends_with("/build.rs")
        },
    },
];

/// Features of the agent, each with its own compile, order of writes and look-up.
const PARTS: [&str; 3] = ["link", "policy", "service"];

/// What every part may use, and knows none.
const GROUND: [&str; 6] = ["cluster", "desired.rs", "ids", "model", "node", "table"];

/// Where objects come from, and where Events about them go.
const SOURCES: [&str; 2] = ["source", "events.rs"];

/// From changes to maps.
const ENGINE: [&str; 3] = ["engine", "reconcile", "compile"];

/// What drives the engine, and what shows its work.
const DRIVERS: [&str; 4] = ["agent", "serve", "gate", "cli"];

/// Whether a file has tests only.
fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// Whether a word with its path (`crate::policy`) names one of these modules.
fn is_module(word: &str, modules: &[&str]) -> bool {
    word.strip_prefix("crate::").is_some_and(|module| modules.contains(&module))
}

/// Whether a file is in one of these places of the agent.
fn in_agent(file: &str, places: &[&str]) -> bool {
    file.strip_prefix("lbr-agent/src/").is_some_and(|file| within(file, places))
}

/// The part that a word with its path (`crate::policy`) names.
fn part(word: &str) -> Option<&str> {
    word.strip_prefix("crate::").filter(|word| PARTS.contains(word))
}

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
            // A part may use its own path.
            let is_own = part(word).is_some_and(|part| in_agent(file, &[part]));
            for wall in walls.iter().filter(|wall| (wall.word)(word) && !is_own) {
                found.push(format!("{file}:{}: `{word}`: {}", number + 1, wall.name));
            }
        }
    }
    found
}

/// Identifiers of a line; macro names include their `!`, and the modules of this crate their `crate::`. Several modules in
/// one `use` are the word `crate::{`.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.find(is_part)?;
        let end_of =
            |from: usize| rest[from..].find(|c| !is_part(c)).map_or(rest.len(), |length| from + length);
        let mut end = end_of(start);
        if &rest[start..end] == "crate" && rest[end..].starts_with("::{") {
            end += 3;
        } else if &rest[start..end] == "crate" && rest[end..].starts_with("::") {
            end = end_of(end + 2);
        }
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
    fn parts_stand_side_by_side() {
        assert!(breaks("lbr-agent/src/service/look_up.rs", "use crate::policy::judge::judge;"));
        assert!(breaks("lbr-agent/src/table/delta.rs", "fn f(x: crate::service::Services) {}"));
        assert!(!breaks("lbr-agent/src/policy/fit.rs", "use crate::policy::Shortage;"));
        assert!(!breaks("lbr-agent/src/policy/fit.rs", "use crate::table::Staged; let policy = service;"));
        assert!(!breaks("lbr-agent/src/reconcile/mod.rs", "use crate::policy::Policies;"));
        assert!(breaks("lbr-agent/src/engine/mod.rs", "use tokio::sync::watch;"));
        assert!(!breaks("lbr-agent/src/agent.rs", "use tokio::sync::watch;"));
    }

    #[test]
    fn sources_and_parts_stand_below_the_engine() {
        for file in ["source/apiserver/events.rs", "policy/fit.rs", "events.rs", "dataplane/fake/mod.rs"] {
            let file = format!("lbr-agent/src/{file}");
            assert!(breaks(&file, "use crate::engine::Engine;"), "{file}");
            assert!(breaks(&file, "fn f(x: &crate::serve::Observer) {}"), "{file}");
            assert!(!breaks(&file, "use crate::model::ObjectRef; fn engine() {}"), "{file}");
        }
        assert!(breaks("lbr-agent/src/source/apiserver/events.rs", "use crate::policy::stand_in::StandIns;"));
        assert!(breaks("lbr-agent/src/source/mod.rs", "use crate::{engine, model};"));
        assert!(breaks("lbr-agent/src/engine/mod.rs", "use crate::events::Events;"));
        assert!(!breaks("lbr-agent/src/policy/fit/tests.rs", "use crate::engine::Engine;"));
        assert!(!breaks("lbr-agent/src/agent/troubles.rs", "use crate::policy::stand_in::StandIns;"));
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
