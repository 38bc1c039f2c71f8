//! Splits the text of a file into documents: each is read by itself, so that a mistake in one costs no other.

use super::causes;
use serde_json::Value;
use serde_saphyr::options::AliasLimits;

/// A document that is neither empty nor only comments.
pub(crate) struct Document<'a> {
    /// Its number in the file, from 1.
    pub(crate) number: usize,
    /// The line of the file before its first.
    pub(crate) line: usize,
    /// Its text, markers excluded.
    pub(crate) text: &'a str,
}

/// Splits a file at its document markers. In YAML, `---` and `...` in the first column mean nothing else, not even
/// inside a block scalar or a quoted string, so their context does not matter.
pub(crate) fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut start = 0;
    let mut start_line = 0;
    let mut offset = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) {
            push(&mut documents, &text[start..offset], start_line);
            // The text behind the marker on its line belongs to the document already.
            start = offset + 3;
            start_line = i;
        }
        offset += line.len();
    }
    push(&mut documents, &text[start..], start_line);
    documents
}

fn is_marker(line: &str) -> bool {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, line: usize) {
    let counts = |l: &str| !l.trim().is_empty() && !l.trim_start().starts_with('#') && !l.starts_with('%');
    if text.lines().any(counts) {
        documents.push(Document { number: documents.len() + 1, line, text });
    }
}

/// Reads a document, and each JSON object of several in a row: they delimit themselves, as kubectl reads them too.
pub(crate) fn read_all(document: &Document<'_>) -> Vec<Result<Value, String>> {
    match (read(document), objects(document)) {
        (Err(_), objects) if objects.len() > 1 => objects.iter().map(object).collect(),
        (result, _) => vec![result],
    }
}

fn object(document: &Document<'_>) -> Result<Value, String> {
    if document.text.trim_start().starts_with(',') {
        return Err("commas between objects: separate objects by a line `---`, or make them items of a List"
            .to_owned());
    }
    read(document)
}

/// The JSON objects that a document begins with, and the rest.
fn objects<'a>(document: &Document<'a>) -> Vec<Document<'a>> {
    let text = document.text;
    let mut objects = Vec::new();
    let mut begin = 0;
    let mut add = |text: &'a str, begin: usize, end: usize| {
        let line = document.line + text[..begin].matches('\n').count();
        objects.push(Document { number: document.number, line, text: &text[begin..end] });
    };
    if text.trim_start().starts_with('{') {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
        while let Some(Ok(_)) = stream.next() {
            add(text, begin, stream.byte_offset());
            begin = stream.byte_offset();
        }
    }
    if !text[begin..].trim().is_empty() {
        add(text, begin, text.len());
    }
    objects
}

/// Reads one document. The error is for people, and names the line of the file.
pub(crate) fn read(document: &Document<'_>) -> Result<Value, String> {
    let error = match serde_saphyr::from_str_with_options(document.text, options()) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    // JSON may be indented with tabs, which YAML forbids.
    if document.text.trim_start().starts_with('{')
        && document.text.contains('\t')
        && let Ok(value) = serde_json::from_str(document.text)
    {
        return Ok(value);
    }
    let line = error.location().map_or(0, |l| usize::try_from(l.line()).unwrap_or(0));
    let mut message = error.render_with_formatter(&serde_saphyr::UserMessageFormatter);
    if let Some(location) = error.location() {
        // The library counts lines in the document, but an editor counts those of the file.
        let suffix = format!(" at line {}, column {}", location.line(), location.column());
        message = message.replace(&suffix, "");
    }
    let line = line.max(1);
    if let Some(reason) = causes::of(document.text, line, document.line) {
        return Err(reason);
    }
    Err(format!(
        "cannot be read as YAML, near line {}: {}",
        document.line + line,
        causes::advice(message.trim())
    ))
}

/// Room for a dump of a large cluster, but not for text that expands when it is read: deep nesting, and aliases of
/// aliases.
fn options() -> serde_saphyr::Options {
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = 100_000;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 64,
            max_events: 16_000_000,
            max_nodes: 8_000_000,
        },
        alias_limits: aliases,
        with_snippet: false,
        // Programs read 0120 as 80 or as 120, and 1_000 as a number or as text: lbr reads neither as a number.
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_cut_at_markers_in_the_first_column() {
        for (text, expected) in [
            ("", vec![]),
            ("# nothing\n\n---\n# here\n", vec![]),
            ("a: 1", vec![(0, "a: 1")]),
            ("---\na: 1\n---\nb: 2\n", vec![(0, "\na: 1\n"), (2, "\nb: 2\n")]),
            ("\u{feff}---\r\na: 1\r\n---\r\nb: 2", vec![(0, "\r\na: 1\r\n"), (2, "\r\nb: 2")]),
            ("a: |\n  ---\n  x\n---\nb: 2", vec![(0, "a: |\n  ---\n  x\n"), (3, "\nb: 2")]),
            ("%YAML 1.2\n--- # one\na: 1\n...\n--- {b: 2}\n", vec![(1, " # one\na: 1\n"), (4, " {b: 2}\n")]),
            ("a: ---x\n---x: 1\n", vec![(0, "a: ---x\n---x: 1\n")]),
        ] {
            let found: Vec<_> = split(text).iter().map(|d| (d.line, d.text)).collect();
            assert_eq!(found, expected, "{text:?}");
            let numbers: Vec<_> = split(text).iter().map(|d| d.number).collect();
            assert_eq!(numbers, (1..=expected.len()).collect::<Vec<_>>(), "{text:?}");
        }
    }

    fn read_one(text: &str) -> Result<Value, String> {
        read(&Document { number: 1, line: 0, text })
    }

    #[test]
    fn json_with_tabs_is_read() {
        let value = read_one("{\n\t\"a\": [\n\t\t1,\n\t\t\"x\"\n\t]\n}").unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, "x"]}));
    }

    #[test]
    fn json_objects_in_a_row_are_read_one_by_one() {
        let lines = |text: &str| {
            let all = read_all(&Document { number: 1, line: 10, text });
            let line =
                |result: Result<Value, String>| result.map_or_else(|error| error, |value| value.to_string());
            all.into_iter().map(line).collect::<Vec<_>>()
        };
        let (a, b) = (r#"{"a":1}"#, r#"{"b":2}"#);
        for text in
            ["{\"a\":1}{\"b\":2}", "{\"a\":1}\n{\"b\":2}\n", "\n{\n\t\"a\": 1\n}\n\n{\n\t\"b\": 2\n}\n"]
        {
            assert_eq!(lines(text), [a, b], "{text:?}");
        }
        assert_eq!(lines("{\"a\":1}"), [a]);
        assert_eq!(lines("{a: 1, b: {c: \"}{\"}}"), [r#"{"a":1,"b":{"c":"}{"}}"#]);
        // The rest is cut, or the second object is wrong: the first one is whole.
        let cut = lines("{\"a\":1}\n{\"b\":\n");
        assert_eq!(cut[0], a);
        assert!(cut[1].contains("near line 1"), "{}", cut[1]);
        let twice = lines("{\"a\":1}\n{\"b\":1,\"b\":2}");
        assert!(twice[0] == a && twice[1].contains("line 12: `b` is there twice"), "{twice:?}");
        let commas = lines("{\"a\":1},\n{\"b\":2}");
        assert!(commas[1].contains("commas between objects"), "{commas:?}");
        let flow = lines("{a: 1}\n{b: 2}");
        assert!(flow[0].contains("separate objects by a line `---`"), "{flow:?}");
    }

    #[test]
    fn numbers_that_programs_read_differently_stay_text() {
        for (text, expected) in [
            ("a: 0120", "\"0120\""),
            ("a: 00", "\"00\""),
            ("a: 1_000", "\"1_000\""),
            ("a: 0", "0"),
            ("a: 80", "80"),
            ("a: 0x50", "80"),
            ("a: 0o120", "80"),
            ("a: 0.5", "0.5"),
            ("a: yes", "true"),
        ] {
            assert_eq!(read_one(text).unwrap()["a"].to_string(), expected, "{text}");
        }
    }

    #[test]
    fn an_error_names_the_line_of_the_file() {
        let documents = split("a: 1\n---\nb:\n  - c\n d: [\n");
        let error = read(&documents[1]).unwrap_err();
        assert!(error.contains("near line 5") || error.contains("near line 6"), "{error}");
        assert!(!error.contains("line 3"), "{error}");
    }

    #[test]
    fn bombs_are_refused_quickly() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            laughs.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        let nested: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        for bomb in [laughs, "[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000), nested] {
            assert!(read_one(&bomb).is_err(), "{}", &bomb[..40]);
        }
        assert!(read_one("{\"a\":\t".repeat(100_000).as_str()).is_err());
    }
}
