//! Rejected policies, and rejected edits of policies: packets, `lbr show rejected` and the log agree.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::case::Case;
use crate::stage;
use crate::world::World;

/// A policy of x with a mistake, or an edit with one.
struct Mistake {
    what: &'static str,
    spec: Value,
    /// The field that is reported.
    field: &'static str,
    /// Words of the reason.
    reason: &'static str,
    allowed: &'static [&'static str],
    denied: &'static [&'static str],
}

const NAME: &str = "NetworkPolicy x/mistaken";

fn case(name: &str, spec: &Value, allowed: &[&str], denied: &[&str]) -> Case {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "x", "name": "mistaken"}, "spec": spec,
    });
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    Case {
        name: name.to_owned(),
        objects: vec![policy],
        allowed: owned(allowed),
        denied: owned(denied),
        ..Case::default()
    }
}

/// Every rejected version is reported as such, with its place, its field, and what is in force.
fn told(world: &World, mistake: &Mistake, in_force: &str) -> Result<()> {
    for agent in &world.agents {
        let shown = agent.show("rejected")?;
        let rows: Vec<&Value> = shown.as_array().context("a list")?.iter().collect();
        let of = |field: &str| rows.iter().find(|row| row["object"] == NAME && row["field"] == field);
        let row = of(mistake.field).with_context(|| format!("{:#?}", rows))?;
        ensure!(row["state"] == "rejected", "{row}");
        ensure!(row["origin"].as_str().is_some_and(|o| o.starts_with("case.yaml, document ")), "{row}");
        ensure!(row["reason"].as_str().is_some_and(|r| r.contains(mistake.reason)), "{row}");
        let whole = of("").with_context(|| format!("{rows:#?}"))?;
        ensure!(whole["reason"].as_str().is_some_and(|r| r.contains(in_force)), "{whole}");
        let log = agent.said();
        let line = |line: &&str| {
            let is_it = line.contains("rejected: case.yaml, document ") && line.contains(NAME);
            is_it && line.contains(mistake.field) && line.contains(mistake.reason)
        };
        ensure!(log.lines().any(|text| line(&text)), "the log does not say so: {log}");
    }
    Ok(())
}

fn played(world: &World, mistake: &Mistake, in_force: &str) -> Result<()> {
    let case = case(mistake.what, &mistake.spec, mistake.allowed, mistake.denied);
    world.play(&case).and_then(|()| told(world, mistake, in_force)).context(mistake.what)
}

fn a() -> Value {
    json!({"matchLabels": {"pod": "a"}})
}

fn from(namespace: &str, pod: &str) -> Value {
    json!({"from": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"pod": pod}},
    }]})
}

const IN: &str = "x/b y/a -> x/a tcp/80 udp/80";
const OUT: &str = "x/a -> x/b y/a tcp/80 udp/80";

#[test]
fn a_policy_with_a_mistake_isolates_no_less() {
    let all = json!([{}]);
    let mistakes = [
        Mistake {
            what: "a type in another case",
            spec: json!({"podSelector": a(), "policyTypes": ["ingress"]}),
            field: "spec.policyTypes[0]",
            reason: "write Ingress or Egress",
            allowed: &[OUT],
            denied: &[IN],
        },
        Mistake {
            what: "a type that does not exist",
            spec: json!({"podSelector": a(), "policyTypes": ["Out"], "ingress": all}),
            field: "spec.policyTypes[0]",
            reason: "write Ingress or Egress",
            allowed: &[IN],
            denied: &[OUT],
        },
        Mistake {
            what: "policyTypes misspelt",
            spec: json!({"podSelector": a(), "policytypes": ["Egress"]}),
            field: "spec.policytypes",
            reason: "did you mean policyTypes?",
            allowed: &[IN],
            denied: &[OUT],
        },
        Mistake {
            what: "egress misspelt",
            spec: json!({"podSelector": a(), "ingress": all, "egres": [from("x", "b")]}),
            field: "spec.egres",
            reason: "did you mean egress?",
            allowed: &[IN],
            denied: &[OUT],
        },
        Mistake {
            what: "a field of a rule misspelt",
            spec: json!({"podSelector": a(), "ingress": [from("x", "b"), {"form": [{"podSelector": {}}]}]}),
            field: "spec.ingress[1].form",
            reason: "did you mean from?",
            allowed: &["x/b -> x/a tcp/80 udp/80", OUT],
            denied: &["x/c y/a -> x/a tcp/80 udp/80"],
        },
        Mistake {
            what: "a field that nothing resembles",
            spec: json!({"podSelector": a(), "ingress": all, "action": "Deny"}),
            field: "spec.action",
            reason: "look at how it is spelt",
            allowed: &[OUT],
            denied: &[IN],
        },
        Mistake {
            what: "a selector that cannot be read",
            spec: json!({"podSelector": "pod=a", "ingress": all}),
            field: "spec.podSelector",
            reason: "must be a group of fields",
            allowed: &["x/a -> y/a tcp/80"],
            denied: &[IN, "y/a -> x/b tcp/80"],
        },
    ];
    for mistake in &mistakes {
        let played = stage::with(|world| {
            // The policy must not be an edit of the one before.
            world.apply(&Case::default())?;
            played(world, mistake, "only its valid rules allow anything")
        });
        played.unwrap();
    }
}

#[test]
fn a_rejected_edit_closes_what_it_closes() {
    let (b, y) = (from("x", "b"), from("y", "a"));
    let last = json!({"podSelector": a(), "ingress": [b, y]});
    let edits = [
        Mistake {
            what: "a typo in a rule",
            spec: json!({"podSelector": a(), "ingress": [b, {"form": y["from"]}]}),
            field: "spec.ingress[1].form",
            reason: "did you mean from?",
            allowed: &[IN, OUT],
            denied: &["x/c -> x/a tcp/80 udp/80"],
        },
        Mistake {
            what: "a rule removed, and a typo elsewhere",
            spec: json!({"podSelector": a(), "ingress": [b], "policyTypes": ["ingress"]}),
            field: "spec.policyTypes[0]",
            reason: "write Ingress or Egress",
            allowed: &["x/b -> x/a tcp/80 udp/80", OUT],
            denied: &["y/a -> x/a tcp/80 udp/80"],
        },
        Mistake {
            what: "a rule added, and a typo elsewhere",
            spec: json!({"podSelector": a(), "ingress": [b, y, from("x", "c")], "policyTypes": ["ingress"]}),
            field: "spec.policyTypes[0]",
            reason: "write Ingress or Egress",
            allowed: &[IN],
            denied: &["x/c -> x/a tcp/80 udp/80"],
        },
        Mistake {
            what: "egress isolated too, misspelt",
            spec: json!({"podSelector": a(), "ingress": [b, y], "egres": []}),
            field: "spec.egres",
            reason: "did you mean egress?",
            allowed: &[IN, OUT],
            denied: &["x/c -> x/a tcp/80 udp/80"],
        },
        Mistake {
            what: "egress with rules, misspelt",
            spec: json!({"podSelector": a(), "ingress": [b, y], "egres": [{"to": b["from"]}]}),
            field: "spec.egres",
            reason: "did you mean egress?",
            allowed: &[IN],
            denied: &[OUT],
        },
        Mistake {
            what: "other pods",
            spec: json!({
                "podSelector": {"matchLabels": {"pod": "b"}}, "ingress": [y], "policyTypes": ["ingress"],
            }),
            field: "spec.policyTypes[0]",
            reason: "write Ingress or Egress",
            allowed: &["y/a -> x/a x/b tcp/80 udp/80"],
            denied: &["x/c -> x/a x/b tcp/80 udp/80", "x/b -> x/a tcp/80", "x/a -> x/b tcp/80"],
        },
        Mistake {
            what: "a selector that cannot be read does not isolate the namespace",
            spec: json!({"podSelector": "pod=a", "ingress": [b, y]}),
            field: "spec.podSelector",
            reason: "must be a group of fields",
            allowed: &[IN, OUT, "x/c -> x/b tcp/80 udp/80"],
            denied: &["x/c -> x/a tcp/80 udp/80"],
        },
    ];
    for edit in &edits {
        let played = stage::with(|world| {
            world.play(&case("the last version", &last, &[IN, OUT], &["x/c -> x/a tcp/80 udp/80"]))?;
            played(world, edit, "the last accepted version stays in force")
        });
        played.unwrap();
    }
}
