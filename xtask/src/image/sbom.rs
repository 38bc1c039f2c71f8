//! A bill of materials (CycloneDX 1.5): every crate that is linked into `lbr` or into its kernel object, from `cargo
//! tree` and `Cargo.lock`. Crates used only by the build (macros, build scripts, tests) are not in it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::run;

/// Packages whose dependencies are shipped, and their targets.
const SHIPPED: [(&str, Option<&str>); 2] = [("lbr-agent", None), ("lbr-ebpf", Some("bpfel-unknown-none"))];

/// A crate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    license: String,
    repository: String,
}

impl Crate {
    /// <https://github.com/package-url/purl-spec>
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// Crates, and the crates that each depends on.
type Graph = BTreeMap<Crate, BTreeSet<Crate>>;

/// The bill of a binary with this version and digest.
pub(super) fn bill(version: &str, digest: &str) -> Result<String> {
    let mut graph = Graph::new();
    let mut direct = BTreeSet::new();
    for (package, target) in SHIPPED {
        direct.insert(read_tree(&tree(package, target)?, &mut graph)?);
    }
    let lock = run::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    Ok(write(version, digest, &direct, &graph, &checksums(&lock)))
}

fn tree(package: &str, target: Option<&str>) -> Result<String> {
    let mut command = run::cargo();
    command.args(["tree", "--locked", "-p", package, "-e", "normal,no-proc-macro", "--prefix", "depth"]);
    command.args(["-f", "\t{p}\t{l}\t{r}\t"]);
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed", run::text(&command));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Adds the output of `cargo tree --prefix depth` to the graph, and returns the root.
fn read_tree(text: &str, graph: &mut Graph) -> Result<Crate> {
    let mut path: Vec<Crate> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let mut field = || fields.next().with_context(|| format!("cargo tree says `{line}`"));
        let (depth, package, license, repository) = (field()?, field()?, field()?, field()?);
        let depth: usize = depth.parse().with_context(|| format!("cargo tree says `{line}`"))?;
        // "name v1.2.3", then its path if it was not downloaded.
        let mut words = package.split(' ');
        let (name, version) = (words.next(), words.next().and_then(|word| word.strip_prefix('v')));
        let found = Crate {
            name: name.unwrap_or_default().to_owned(),
            version: version.with_context(|| format!("cargo tree says `{line}`"))?.to_owned(),
            // Manifests may still use the older form with a slash.
            license: license.replace('/', " OR "),
            repository: repository.to_owned(),
        };
        path.truncate(depth);
        if let Some(parent) = path.last() {
            graph.entry(parent.clone()).or_default().insert(found.clone());
        }
        graph.entry(found.clone()).or_default();
        path.push(found);
    }
    path.into_iter().next().context("cargo tree says nothing")
}

/// SHA-256 of downloaded crates, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let start = format!("{key} = \"");
            let line = package.lines().find_map(|line| line.strip_prefix(&start))?;
            Some(line.trim_end_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (value("name"), value("version"), value("checksum")) {
            sums.insert((name, version), sum);
        }
    }
    sums
}

fn write(
    version: &str,
    digest: &str,
    direct: &BTreeSet<Crate>,
    graph: &Graph,
    sums: &BTreeMap<(String, String), String>,
) -> String {
    let components: Vec<Value> = graph.keys().map(|part| component(part, sums)).collect();
    let depends = |from: String, on: &BTreeSet<Crate>| {
        let on: Vec<String> = on.iter().map(Crate::purl).collect();
        json!({"ref": from, "dependsOn": on})
    };
    let mut dependencies = vec![depends("lbr".to_owned(), direct)];
    dependencies.extend(graph.iter().map(|(part, on)| depends(part.purl(), on)));
    let subject = json!({
        "type": "application",
        "bom-ref": "lbr",
        "name": "lbr",
        "version": version,
        "hashes": hashes(digest),
    });
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": dependencies,
    });
    format!("{bill}\n")
}

fn component(part: &Crate, sums: &BTreeMap<(String, String), String>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": part.purl(),
        "name": part.name,
        "version": part.version,
        "purl": part.purl(),
    });
    if let Some(sum) = sums.get(&(part.name.clone(), part.version.clone())) {
        component["hashes"] = hashes(sum);
    }
    if !part.license.is_empty() {
        component["licenses"] = json!([{"expression": part.license}]);
    }
    if !part.repository.is_empty() {
        component["externalReferences"] = json!([{"type": "vcs", "url": part.repository}]);
    }
    component
}

fn hashes(sum: &str) -> Value {
    json!([{"alg": "SHA-256", "content": sum}])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: &str = "\
0\tlbr-agent v0.1.0 (/home/me/lbr)\tMIT\thttps://example.org/lbr\t
1\ta v1.0.0\tMIT/Apache-2.0\thttps://example.org/a\t
2\tb v2.0.0\tZlib\t\t
1\tb v2.0.0\tZlib\t\t (*)
";
    const LOCK: &str = "\
[[package]]
name = \"a\"
version = \"1.0.0\"
source = \"registry+https://github.com/rust-lang/crates.io-index\"
checksum = \"00ff\"

[[package]]
name = \"lbr-agent\"
version = \"0.1.0\"
";

    #[test]
    fn crates_and_their_dependencies() {
        let mut graph = Graph::new();
        let root = read_tree(TREE, &mut graph).unwrap();
        assert_eq!(root.purl(), "pkg:cargo/lbr-agent@0.1.0");
        let text = write("0.1.0", "aa", &BTreeSet::from([root]), &graph, &checksums(LOCK));
        let bill: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names: Vec<_> = bill["components"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
        assert_eq!(names, ["a", "b", "lbr-agent"]);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "00ff");
        assert!(bill["components"][1].get("hashes").is_none() && !text.contains("/home/me"));
        let depends = |n: usize| bill["dependencies"][n]["dependsOn"].to_string();
        assert_eq!(depends(0), r#"["pkg:cargo/lbr-agent@0.1.0"]"#);
        assert_eq!(depends(1), r#"["pkg:cargo/b@2.0.0"]"#);
        assert_eq!(depends(3), r#"["pkg:cargo/a@1.0.0","pkg:cargo/b@2.0.0"]"#);
    }

    /// The real bill: complete, every licence known, no dangling reference, reproducible.
    #[test]
    fn the_bill_of_this_workspace() {
        let text = bill("0.1.0", "aa").unwrap();
        assert_eq!(text, bill("0.1.0", "aa").unwrap());
        let bill: serde_json::Value = serde_json::from_str(&text).unwrap();
        let components = bill["components"].as_array().unwrap();
        let known: BTreeSet<&str> = components.iter().filter_map(|c| c["bom-ref"].as_str()).collect();
        for name in ["aya", "aya-ebpf", "k8s-openapi", "lbr-agent", "lbr-common", "lbr-ebpf", "tokio"] {
            assert!(components.iter().any(|c| c["name"] == name), "no {name}");
        }
        for name in ["serde_derive", "aya-build", "proptest"] {
            assert!(!components.iter().any(|c| c["name"] == name), "{name} is not shipped");
        }
        for part in components {
            let own = part["name"].as_str().is_some_and(|name| name.starts_with("lbr-"));
            assert!(
                own || part["hashes"][0]["content"].as_str().is_some_and(|sum| sum.len() == 64),
                "{part}"
            );
            assert!(part["licenses"][0]["expression"].is_string(), "{part}");
        }
        for edge in bill["dependencies"].as_array().unwrap() {
            for to in edge["dependsOn"].as_array().unwrap() {
                assert!(known.contains(to.as_str().unwrap()), "{edge} leads nowhere");
            }
        }
    }
}
