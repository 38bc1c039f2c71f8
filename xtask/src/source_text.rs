//! Rust source without comments and literals, so that every word in it is code.

/// The text with comments, strings and characters blanked; line numbers stay the same.
pub(crate) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // An `r` at the end of an identifier does not begin a raw string.
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if first == 'r' && !in_word {
            raw_string(rest)
        } else if first == '\'' {
            character(rest)
        } else {
            0
        };
        let length = skipped.max(first.len_utf8());
        if skipped > 0 {
            out.push(' ');
            out.extend(rest[..length].chars().filter(|&c| c == '\n'));
        } else {
            out.push(first);
        }
        // `b` and `c` are prefixes of literals, so what follows them may be a raw one.
        in_word = skipped == 0
            && (first.is_alphanumeric() || first == '_')
            && (in_word || !matches!(first, 'b' | 'c'));
        rest = &rest[length..];
    }
    out
}

/// Length of the block comment at the start; they nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string at the start.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string at the start; 0 if it is only an identifier with an `r`.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].len() - text[1..].trim_start_matches('#').len();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = hashes + 2;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// Length of the character at the start; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        // The shortest escape is two characters long; `'\''` must not end early.
        Some((_, '\\')) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(0, |at| at + 4),
        Some(_) => chars.next().filter(|&(_, c)| c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(text: &str) -> String {
        code_only(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_go() {
        assert_eq!(squeezed("a // b\nc"), "a c");
        assert_eq!(squeezed("a /* b /* c */ d */ e"), "a e");
        assert_eq!(squeezed(r#"f("x \" // y", z)"#), "f( , z)");
        assert_eq!(squeezed("f(r#\"a \" b\"#, br\"c\\\", d)"), "f( , b , d)");
        assert_eq!(squeezed("let q = '\"'; let n = '\\''; x"), "let q = ; let n = ; x");
    }

    #[test]
    fn code_stays() {
        for text in ["fn f<'a>(x: &'a str) -> &'a str", "for r in r#type {}", "a / b * c"] {
            assert_eq!(code_only(text), text);
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let text = "a\n/* b\nc */\n\"d\ne\"\nlast";
        assert_eq!(code_only(text).lines().position(|line| line == "last"), Some(5));
    }
}
