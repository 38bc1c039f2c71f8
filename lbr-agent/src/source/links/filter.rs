//! Which interfaces are pod links, as the command line says.

use std::fmt;
use std::str::FromStr;

/// `--link-include`, `--link-exclude` and `--devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFilter {
    /// If there are any, exactly the matching veths are pod links.
    pub include: Vec<Pattern>,
    /// Matching interfaces are never pod links.
    pub exclude: Vec<Pattern>,
    /// `--devices`: if there are any, exactly the matching interfaces are uplinks.
    pub devices: Vec<Pattern>,
}

impl LinkFilter {
    /// Whether the interface is an uplink. `guess`: the answer without a filter.
    pub fn is_uplink(&self, name: &str, guess: bool) -> bool {
        if self.devices.is_empty() { guess } else { self.devices.iter().any(|p| p.matches(name)) }
    }

    /// Whether the interface is a pod link. `guess`: the answer without a filter.
    pub fn accepts(&self, name: &str, guess: bool) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(name));
        let included = if self.include.is_empty() { guess } else { any(&self.include) };
        included && !any(&self.exclude)
    }
}

/// A name of an interface in which `*` matches any characters and `?` one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // The last star, and where the part of the name begins that it does not cover.
        let mut star: Option<(usize, usize)> = None;
        while let Some(&byte) = name.get(n) {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(&wanted) if wanted == b'?' || wanted == byte => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    // The star covers one byte more, and matching continues from there.
                    let Some((at, from)) = star else { return false };
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
            }
        }
        pattern.iter().skip(p).all(|&byte| byte == b'*')
    }
}

/// The text is not a pattern for names of interfaces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a pattern: write the name of an interface, with * and ? as wildcards, like veth*")]
pub struct BadPattern(String);

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let valid = !text.is_empty() && !text.contains(|c: char| c == '/' || c.is_whitespace());
        if valid { Ok(Self(text.to_owned())) } else { Err(BadPattern(text.to_owned())) }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(list: &[&str]) -> Vec<Pattern> {
        list.iter().map(|p| p.parse().unwrap()).collect()
    }

    #[test]
    fn wildcards() {
        for (pattern, name, expected) in [
            ("veth0", "veth0", true),
            ("veth0", "veth01", false),
            ("veth0", "xveth0", false),
            ("*", "anything", true),
            ("*", "", true),
            ("?", "", false),
            ("veth*", "veth", true),
            ("veth*", "veth123", true),
            ("*eth", "veth", true),
            ("*eth", "vethx", false),
            ("v?th?", "veth0", true),
            ("v?th?", "veth", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("*a*a*a*a*b", &"a".repeat(64), false),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(name), expected, "{pattern} {name}");
        }
        for bad in ["", "a b", "a/b", "\n"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn exclude_wins_and_include_replaces_the_guess() {
        for (include, exclude, name, guess, expected) in [
            (vec![], vec![], "veth0", true, true),
            (vec![], vec![], "veth0", false, false),
            (vec!["lxc*"], vec![], "veth0", true, false),
            (vec!["lxc*", "veth*"], vec![], "veth0", false, true),
            (vec![], vec!["veth*"], "veth0", true, false),
            (vec!["veth*"], vec!["veth0"], "veth0", true, false),
            (vec!["veth*"], vec!["veth0"], "veth1", true, true),
        ] {
            let filter =
                LinkFilter { include: patterns(&include), exclude: patterns(&exclude), devices: Vec::new() };
            assert_eq!(filter.accepts(name, guess), expected, "{include:?} {exclude:?} {name}");
        }
    }
}
