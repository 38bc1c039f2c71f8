//! What frequently makes a document unreadable, said as the author sees it: templates, tabs, merges.

/// Beginnings of what a template engine replaces, and what to do.
const TEMPLATES: [(&str, &str); 5] = [
    ("{{", "a template, as in Helm charts: render it first with `helm template`, and put the result here"),
    ("{%", "a Jinja template: render it first, and put the result here"),
    ("<%", "a template: render it first, and put the result here"),
    ("${", "a variable that nothing has filled in: run `envsubst` first, and put the result here"),
    ("$(", "a variable that nothing has filled in: render it first, and put the result here"),
];

/// The cause of a document that cannot be read, with the line of the file. `line`: where the parser stopped, from 1;
/// `before`: lines of the file before the document.
pub(super) fn of(text: &str, line: usize, before: usize) -> Option<String> {
    template_line(text, before).or_else(|| merge(text, before)).or_else(|| {
        let near = |number: usize| number + 1 >= line && number <= line + 1;
        let is_tab = |text: &str| text.trim_start_matches(' ').starts_with('\t') && !text.trim().is_empty();
        let mut lines = text.lines().enumerate().map(|(i, text)| (i + 1, text));
        if let Some((number, _)) = lines.find(|(number, text)| near(*number) && is_tab(text)) {
            let number = before + number;
            return Some(format!(
                "line {number} is indented by a tab, which YAML does not allow: use spaces"
            ));
        }
        let odd = |(_, text): &(usize, &str)| text.contains('\u{a0}');
        let (number, _) = text.lines().enumerate().find(odd)?;
        let number = before + number + 1;
        Some(format!("line {number} has a non-breaking space (U+00A0): replace it by a space"))
    })
}

/// A value, or a line, that begins with a template's braces, outside of quotes and comments.
fn template_line(text: &str, before: usize) -> Option<String> {
    text.lines().enumerate().find_map(|(i, line)| {
        let line = line.trim();
        let value = line.split_once(": ").map_or(line, |(_, value)| value.trim_start());
        let value = value.trim_start_matches("- ");
        let (_, what) = TEMPLATES[..3].iter().find(|(begin, _)| value.starts_with(begin))?;
        Some(format!("line {} is {what}", before + i + 1))
    })
}

fn merge(text: &str, before: usize) -> Option<String> {
    let is_marker = |line: &str| ["<<<<<<< ", ">>>>>>> "].iter().any(|marker| line.starts_with(marker));
    let (i, _) = text.lines().enumerate().find(|(_, line)| is_marker(line))?;
    Some(format!("line {} is left of a merge in git: resolve the conflict", before + i + 1))
}

/// The parser's message, with what to do.
pub(super) fn advice(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unexpected character: `") {
        let character = rest.strip_suffix('\'').unwrap_or(rest);
        return format!("a value that begins with {character} must be in quotes");
    }
    if let Some(rest) = message.strip_prefix("duplicate mapping key ") {
        let key = rest.split_whitespace().next().unwrap_or(rest);
        return format!("{key} is there twice: remove one");
    }
    match message {
        "mapping values are not allowed in this context" => {
            "a second `: ` in one line, or a line that is indented too far: put the value in quotes, or correct the \
             indentation"
                .to_owned()
        }
        "did not find expected <document start>" => {
            "another object begins here, or the line is indented less than the first one: separate objects by a line \
             `---`"
                .to_owned()
        }
        _ => message.to_owned(),
    }
}

/// What to do about a value that a template engine should have replaced, if `reason` quotes one.
pub(super) fn template(reason: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(begin, _)| reason.contains(begin)).map(|(_, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::documents::{read_all, split};

    #[test]
    fn frequent_causes_are_named_with_their_line() {
        for (text, words) in [
            (
                "a: {{ .Values.x }}",
                "line 1 is a template, as in Helm charts: render it first with `helm template`",
            ),
            ("a: 1\n---\n{{- if .Values.on }}\nb: 1\n{{- end }}", "line 3 is a template"),
            ("a:\n- {{ .Values.x }}", "line 2 is a template"),
            ("{% if x %}\na: 1\n{% endif %}", "line 1 is a Jinja template"),
            ("a:\n\tb: 1", "line 2 is indented by a tab"),
            ("a: 1\n\tb: 1", "line 2 is indented by a tab"),
            ("a: 1\n---\nb:\n  c: 1\n\td: 1\n", "line 5 is indented by a tab"),
            ("<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> x\n", "line 1 is left of a merge"),
            ("a: [\n\u{a0}b: 1", "line 2 has a non-breaking space"),
            ("a: @x", "begins with @ must be in quotes"),
            ("a: `x`", "begins with ` must be in quotes"),
            ("a: %x", "begins with % must be in quotes"),
            ("a: b: c", "put the value in quotes"),
            ("a: 1\na: 2", "line 2: `a` is there twice"),
            (" a: 1\nb: 2", "indented less than the first one"),
            ("{\"a\":1},{\"b\":1}", "commas between objects"),
        ] {
            let results = split(text).iter().flat_map(read_all).collect::<Vec<_>>();
            let error = results.into_iter().find_map(Result::err).unwrap_or_default();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_template_in_quotes_is_a_text() {
        // Annotations hold templates of other programs.
        assert!(of("a: \"{{ $labels.x }}\"\nb: [", 2, 0).is_none());
        assert!(of("# {{ x }}\nb: [", 2, 0).is_none());
    }
}
