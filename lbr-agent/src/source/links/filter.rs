//! Which interfaces are pods' links, by name.

use anyhow::ensure;

/// The patterns of `--link-include` and `--link-exclude`.
#[derive(Clone, Debug, Default)]
pub struct LinkFilter {
    include: Vec<String>,
    exclude: Vec<String>,
}

impl LinkFilter {
    /// From the flags. `*` stands for any characters, `?` for one.
    pub fn new(include: &[String], exclude: &[String]) -> anyhow::Result<Self> {
        for pattern in include.iter().chain(exclude) {
            ensure!(
                !pattern.is_empty(),
                "--link-include and --link-exclude take a name or a pattern, not \"\""
            );
        }
        Ok(Self { include: include.to_vec(), exclude: exclude.to_vec() })
    }

    /// What the names alone say: yes, no, or (without `--link-include`) look at the interface.
    pub fn by_name(&self, name: &str) -> Option<bool> {
        let any = |patterns: &[String]| patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes()));
        if any(&self.exclude) {
            Some(false)
        } else if self.include.is_empty() {
            None
        } else {
            Some(any(&self.include))
        }
    }
}

/// Glob matching. Goes back to the last `*` only, which is enough and takes no more than |pattern| × |text|.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("veth*", "veth1a2b", true),
            ("veth*", "eth0", false),
            ("cali?", "cali1", true),
            ("cali?", "cali", false),
            ("*", "", true),
            ("", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b", false),
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn exclude_wins() {
        let filter = LinkFilter::new(&["veth*".into()], &["veth9".into()]).unwrap();
        assert_eq!(filter.by_name("veth1"), Some(true));
        assert_eq!(filter.by_name("veth9"), Some(false));
        assert_eq!(filter.by_name("eth0"), Some(false));
        let open = LinkFilter::new(&[], &["lo".into()]).unwrap();
        assert_eq!((open.by_name("veth1"), open.by_name("lo")), (None, Some(false)));
        assert!(LinkFilter::new(&["".into()], &[]).is_err());
    }
}
