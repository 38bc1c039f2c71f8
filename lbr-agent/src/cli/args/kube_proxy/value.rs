//! Values of fields and flags: each kind has one reading for the text of a flag and the JSON of a file.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value as Json;

use super::settings::BindAddress;
use crate::cli::args::values;
use crate::node::NodePortAddress;

/// What a field or a flag holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// One of these.
    OneOf(&'static [&'static str]),
    Bool,
    /// A whole number of this range.
    Int(i64, i64),
    /// A number, not negative.
    Number,
    /// Go's form: `1h30m`, `250ms`. Not negative.
    Duration,
    /// An IP address.
    Address,
    /// Where to listen: an IP address, with this port unless it names another one.
    Bind(u16),
    /// A port at the default address; 0 disables the server.
    Port,
    /// Address blocks, or one of these words in place of a block.
    Blocks(&'static [&'static str]),
    /// A list of texts.
    List,
    /// `name=true`.
    Gates,
    /// Anything.
    Any,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
    Number(f64),
    Duration(Duration),
    Address(IpAddr),
    Bind(BindAddress),
    Port(u16),
    Blocks(Vec<NodePortAddress>),
    List(Vec<String>),
    Any(Json),
}

impl Kind {
    /// Whether the flag may stand without a value, which means true.
    pub(super) fn is_bool(self) -> bool {
        matches!(self, Self::Bool)
    }

    /// Whether a repeated flag adds to its value; of other kinds the last value counts.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Blocks(_) | Self::List | Self::Gates)
    }

    /// Reads a flag. The error says what is allowed.
    pub(super) fn of_flag(self, text: &str) -> Result<Value, String> {
        let items = || text.split(',').map(str::trim).filter(|item| !item.is_empty());
        match self {
            Self::Text => Ok(Value::Text(text.to_owned())),
            Self::OneOf(allowed) => one_of(text, allowed),
            Self::Bool => match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
                _ => Err("true or false is allowed".to_owned()),
            },
            Self::Int(min, max) => match text.trim().parse() {
                Ok(n) => int(Some(n), min, max),
                Err(_) => match (int(None, min, max), values::count(text)) {
                    (Err(allowed), Err(wrong)) => Err(format!("{wrong}; {allowed}")),
                    (other, _) => other,
                },
            },
            Self::Number => number(text.trim().parse().ok()),
            Self::Duration => values::duration(text).map(Value::Duration),
            Self::Address => values::address(text).map(Value::Address),
            Self::Bind(port) => bind(text, port).map(Value::Bind),
            Self::Port => {
                text.trim().parse().map(Value::Port).map_err(|_| "a port, 0 to 65535, is allowed".to_owned())
            }
            Self::Blocks(words) => {
                items().map(|item| block(item, words)).collect::<Result<_, _>>().map(Value::Blocks)
            }
            Self::List => Ok(Value::List(items().map(str::to_owned).collect())),
            Self::Gates => {
                if let Some(wrong) = items().find(|item| !item.contains('=')) {
                    return Err(format!("`{wrong}` is not of the form name=true"));
                }
                Ok(Value::List(items().map(str::to_owned).collect()))
            }
            Self::Any => Ok(Value::Any(Json::String(text.to_owned()))),
        }
    }

    /// Reads a field. `None`: it is not set.
    pub(super) fn of_json(self, json: &Json) -> Result<Option<Value>, String> {
        let value = match (self, json) {
            (_, Json::Null) => return Ok(None),
            (Self::Any, any) => Value::Any(any.clone()),
            (Self::Bool, Json::Bool(yes)) => Value::Bool(*yes),
            (Self::Bool, _) => return Err("true or false is allowed".to_owned()),
            (Self::Int(min, max), json) => int(json.as_i64(), min, max)?,
            (Self::Number, json) => number(json.as_f64())?,
            // metav1.Duration is a text; logging's is nanoseconds as well.
            (Self::Duration, Json::Number(n)) if n.as_u64().is_some() => {
                Value::Duration(Duration::from_nanos(n.as_u64().unwrap_or_default()))
            }
            (Self::Blocks(words), Json::Array(items)) => {
                let items = texts(items)?;
                Value::Blocks(items.iter().map(|item| block(item, words)).collect::<Result<_, _>>()?)
            }
            (Self::List, Json::Array(items)) => Value::List(texts(items)?),
            (Self::Blocks(_) | Self::List, _) => return Err("a list of texts is allowed".to_owned()),
            (Self::Gates, Json::Object(gates)) => {
                let gate = |(name, on): (&String, &Json)| match on {
                    Json::Bool(on) => Ok(format!("{name}={on}")),
                    _ => Err(format!("{name}: true or false is allowed")),
                };
                Value::List(gates.iter().map(gate).collect::<Result<_, _>>()?)
            }
            (Self::Gates, _) => return Err("names with true or false are allowed".to_owned()),
            // Go writes an empty text for an unset field.
            (Self::Address | Self::Bind(_) | Self::OneOf(_), Json::String(text)) if text.is_empty() => {
                return Ok(None);
            }
            (kind, Json::String(text)) => kind.of_flag(text)?,
            _ => return Err("a text is allowed".to_owned()),
        };
        Ok(Some(value))
    }
}

impl Value {
    /// Go's zero value of the kind.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Bool(yes) => !yes,
            Self::Int(n) => *n == 0,
            Self::Number(n) => *n == 0.0,
            Self::Duration(time) => time.is_zero(),
            Self::Address(_) | Self::Bind(_) | Self::Port(_) => false,
            Self::Blocks(blocks) => blocks.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Any(json) => is_empty(json),
        }
    }

    /// The text, if it is one and not empty.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text.clone()),
            _ => None,
        }
    }
}

/// Whether it holds only zero values: empty texts, "0" as Kubernetes writes quantities, and lists or objects of those.
fn is_empty(json: &Json) -> bool {
    match json {
        Json::Null | Json::Bool(false) => true,
        Json::Bool(true) => false,
        Json::Number(n) => n.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty() || text == "0",
        Json::Array(items) => items.iter().all(is_empty),
        Json::Object(fields) => fields.values().all(is_empty),
    }
}

fn texts(items: &[Json]) -> Result<Vec<String>, String> {
    items
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or("a list of texts is allowed".to_owned()))
        .collect()
}

fn one_of(text: &str, allowed: &[&str]) -> Result<Value, String> {
    match allowed.contains(&text) {
        true => Ok(Value::Text(text.to_owned())),
        false => Err(format!("one of {} is allowed", allowed.join(", "))),
    }
}

fn int(n: Option<i64>, min: i64, max: i64) -> Result<Value, String> {
    let n = n.filter(|n| (min..=max).contains(n));
    n.map(Value::Int).ok_or_else(|| format!("a whole number, {min} to {max}, is allowed"))
}

fn number(n: Option<f64>) -> Result<Value, String> {
    let n = n.filter(|n| n.is_finite() && *n >= 0.0);
    n.map(Value::Number).ok_or_else(|| "a number, 0 or more, is allowed".to_owned())
}

/// An address with or without a port. An empty text disables the server; only flags can be empty here.
fn bind(text: &str, port: u16) -> Result<BindAddress, String> {
    match text {
        "" => Ok(BindAddress::Off),
        _ => values::listen(text, port).map(BindAddress::At),
    }
}

fn block(text: &str, words: &[&str]) -> Result<NodePortAddress, String> {
    if text == "primary" && words.contains(&text) {
        return Ok(NodePortAddress::Primary);
    }
    values::block(text).map(NodePortAddress::Block).map_err(|error| {
        let words: String = words.iter().map(|word| format!(" (or `{word}`)")).collect();
        format!("{error}{words}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(bind("127.0.0.1", 10249), Ok(BindAddress::At("127.0.0.1:10249".parse().unwrap())));
        assert_eq!(bind("", 2), Ok(BindAddress::Off));
        assert!(bind("localhost:1", 2).is_err());
    }

    #[test]
    fn a_block_that_nearly_is_one_says_what_to_write() {
        let error = Kind::Blocks(&["primary"]).of_flag("10.0.0.0/8,10.0.0.1").unwrap_err();
        assert!(error.contains("write 10.0.0.1/32") && error.contains("`primary`"), "{error}");
        let error = Kind::Int(0, 31).of_flag("0x1f").unwrap_err();
        assert!(error.contains("write 31"), "{error}");
    }

    #[test]
    fn an_empty_text_in_a_file_says_nothing() {
        let empty = Json::String(String::new());
        assert_eq!(Kind::Bind(1).of_json(&empty), Ok(None));
        assert_eq!(Kind::Address.of_json(&empty), Ok(None));
        assert_eq!(Kind::Text.of_json(&empty).map(|v| v.map(|v| v.is_zero())), Ok(Some(true)));
        assert_eq!(Kind::Bool.of_json(&Json::Null), Ok(None));
    }

    #[test]
    fn wrong_types_are_refused() {
        use serde_json::json;
        for (kind, json) in [
            (Kind::Bool, json!("true")),
            (Kind::Int(0, 31), json!(32)),
            (Kind::Int(0, 31), json!("3")),
            (Kind::Int(0, 31), json!(1.5)),
            (Kind::Number, json!(-1)),
            (Kind::Duration, json!("soon")),
            (Kind::Duration, json!(-5)),
            (Kind::Text, json!(5)),
            (Kind::List, json!("a")),
            (Kind::List, json!([1])),
            (Kind::Gates, json!({"A": "yes"})),
            (Kind::Blocks(&[]), json!(["primary"])),
            (Kind::OneOf(&["a"]), json!("b")),
        ] {
            assert!(kind.of_json(&json).is_err(), "{kind:?} {json}");
        }
    }
}
