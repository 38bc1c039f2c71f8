//! The table as text: `docs/kube-proxy.md` is what [`render`] makes of it.

use std::fmt::Write as _;
use std::path::Path;

use super::fields::{Fate, ROWS, Row};
use super::flag_name;

const HEAD: &str = "\
# kube-proxy's configuration in lbr

`lbr run --config FILE` reads kube-proxy's own `KubeProxyConfiguration` (kubeproxy.config.k8s.io/v1alpha1, YAML or
JSON), and `lbr run` takes kube-proxy's flags. A flag wins over the file; kube-proxy ignores most flags beside `--config`.
A field that no version up to Kubernetes 1.36 has is an error, where kube-proxy only logs it. One line of the log names the
values that have no effect, unless they are kube-proxy's defaults.

*honoured*: the value has the effect that the last column describes. *ignored*: it has none, for the reason there.
*refused*: `lbr run` ends with an error; the last column says what to do instead.

The table is made from the code (`lbr-agent/src/cli/args/kube_proxy/fields.rs`), and a test compares them:
`LBR_WRITE_DOCS=1 cargo test -p lbr-agent kube_proxy` writes it anew.

| field | flag | lbr | effect, or reason |
|---|---|---|---|
";

fn render() -> String {
    let mut text = HEAD.to_owned();
    for row in ROWS {
        let code = |text: String| if text.is_empty() { text } else { format!("`{text}`") };
        let flag = if row.flag.is_empty() { String::new() } else { flag_name(row.flag) };
        let (what, why) = word(row);
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} | {} | {what} | {why} |", code(row.field.to_owned()), code(flag));
    }
    text
}

fn word(row: &Row) -> (&'static str, &'static str) {
    match row.fate {
        Fate::Honoured(what) => ("honoured", what),
        Fate::Ignored(why) => ("ignored", why),
        Fate::Refused(instead) => ("refused", instead),
    }
}

#[test]
fn the_document_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kube-proxy.md");
    let wanted = render();
    if std::env::var_os("LBR_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == wanted, "{} differs: LBR_WRITE_DOCS=1 writes it anew", path.display());
}
