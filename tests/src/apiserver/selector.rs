//! Label and field selectors.

use super::failure::Failure;
use super::kind::Kind;
use super::object::Object;

/// The filter of a list or watch. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    In(Vec<String>),
    /// Also true for an absent key.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

#[derive(Clone, Debug, PartialEq)]
struct FieldTerm {
    field: FieldName,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum FieldName {
    Name,
    Namespace,
    /// Position in [`Kind::fields`].
    Other(usize),
}

impl Selector {
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Failure> {
        let labels = split(labels).map(requirement).collect::<Result<_, _>>()?;
        let fields = split(fields).map(|term| field_term(kind, term)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|requirement| {
            let value = object.labels.get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|value| values.contains(value)),
                Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
            }
        }) && self.fields.iter().all(|term| {
            let value = match term.field {
                FieldName::Namespace => Some(&object.key.0),
                FieldName::Name => Some(&object.key.1),
                FieldName::Other(at) => object.fields.get(at),
            };
            (value.map_or("", String::as_str) == term.value) == term.equal
        })
    }
}

/// The terms of a selector: commas inside parentheses do not separate them.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |letter| {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        letter == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Result<Requirement, Failure> {
    let wrong = || Failure::bad_request(format!("unable to parse requirement: {term:?}"));
    let made = |key: &str, test| match is_key(key.trim()) {
        true => Ok(Requirement { key: key.trim().to_owned(), test }),
        false => Err(wrong()),
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = term.strip_prefix('!') {
        return made(key, Test::Absent);
    }
    if let Some((key, value)) = term.split_once("!=") {
        return made(key, Test::NotIn(one(value)));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return made(key, Test::In(one(value)));
    }
    let Some((head, values)) = term.split_once('(') else {
        return made(term, Test::Exists);
    };
    let values = values.strip_suffix(')').ok_or_else(wrong)?;
    let values = values.split(',').map(|value| value.trim().to_owned()).collect();
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => made(key, Test::In(values)),
        [key, "notin"] => made(key, Test::NotIn(values)),
        _ => Err(wrong()),
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./".contains(letter))
}

fn field_term(kind: &Kind, term: &str) -> Result<FieldTerm, Failure> {
    let (name, value, equal) = if let Some((name, value)) = term.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid field selector: {term:?}")));
    };
    let field = match name {
        "metadata.name" => FieldName::Name,
        "metadata.namespace" if kind.namespaced => FieldName::Namespace,
        _ => match kind.fields.iter().position(|field| field.name == name) {
            Some(at) => FieldName::Other(at),
            None => return Err(Failure::bad_request(format!("field label not supported: {name}"))),
        },
    };
    Ok(FieldTerm { field, value: value.to_owned(), equal })
}
